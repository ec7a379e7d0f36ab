//! What the agent observed of one instance, and how the outbox treats it.

use crate::ledger::Version;
use domain::{InstanceId, Timestamp, instance::InstanceState};
use proto::convert::InvalidMessage;

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
    pub root_used_seq: Option<u64>,
}

impl Observation {
    /// The observation that nothing of the instance is left here.
    #[must_use]
    pub fn deleted(instance_id: InstanceId, version: Version) -> Self {
        Self { converged: true, ..Self::of(instance_id, version, InstanceState::Deleted) }
    }

    /// The observation that a command makes no sense to this agent, so that what it demands isn't done.
    #[must_use]
    pub fn not_understood(instance_id: InstanceId, version: Version, error: &InvalidMessage) -> Self {
        let reason = format!(
            "its host doesn't understand the last change ({error}), so the instance stays as it was: update the host's agent if it is \
             older than the control plane, and change the instance again"
        );
        Self { reason, ..Self::of(instance_id, version, InstanceState::Error) }
    }

    /// The observation that the host has no room for a new instance.
    #[must_use]
    pub fn no_room(instance_id: InstanceId, version: Version) -> Self {
        let reason =
            "its host's disk is full: it is made when there is room again, or delete it and create another one"
                .to_owned();
        Self { reason, ..Self::of(instance_id, version, InstanceState::Error) }
    }

    fn of(instance_id: InstanceId, version: Version, state: InstanceState) -> Self {
        Self {
            instance_id,
            version,
            state,
            step: String::new(),
            reason: String::new(),
            converged: false,
            started_at: None,
            guest_up_at: None,
            crash_count: 0,
            exec_ms: None,
            root_used_seq: None,
        }
    }
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
