//! What the agent says and takes in its session with the cluster-manager, which [`agent_kit::session`] keeps.

mod console;
pub mod inventory;
pub mod observation;
mod wire;

use crate::{
    adopt::Orphan,
    ledger::Accepted,
    reconcile::{Reconciler, context::Context},
};
use agent_kit::{Agent, HelloError, HostRecord, LedgerError, Outbox};
use domain::InstanceId;
use observation::Observation;
use proto::{
    agent::v1::{OpenSession, console_relay_client::ConsoleRelayClient},
    sync::v1::{self as pb, heartbeat::Statistics},
};
use service_kit::error_chain;
use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::watch;
use tonic::transport::Channel;

/// While QEMU is missing, it is looked for this often.
const LOOK_FOR_QEMU: Duration = Duration::from_secs(15);

pub struct ComputeAgent {
    context: Arc<Context>,
    reconciler: Arc<Reconciler>,
    orphans: Vec<Orphan>,
    consoles: ConsoleRelayClient<Channel>,
    /// The manager knows this host as one that can run no instances.
    without_qemu: AtomicBool,
    /// How often the manager wants heartbeats on a connection of their own, milliseconds. 0: not at all.
    beat_ms: watch::Sender<u32>,
}

impl ComputeAgent {
    #[must_use]
    pub fn new(context: Arc<Context>, reconciler: Arc<Reconciler>, orphans: Vec<Orphan>, manager: Channel) -> Self {
        let consoles = ConsoleRelayClient::new(manager)
            .max_decoding_message_size(proto::MESSAGE_BYTES_MAX)
            .max_encoding_message_size(proto::MESSAGE_BYTES_MAX);
        Self {
            context,
            reconciler,
            orphans,
            consoles,
            without_qemu: AtomicBool::default(),
            beat_ms: watch::Sender::new(0),
        }
    }

    #[must_use]
    pub fn requested_beats(&self) -> watch::Receiver<u32> {
        self.beat_ms.subscribe()
    }
}

impl Agent for ComputeAgent {
    type Observation = Observation;
    type Beats = ();
    const MANAGER: &'static str = "cluster-manager";

    fn host(&self) -> HostRecord {
        self.context.ledger.host()
    }

    fn state_dir(&self) -> &Path {
        &self.context.config.state_dir
    }

    fn outbox(&self) -> &Outbox<Observation> {
        &self.context.outbox
    }

    fn forgotten(&self, instance_id: InstanceId) {
        self.context.ledger.release_tombstone(instance_id);
    }

    fn key_of(kind: i32, id: &str) -> Option<InstanceId> {
        if kind == i32::from(pb::ObjectKind::Instance) { id.parse().ok() } else { None }
    }

    fn report(&self, observation: Observation) -> pb::Report {
        wire::report_to_pb(observation)
    }

    async fn hello(&self) -> Result<pb::Hello, HelloError> {
        let hypervisor = self.context.hypervisor().await.map_err(|error| error_chain(&error));
        self.without_qemu.store(hypervisor.is_err(), Ordering::Relaxed);
        if let Err(reason) = &hypervisor {
            tracing::error!(reason, "this host can run no instances");
        }
        let hypervisor = hypervisor.as_deref().map_err(Clone::clone);
        Ok(inventory::hello(&self.context, hypervisor, &self.orphans)?)
    }

    async fn statistics(&self, (): &mut ()) -> Statistics {
        Statistics::Compute(inventory::statistics(&self.context))
    }

    async fn accept(
        &self,
        objects: Vec<pb::DesiredObject>,
        revision: i64,
        received_at: Instant,
    ) -> Result<(), LedgerError> {
        let mut commands = Vec::with_capacity(objects.len());
        let mut not_understood = Vec::new();
        for object in objects {
            let (id, version) = (object.id.clone(), wire::version_of(&object));
            match wire::desired_from_pb(object) {
                Ok(desired) => commands.push(desired),
                // One that isn't understood harms no other.
                Err(error) => {
                    tracing::error!(instance_id = id, epoch = version.epoch, generation = version.generation, %error,
                        "a command isn't understood; its instance stays as it was");
                    metrics::counter!("iaas_commands_not_understood_total").increment(1);
                    not_understood.extend(id.parse().map(|id| Observation::not_understood(id, version, &error)));
                }
            }
        }
        // What isn't understood never will be by this agent, so it doesn't keep the revision back.
        let Accepted { outcomes, left_out } = self.context.ledger.accept(commands, revision).await?;
        self.reconciler.changed(&outcomes, received_at);
        for observation in not_understood {
            // A command that is older than what is held is none that anybody waits for.
            let held = self.context.ledger.held(observation.instance_id);
            if held.is_none_or(|held| held.version() < observation.version) {
                self.context.post(observation);
            }
        }
        if left_out.is_empty() {
            return Ok(());
        }
        for (instance_id, version) in left_out {
            self.context.post(Observation::no_room(instance_id, version));
        }
        Err(self.context.ledger.full())
    }

    async fn raise_start(&self, floor: i64) -> Result<(), LedgerError> {
        self.context.ledger.raise_start(floor).await
    }

    fn registered(&self, starts_withheld: bool) {
        if starts_withheld {
            tracing::warn!(
                "this host was declared lost: it starts nothing until it has stopped what was taken from it"
            );
        }
        if self.context.starts_permit.set(!starts_withheld) {
            self.reconciler.wake_all();
        }
    }

    fn beats_requested(&self, every_ms: u32) {
        self.beat_ms.send_if_modified(|now| std::mem::replace(now, every_ms) != every_ms);
    }

    fn open_session(&self, open: OpenSession) {
        self.context.tasks.spawn(console::serve(Arc::clone(&self.context), self.consoles.clone(), open));
    }

    /// QEMU may be installed while the agent runs.
    async fn changed(&self) {
        if !self.without_qemu.load(Ordering::Relaxed) {
            return std::future::pending().await;
        }
        loop {
            tokio::time::sleep(LOOK_FOR_QEMU).await;
            if self.context.hypervisor().await.is_ok() {
                return;
            }
        }
    }
}
