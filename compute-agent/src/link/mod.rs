//! The agent's one connection to the cluster-manager: it calls, nothing calls it.
//!
//! Desired state comes down, and is durable in the ledger before anything is done about it; observations go up, and are sent again
//! until they are acknowledged. The host doesn't need the connection: when it is gone, only knowledge gets old.
//!
//! Invariants:
//! - A delta is taken only on top of the revision before it; a gap asks for a snapshot. Absence from a snapshot deletes nothing.
//! - Commands are taken in the order they come. Those that came while others were being written are written together.
//! - A manager that doesn't answer heartbeats is left, and found again with backoff.

mod console;
pub mod inventory;
pub mod observation;
mod wire;

use crate::{
    adopt::Orphan,
    chain::chain,
    ledger::{Desired, LedgerError},
    reconcile::{Reconciler, context::Context},
};
use futures::FutureExt;
use proto::agent::v1::{
    self as pb, agent_link_client::AgentLinkClient, agent_message::Message as Up, manager_message::Message as Down,
};
use service_kit::{backoff::Backoff, peer};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, transport::Channel};

const HEARTBEAT: Duration = Duration::from_secs(1);
/// A manager that has said nothing for so long is left.
const SILENCE: Duration = Duration::from_secs(10);
/// A host that was removed asks again this rarely: it must join anew first.
const NOT_ADMITTED_RETRY: Duration = Duration::from_secs(15);
/// While QEMU is missing, it is looked for this often.
const LOOK_FOR_QEMU: Duration = Duration::from_secs(15);
/// Messages to the manager that may wait.
const QUEUE: usize = 256;
/// Commands that are written to the ledger together.
const BATCH: usize = 512;

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
enum SessionEnd {
    #[error("the cluster-manager can't be reached")]
    Unreachable(#[source] tonic::Status),
    #[error("the cluster-manager closed the session")]
    Closed,
    #[error("the cluster-manager has not answered for {} s", SILENCE.as_secs())]
    Silent,
    #[error("the cluster-manager takes this host for {named}")]
    WrongHost { named: String },
    #[error("the ledger can't take what the manager says")]
    Ledger(#[source] LedgerError),
    #[error(transparent)]
    Inventory(inventory::InventoryError),
    #[error("QEMU came to be there: the host is described anew")]
    Described,
    #[error("the agent shuts down")]
    Shutdown,
}

pub struct Link {
    pub context: Arc<Context>,
    pub reconciler: Arc<Reconciler>,
    pub orphans: Vec<Orphan>,
    pub manager: Channel,
}

impl Link {
    /// Runs until the agent shuts down.
    pub async fn run(self) {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(3));
        let client = AgentLinkClient::new(self.manager.clone())
            .max_decoding_message_size(proto::MESSAGE_BYTES_MAX)
            .max_encoding_message_size(proto::MESSAGE_BYTES_MAX);
        let (mut told, mut removed) = (false, false);
        loop {
            let mut welcomed = false;
            let end = Session { link: &self, client: client.clone() }.run(&mut welcomed).await;
            metrics::counter!("iaas_agent_sessions_total").increment(1);
            let wait = match end {
                SessionEnd::Shutdown => return,
                SessionEnd::Described => continue,
                SessionEnd::Unreachable(status) if peer::says_not_admitted(&status) => {
                    if !std::mem::replace(&mut removed, true) {
                        let reason = proto::status::from_status(&status);
                        tracing::error!(%reason, "this host isn't part of the fleet; instances go on, nothing is reported");
                    }
                    NOT_ADMITTED_RETRY
                }
                error => {
                    if welcomed {
                        backoff.reset();
                        (told, removed) = (false, false);
                    }
                    // Once per outage; the next line about it is the reconnect.
                    if !std::mem::replace(&mut told, true) {
                        tracing::warn!(error = chain(&error), "not connected to the cluster-manager; instances go on");
                    }
                    backoff.next_delay()
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.context.shutdown.cancelled() => return,
            }
        }
    }
}

struct Session<'a> {
    link: &'a Link,
    client: AgentLinkClient<Channel>,
}

impl Session<'_> {
    async fn run(mut self, welcomed: &mut bool) -> SessionEnd {
        let shutdown = self.link.context.shutdown.clone();
        tokio::select! {
            end = self.talk(welcomed) => match end {
                Ok(never) => match never {},
                Err(end) => end,
            },
            () = shutdown.cancelled() => SessionEnd::Shutdown,
        }
    }

