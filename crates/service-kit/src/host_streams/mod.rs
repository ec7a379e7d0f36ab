//! The manager's end of `iaas.sync.v1`: which hosts' agents are connected, what each host's stream must still carry, and what agents report.
//!
//! **The problem.** A host must get a change within milliseconds, miss none across lost streams and restarts of either side, and never take
//! an older message for a newer one; and a host that is slow, or thousands of them, must hold up nobody and cost bounded memory.
//!
//! **How.** Each stream has a set of pending updates by object ([`HostStream::push`]). The stream takes the whole set as fast as the agent
//! reads: an object that changes twice meanwhile is sent once, as it is last. A set that grows past its bound is replaced by one request: a
//! snapshot. Every delta says which revision it builds on, and an agent that sees a gap requests a snapshot (Resync). What agents report
//! goes into one bounded channel for all hosts, so that many reports become one commit; when it is full, a host's reports wait beside its
//! stream, up to a bound, and what is beyond comes again. Heartbeats wait for nothing, and those that a lease is to depend
//! on come by a connection of their own ([`HostLivenessService`]).
//!
//! **Invariants.**
//! - A stream begins with a snapshot, and whatever can't be rendered or numbered stays pending and is tried again: a host may be late, but it
//!   never stays behind unnoticed.
//! - Absence never deletes: so a snapshot may come in parts, and an agent's holdings are compared with the database by its manager
//!   ([`HostManager::connected`]), which answers with tombstones.
//! - `previous` of a delta is the revision of the message before it on this stream. Revisions are the manager's ([`DesiredState::number`]).
//! - A second connection of a host replaces the first: its agent was restarted, and the old stream just doesn't know yet.
//! - A report is acknowledged by its manager once it is stored, or never will be; a stream that ends acknowledges nothing.
//!
//! **What stays with each manager** ([`HostManager`], [`DesiredState`]): its rows, what it makes of Hello, how desired state is rendered,
//! what a revision counts, and how a report becomes a row. The cluster-manager pushes rendered instances; the resource-manager pushes keys
//! and renders them when they are taken, since one port's change may affect every host of its network.

mod liveness;
mod registry;
mod serve;
mod stream;
#[cfg(test)]
mod tests;

pub use liveness::HostLivenessService;
pub use registry::{Connection, HostStreams};
pub use serve::HostSyncService;
pub use stream::HostStream;

use crate::peer::HostPeer;
use domain::{Problem, host::AgentRole};
use proto::sync::v1::{self as pb, heartbeat::Statistics};
use std::{collections::BTreeMap, sync::Arc};

/// A manager that hosts follow.
pub trait HostManager: Send + Sync + Sized + 'static {
    /// Which of a host's agents connects here.
    const ROLE: AgentRole;
    /// What a pending update is about.
    type Key: Copy + Ord + Send + Sync;
    type Update: Update;
    /// What the agent's heartbeats say; for people and metrics.
    type Statistics: Default + Send;
    type Desired: DesiredState<Self>;

    fn streams(&self) -> &HostStreams<Self>;

    /// Takes the host in (or what changed of it): its name, and its desired state as this stream will send it.
    fn register(
        self: &Arc<Self>,
        hello: &mut pb::Hello,
        certified: Option<HostPeer>,
    ) -> impl Future<Output = Result<(String, Self::Desired), Problem>> + Send;

    /// The stream is in the registry: changes from now on reach it. `hello`: as [`Self::register`] left it.
    fn connected(
        self: &Arc<Self>,
        stream: &Arc<HostStream<Self>>,
        hello: pb::Hello,
    ) -> impl Future<Output = Result<(), Problem>> + Send;

    fn take_statistics(&self, stream: &HostStream<Self>, statistics: Statistics);
}

/// What may have changed of one object for one host.
pub trait Update: Send + 'static {
    /// Whether this update, which came after `pending`, stands for both.
    fn replaces(&self, pending: &Self) -> bool;
}

/// The object is rendered when the update is taken.
impl Update for () {
    fn replaces(&self, (): &Self) -> bool {
        true
    }
}

impl Update for pb::DesiredObject {
    fn replaces(&self, pending: &Self) -> bool {
        (pending.epoch, pending.generation) <= (self.epoch, self.generation)
    }
}

pub type Updates<M> = BTreeMap<<M as HostManager>::Key, <M as HostManager>::Update>;

/// One host's desired state, as one stream sends it.
pub trait DesiredState<M: HostManager>: Send + 'static {
    /// What is to be sent for `updates`, in its order; with `snapshot`, also all that the host must be.
    fn collect(
        &mut self,
        snapshot: bool,
        updates: Updates<M>,
    ) -> impl Future<Output = Result<Vec<pb::DesiredObject>, NotYet<M>>> + Send;

    /// The number that the agent's start must have reached.
    fn start_floor(&self) -> i64 {
        0
    }

    /// Whether the agent must not start anything in this session.
    fn starts_withheld(&self) -> bool {
        false
    }

    /// The revision of the message that carries these objects, which [`Self::collect`] answered, in its order. They count as sent.
    fn number(&mut self, objects: &mut [pb::DesiredObject]) -> impl Future<Output = Result<i64, Problem>> + Send;
}

/// Desired state couldn't be read now; it stays pending.
pub struct NotYet<M: HostManager> {
    pub problem: Problem,
    pub updates: Updates<M>,
}

/// A report, and the stream it came by.
pub struct Incoming<M: HostManager> {
    pub stream: Arc<HostStream<M>>,
    pub report: pb::Report,
}

/// The acknowledgement of a report.
#[must_use]
pub fn ack_of(report: &pb::Report) -> pb::ReportAck {
    pb::ReportAck {
        kind: report.kind,
        id: report.id.clone(),
        start: report.start,
        counter: report.counter,
        forgotten: false,
    }
}
