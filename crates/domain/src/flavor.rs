//! Sizes. A flavor names one; an instance keeps the numbers, so that changing a flavor changes no instance.

use crate::{FlavorId, Name, Timestamp};
use serde::{Deserialize, Serialize};

/// What an instance asks of a host. `disk_gib` 0 means no root disk (only for kernel images, which run from memory).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Size {
    pub vcpus: u32,
    pub memory_mib: u64,
    pub disk_gib: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flavor {
    pub id: FlavorId,
    pub name: Name,
    pub size: Size,
    pub description: String,
    pub generation: i64,
    pub created_at: Timestamp,
}
