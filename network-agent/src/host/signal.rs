//! Which networks are to be looked at, and who waits for it.
//!
//! Every mark raises its network's number; a round remembers the number it began with, and is done up to there. So whoever marked
//! waits exactly for a round that saw its change, however many are merged into it.

use domain::NetworkId;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};
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
    waiting: BTreeSet<NetworkId>,
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
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Marks networks; the number to wait for.
    pub fn mark(&self, networks: impl IntoIterator<Item = NetworkId>) -> u64 {
        let number = {
            let mut numbers = self.lock();
            numbers.last += 1;
            let number = numbers.last;
            for id in networks {
                numbers.marked.insert(id, number);
                numbers.waiting.insert(id);
            }
            number
        };
        self.work.notify_one();
        self.events.send_modify(|n| *n += 1);
        number
    }

    /// Takes what waits, except the busy: (network, the number its round is done up to).
    pub fn take(&self, busy: &BTreeSet<NetworkId>) -> Vec<(NetworkId, u64)> {
        let mut numbers = self.lock();
        let ready: Vec<NetworkId> = numbers.waiting.difference(busy).copied().collect();
        for id in &ready {
            numbers.waiting.remove(id);
        }
        ready.into_iter().map(|id| (id, numbers.marked.get(&id).copied().unwrap_or_default())).collect()
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
    pub fn news(&self) -> watch::Receiver<u64> {
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
