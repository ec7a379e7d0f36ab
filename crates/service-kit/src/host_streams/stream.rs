//! One host's stream as its manager sees it: what must still be sent, and what the agent said last.

use super::{HostManager, Update, Updates};
use domain::HostId;
use parking_lot::Mutex;
use proto::{
    agent::v1::OpenSession,
    sync::v1::{self as pb, manager_message::Message as Down},
};
use std::{collections::BTreeMap, time::Instant};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

pub struct HostStream<M: HostManager> {
    pub host_id: HostId,
    pub host_name: String,
    /// Tells two connections of one host apart.
    pub(super) connection: u64,
    /// Ends both directions.
    pub closed: CancellationToken,
    pub statistics: Mutex<M::Statistics>,
    pending: Mutex<Pending<M>>,
    changed: Notify,
    last_seen: Mutex<Instant>,
    updates_max: usize,
}

/// What is to be sent next, in this order: small answers come before large news, and a snapshot before deltas.
pub(super) struct Pending<M: HostManager> {
    pub replies: Vec<Down>,
    /// All of the host's desired state.
    pub snapshot: bool,
    pub updates: Updates<M>,
}

impl<M: HostManager> Default for Pending<M> {
    fn default() -> Self {
        Self { replies: Vec::new(), snapshot: false, updates: BTreeMap::new() }
    }
}

impl<M: HostManager> HostStream<M> {
    pub(super) fn new(
        host_id: HostId,
        host_name: String,
        connection: u64,
        updates_max: usize,
        closed: CancellationToken,
    ) -> Self {
        Self {
            host_id,
            host_name,
            connection,
            closed,
            statistics: Mutex::default(),
            // The first thing that an agent gets.
            pending: Mutex::new(Pending { snapshot: true, ..Pending::default() }),
            changed: Notify::new(),
            last_seen: Mutex::new(Instant::now()),
            updates_max,
        }
    }

    fn change(&self, change: impl FnOnce(&mut Pending<M>)) {
        change(&mut self.pending.lock());
        self.changed.notify_one();
    }

    /// What must be sent; of several updates of one object the newest counts.
    pub fn push(&self, updates: impl IntoIterator<Item = (M::Key, M::Update)>) {
        self.change(|pending| {
            for (key, update) in updates {
                if pending.updates.get(&key).is_none_or(|old| update.replaces(old)) {
                    pending.updates.insert(key, update);
                }
            }
            if pending.updates.len() > self.updates_max {
                metrics::counter!("iaas_agent_queue_overflows_total").increment(1);
                pending.updates.clear();
                pending.snapshot = true;
            }
        });
    }

    /// What could not be sent yet; what was pushed meanwhile is newer.
    pub(super) fn put_back(&self, snapshot: bool, updates: Updates<M>) {
        self.change(|pending| {
            pending.snapshot |= snapshot;
            for (key, update) in updates {
                pending.updates.entry(key).or_insert(update);
            }
        });
    }

    pub fn acknowledge(&self, acks: impl IntoIterator<Item = pb::ReportAck>) {
        self.change(|pending| pending.replies.extend(acks.into_iter().map(Down::ReportAck)));
    }

    pub fn open_session(&self, session: OpenSession) {
        self.change(|pending| pending.replies.push(Down::OpenSession(session)));
    }

    /// One answer stands for several heartbeats that wait for it.
    pub(super) fn acknowledge_heartbeat(&self) {
        self.change(|pending| {
            if !matches!(pending.replies.last(), Some(Down::HeartbeatAck(_))) {
                pending.replies.push(Down::HeartbeatAck(pb::HeartbeatAck {}));
            }
        });
    }

    pub fn request_snapshot(&self) {
        self.change(|pending| pending.snapshot = true);
    }

    pub(super) fn note_message(&self) {
        *self.last_seen.lock() = Instant::now();
    }

    /// When the agent sent something last.
    #[must_use]
    pub fn last_seen(&self) -> Instant {
        *self.last_seen.lock()
    }

    /// Waits for what is to be sent next.
    pub(super) async fn next(&self) -> Pending<M> {
        loop {
            let taken = std::mem::take(&mut *self.pending.lock());
            if taken.snapshot || !taken.updates.is_empty() || !taken.replies.is_empty() {
                return taken;
            }
            // A permit is kept when the change came between the look and the wait.
            self.changed.notified().await;
        }
    }
}
