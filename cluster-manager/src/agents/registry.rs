//! Which hosts are connected now. In memory: the stream is the truth, a row is only written when a host comes or stays away.

use super::{incoming::Reports, link::Link};
use domain::HostId;
use parking_lot::{Mutex, MutexGuard};
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

pub struct Registry {
    hosts: Mutex<HashMap<HostId, Presence>>,
    connections: AtomicU64,
    pub reports: Reports,
}

#[derive(Clone)]
pub enum Presence {
    Here(Arc<Link>),
    Away { since: Instant },
}

impl Registry {
    #[must_use]
    pub fn new(reports: Reports) -> Self {
        Self { hosts: Mutex::default(), connections: AtomicU64::default(), reports }
    }

    fn hosts(&self) -> MutexGuard<'_, HashMap<HostId, Presence>> {
        self.hosts.lock()
    }

    #[must_use]
    pub fn next_connection(&self) -> u64 {
        self.connections.fetch_add(1, Ordering::Relaxed)
    }

    /// After a start: hosts that were up when the last process ended have the grace to connect again.
    pub fn expect(&self, host_id: HostId) {
        self.hosts().entry(host_id).or_insert(Presence::Away { since: Instant::now() });
    }

    /// A second connection of a host replaces the first: its agent was restarted and the old stream just doesn't know yet.
    pub fn enter(&self, link: Arc<Link>) {
        let old = self.hosts().insert(link.host_id, Presence::Here(link));
        if let Some(Presence::Here(old)) = old {
            tracing::info!(host_id = %old.host_id, "a new connection of this host replaces the old one");
            old.closed.cancel();
        }
    }

    pub fn leave(&self, link: &Link) {
        link.closed.cancel();
        let mut hosts = self.hosts();
        if matches!(hosts.get(&link.host_id), Some(Presence::Here(now)) if now.connection == link.connection) {
            hosts.insert(link.host_id, Presence::Away { since: Instant::now() });
        }
    }

    /// The host is gone for good: its stream ends, and nobody waits for it.
    pub fn remove(&self, host_id: HostId) {
        if let Some(Presence::Here(link)) = self.hosts().remove(&host_id) {
            link.closed.cancel();
        }
    }

    #[must_use]
    pub fn find(&self, host_id: HostId) -> Option<Arc<Link>> {
        match self.hosts().get(&host_id) {
            Some(Presence::Here(link)) => Some(Arc::clone(link)),
            Some(Presence::Away { .. }) | None => None,
        }
    }

    #[must_use]
    pub fn all(&self) -> Vec<(HostId, Presence)> {
        self.hosts().iter().map(|(id, presence)| (*id, presence.clone())).collect()
    }
}
