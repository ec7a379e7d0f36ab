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

/// Whether an instance's vCPUs get threads of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pinning {
    /// The vCPUs share the host's threads with others.
    #[default]
    None,
    /// Each vCPU gets a whole thread, all of them of one NUMA node, with memory of that node.
    Numa,
}

impl Pinning {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Numa => "numa",
        }
    }

    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::None, Self::Numa].into_iter().find(|pinning| pinning.as_str() == text)
    }

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
