//! Which hosts are connected now. In memory: the stream is the truth.

use super::{HostManager, HostStream, Incoming};
use domain::HostId;
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Reports that wait to be stored; more wait beside their hosts' streams.
const REPORTS_MAX: usize = 4096;

pub struct HostStreams<M: HostManager> {
    hosts: Mutex<HashMap<HostId, Connection<M>>>,
    connections: AtomicU64,
    /// Pending updates of one host beyond which it gets a snapshot instead.
    updates_max: usize,
    /// An agent that has sent nothing for so long is gone.
    pub(super) silence: Duration,
    pub(super) reports: mpsc::Sender<Incoming<M>>,
    received: Mutex<Option<mpsc::Receiver<Incoming<M>>>>,
    pub(super) tasks: TaskTracker,
    pub(super) shutdown: CancellationToken,
    /// How often agents are asked for heartbeats on a connection of their own, milliseconds. 0: not at all.
    pub(super) beat_ms: u32,
    /// Under which this manager leads; 0 where nobody else could.
    pub(super) term: i64,
    /// Whether it still does, by its own clock.
    leads: Arc<dyn Fn() -> bool + Send + Sync>,
}

pub enum Connection<M: HostManager> {
    Connected(Arc<HostStream<M>>),
    Disconnected { since: Instant },
}

impl<M: HostManager> Clone for Connection<M> {
    fn clone(&self) -> Self {
        match self {
            Self::Connected(stream) => Self::Connected(Arc::clone(stream)),
            Self::Disconnected { since } => Self::Disconnected { since: *since },
        }
    }
}

impl<M: HostManager> HostStreams<M> {
    #[must_use]
    pub fn new(updates_max: usize, silence: Duration, tasks: TaskTracker, shutdown: CancellationToken) -> Self {
        let (reports, received) = mpsc::channel(REPORTS_MAX);
        let (hosts, connections) = (Mutex::default(), AtomicU64::default());
        let received = Mutex::new(Some(received));
        Self {
            hosts,
            connections,
            updates_max,
            silence,
            reports,
            received,
            tasks,
            shutdown,
            beat_ms: 0,
            term: 0,
            leads: Arc::new(|| true),
        }
    }

    /// Agents are told this term, and refuse a lower one from then on. Heartbeats are answered while it `leads`.
    #[must_use]
    pub fn under_term(self, term: i64, leads: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self { term, leads: Arc::new(leads), ..self }
    }

    /// Agents are asked for a heartbeat this often, on a connection of its own ([`super::HostLivenessService`]).
    #[must_use]
    pub fn with_beats(self, beat_ms: u32) -> Self {
        Self { beat_ms, ..self }
    }

    pub(super) fn leads(&self) -> bool {
        (self.leads)()
    }

    /// All hosts' reports, for the one task that stores them.
    pub fn take_reports(&self) -> Option<mpsc::Receiver<Incoming<M>>> {
        self.received.lock().take()
    }

    /// After a start: a host that was connected when the last process ended has the grace to connect again.
    pub fn expect(&self, host_id: HostId) {
        self.hosts.lock().entry(host_id).or_insert(Connection::Disconnected { since: Instant::now() });
    }

    /// A new stream of the host; it replaces an older one.
    pub(super) fn connect(&self, host_id: HostId, host_name: String) -> Arc<HostStream<M>> {
        let connection = self.connections.fetch_add(1, Ordering::Relaxed);
        let closed = self.shutdown.child_token();
        let stream = Arc::new(HostStream::new(host_id, host_name, connection, self.updates_max, closed));
        let old = self.hosts.lock().insert(host_id, Connection::Connected(Arc::clone(&stream)));
        if let Some(Connection::Connected(old)) = old {
            tracing::info!(%host_id, agent = M::ROLE.as_str(), "a new connection of this host replaces the old one");
            old.closed.cancel();
        }
        stream
    }

    /// Closes a stream.
    pub fn disconnect(&self, stream: &HostStream<M>) {
        stream.closed.cancel();
        let mut hosts = self.hosts.lock();
        if matches!(hosts.get(&stream.host_id), Some(Connection::Connected(now)) if now.connection == stream.connection)
        {
            hosts.insert(stream.host_id, Connection::Disconnected { since: Instant::now() });
        }
    }

    /// The host is gone for good: its stream ends, and nobody waits for it.
    pub fn remove(&self, host_id: HostId) {
        if let Some(Connection::Connected(stream)) = self.hosts.lock().remove(&host_id) {
            stream.closed.cancel();
        }
    }

    #[must_use]
    pub fn find(&self, host_id: HostId) -> Option<Arc<HostStream<M>>> {
        match self.hosts.lock().get(&host_id) {
            Some(Connection::Connected(stream)) => Some(Arc::clone(stream)),
            Some(Connection::Disconnected { .. }) | None => None,
        }
    }

    #[must_use]
    pub fn all(&self) -> Vec<(HostId, Connection<M>)> {
        self.hosts.lock().iter().map(|(id, connection)| (*id, connection.clone())).collect()
    }

    /// Updates of several hosts; those that aren't connected get a snapshot when they are.
    pub fn push(&self, updates: impl IntoIterator<Item = (HostId, M::Key, M::Update)>) {
        let mut by_host: HashMap<HostId, Vec<_>> = HashMap::new();
        for (host_id, key, update) in updates {
            by_host.entry(host_id).or_default().push((key, update));
        }
        for (host_id, updates) in by_host {
            if let Some(stream) = self.find(host_id) {
                stream.push(updates);
            }
        }
    }
}