    async fn talk(&mut self, welcomed: &mut bool) -> Result<std::convert::Infallible, SessionEnd> {
        let context = &self.link.context;
        let hypervisor = context.hypervisor().await.map_err(|error| chain(&error));
        let without_qemu = hypervisor.is_err();
        if let Err(reason) = &hypervisor {
            tracing::error!(reason, "this host can run no instances");
        }
        let hypervisor = hypervisor.as_deref().map_err(Clone::clone);
        let hello = inventory::hello(context, hypervisor, &self.link.orphans).map_err(SessionEnd::Inventory)?;
        let (up, queue) = mpsc::channel(QUEUE);
        let say = |message: Up| pb::AgentMessage { message: Some(message) };
        // The queue is empty and its end is held here.
        let _ = up.try_send(say(Up::Hello(hello)));
        let connect = self.client.attach(ReceiverStream::new(queue));
        let mut down = match tokio::time::timeout(SILENCE, connect).await {
            Ok(Ok(response)) => response.into_inner(),
            Ok(Err(status)) => return Err(SessionEnd::Unreachable(status)),
            Err(_) => return Err(SessionEnd::Silent),
        };
        context.outbox.start_session();
        let mut heartbeat = tokio::time::interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut look_for_qemu = tokio::time::interval(LOOK_FOR_QEMU);
        look_for_qemu.reset();
        let mut heard = Instant::now();
        loop {
            tokio::select! {
                message = down.message() => {
                    heard = Instant::now();
                    let message = message.map_err(SessionEnd::Unreachable)?.ok_or(SessionEnd::Closed)?;
                    self.hear(message, &mut down, &up, welcomed).await?;
                }
                () = context.outbox.filled(), if *welcomed => {}
                _ = heartbeat.tick() => {
                    if heard.elapsed() > SILENCE {
                        return Err(SessionEnd::Silent);
                    }
                    if *welcomed {
                        post(&up, say(Up::Heartbeat(inventory::heartbeat(context)))).await?;
                    }
                }
                _ = look_for_qemu.tick(), if without_qemu => {
                    if context.hypervisor().await.is_ok() {
                        return Err(SessionEnd::Described);
                    }
                }
            }
            if *welcomed {
                for report in context.outbox.take_due(Instant::now()) {
                    post(&up, say(Up::Report(wire::report_to_pb(&report, context.ledger.host().start)))).await?;
                }
            }
        }
    }

    /// Takes one message, and with a command all the commands that are there already.
    async fn hear(
        &self,
        message: pb::ManagerMessage,
        down: &mut Streaming<pb::ManagerMessage>,
        up: &mpsc::Sender<pb::AgentMessage>,
        welcomed: &mut bool,
    ) -> Result<(), SessionEnd> {
        let received_at = Instant::now();
        let mut commands =
            Commands { revision: self.link.context.ledger.host().revision, batch: Vec::new(), gap: None };
        let mut next = Some(message);
        while let Some(message) = next.take() {
            match message.message {
                Some(Down::Snapshot(snapshot)) => commands.snapshot(snapshot),
                Some(Down::Delta(delta)) => commands.delta(delta),
                other => {
                    // In order: what came before it first.
                    self.take(std::mem::take(&mut commands.batch), commands.revision, received_at).await?;
                    self.hear_other(other, welcomed)?;
                }
            }
            if commands.gap.is_none() && commands.batch.len() < BATCH {
                next = match down.message().now_or_never() {
                    Some(Ok(message)) => message,
                    // The loop meets the same end again.
                    Some(Err(status)) => return Err(SessionEnd::Unreachable(status)),
                    None => None,
                };
            }
        }
        let Commands { revision, batch, gap } = commands;
        self.take(batch, revision, received_at).await?;
        if let Some(reason) = gap {
            tracing::info!(reason, "asking for a snapshot");
            post(up, pb::AgentMessage { message: Some(Up::Resync(pb::Resync { reason })) }).await?;
        }
        Ok(())
    }

