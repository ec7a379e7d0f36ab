//! The types of a decision.

use super::score::Score;
use domain::{HostId, InstanceId, explain::PlacementRecord, flavor::Size};

/// A place: the host, and what is to be claimed there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    pub host_id: HostId,
    /// The host's generation when it was chosen; none where the choice depended on nothing that a generation guards.
    pub generation: Option<i64>,
    /// Memory with QEMU's overhead on that host, pinned vCPUs as whole threads.
    pub claim: Size,
    /// The position of the NUMA node that pinned vCPUs get.
    pub numa_node: Option<u8>,
    /// The host that reserves capacity for a protected instance.
    pub backup: Option<HostId>,
}

impl Placed {
    #[must_use]
    pub fn of(host_id: HostId, claim: Size) -> Self {
        Self { host_id, generation: None, claim, numa_node: None, backup: None }
    }
}

/// A host and its score.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    pub placed: Placed,
    pub score: Score,
}

/// Who would be preempted for a request, and what the request would claim then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preemption {
    pub host_id: HostId,
    pub claim: Size,
    /// The instances in the order in which they are preempted: lowest class first, newest first within one. It is empty where those that are
    /// being preempted already are enough.
    pub preempted: Vec<InstanceId>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// None: the request is refused, and the record says why.
    pub placed: Option<Placed>,
    /// The request is refused, but there would be capacity if these instances were preempted.
    pub preemption: Option<Preemption>,
    pub record: PlacementRecord,
}

/// A refusal, remembered for requests of the same shape.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    pub record: PlacementRecord,
    pub preemption: Option<Preemption>,
}
