//! The agent's one connection to its manager: the agent calls, nothing calls it.
//!
//! Desired state comes down, and is durable in the ledger before anything is done about it; observations go up, and are sent again until
//! they are acknowledged. The host doesn't need the connection: when it is gone, only knowledge gets old.
//!
//! Invariants:
//! - A delta is taken only on top of the revision before it; a gap requests a snapshot. Absence from a snapshot deletes nothing.
//! - Commands are taken in the order in which they come. Those that came while others were being written are written together.
//! - Nothing is reported before the manager has registered this host.
//! - On a full disk the session stays: the ledger takes what it has room for, and the rest is requested again until it is taken.
//! - A manager that was succeeded is left: nothing is taken of a term that is lower than the highest one that this agent was told.
//! - A manager that doesn't answer heartbeats is left, and found again with backoff.

use crate::{
    HostRecord, LedgerError, Observation, Outbox,
    term::{FormerLeader, HighestTerm},
};
use futures::FutureExt;
use proto::{
    agent::v1::OpenSession,
    sync::v1::{
        self as pb, agent_message::Message as Up, heartbeat::Statistics, host_sync_client::HostSyncClient,
        manager_message::Message as Down,
    },
};
use service_kit::{backoff::Backoff, peer};
use std::{
    convert::Infallible,
    error::Error,
    path::Path,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming, transport::Channel};

const HEARTBEAT: Duration = Duration::from_secs(1);
/// A manager that has sent nothing for so long is left.
const SILENCE: Duration = Duration::from_secs(10);
/// While the disk is full, what the ledger didn't take is requested again this often.
const ROOM_RETRY: Duration = Duration::from_secs(5);
/// A host that was removed tries again this rarely: it must join anew first.
const NOT_ADMITTED_RETRY: Duration = Duration::from_secs(15);
/// A session that lasted so long was a good one: after it, the manager is looked for without delay again. One that ends right after its
/// welcome is no better than none, and a host that tried again at once would do so for ever.
const STABLE: Duration = Duration::from_secs(10);
/// Messages to the manager that may wait.
const QUEUE: usize = 256;
/// Commands that are written to the ledger together.
const BATCH: usize = 512;

/// Why this host can't be described to its manager.
pub type HelloError = Box<dyn Error + Send + Sync>;