    /// Durable first, then done.
    async fn take(&self, batch: Vec<Desired>, revision: i64, received_at: Instant) -> Result<(), SessionEnd> {
        let ledger = &self.link.context.ledger;
        if batch.is_empty() && revision == ledger.host().revision {
            return Ok(());
        }
        let outcomes = ledger.accept(batch, revision).await.map_err(SessionEnd::Ledger)?;
        self.link.reconciler.changed(&outcomes, received_at);
        Ok(())
    }

    fn hear_other(&self, message: Option<Down>, welcomed: &mut bool) -> Result<(), SessionEnd> {
        let context = &self.link.context;
        match message {
            Some(Down::Welcome(welcome)) => {
                if welcome.host_id != context.ledger.host_id().to_string() {
                    return Err(SessionEnd::WrongHost { named: welcome.host_id });
                }
                tracing::info!(
                    host_id = welcome.host_id,
                    start = context.ledger.host().start,
                    "connected to the cluster-manager"
                );
                *welcomed = true;
            }
            Some(Down::ReportAck(ack)) => {
                // Of an earlier start of the agent: that report is of another life.
                if ack.start == context.ledger.host().start
                    && let Ok(instance_id) = ack.instance_id.parse()
                {
                    context.outbox.acknowledge(instance_id, ack.counter);
                }
            }
            Some(Down::OpenSession(open)) => {
                context.tasks.spawn(console::serve(Arc::clone(context), self.client.clone(), open));
            }
            // Anything but these is of a newer manager.
            Some(Down::HeartbeatAck(_) | Down::Snapshot(_) | Down::Delta(_)) | None => {}
        }
        Ok(())
    }
}

/// Commands that were received together. Pure.
struct Commands {
    revision: i64,
    batch: Vec<Desired>,
    gap: Option<String>,
}

impl Commands {
    fn snapshot(&mut self, snapshot: pb::Snapshot) {
        self.gap = None;
        self.add(snapshot.instances);
        self.revision = snapshot.revision;
    }

    fn delta(&mut self, delta: pb::Delta) {
        if delta.revision <= self.revision {
            // A repeat; what it says is in the ledger, and costs nothing to look at again.
            return self.add(delta.instances);
        }
        if delta.previous != self.revision {
            self.gap = Some(format!("a delta on top of {} came at {}", delta.previous, self.revision));
            return;
        }
        self.add(delta.instances);
        self.revision = delta.revision;
    }

    fn add(&mut self, instances: Vec<pb::DesiredInstance>) {
        for instance in instances {
            let instance_id = instance.instance_id.clone();
            match wire::desired_from_pb(instance) {
                Ok(desired) => self.batch.push(desired),
                // One that isn't understood harms no other.
                Err(error) => tracing::error!(instance_id, %error, "a command isn't understood and is left alone"),
            }
        }
    }
}

async fn post(up: &mpsc::Sender<pb::AgentMessage>, message: pb::AgentMessage) -> Result<(), SessionEnd> {
    match tokio::time::timeout(SILENCE, up.send(message)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(SessionEnd::Closed),
        Err(_) => Err(SessionEnd::Silent),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deltas_build_on_each_other_and_a_gap_is_seen() {
        let mut commands = Commands { revision: 5, batch: Vec::new(), gap: None };
        let delta = |previous, revision| pb::Delta { previous, revision, instances: vec![] };
        commands.delta(delta(5, 6));
        commands.delta(delta(6, 9));
        assert_eq!((commands.revision, &commands.gap), (9, &None));
        commands.delta(delta(8, 9));
        assert_eq!((commands.revision, &commands.gap), (9, &None), "a repeat is no gap");
        commands.delta(delta(10, 11));
        assert!(commands.gap.is_some() && commands.revision == 9);
        commands.snapshot(pb::Snapshot { revision: 11, instances: vec![] });
        assert_eq!((commands.revision, &commands.gap), (11, &None));
        // A manager restored from a backup may be behind: its snapshot counts.
        commands.snapshot(pb::Snapshot { revision: 3, instances: vec![] });
        commands.delta(delta(3, 4));
        assert_eq!((commands.revision, &commands.gap), (4, &None));
    }
}
