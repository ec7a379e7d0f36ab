//! What a manager hasn't acknowledged yet.
//!
//! Reports are sent again until they are acknowledged, in every session anew. Sending everything ever observed was rejected: a manager
//! that was away for an hour would first get an hour of percentages. So an observation may replace an earlier one that waits
//! ([`Observation::replaces`]): of an instance, progress within one state, while changes of state are kept up to a bound, since a
//! timeline is made of them; of a network's object, whatever was before.
//!
//! Invariants: the last observation of each object reaches the manager; counters rise in the order of observation; an observation keeps
//! its counter when it is sent again, so that a repeat is seen as one.

use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    time::{Duration, Instant},
};
use tokio::sync::Notify;

/// Observations kept of one object.
const KEPT: usize = 16;
/// A report without an acknowledgement is sent again after this.
pub const RESEND: Duration = Duration::from_secs(5);

/// What an agent observed of one object.
pub trait Observation: Clone + PartialEq + fmt::Debug {
    type Key: Copy + Ord + fmt::Debug;

    fn key(&self) -> Self::Key;

    /// Whether it says nothing that `last` didn't say.
    fn says_no_more_than(&self, last: &Self) -> bool {
        self == last
    }

    /// Whether `earlier`, which waits for its acknowledgement, needn't be sent (again) once this one is there.
    fn replaces(&self, earlier: &Self, earlier_was_sent: bool) -> bool;

    /// Whether the object is gone: once the manager knows, nothing is remembered of it.
    fn is_deletion(&self) -> bool;
}

/// An observation with its place in the order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Numbered<O> {
    pub counter: i64,
    pub observation: O,
}

#[derive(Debug)]
struct Waiting<O> {
    numbered: Numbered<O>,
    sent_at: Option<Instant>,
}

#[derive(Debug)]
struct Queues<O: Observation> {
    counter: i64,
    waiting: BTreeMap<O::Key, VecDeque<Waiting<O>>>,
    /// The last of each object, acknowledged or not.
    latest: BTreeMap<O::Key, Numbered<O>>,
}

/// Shared by those who observe and the session that sends.
#[derive(Debug)]
pub struct Outbox<O: Observation> {
    queues: Mutex<Queues<O>>,
    filled: Notify,
}

impl<O: Observation> Default for Outbox<O> {
    fn default() -> Self {
        let queues = Queues { counter: 0, waiting: BTreeMap::new(), latest: BTreeMap::new() };
        Self { queues: Mutex::new(queues), filled: Notify::new() }
    }
}

impl<O: Observation> Outbox<O> {
    /// Takes an observation; false when it says nothing new.
    pub fn post(&self, observation: O) -> bool {
        let posted = self.queues.lock().post(observation);
        if posted {
            self.filled.notify_one();
        }
        posted
    }

    /// The last observation of an object.
    #[must_use]
    pub fn last(&self, key: O::Key) -> Option<O> {
        self.queues.lock().latest.get(&key).map(|last| last.observation.clone())
    }

    /// A new session begins: what the old one had sent may be lost, and the manager may have forgotten (restored from a backup) what it
    /// had. What it still has is a repeat to it.
    pub fn start_session(&self) {
        self.queues.lock().start_session();
    }

    /// The manager sent what it had sent already: it gets the last observation of that object again.
    pub fn repeat(&self, key: O::Key) {
        self.queues.lock().repeat(key);
        self.filled.notify_one();
    }

    /// What is to be sent at `now`, in order; it counts as sent.
    #[must_use]
    pub fn take_due(&self, now: Instant) -> Vec<Numbered<O>> {
        self.queues.lock().take_due(now)
    }

    /// The manager stored it, or something newer: it and all before it are done with.
    pub fn acknowledge(&self, key: O::Key, counter: i64) {
        self.queues.lock().acknowledge(key, counter);
    }

    /// Resolves when something may be due.
    pub async fn filled(&self) {
        self.filled.notified().await;
    }

    #[must_use]
    pub fn unacknowledged(&self) -> usize {
        self.queues.lock().waiting.values().map(VecDeque::len).sum()
    }
}

impl<O: Observation> Queues<O> {
    fn post(&mut self, observation: O) -> bool {
        let key = observation.key();
        if self.latest.get(&key).is_some_and(|last| observation.says_no_more_than(&last.observation)) {
            return false;
        }
        self.counter += 1;
        let numbered = Numbered { counter: self.counter, observation };
        self.latest.insert(key, numbered.clone());
        let queue = self.waiting.entry(key).or_default();
        let replaces = queue
            .back()
            .is_some_and(|last| numbered.observation.replaces(&last.numbered.observation, last.sent_at.is_some()));
        if replaces || queue.len() >= KEPT {
            queue.pop_back();
        }
        queue.push_back(Waiting { numbered, sent_at: None });
        true
    }

    fn start_session(&mut self) {
        for (key, numbered) in &self.latest {
            let queue = self.waiting.entry(*key).or_default();
            if queue.back().is_none_or(|last| last.numbered.counter < numbered.counter) {
                queue.push_back(Waiting { numbered: numbered.clone(), sent_at: None });
            }
            for waiting in queue {
                waiting.sent_at = None;
            }
        }
    }

    fn repeat(&mut self, key: O::Key) {
        let Some(numbered) = self.latest.get(&key) else { return };
        let queue = self.waiting.entry(key).or_default();
        match queue.back_mut() {
            Some(last) => last.sent_at = None,
            None => queue.push_back(Waiting { numbered: numbered.clone(), sent_at: None }),
        }
    }

