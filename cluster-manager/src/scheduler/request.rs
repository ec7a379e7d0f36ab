//! What an instance requests of a host.

use domain::{
    HostId, InstanceId, PlacementGroupId, ProjectId,
    cpu::CpuBaseline,
    flavor::Size,
    placement::{GroupPolicy, GroupScope, GroupStrength},
};
use std::{collections::BTreeMap, sync::Arc};

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Request {
    pub size: Size,
    pub zone: Option<String>,
    /// Tags that the host must have.
    pub tags: BTreeMap<String, String>,
    /// Tags that it must not have.
    pub forbidden_tags: BTreeMap<String, String>,
    pub cpu_features: Vec<String>,
    /// The shared pool that the host must have, by its id; empty: any.
    pub pool: Option<String>,
    /// What a guest that moves without a new boot must still find in its CPU.
    pub baseline: Option<Arc<CpuBaseline>>,
    /// The project that the instance belongs to: hosts dedicated to another one are out.
    pub project: Option<ProjectId>,
    /// Only hosts dedicated to `project` will do.
    pub dedicated: bool,
    pub groups: Vec<GroupConstraint>,
    /// It must survive the loss of its host: capacity elsewhere in the zone is reserved with it.
    pub protected: bool,
    /// Its class; lower classes are preempted first. None: it is never preempted.
    pub preemptible: Option<u8>,
    /// Its vCPUs get threads of their own, all of one NUMA node.
    pub pinned: bool,
    /// The instance is placed again after the loss of its host: the capacity reserved for it may be used.
    pub recovers: Option<InstanceId>,
    /// Hosts that just refused this very request's commit. They count as cordoned.
    pub avoid: Vec<HostId>,
}

impl Request {
    /// Whether later decisions must know of the instance: it is in a group, must survive its host, is preemptible, or is pinned.
    #[must_use]
    pub fn tracked(&self) -> bool {
        !self.groups.is_empty() || self.protected || self.preemptible.is_some() || self.pinned
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GroupConstraint {
    pub group: PlacementGroupId,
    pub policy: GroupPolicy,
    pub scope: GroupScope,
    pub strength: GroupStrength,
}
