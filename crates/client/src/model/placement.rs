//! Where instances may be, and groups that keep together or apart.

use super::Size;
use domain::{
    HostId, InstanceId, PlacementGroupId, PlacementRecordId, ProjectId, Timestamp,
    explain::PlacementRecord,
    flavor::Pinning,
    placement::{GroupPolicy, GroupScope, GroupStrength, PlacementOutcome},
};
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

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Placement {
    pub group_ids: Vec<PlacementGroupId>,
    pub required_tags: BTreeMap<String, String>,
    pub forbidden_tags: BTreeMap<String, String>,
    pub cpu_features: Vec<String>,
    pub dedicated: bool,
    pub preemptible_class: Option<u8>,
    /// Its flavor's.
    pub pinning: Pinning,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacementGroup {
    pub id: PlacementGroupId,
    #[serde(default)]
    pub project_id: Option<ProjectId>,
    pub name: String,
    pub policy: GroupPolicy,
    pub scope: GroupScope,
    pub strength: GroupStrength,
    /// The first of its instances; in lists `None`.
    #[serde(default)]
    pub instance_ids: Option<Vec<InstanceId>>,
    #[serde(default)]
    pub generation: i64,
    pub created_at: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacementGroupCreate {
    pub name: String,
    pub policy: GroupPolicy,
    pub scope: GroupScope,
    pub strength: GroupStrength,
}

/// What placement refused, or decided of an instance that is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptPlacement {
    pub id: PlacementRecordId,
    pub project_id: ProjectId,
    pub instance_id: InstanceId,
    pub instance_name: String,
    pub outcome: PlacementOutcome,
    /// When it was refused, or when its instance ended.
    pub kept_at: Timestamp,
    pub placement: PlacementRecord,
}

/// What the cloud still has room for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Capacity {
    pub zones: Vec<ZoneCapacity>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ZoneCapacity {
    pub zone: String,
    pub hosts: u32,
    /// That take new instances of every project.
    pub open_hosts: u32,
    pub dedicated_hosts: u32,
    pub capacity: Size,
    pub used: Size,
    /// Kept free for instances that must survive their host.
    pub reserved: Size,
    pub flavors: Vec<FlavorFits>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct FlavorFits {
    pub flavor: String,
    pub fits: u64,
    /// Such that they all have a place when any one host is lost.
    pub fits_with_one_host_lost: u64,
}

/// Moves that would free hosts or even out load.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RebalancePlan {
    pub moves: Vec<Move>,
    pub freed_host_ids: Vec<HostId>,
    pub memory_mib: u64,
    pub disk_gib: u64,
    /// The widest gap between two hosts' shares in use, in thousandths.
    pub gap_before_permille: u32,
    pub gap_after_permille: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RebalanceGoal {
    /// At most so many moves for a host.
    FreeHosts { moves_per_host: u32 },
    /// Hosts are even that differ by no more percent.
    EvenLoad { tolerance: u32 },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    pub instance_id: InstanceId,
    pub from_host_id: HostId,
    pub to_host_id: HostId,
    pub memory_mib: u64,
    pub disk_gib: u64,
}
