//! What the manager hasn't acknowledged yet. Pure.
//!
//! Reports are sent again until they are acknowledged, in every session anew. Sending everything ever observed was rejected: a
//! manager that was away for an hour would first be told an hour of percentages. So what wasn't sent yet is replaced by what came
//! after it, as long as both are of one state; changes of state are kept (a timeline is made of them), up to a bound.
//!
//! Invariants: the last observation of each instance reaches the manager; counters rise in the order of observation; an
//! observation keeps its counter when it is sent again, so that a repeat is seen as one.

use crate::ledger::Version;
use domain::{InstanceId, Timestamp, instance::InstanceState};
use std::collections::{BTreeMap, VecDeque};

/// Changes of state kept per instance.
const KEPT: usize = 16;
/// A report without an acknowledgement is sent again after this.
pub const RESEND_MS: u64 = 5_000;

/// What the agent saw of one instance.
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

/// An observation with its place in the order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Numbered {
    pub counter: i64,
    pub observation: Observation,
}

#[derive(Debug)]
struct Waiting {
    numbered: Numbered,
    sent_at: Option<u64>,
}

#[derive(Debug, Default)]
pub struct Outbox {
    counter: i64,
    waiting: BTreeMap<InstanceId, VecDeque<Waiting>>,
    /// The last of each instance, acknowledged or not.
    latest: BTreeMap<InstanceId, Numbered>,
}

impl Outbox {
    /// Takes an observation; false when it says nothing new.
    pub fn post(&mut self, observation: Observation) -> bool {
        if self.latest.get(&observation.instance_id).is_some_and(|last| last.observation == observation) {
            return false;
        }
        self.counter += 1;
        let instance_id = observation.instance_id;
        let numbered = Numbered { counter: self.counter, observation };
        self.latest.insert(instance_id, numbered.clone());
        let queue = self.waiting.entry(instance_id).or_default();
        let supersedes = queue.back().is_some_and(|last| {
            let (old, new) = (&last.numbered.observation, &numbered.observation);
            last.sent_at.is_none() && old.state == new.state && old.version == new.version
        });
        if supersedes || queue.len() >= KEPT {
            queue.pop_back();
        }
        queue.push_back(Waiting { numbered, sent_at: None });
        true
    }

    /// A new session begins: what the old one had sent may be lost, and the manager may have forgotten (restored from a backup)
    /// what it had. What it still has is a repeat to it.
    pub fn session_begins(&mut self) {
        for (instance_id, numbered) in &self.latest {
            let queue = self.waiting.entry(*instance_id).or_default();
            if queue.back().is_none_or(|last| last.numbered.counter < numbered.counter) {
                queue.push_back(Waiting { numbered: numbered.clone(), sent_at: None });
            }
            for waiting in queue {
                waiting.sent_at = None;
            }
        }
    }

    /// The manager asked about this one: it gets the last observation again.
    pub fn repeat(&mut self, instance_id: InstanceId) {
        let Some(numbered) = self.latest.get(&instance_id) else { return };
        let queue = self.waiting.entry(instance_id).or_default();
        match queue.back_mut() {
            Some(last) => last.sent_at = None,
            None => queue.push_back(Waiting { numbered: numbered.clone(), sent_at: None }),
        }
    }

    /// What is to be sent at `now`, in order; it counts as sent.
    pub fn due(&mut self, now: u64) -> Vec<Numbered> {
        let mut due = Vec::new();
        for waiting in self.waiting.values_mut().flatten() {
            if waiting.sent_at.is_none_or(|at| now.saturating_sub(at) >= RESEND_MS) {
                waiting.sent_at = Some(now);
                due.push(waiting.numbered.clone());
            }
        }
        due.sort_by_key(|numbered| numbered.counter);
        due
    }

    /// The manager stored it, or something newer: it and all before it are done with.
    pub fn acknowledged(&mut self, instance_id: InstanceId, version: Version, counter: i64) {
        let Some(queue) = self.waiting.get_mut(&instance_id) else { return };
        queue.retain(|w| (w.numbered.observation.version, w.numbered.counter) > (version, counter));
        if queue.is_empty() {
            self.waiting.remove(&instance_id);
            if self.latest.get(&instance_id).is_some_and(|l| l.observation.state == InstanceState::Deleted) {
                self.latest.remove(&instance_id);
            }
        }
    }

