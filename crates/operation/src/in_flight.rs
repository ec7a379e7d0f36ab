//! Work in progress by key, in this process: whoever comes with the same key waits for its turn.

use parking_lot::Mutex;
use std::{collections::HashMap, hash::Hash, sync::Arc};
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

type Running<K> = Arc<Mutex<HashMap<K, Arc<AsyncMutex<()>>>>>;

/// The keys that are being worked on. Clones share them.
#[derive(Clone)]
pub struct InFlight<K> {
    running: Running<K>,
}

impl<K> Default for InFlight<K> {
    fn default() -> Self {
        Self { running: Arc::default() }
    }
}

/// Held while a key is worked on.
pub struct Turn<K: Eq + Hash> {
    running: Running<K>,
    key: K,
    _turn: OwnedMutexGuard<()>,
    /// Another holder of the key worked meanwhile: what it did can be found now.
    pub waited: bool,
}

impl<K: Eq + Hash + Clone> InFlight<K> {
    pub async fn enter(&self, key: K) -> Turn<K> {
        let lock = Arc::clone(self.running.lock().entry(key.clone()).or_default());
        let (turn, waited) = match Arc::clone(&lock).try_lock_owned() {
            Ok(turn) => (turn, false),
            Err(_) => (lock.lock_owned().await, true),
        };
        Turn { running: Arc::clone(&self.running), key, _turn: turn, waited }
    }
}

impl<K: Eq + Hash> Drop for Turn<K> {
    fn drop(&mut self) {
        let mut running = self.running.lock();
        // Two references are the map's and this turn's. With more, somebody waits and removes the entry later.
        if running.get(&self.key).is_some_and(|lock| Arc::strong_count(lock) <= 2) {
            running.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_second_waits_for_the_first_and_nothing_stays() {
        let flights = InFlight::default();
        let first = flights.enter(1).await;
        assert!(!first.waited);
        let second = tokio::spawn({
            let flights = flights.clone();
            async move { flights.enter(1).await.waited }
        });
        let other = flights.enter(2).await;
        assert!(!other.waited, "another key waits for nobody");
        drop(other);
        while Arc::strong_count(&flights.running.lock()[&1]) < 3 {
            tokio::task::yield_now().await;
        }
        drop(first);
        assert!(second.await.expect("no panic"));
        assert!(flights.running.lock().is_empty());
    }
}
