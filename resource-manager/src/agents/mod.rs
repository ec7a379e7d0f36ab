//! The hosts' network-agents: who is connected, what each was told, and what it must still be told.
//!
//! **The problem.** A host must learn of a change within milliseconds, miss none across lost streams and restarts of either side, and never
//! take an older word for a newer one.
//!
//! **How.** Each host has a set of objects that may have changed for it ([`Links::mark`]). Its stream takes the set, renders these objects
//! from memory as they are *now*, and sends those that differ from what the host was told last: a burst of changes becomes one delta, and
//! a change that undid itself none. Every delta has the host's next number, which is also the generation of each word in it: numbers rise
//! also across restarts (`number`), so the agent's ledger sorts any two words of ours. What a host was told and must know no longer ends
//! with a tombstone. A stream that begins starts from what the agent says it holds; everything is said again.
//!
//! **Rejected.** A revision that is raised in each change's transaction: a port that is bound would write a row for every host that has its
//! network. Versions of objects as the words' versions: a network that leaves a host and comes back unchanged would be older than its grave.

mod number;
mod report;
mod service;
mod session;
#[cfg(test)]
mod tests;

pub use service::NetworkLinkService;

use crate::network::topology::{Concern, Told};
use domain::{HostId, PortId};
use parking_lot::{Mutex, MutexGuard};
use proto::network::v1::PortTraffic;
use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock()
}

/// The connected hosts.
#[derive(Default)]
pub struct Links {
    hosts: Mutex<HashMap<HostId, Arc<Link>>>,
    connections: AtomicU64,
}

/// One host's stream.
pub struct Link {
    pub host_id: HostId,
    pub host_name: String,
    connection: u64,
    /// What may have changed for it.
    pending: Mutex<Pending>,
    news: Notify,
    pub closed: CancellationToken,
    pub vitals: Mutex<Vitals>,
}

#[derive(Debug, Default)]
struct Pending {
    /// Everything, and as a snapshot.
    snapshot: bool,
    told: BTreeSet<Told>,
    replies: Vec<proto::network::v1::manager_message::Message>,
}

/// What the agent's heartbeats say.
#[derive(Debug, Clone)]
pub struct Vitals {
    pub heard_at: Instant,
    pub networks: u32,
    pub ports: u32,
    pub pending: u32,
    /// Cumulative, as the instance sees it.
    pub traffic: HashMap<PortId, PortTraffic>,
}

impl Links {
    /// These hosts may have to be told these.
    pub fn mark(&self, concerns: impl IntoIterator<Item = Concern>) {
        let mut by_host: HashMap<HostId, Vec<Told>> = HashMap::new();
        for (host_id, told) in concerns {
            by_host.entry(host_id).or_default().push(told);
        }
        if by_host.is_empty() {
            return;
        }
        let hosts = lock(&self.hosts);
        for (host_id, told) in by_host {
            if let Some(link) = hosts.get(&host_id) {
                lock(&link.pending).told.extend(told);
                link.news.notify_one();
            }
        }
    }

    #[must_use]
    pub fn find(&self, host_id: HostId) -> Option<Arc<Link>> {
        lock(&self.hosts).get(&host_id).cloned()
    }

    #[must_use]
    pub fn all(&self) -> Vec<Arc<Link>> {
        lock(&self.hosts).values().cloned().collect()
    }

    fn connect(&self, host_id: HostId, host_name: String, closed: CancellationToken) -> Arc<Link> {
        let link = Arc::new(Link {
            host_id,
            host_name,
            connection: self.connections.fetch_add(1, Ordering::Relaxed),
            pending: Mutex::new(Pending { snapshot: true, ..Pending::default() }),
            news: Notify::new(),
            closed,
            vitals: Mutex::new(Vitals {
                heard_at: Instant::now(),
                networks: 0,
                ports: 0,
                pending: 0,
                traffic: HashMap::new(),
            }),
        });
        // A second connection of a host replaces the first: its agent was restarted, and the old stream just doesn't know yet.
        if let Some(old) = lock(&self.hosts).insert(host_id, Arc::clone(&link)) {
            old.closed.cancel();
        }
        link
    }

    fn leave(&self, link: &Link) {
        link.closed.cancel();
        let mut hosts = lock(&self.hosts);
        if hosts.get(&link.host_id).is_some_and(|now| now.connection == link.connection) {
            hosts.remove(&link.host_id);
        }
    }
}

impl Link {
    fn reply(&self, message: proto::network::v1::manager_message::Message) {
        lock(&self.pending).replies.push(message);
        self.news.notify_one();
    }

    fn want_snapshot(&self) {
        lock(&self.pending).snapshot = true;
        self.news.notify_one();
    }

    /// What waits, once something does.
    async fn next(&self) -> Pending {
        loop {
            let waiting = self.news.notified();
            let taken = std::mem::take(&mut *lock(&self.pending));
            if taken.snapshot || !taken.told.is_empty() || !taken.replies.is_empty() {
                return taken;
            }
            waiting.await;
        }
    }
}