    /// Unacknowledged reports.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.values().map(VecDeque::len).sum()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use InstanceState as S;
    use proptest::prelude::*;

    fn seen(id: InstanceId, generation: i64, state: S, step: &str) -> Observation {
        Observation {
            instance_id: id,
            version: Version { epoch: 1, generation },
            state,
            step: step.into(),
            reason: String::new(),
            converged: false,
            started_at: None,
            guest_up_at: None,
            crash_count: 0,
            exec_ms: None,
        }
    }

    fn states(due: &[Numbered]) -> Vec<(S, &str)> {
        due.iter().map(|n| (n.observation.state, n.observation.step.as_str())).collect()
    }

    #[test]
    fn progress_is_coalesced_and_transitions_are_kept() {
        let id = InstanceId::new();
        let mut outbox = Outbox::default();
        for (state, step) in [(S::Building, "1 %"), (S::Building, "9 %"), (S::Running, ""), (S::Stopped, "")] {
            assert!(outbox.post(seen(id, 1, state, step)));
        }
        assert!(!outbox.post(seen(id, 1, S::Stopped, "")), "the same again is no news");
        assert_eq!(states(&outbox.due(0)), [(S::Building, "9 %"), (S::Running, ""), (S::Stopped, "")]);
        assert!(outbox.due(1).is_empty());
    }

    #[test]
    fn reports_are_sent_again_until_acknowledged() {
        let id = InstanceId::new();
        let mut outbox = Outbox::default();
        outbox.post(seen(id, 1, S::Building, ""));
        outbox.post(seen(id, 1, S::Running, ""));
        let first = outbox.due(0);
        assert_eq!(outbox.due(RESEND_MS), first, "with the same numbers");
        outbox.acknowledged(id, Version { epoch: 1, generation: 1 }, first[0].counter);
        assert_eq!(states(&outbox.due(2 * RESEND_MS)), [(S::Running, "")]);
        outbox.acknowledged(id, Version { epoch: 1, generation: 1 }, first[1].counter);
        assert!(outbox.is_empty());
        outbox.session_begins();
        assert_eq!(outbox.due(0), first[1..], "a manager that forgot is told again");
    }

    #[test]
    fn the_dead_are_forgotten_once_the_manager_knows() {
        let id = InstanceId::new();
        let mut outbox = Outbox::default();
        outbox.post(seen(id, 3, S::Deleted, ""));
        let sent = outbox.due(0);
        outbox.acknowledged(id, Version { epoch: 1, generation: 3 }, sent[0].counter);
        outbox.session_begins();
        assert!(outbox.due(0).is_empty());
    }

    proptest! {
        /// Whatever is lost on the way, the last observation arrives, and the order is kept.
        #[test]
        fn the_last_word_always_arrives(events in proptest::collection::vec((0u8..5, any::<bool>(), any::<bool>()), 1..80)) {
            let id = InstanceId::new();
            let mut outbox = Outbox::default();
            let mut stored: Option<i64> = None;
            let mut last = None;
            let mut now = 0;
            for (n, lost, cut) in events {
                let state = [S::Building, S::Running, S::Paused, S::Stopped, S::Error][usize::from(n)];
                let observation = seen(id, 1, state, "");
                last = Some(observation.clone());
                outbox.post(observation);
                if cut {
                    outbox.session_begins();
                }
                now += 1;
                for sent in outbox.due(now) {
                    if !lost {
                        prop_assert!(stored.is_none_or(|s| s <= sent.counter) || cut);
                        stored = stored.max(Some(sent.counter));
                        outbox.acknowledged(id, sent.observation.version, sent.counter);
                    }
                }
                prop_assert!(outbox.len() <= KEPT);
            }
            let mut received = None;
            for sent in outbox.due(now + RESEND_MS) {
                received = Some(sent.observation.clone());
                outbox.acknowledged(id, sent.observation.version, sent.counter);
            }
            prop_assert!(outbox.is_empty());
            prop_assert!(received.is_none() || received == last);
            prop_assert!(received.is_some() || stored == Some(outbox.counter));
        }
    }
}