/// What a session needs of its agent.
pub trait Agent: Send + Sync + 'static {
    type Observation: Observation<Key: Send> + Send;
    /// What a session remembers from heartbeat to heartbeat.
    type Beats: Default + Send;
    /// As logs name it.
    const MANAGER: &'static str;

    /// Of the ledger.
    fn host(&self) -> HostRecord;
    /// Where the agent keeps what must survive a restart.
    fn state_dir(&self) -> &Path;
    fn outbox(&self) -> &Outbox<Self::Observation>;
    /// The manager has no such object any more, so a tombstone of it has done its work.
    fn forgotten(&self, _key: <Self::Observation as Observation>::Key) {}
    fn key_of(kind: i32, id: &str) -> Option<<Self::Observation as Observation>::Key>;
    /// Start and counter are the session's.
    fn report(&self, observation: Self::Observation) -> pb::Report;
    fn hello(&self) -> impl Future<Output = Result<pb::Hello, HelloError>> + Send;
    fn statistics(&self, beats: &mut Self::Beats) -> impl Future<Output = Statistics> + Send;

    /// Takes what is newer than what is held: durable when it returns, and done soon after.
    fn accept(
        &self,
        objects: Vec<pb::DesiredObject>,
        revision: i64,
        received_at: Instant,
    ) -> impl Future<Output = Result<(), LedgerError>> + Send;

    /// Raises the number of this start durably, because the manager has seen higher ones of a ledger that was given up.
    fn raise_start(&self, _floor: i64) -> impl Future<Output = Result<(), LedgerError>> + Send {
        std::future::ready(Ok(()))
    }

    /// A session has begun; `starts_withheld`: until another one says otherwise, nothing may be started.
    fn registered(&self, _starts_withheld: bool) {}

    /// The manager wants a heartbeat this often on a connection of its own ([`crate::liveness`]), milliseconds. 0: none.
    fn beats_requested(&self, _every_ms: u32) {}

    fn open_session(&self, _open: OpenSession) {}

    /// Resolves when what Hello said of this host is no longer true.
    fn changed(&self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
enum SessionEnd {
    #[error("it can't be reached")]
    Unreachable(#[source] Box<Status>),
    #[error("it closed the session")]
    Closed,
    #[error("it has not answered for {} s", SILENCE.as_secs())]
    Silent,
    #[error("it takes this host for {named}")]
    WrongHost { named: String },
    #[error("the ledger can't take what it sends")]
    Ledger(#[source] LedgerError),
    #[error("this host can't be described")]
    Hello(#[source] HelloError),
    #[error("what this host is has changed")]
    Changed,
    #[error(transparent)]
    Succeeded(FormerLeader),
}

/// Keeps a session with the manager until `shutdown`.
pub async fn follow_manager<A: Agent>(agent: Arc<A>, channel: Channel, shutdown: CancellationToken) {
    let client = HostSyncClient::new(channel)
        .max_decoding_message_size(proto::MESSAGE_BYTES_MAX)
        .max_encoding_message_size(proto::MESSAGE_BYTES_MAX);
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(3));
    let (mut logged, mut removed) = (false, false);
    let mut term = HighestTerm::open(agent.state_dir());
    loop {
        let began = Instant::now();
        let mut session =
            Session { agent: &*agent, term: &mut term, registered: false, last_seen: began, resync_at: None };
        let end = tokio::select! {
            end = session.run(client.clone()) => match end {
                Ok(never) => match never {},
                Err(end) => end,
            },
            () = shutdown.cancelled() => return,
        };
        metrics::counter!("iaas_agent_sessions_total").increment(1);
        let wait = match end {
            SessionEnd::Changed => continue,
            SessionEnd::Unreachable(status) if peer::says_not_admitted(&status) => {
                if !std::mem::replace(&mut removed, true) {
                    let reason = proto::status::from_status(&status);
                    tracing::error!(manager = A::MANAGER, %reason, "this host isn't part of the fleet; what it runs goes on, nothing is reported");
                }
                NOT_ADMITTED_RETRY
            }
            end @ (SessionEnd::Unreachable(_)
            | SessionEnd::Closed
            | SessionEnd::Silent
            | SessionEnd::WrongHost { .. }
            | SessionEnd::Ledger(_)
            | SessionEnd::Succeeded(_)
            | SessionEnd::Hello(_)) => {
                if session.registered && began.elapsed() >= STABLE {
                    backoff.reset();
                    (logged, removed) = (false, false);
                }
                // Once per outage; the next line about it is the reconnect.
                if !std::mem::replace(&mut logged, true) {
                    let error = &end as &dyn Error;
                    tracing::warn!(error, "not connected to the {}; what this host runs goes on", A::MANAGER);
                }
                backoff.next_delay()
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

struct Session<'a, A: Agent> {
    agent: &'a A,
    term: &'a mut HighestTerm,
    registered: bool,
    last_seen: Instant,
    /// When a snapshot is to be requested, because the ledger had no room for what came.
    resync_at: Option<Instant>,
}

impl<A: Agent> Session<'_, A> {
    async fn run(&mut self, mut client: HostSyncClient<Channel>) -> Result<Infallible, SessionEnd> {
        let hello = self.agent.hello().await.map_err(SessionEnd::Hello)?;
        let (up, queue) = mpsc::channel(QUEUE);
        send(&up, Up::Hello(hello)).await?;
        let mut down = match tokio::time::timeout(SILENCE, client.attach(ReceiverStream::new(queue))).await {
            Ok(Ok(response)) => response.into_inner(),
            Ok(Err(status)) => return Err(unreachable(status)),
            Err(_) => return Err(SessionEnd::Silent),
        };
        self.agent.outbox().start_session();
        self.last_seen = Instant::now();
        let mut heartbeat = tokio::time::interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let agent = self.agent;
        let mut changed = pin!(agent.changed());
        let mut beats = A::Beats::default();
        loop {
            tokio::select! {
                message = down.message() => {
                    let message = message.map_err(unreachable)?.ok_or(SessionEnd::Closed)?;
                    self.receive(message, &mut down, &up).await?;
                }
                () = self.agent.outbox().filled(), if self.registered => {}
                _ = heartbeat.tick() => {
                    if self.last_seen.elapsed() > SILENCE {
                        return Err(SessionEnd::Silent);
                    }
                    if self.registered {
                        let statistics = Some(self.agent.statistics(&mut beats).await);
                        send(&up, Up::Heartbeat(pb::Heartbeat { statistics })).await?;
                    }
                }
                () = &mut changed => return Err(SessionEnd::Changed),
                () = until(self.resync_at), if self.resync_at.is_some() => {
                    self.resync_at = None;
                    let reason = "the ledger had no room".to_owned();
                    send(&up, Up::Resync(pb::Resync { reason })).await?;
                }
            }
            if self.registered {
                self.send_reports(&up).await?;
            }
        }
    }

    async fn send_reports(&self, up: &mpsc::Sender<pb::AgentMessage>) -> Result<(), SessionEnd> {
        let start = self.agent.host().start;
        for numbered in self.agent.outbox().take_due(Instant::now()) {
            let report = self.agent.report(numbered.observation);
            send(up, Up::Report(pb::Report { start, counter: numbered.counter, ..report })).await?;
        }
        Ok(())
    }

    /// Takes one message, and with a command all the commands that are there already.
    async fn receive(
        &mut self,
        message: pb::ManagerMessage,
        down: &mut Streaming<pb::ManagerMessage>,
        up: &mpsc::Sender<pb::AgentMessage>,
    ) -> Result<(), SessionEnd> {
        self.last_seen = Instant::now();
        let received_at = self.last_seen;
        let mut commands = Commands { revision: self.agent.host().revision, batch: Vec::new(), gap: None };
        let mut next = Some(message);
        while let Some(message) = next.take() {
            match message.message {
                Some(Down::Snapshot(snapshot)) => {
                    self.take_term(snapshot.term).await?;
                    commands.take_snapshot(snapshot);
                }
                Some(Down::Delta(delta)) => {
                    self.take_term(delta.term).await?;
                    commands.take_delta(delta);
                }
                other => {
                    // In order: what came before it first.
                    self.accept(std::mem::take(&mut commands.batch), commands.revision, received_at).await?;
                    self.receive_other(other).await?;
                }
            }
            if commands.gap.is_none() && commands.batch.len() < BATCH {
                next = match down.message().now_or_never() {
                    Some(Ok(message)) => message,
                    // The loop meets the same end again.
                    Some(Err(status)) => return Err(unreachable(status)),
                    None => None,
                };
            }
        }
        let Commands { revision, batch, gap } = commands;
        self.accept(batch, revision, received_at).await?;
        // While there is no room every delta comes after a gap, and one request stands for all.
        if let Some(reason) = gap.filter(|_| self.resync_at.is_none()) {
            tracing::info!(manager = A::MANAGER, reason, "requesting a snapshot");
            send(up, Up::Resync(pb::Resync { reason })).await?;
        }
        Ok(())
    }

    async fn take_term(&mut self, term: i64) -> Result<(), SessionEnd> {
        self.term.take(term).await.map_err(SessionEnd::Succeeded)
    }

    /// Durable first, then done.
    async fn accept(&mut self, batch: Vec<pb::DesiredObject>, revision: i64, at: Instant) -> Result<(), SessionEnd> {
        if batch.is_empty() && revision == self.agent.host().revision {
            return Ok(());
        }
        match self.agent.accept(batch, revision, at).await {
            Err(error) if error.is_full() => {
                let error = &error as &dyn Error;
                tracing::warn!(
                    manager = A::MANAGER,
                    error,
                    "the ledger has no room; what it didn't take is requested again"
                );
                self.resync_at = Some(Instant::now() + ROOM_RETRY);
                Ok(())
            }
            result => result.map_err(SessionEnd::Ledger),
        }
    }

    async fn receive_other(&mut self, message: Option<Down>) -> Result<(), SessionEnd> {
        match message {
            Some(Down::Registered(registered)) => {
                let HostRecord { host_id, start, .. } = self.agent.host();
                if registered.host_id != host_id.to_string() {
                    return Err(SessionEnd::WrongHost { named: registered.host_id });
                }
                self.take_term(registered.term).await?;
                if start < registered.start_floor {
                    self.agent.raise_start(registered.start_floor).await.map_err(SessionEnd::Ledger)?;
                    return Err(SessionEnd::Changed);
                }
                tracing::info!(%host_id, start, "connected to the {}", A::MANAGER);
                self.agent.registered(registered.starts_withheld);
                self.agent.beats_requested(registered.beat_ms);
                self.registered = true;
            }
            Some(Down::ReportAck(ack)) => {
                if ack.forgotten
                    && let Some(key) = A::key_of(ack.kind, &ack.id)
                {
                    self.agent.forgotten(key);
                }
                // An acknowledgement of an earlier start's report is about another life.
                if ack.start == self.agent.host().start
                    && let Some(key) = A::key_of(ack.kind, &ack.id)
                {
                    self.agent.outbox().acknowledge(key, ack.counter);
                }
            }
            Some(Down::OpenSession(open)) => self.agent.open_session(open),
            // Anything but these is of a newer manager.
            Some(Down::HeartbeatAck(_) | Down::Snapshot(_) | Down::Delta(_)) | None => {}
        }
        Ok(())
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

fn unreachable(status: Status) -> SessionEnd {
    SessionEnd::Unreachable(Box::new(status))
}

async fn send(up: &mpsc::Sender<pb::AgentMessage>, message: Up) -> Result<(), SessionEnd> {
    match tokio::time::timeout(SILENCE, up.send(pb::AgentMessage { message: Some(message) })).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(SessionEnd::Closed),
        Err(_) => Err(SessionEnd::Silent),
    }
}

/// Commands that were received together. Pure.
struct Commands {
    revision: i64,
    batch: Vec<pb::DesiredObject>,
    gap: Option<String>,
}

impl Commands {
    fn take_snapshot(&mut self, snapshot: pb::Snapshot) {
        self.gap = None;
        self.batch.extend(snapshot.objects);
        self.revision = snapshot.revision;
    }

    fn take_delta(&mut self, delta: pb::Delta) {
        if delta.revision <= self.revision {
            // A repeat; what it says is in the ledger, and costs nothing to compare again.
            return self.batch.extend(delta.objects);
        }
        if delta.previous != self.revision {
            self.gap = Some(format!("a delta on top of {} came at {}", delta.previous, self.revision));
            return;
        }
        self.batch.extend(delta.objects);
        self.revision = delta.revision;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deltas_build_on_each_other_and_a_gap_is_seen() {
        let mut commands = Commands { revision: 5, batch: Vec::new(), gap: None };
        let delta = |previous, revision| pb::Delta { previous, revision, objects: vec![], ..Default::default() };
        commands.take_delta(delta(5, 6));
        commands.take_delta(delta(6, 9));
        assert_eq!((commands.revision, &commands.gap), (9, &None));
        commands.take_delta(delta(8, 9));
        assert_eq!((commands.revision, &commands.gap), (9, &None), "a repeat is no gap");
        commands.take_delta(delta(10, 11));
        assert!(commands.gap.is_some() && commands.revision == 9);
        commands.take_snapshot(pb::Snapshot { revision: 11, objects: vec![], ..Default::default() });
        assert_eq!((commands.revision, &commands.gap), (11, &None));
        // A manager restored from a backup may be behind: its snapshot counts.
        commands.take_snapshot(pb::Snapshot { revision: 3, objects: vec![], ..Default::default() });
        commands.take_delta(delta(3, 4));
        assert_eq!((commands.revision, &commands.gap), (4, &None));
    }
}
