//! One simulated host: its agent's process, which connects, takes commands, does them to the ledger and reports; and from outside, the
//! hands that crash it, cut its network or end one of its instances.

use crate::{
    fault::FaultPlan,
    ledger::{Ledger, Machine, instance_of},
    process::supervise,
    world::World,
};
use domain::{
    HostId, InstanceId, Timestamp,
    flavor::Size,
    host::{HostFacts, MemoryOverhead},
};
use parking_lot::{Mutex, MutexGuard};
use proto::{agent::v1::ComputeHost, convert::size_to_pb, sync::v1 as pb};
use service_kit::transport::{GrpcTarget, TransportError};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};
use tonic::transport::Channel;

#[derive(Debug, Clone)]
pub struct SimConfig {
    pub host_id: HostId,
    pub name: String,
    pub zone: String,
    /// Hardware threads, MiB and GiB.
    pub capacity: Size,
    pub cpu_overcommit_permille: u32,
    pub overhead: MemoryOverhead,
    pub facts: HostFacts,
    pub plan: FaultPlan,
    /// Whether a start is reported when it begins, or only when it is done.
    pub report_building: bool,
    /// A host that ignores commands: it is connected and sends heartbeats, but does nothing.
    pub deaf: bool,
}

impl SimConfig {
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self {
            host_id: HostId::new(),
            name: name.to_owned(),
            zone: "default".to_owned(),
            capacity: Size { vcpus: 16, memory_mib: 32 * 1024, disk_gib: 1000 },
            cpu_overcommit_permille: 1000,
            overhead: MemoryOverhead { fixed_mib: 64, per_vcpu_mib: 4, per_gib_mib: 8 },
            facts: HostFacts {
                cpu_model: "simulated".to_owned(),
                architecture: "x86_64".to_owned(),
                accelerator: "sim".to_owned(),
                agent_version: env!("CARGO_PKG_VERSION").to_owned(),
                ..HostFacts::default()
            },
            plan: FaultPlan::none(),
            report_building: true,
            deaf: false,
        }
    }

    /// What the agent says of its machine.
    #[must_use]
    pub fn description(&self) -> ComputeHost {
        let facts = HostFacts { threads: self.capacity.vcpus, ..self.facts.clone() };
        ComputeHost {
            zone: self.zone.clone(),
            capacity: Some(size_to_pb(self.capacity)),
            cpu_overcommit_permille: self.cpu_overcommit_permille,
            facts_json: serde_json::to_string(&facts).unwrap_or_default(),
            overhead_fixed_mib: self.overhead.fixed_mib,
            overhead_per_vcpu_mib: self.overhead.per_vcpu_mib,
            overhead_per_gib_mib: self.overhead.per_gib_mib,
            disk_full: false,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Up,
    /// The agent's process is dead; what runs goes on.
    Crashed,
    /// The process lives without a network.
    Cut,
    Stopped,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Status {
    pub connected: bool,
}

pub(crate) struct Shared {
    pub config: SimConfig,
    pub world: World,
    ledger: Mutex<Ledger>,
    plan: Mutex<FaultPlan>,
    pub deaf: AtomicBool,
    pub disk_full: AtomicBool,
    pub phase: watch::Sender<Phase>,
    pub status: watch::Sender<Status>,
}

impl Shared {
    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock()
    }

    pub fn plan(&self) -> MutexGuard<'_, FaultPlan> {
        self.plan.lock()
    }
}

/// What a host keeps on its disk.
pub struct Directory(Ledger);

pub struct SimHost {
    shared: Arc<Shared>,
    ended: mpsc::UnboundedSender<InstanceId>,
    task: JoinHandle<()>,
}

impl SimHost {
    /// A host with a connection and a world of its own.
    pub fn start(target: &GrpcTarget, config: SimConfig) -> Result<Self, TransportError> {
        Ok(Self::start_on(target.channel()?, config, World::default()))
    }

