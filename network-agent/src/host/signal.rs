//! Which networks are to be looked at, and who waits for it.
//!
//! Every mark raises its network's number; a round remembers the number it began with, and is done up to there. So whoever marked
//! waits exactly for a round that saw its change, however many are merged into it.

use domain::NetworkId;
use parking_lot::{Mutex, MutexGuard};
use std::collections::{BTreeMap, BTreeSet};
use tokio::sync::{Notify, oneshot, watch};

/// Who waits for a network's round of at least this number.
#[derive(Debug)]
struct Waiter {
    number: u64,
    wake: oneshot::Sender<()>,
}

#[derive(Debug, Default)]
struct Numbers {
    marked: BTreeMap<NetworkId, u64>,
    done: BTreeMap<NetworkId, u64>,
    /// Marked and not taken, with the number of their first mark: who waits longest comes first.
    waiting: BTreeMap<NetworkId, u64>,
    waiters: BTreeMap<NetworkId, Vec<Waiter>>,
    last: u64,
}

#[derive(Debug, Default)]
pub struct Signal {
    numbers: Mutex<Numbers>,
    work: Notify,
    events: watch::Sender<u64>,
}

impl Signal {
    fn lock(&self) -> MutexGuard<'_, Numbers> {
        self.numbers.lock()
    }

    /// Marks networks; the number to wait for.
    pub fn mark(&self, networks: impl IntoIterator<Item = NetworkId>) -> u64 {
        let number = {
            let mut numbers = self.lock();
            numbers.last += 1;
            let number = numbers.last;
            for id in networks {
                numbers.marked.insert(id, number);
                numbers.waiting.entry(id).or_insert(number);
            }
            number
        };
        self.work.notify_one();
        self.events.send_modify(|n| *n += 1);
        number
    }

    /// Takes up to `limit` of what waits, except the busy: (network, the number its round is done up to). What is taken must be
    /// worked on at once: marked again meanwhile, it would be taken twice.
    pub fn take(&self, busy: &BTreeSet<NetworkId>, limit: usize) -> Vec<(NetworkId, u64)> {
        let mut numbers = self.lock();
        let free = numbers.waiting.iter().filter(|(id, _)| !busy.contains(id));
        let mut ready: Vec<(u64, NetworkId)> = free.map(|(id, first)| (*first, *id)).collect();
        ready.sort_unstable();
        ready.truncate(limit);
        for (_, id) in &ready {
            numbers.waiting.remove(id);
        }
        ready.into_iter().map(|(_, id)| (id, numbers.marked.get(&id).copied().unwrap_or_default())).collect()
    }

    pub fn finish(&self, id: NetworkId, number: u64) {
        {
            let mut numbers = self.lock();
            numbers.done.insert(id, number);
            // Each is woken by its own round alone: a thousand ports that wait would else be woken a thousand times.
            let waiters = numbers.waiters.remove(&id).unwrap_or_default();
            let (woken, left): (Vec<_>, Vec<_>) = waiters.into_iter().partition(|waiter| waiter.number <= number);
            if !left.is_empty() {
                numbers.waiters.insert(id, left);
            }
            for waiter in woken {
                let _ = waiter.wake.send(());
            }
        }
        self.events.send_modify(|n| *n += 1);
    }

    /// Resolves when there may be something to take.
    pub async fn work(&self) {
        self.work.notified().await;
    }

    /// A subscription to marks and finished rounds: what happens after this call is seen by the next `changed()`.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.events.subscribe()
    }

    /// Resolves when a round that began with `number` or later is done.
    pub async fn done(&self, id: NetworkId, number: u64) {
        let woken = {
            let mut numbers = self.lock();
            if numbers.done.get(&id).is_some_and(|done| *done >= number) {
                return;
            }
            let (wake, woken) = oneshot::channel();
            let waiters = numbers.waiters.entry(id).or_default();
            waiters.retain(|waiter| !waiter.wake.is_closed());
            waiters.push(Waiter { number, wake });
            woken
        };
        // It is dropped with the signal alone, when nobody is left to wait.
        let _ = woken.await;
    }

    #[must_use]
    pub fn reached(&self, id: NetworkId, number: u64) -> bool {
        self.lock().done.get(&id).is_some_and(|done| *done >= number)
    }

    /// Networks marked and not done.
    #[must_use]
    pub fn pending(&self) -> usize {
        let numbers = self.lock();
        numbers.marked.iter().filter(|(id, marked)| numbers.done.get(*id).is_none_or(|done| done < *marked)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nothing_is_taken_twice_and_waiters_see_a_round_that_began_after_them() {
        let signal = Signal::default();
        let [a, b, c] = [NetworkId::new(), NetworkId::new(), NetworkId::new()];
        let first = signal.mark([b]);
        signal.mark([a, c]);
        assert_eq!(signal.take(&BTreeSet::new(), 1), [(b, first)], "who waits longest");
        let busy = BTreeSet::from([b]);
        let again = signal.mark([a, b]);
        let mut taken = signal.take(&busy, 4);
        taken.sort_unstable();
        assert_eq!(taken, [(a, again), (c, again - 1)], "not the busy one, and each once");
        assert_eq!(signal.take(&busy, 4), []);
        let done = signal.done(b, again);
        tokio::pin!(done);
        signal.finish(b, first);
        assert!(!signal.reached(b, again) && futures::poll!(&mut done).is_pending());
        assert_eq!(signal.take(&BTreeSet::new(), 4), [(b, again)]);
        signal.finish(b, again);
        done.await;
        assert_eq!(signal.pending(), 2);
    }
}
