//! What the agent saw of one object, how the outbox treats it, and how it is reported.

use crate::model::object::{Key, Version};
use proto::{
    network::v1::{NetworkObservation, ObjectState},
    sync::v1::{self as pb, report},
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    pub key: Key,
    pub version: Version,
    pub state: ObjectState,
    pub reason: String,
    pub program_us: Option<i64>,
}

impl Observation {
    #[must_use]
    pub fn failed(key: Key, version: Version, reason: String) -> Self {
        Self { key, version, state: ObjectState::Error, reason, program_us: None }
    }

    #[must_use]
    pub fn ready(key: Key, version: Version) -> Self {
        Self { key, version, state: ObjectState::Ready, reason: String::new(), program_us: None }
    }

    #[must_use]
    pub fn deleted(key: Key, version: Version) -> Self {
        Self { key, version, state: ObjectState::Deleted, reason: String::new(), program_us: None }
    }
}

impl agent_kit::Observation for Observation {
    type Key = Key;

    fn key(&self) -> Key {
        self.key
    }

    /// How long it took is no news.
    fn says_no_more_than(&self, last: &Self) -> bool {
        (self.version, self.state, &self.reason) == (last.version, last.state, &last.reason)
    }

    /// Of a network only what is true now matters.
    fn replaces(&self, _earlier: &Self, _earlier_was_sent: bool) -> bool {
        true
    }

    fn is_deletion(&self) -> bool {
        self.state == ObjectState::Deleted
    }
}

/// Start and counter are the session's.
#[must_use]
pub fn report_to_pb(observation: Observation) -> pb::Report {
    let Observation { key, version, state, reason, program_us } = observation;
    let observed = NetworkObservation { state: state.into(), reason, program_us };
    pb::Report {
        kind: key.kind().into(),
        id: key.id(),
        epoch: version.epoch,
        generation: version.generation,
        observation: Some(report::Observation::Network(observed)),
        ..pb::Report::default()
    }
}