    #[must_use]
    pub fn start_on(channel: Channel, config: SimConfig, world: World) -> Self {
        let (ended, ended_rx) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            plan: Mutex::new(config.plan.clone()),
            deaf: AtomicBool::new(config.deaf),
            disk_full: AtomicBool::default(),
            config,
            world,
            ledger: Mutex::default(),
            phase: watch::Sender::new(Phase::Up),
            status: watch::Sender::new(Status::default()),
        });
        let task = tokio::spawn(supervise(Arc::clone(&shared), channel, ended_rx));
        Self { shared, ended, task }
    }

    #[must_use]
    pub fn id(&self) -> HostId {
        self.shared.config.host_id
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.config.name
    }

    /// The instances that run here now.
    #[must_use]
    pub fn machines(&self) -> BTreeMap<InstanceId, Machine> {
        self.shared.ledger().machines.clone()
    }

    /// What the ledger holds beside tombstones: (epoch, generation).
    #[must_use]
    pub fn held(&self) -> BTreeMap<InstanceId, (i64, i64)> {
        let ledger = self.shared.ledger();
        let alive = ledger.entries.iter().filter(|(_, e)| !e.tombstone);
        alive.map(|(id, e)| (*id, (e.desired.epoch, e.desired.generation))).collect()
    }

    /// Whether the manager said that it needs no tombstone of the instance.
    #[must_use]
    pub fn forgotten(&self, id: InstanceId) -> bool {
        self.shared.ledger().forgotten.contains(&id)
    }

    /// What the ledger holds of an instance, as it was delivered last.
    #[must_use]
    pub fn desired(&self, id: InstanceId) -> Option<pb::DesiredObject> {
        self.shared.ledger().entries.get(&id).map(|entry| entry.desired.clone())
    }

    /// The size that a delivered disk of the instance has, GiB.
    #[must_use]
    pub fn disk_gib(&self, id: InstanceId) -> Option<u64> {
        instance_of(&self.shared.ledger().entries.get(&id)?.desired)?.disks.first().map(|d| d.size_gib)
    }

    /// Puts something into the ledger that no manager gave: an instance of a lost database.
    pub fn plant(&self, id: InstanceId, desired: pb::DesiredObject) {
        let mut ledger = self.shared.ledger();
        ledger.take(id, desired);
        ledger.settle(id, self.id(), &self.shared.world, Timestamp::now());
    }

    /// Replaces the plan of faults; [`FaultPlan::none`] ends them.
    pub fn set_plan(&self, plan: FaultPlan) {
        *self.shared.plan() = plan;
    }

    /// From now on it ignores commands, or obeys them again.
    pub fn set_deaf(&self, deaf: bool) {
        self.shared.deaf.store(deaf, Ordering::Relaxed);
    }

    /// From now on its disk is full, or has room again.
    pub fn set_disk_full(&self, full: bool) {
        self.shared.disk_full.store(full, Ordering::Relaxed);
    }

    /// The directory of its ledger and disks isn't there any more, as after a boot that didn't mount it; what ran there is gone. What was
    /// lost is answered, for [`Self::mount`]. The agent must be down.
    #[must_use]
    pub fn lose_directory(&self) -> Directory {
        let lost = std::mem::take(&mut *self.shared.ledger());
        for id in lost.machines.keys() {
            self.shared.world.stops(*id, self.id());
        }
        Directory(Ledger { machines: BTreeMap::new(), ..lost })
    }

    /// A copy of the directory as it is now.
    #[must_use]
    pub fn copy_directory(&self) -> Directory {
        Directory(Ledger { machines: BTreeMap::new(), ..self.shared.ledger().clone() })
    }

    /// This directory is there again, instead of the present one.
    pub fn mount(&self, directory: Directory) {
        drop(self.lose_directory());
        *self.shared.ledger() = directory.0;
    }

    /// `kill -9` of the agent; it stays down until [`Self::restart`].
    pub async fn crash(&self) {
        self.shared.phase.send_replace(Phase::Crashed);
        self.disconnected().await;
    }

    /// The machine loses power: what runs there ends, and its agent with it. It stays down until [`Self::restart`], which boots it: its agent starts
    /// what its ledger holds as soon as a manager lets it.
    pub async fn lose_power(&self) {
        self.crash().await;
        self.shared.ledger().lose_power(self.id(), &self.shared.world);
    }

    pub fn restart(&self) {
        self.shared.phase.send_replace(Phase::Up);
    }

    /// The network is gone until [`Self::restart`]; the agent lives.
    pub async fn cut(&self) {
        self.shared.phase.send_replace(Phase::Cut);
        self.disconnected().await;
    }

    /// An instance's QEMU ends unexpectedly.
    pub fn end_machine(&self, id: InstanceId) {
        // The task lives until the host is stopped.
        let _ = self.ended.send(id);
    }

    pub async fn connected(&self) {
        // The sender is ours: it can't be gone.
        let _ = self.shared.status.subscribe().wait_for(|s| s.connected).await;
    }

    pub async fn disconnected(&self) {
        let _ = self.shared.status.subscribe().wait_for(|s| !s.connected).await;
    }

    #[must_use]
    pub fn world(&self) -> &World {
        &self.shared.world
    }

    pub async fn stop(self) {
        self.shared.phase.send_replace(Phase::Stopped);
        if let Err(error) = self.task.await {
            tracing::error!(%error, "a simulated host died");
        }
    }
}
