//! What the agent saw of one instance, and how the outbox treats it.

use crate::ledger::Version;
use domain::{InstanceId, Timestamp, instance::InstanceState};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    pub instance_id: InstanceId,
    pub version: Version,
    pub state: InstanceState,
    pub step: String,
    pub reason: String,
    pub converged: bool,
    pub started_at: Option<Timestamp>,
    pub guest_up_at: Option<Timestamp>,
    pub crash_count: u32,
    pub exec_ms: Option<i64>,
}

impl agent_kit::Observation for Observation {
    type Key = InstanceId;

    fn key(&self) -> InstanceId {
        self.instance_id
    }

    /// Progress within one state, as long as it wasn't sent; changes of state are kept, since a timeline is made of them.
    fn replaces(&self, earlier: &Self, earlier_was_sent: bool) -> bool {
        !earlier_was_sent && earlier.state == self.state && earlier.version == self.version
    }

    fn is_deletion(&self) -> bool {
        self.state == InstanceState::Deleted
    }
}
