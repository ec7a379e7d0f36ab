//! What is asked of a host.

use domain::{HostId, InstanceId, PlacementGroupId, ProjectId, cpu::CpuBaseline, flavor::Size};
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
    /// Of a guest that moves without booting anew: what its CPU must still have.
    pub baseline: Option<Arc<CpuBaseline>>,
    /// Whose instance it is: hosts dedicated to another project are out.
    pub project: Option<ProjectId>,
    /// Only hosts dedicated to `project`.
    pub dedicated: bool,
    pub groups: Vec<GroupWish>,
    /// It must survive the loss of its host (`on_host_loss: restart`): room elsewhere in the zone is set aside with it.
    pub protected: bool,
    /// None: never gives way. Otherwise its class; lower classes give way first.
    pub preemptible: Option<u8>,
    /// Its vCPUs get threads of their own, all of one NUMA node.
    pub pinned: bool,
    /// The instance is placed again after the loss of its host: the room set aside for it may be used.
    pub recovers: Option<InstanceId>,
    /// Hosts that just refused this very request's commit. Counted as cordoned.
    pub avoid: Vec<HostId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GroupWish {
    pub group: PlacementGroupId,
    pub policy: Policy,
    pub scope: Scope,
    pub strength: Strength,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Policy {
    /// Where another member is (anywhere, for the first).
    Affinity,
    /// Where no other member is.
    AntiAffinity,
}

/// What counts as the same place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    Host,
    /// A host without a rack is a rack of its own.
    Rack,
    Zone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Strength {
    /// Or not at all.
    Hard,
    /// If there is room.
    Soft,
}
