//! Sizes. A flavor names one; an instance keeps the numbers, so that changing a flavor changes no instance.

use crate::{FlavorId, Name, Timestamp};
use serde::{Deserialize, Serialize};

/// The resources that an instance claims of a host. `disk_gib` 0 means no root disk (only for kernel images, which run from memory).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Size {
    pub vcpus: u32,
    pub memory_mib: u64,
    pub disk_gib: u64,
}

string_enum! {
    /// Whether an instance's vCPUs get threads of their own.
    #[derive(Default)]
    pub enum Pinning {
        /// The vCPUs share the host's threads with others.
        #[default]
        None = "none",
        /// Each vCPU gets a whole thread, all of them of one NUMA node, with memory of that node.
        Numa = "numa",
    }
}

impl Pinning {
    #[must_use]
    pub fn none(&self) -> bool {
        *self == Self::None
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flavor {
    pub id: FlavorId,
    pub name: Name,
    pub size: Size,
    pub pinning: Pinning,
    pub description: String,
    pub generation: i64,
    pub created_at: Timestamp,
}