    fn take_due(&mut self, now: Instant) -> Vec<Numbered<O>> {
        let mut due = Vec::new();
        for waiting in self.waiting.values_mut().flatten() {
            if waiting.sent_at.is_none_or(|at| now.saturating_duration_since(at) >= RESEND) {
                waiting.sent_at = Some(now);
                due.push(waiting.numbered.clone());
            }
        }
        due.sort_by_key(|numbered| numbered.counter);
        due
    }

    fn acknowledge(&mut self, key: O::Key, counter: i64) {
        let Some(queue) = self.waiting.get_mut(&key) else { return };
        queue.retain(|waiting| waiting.numbered.counter > counter);
        if queue.is_empty() {
            self.waiting.remove(&key);
            if self.latest.get(&key).is_some_and(|last| last.observation.is_deletion()) {
                self.latest.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use State as S;
    use proptest::prelude::*;

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum State {
        Building,
        Running,
        Paused,
        Stopped,
        Error,
        Deleted,
    }

    #[derive(Debug, Clone, PartialEq, Eq)]
    struct Observed {
        key: u32,
        state: State,
        step: &'static str,
        /// As a network's objects do it: only the last counts.
        last_only: bool,
    }

    impl Observation for Observed {
        type Key = u32;

        fn key(&self) -> u32 {
            self.key
        }

        fn replaces(&self, earlier: &Self, earlier_was_sent: bool) -> bool {
            self.last_only || (!earlier_was_sent && earlier.state == self.state)
        }

        fn is_deletion(&self) -> bool {
            self.state == State::Deleted
        }
    }

    fn observed(state: S, step: &'static str) -> Observed {
        Observed { key: 1, state, step, last_only: false }
    }

    fn states(due: &[Numbered<Observed>]) -> Vec<(S, &str)> {
        due.iter().map(|n| (n.observation.state, n.observation.step)).collect()
    }

    #[test]
    fn progress_is_coalesced_and_transitions_are_kept() {
        let outbox = Outbox::default();
        for (state, step) in [(S::Building, "1 %"), (S::Building, "9 %"), (S::Running, ""), (S::Stopped, "")] {
            assert!(outbox.post(observed(state, step)));
        }
        assert!(!outbox.post(observed(S::Stopped, "")), "the same again is no news");
        let now = Instant::now();
        assert_eq!(states(&outbox.take_due(now)), [(S::Building, "9 %"), (S::Running, ""), (S::Stopped, "")]);
        assert!(outbox.take_due(now).is_empty());
    }

    #[test]
    fn reports_are_sent_again_until_acknowledged() {
        let (outbox, now) = (Outbox::default(), Instant::now());
        outbox.post(observed(S::Building, ""));
        outbox.post(observed(S::Running, ""));
        let first = outbox.take_due(now);
        assert_eq!(outbox.take_due(now + RESEND), first, "with the same numbers");
        outbox.acknowledge(1, first[0].counter);
        assert_eq!(states(&outbox.take_due(now + 2 * RESEND)), [(S::Running, "")]);
        outbox.acknowledge(1, first[1].counter);
        assert_eq!(outbox.unacknowledged(), 0);
        outbox.start_session();
        assert_eq!(outbox.take_due(now), first[1..], "a manager that forgot gets it again");
    }

    #[test]
    fn of_some_objects_only_the_last_observation_is_sent() {
        let (outbox, now) = (Outbox::default(), Instant::now());
        let last = |state| Observed { last_only: true, ..observed(state, "") };
        outbox.post(last(S::Building));
        assert_eq!(outbox.take_due(now).len(), 1);
        outbox.post(last(S::Running));
        let due = outbox.take_due(now + RESEND);
        assert_eq!(states(&due), [(S::Running, "")], "although the first was sent and not acknowledged");
        outbox.acknowledge(1, 1);
        assert_eq!(outbox.unacknowledged(), 1, "an acknowledgement of an earlier one");
        outbox.acknowledge(1, 2);
        assert_eq!(outbox.unacknowledged(), 0);
        outbox.repeat(1);
        assert_eq!(outbox.take_due(now), due);
    }

    #[test]
    fn what_is_gone_is_forgotten_once_the_manager_knows() {
        let outbox = Outbox::default();
        outbox.post(observed(S::Deleted, ""));
        let sent = outbox.take_due(Instant::now());
        outbox.acknowledge(1, sent[0].counter);
        outbox.start_session();
        assert!(outbox.take_due(Instant::now()).is_empty());
    }

    proptest! {
        /// Whatever is lost on the way, the last observation arrives, and the order is kept.
        #[test]
        fn the_last_observation_always_arrives(
            events in proptest::collection::vec((0u8..5, any::<bool>(), any::<bool>()), 1..80),
            last_only in any::<bool>(),
        ) {
            let outbox = Outbox::default();
            let mut stored: Option<i64> = None;
            let (mut last, mut now) = (None, Instant::now());
            for (n, lost, cut) in events {
                let state = [S::Building, S::Running, S::Paused, S::Stopped, S::Error][usize::from(n)];
                let observation = Observed { last_only, ..observed(state, "") };
                last = Some(observation.clone());
                outbox.post(observation);
                if cut {
                    outbox.start_session();
                }
                now += Duration::from_millis(1);
                for sent in outbox.take_due(now) {
                    if !lost {
                        prop_assert!(stored.is_none_or(|s| s <= sent.counter) || cut);
                        stored = stored.max(Some(sent.counter));
                        outbox.acknowledge(1, sent.counter);
                    }
                }
                prop_assert!(outbox.unacknowledged() <= KEPT);
            }
            let mut received = None;
            for sent in outbox.take_due(now + RESEND) {
                received = Some(sent.observation.clone());
                outbox.acknowledge(1, sent.counter);
            }
            prop_assert_eq!(outbox.unacknowledged(), 0);
            prop_assert!(received.is_none() || received == last);
            prop_assert!(received.is_some() || stored == Some(outbox.queues.lock().counter));
        }
    }
}
