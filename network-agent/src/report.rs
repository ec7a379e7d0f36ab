//! What the manager hasn't acknowledged yet. Pure.
//!
//! The last observation of each object is kept and sent until it is acknowledged, in every session anew; an object's earlier ones
//! are replaced by it, since of a network only what is true now matters. Counters rise in the order of observation, and an
//! observation keeps its counter when it is sent again, so that a repeat is seen as one.

use crate::model::object::{Key, Version};
use proto::network::v1::{self as pb, ObjectState};
use std::collections::BTreeMap;

/// A report without an acknowledgement is sent again after this.
pub const RESEND_MS: u64 = 5_000;

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
    pub fn deleted(key: Key, version: Version) -> Self {
        Self { key, version, state: ObjectState::Deleted, reason: String::new(), program_us: None }
    }

    /// The same but for how long it took.
    fn says_as_much_as(&self, other: &Self) -> bool {
        (self.version, self.state, &self.reason) == (other.version, other.state, &other.reason)
    }
}

#[derive(Debug)]
struct Latest {
    counter: i64,
    observation: Observation,
    acknowledged: bool,
    sent_at: Option<u64>,
}

#[derive(Debug, Default)]
pub struct Outbox {
    counter: i64,
    latest: BTreeMap<Key, Latest>,
}

impl Outbox {
    /// Takes an observation; false when it says nothing new.
    pub fn post(&mut self, observation: Observation) -> bool {
        let key = observation.key;
        if self.latest.get(&key).is_some_and(|last| last.observation.says_as_much_as(&observation)) {
            return false;
        }
        self.counter += 1;
        self.latest.insert(key, Latest { counter: self.counter, observation, acknowledged: false, sent_at: None });
        true
    }

    #[must_use]
    pub fn last(&self, key: Key) -> Option<Observation> {
        self.latest.get(&key).map(|latest| latest.observation.clone())
    }

    /// A new session begins: the manager may have forgotten what it had; what it still has is a repeat to it.
    pub fn session_begins(&mut self) {
        for latest in self.latest.values_mut() {
            (latest.acknowledged, latest.sent_at) = (false, None);
        }
    }

    /// The manager asked about this one.
    pub fn repeat(&mut self, key: Key) {
        if let Some(latest) = self.latest.get_mut(&key) {
            (latest.acknowledged, latest.sent_at) = (false, None);
        }
    }

    /// What is to be sent at `now`, in order; it counts as sent.
    pub fn due(&mut self, now: u64) -> Vec<(i64, Observation)> {
        let mut due = Vec::new();
        for latest in self.latest.values_mut().filter(|latest| !latest.acknowledged) {
            if latest.sent_at.is_none_or(|at| now.saturating_sub(at) >= RESEND_MS) {
                latest.sent_at = Some(now);
                due.push((latest.counter, latest.observation.clone()));
            }
        }
        due.sort_by_key(|(counter, _)| *counter);
        due
    }

    /// The manager stored it, or something newer.
    pub fn acknowledged(&mut self, key: Key, counter: i64) {
        let Some(latest) = self.latest.get_mut(&key) else { return };
        if latest.counter <= counter {
            latest.acknowledged = true;
            if latest.observation.state == ObjectState::Deleted {
                self.latest.remove(&key);
            }
        }
    }

    #[must_use]
    pub fn unacknowledged(&self) -> usize {
        self.latest.values().filter(|latest| !latest.acknowledged).count()
    }
}

#[must_use]
pub fn report_to_pb(start: i64, counter: i64, observation: Observation) -> pb::Report {
    let Observation { key, version, state, reason, program_us } = observation;
    pb::Report {
        kind: key.kind().into(),
        id: key.id(),
        version: Some(pb::Version { epoch: version.epoch, generation: version.generation }),
        start,
        counter,
        state: state.into(),
        reason,
        program_us,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::PortId;

    fn seen(key: Key, generation: i64, state: ObjectState) -> Observation {
        Observation { key, version: Version { epoch: 1, generation }, state, reason: String::new(), program_us: None }
    }

    #[test]
    fn the_last_word_is_sent_until_acknowledged_and_again_in_a_new_session() {
        let key = Key::Port(PortId::new());
        let mut outbox = Outbox::default();
        assert!(outbox.post(seen(key, 1, ObjectState::Ready)));
        assert!(outbox.post(seen(key, 1, ObjectState::Active)));
        assert!(!outbox.post(seen(key, 1, ObjectState::Active)), "the same again is no news");
        assert_eq!(outbox.due(0), [(2, seen(key, 1, ObjectState::Active))]);
        assert!(outbox.due(1).is_empty());
        assert_eq!(outbox.due(RESEND_MS).len(), 1);
        outbox.acknowledged(key, 1);
        assert_eq!(outbox.unacknowledged(), 1, "an acknowledgement of an earlier one");
        outbox.acknowledged(key, 2);
        assert!(outbox.due(9 * RESEND_MS).is_empty());
        outbox.session_begins();
        assert_eq!(outbox.due(0).len(), 1);
        outbox.post(seen(key, 2, ObjectState::Deleted));
        outbox.acknowledged(key, 3);
        outbox.session_begins();
        assert!(outbox.due(0).is_empty(), "the dead are forgotten once the manager knows");
    }
}
