//! Which hosts are part of this installation, with which key: what a manager's listener asks of every host's certificate.
//!
//! Certificates live for a day, and a removed host must be gone at once. A revocation list would have to reach every manager before
//! a mistake can be used; a list of those who *are* admitted fails the other way: whom it doesn't name is refused. The process that
//! listens keeps it up to date from the store (this crate knows no store), and publishing a list cuts the connections of those whom it
//! no longer names. A host that isn't known yet may have joined a moment ago: its first connection waits for a fresh list.

use domain::HostId;
use parking_lot::{Mutex, MutexGuard};
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

/// How long a connection of an unknown host waits for a fresh list.
const LIST_WAIT: Duration = Duration::from_secs(3);

/// A handle; clones share the list. Empty at first: nobody is admitted.
#[derive(Clone, Default)]
pub struct Fleet(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    /// How often a list was published.
    published: watch::Sender<u64>,
    requested: Notify,
    next: AtomicU64,
}

#[derive(Default)]
struct State {
    /// SHA-256 of each host's public key.
    hosts: HashMap<HostId, String>,
    connections: HashMap<u64, Connection>,
}

struct Connection {
    host_id: HostId,
    key_hash: String,
    cut: CancellationToken,
}

impl Default for Inner {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            published: watch::Sender::new(0),
            requested: Notify::new(),
            next: AtomicU64::new(0),
        }
    }
}

impl std::fmt::Debug for Fleet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fleet").field("hosts", &self.state().hosts.len()).finish_non_exhaustive()
    }
}

impl Fleet {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock()
    }

    /// The whole list, as it is now. Connections of whoever isn't on it are cut.
    pub fn publish(&self, hosts: HashMap<HostId, String>) {
        {
            let mut state = self.state();
            state.hosts = hosts;
            let State { hosts, connections } = &mut *state;
            for connection in connections.values() {
                if hosts.get(&connection.host_id) != Some(&connection.key_hash) && !connection.cut.is_cancelled() {
                    tracing::info!(host_id = %connection.host_id, "a connection of a removed host is cut");
                    connection.cut.cancel();
                }
            }
        }
        self.0.published.send_modify(|n| *n += 1);
    }

    #[must_use]
    pub fn admits(&self, host_id: HostId, key_hash: &str) -> bool {
        self.state().hosts.get(&host_id).is_some_and(|known| known == key_hash)
    }

    /// As [`Fleet::admits`]; a host that isn't known is looked for in a list that was read after the question.
    pub async fn admits_now(&self, host_id: HostId, key_hash: &str) -> bool {
        let mut published = self.0.published.subscribe();
        let before = *published.borrow_and_update();
        let found = async {
            loop {
                if self.admits(host_id, key_hash) {
                    return true;
                }
                // The next list may have been read before this question; the one after it was not.
                if *published.borrow_and_update() >= before + 2 {
                    return false;
                }
                self.0.requested.notify_one();
                if published.changed().await.is_err() {
                    return false;
                }
            }
        };
        tokio::time::timeout(LIST_WAIT, found).await.unwrap_or(false)
    }

    /// Until somebody waits for a fresh list.
    pub async fn list_requested(&self) {
        self.0.requested.notified().await;
    }

    /// Enters a connection, to be cut when its host is no longer admitted.
    pub(crate) fn enter(&self, host_id: HostId, key_hash: &str) -> Entered {
        let id = self.0.next.fetch_add(1, Ordering::Relaxed);
        let cut = CancellationToken::new();
        let connection = Connection { host_id, key_hash: key_hash.to_owned(), cut: cut.clone() };
        let mut state = self.state();
        // Removed since it was looked up.
        if state.hosts.get(&host_id) != Some(&connection.key_hash) {
            cut.cancel();
        }
        state.connections.insert(id, connection);
        drop(state);
        Entered { fleet: self.clone(), id, cut }
    }
}

/// A connection that is open.
pub(crate) struct Entered {
    fleet: Fleet,
    id: u64,
    pub(crate) cut: CancellationToken,
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.fleet.state().connections.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_removed_host_is_cut_and_one_that_has_just_joined_is_waited_for() {
        let (fleet, old, new) = (Fleet::default(), HostId::new(), HostId::new());
        fleet.publish([(old, "a".to_owned())].into());
        assert!(fleet.admits(old, "a") && !fleet.admits(old, "b") && !fleet.admits(new, "a"));
        let open = fleet.enter(old, "a");
        let admitted = tokio::spawn({
            let fleet = fleet.clone();
            async move { fleet.admits_now(new, "n").await }
        });
        // The first list after the question was read before the host joined.
        fleet.list_requested().await;
        fleet.publish([(old, "a".to_owned())].into());
        fleet.list_requested().await;
        assert!(!open.cut.is_cancelled());
        fleet.publish([(new, "n".to_owned())].into());
        assert!(admitted.await.expect("no panic"));
        assert!(open.cut.is_cancelled(), "the old host was removed");
        drop(open);
        assert!(fleet.state().connections.is_empty());
    }
}
