//! Where instances may be, and groups that keep together or apart.

use domain::placement::{GroupPolicy, GroupScope, GroupStrength};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What an instance requires of its host beyond capacity and zone.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PlacementRequest {
    /// Placement groups, by id or name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub required_tags: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub forbidden_tags: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cpu_features: Vec<String>,
    /// Only on hosts dedicated to the project.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dedicated: bool,
    /// It gives way to others, lower classes first; `None`: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preemptible_class: Option<u8>,
}

impl PlacementRequest {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacementGroupCreate {
    pub name: String,
    pub policy: GroupPolicy,
    pub scope: GroupScope,
    pub strength: GroupStrength,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RebalanceGoal {
    /// At most so many moves for a host.
    FreeHosts { moves_per_host: u32 },
    /// Hosts are even that differ by no more percent.
    EvenLoad { tolerance: u32 },
}
