//! Repeats of an operation.
//!
//! The answer of an accepted change is stored in the change's own transaction under the operation's id. A repeat tries the change like
//! the first did and, whatever stops it (the id is taken, the name is taken by itself, no room is left because it took it), looks for
//! the stored answer before it fails: so a repeat after a lost answer gets the first answer, and a first try pays no read for it.
//! Two at once would both find nothing and race; the second waits here for the first.

use domain::OperationId;
use parking_lot::Mutex;
use std::{collections::HashMap, sync::Arc};
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

#[derive(Default)]
pub struct InFlight {
    running: Mutex<HashMap<OperationId, Arc<AsyncMutex<()>>>>,
}

/// Held while an operation runs.
pub struct Entered<'a> {
    registry: &'a InFlight,
    id: OperationId,
    _turn: OwnedMutexGuard<()>,
    /// Another call with this id ran meanwhile: its answer is probably stored.
    pub waited: bool,
}

impl InFlight {
    pub async fn enter(&self, id: OperationId) -> Entered<'_> {
        let lock = {
            let mut running = self.running.lock();
            Arc::clone(running.entry(id).or_default())
        };
        match Arc::clone(&lock).try_lock_owned() {
            Ok(turn) => Entered { registry: self, id, _turn: turn, waited: false },
            Err(_) => Entered { registry: self, id, _turn: lock.lock_owned().await, waited: true },
        }
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        let mut running = self.registry.running.lock();
        // Two references: the map's and this turn's. More: somebody waits, and removes it later.
        if running.get(&self.id).is_some_and(|lock| Arc::strong_count(lock) <= 2) {
            running.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_second_waits_for_the_first_and_nothing_stays() {
        let flights = Arc::new(InFlight::default());
        let id = OperationId::new();
        let first = flights.enter(id).await;
        assert!(!first.waited);
        let second = tokio::spawn({
            let flights = Arc::clone(&flights);
            async move { flights.enter(id).await.waited }
        });
        let other = flights.enter(OperationId::new()).await;
        assert!(!other.waited, "another operation waits for nobody");
        drop(other);
        while Arc::strong_count(&flights.running.lock()[&id]) < 3 {
            tokio::task::yield_now().await;
        }
        drop(first);
        assert!(second.await.expect("no panic"));
        assert!(flights.running.lock().is_empty());
    }
}
