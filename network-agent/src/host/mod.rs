//! The host's share of all networks: its desired state ([`Host::accept`]), which ports are acquired ([`Host::acquire`],
//! [`Host::release`]), and the loop that makes it so ([`reconcile`]).
//!
//! Level-triggered: a change only marks its networks, and the loop brings each marked network from whatever it is to the
//! state that is desired then. Whoever must know that a change is in the kernel waits for the round that began after it.

pub mod disturbance;
mod drift;
mod firewall;
mod flows;
pub mod reconcile;
mod recovery;
pub mod signal;
pub mod tracked;
mod underlay;

use crate::{
    config::Config,
    ledger::{Accepted, Decision, Ledger, LedgerError, Outcome},
    link::{
        netns::{self, NetnsError, Worker},
        observe, tap,
        watch::Changed,
    },
    model::{
        DesiredState, names,
        object::{Binding, Desired, Key, Object, Version},
        state::HostFacts,
    },
    observation::Observation,
    service::budget::Budget,
};
use agent_kit::Outbox;
use disturbance::Disturbances;
use domain::{
    InstanceId, NetworkId, PortId,
    network::{Cidr, MacAddr},
};
use parking_lot::{Mutex, MutexGuard};
use proto::{network::v1::ObjectState, port_socket::RefusedReason, sync::v1::DesiredObject};
use recovery::Recovery;
use signal::Signal;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::watch;
use tracked::TrackedState;
use underlay::Underlay;

/// Between two tries to open a tap that another still holds.
const HELD_TAP_PAUSE: Duration = Duration::from_millis(20);

#[derive(Debug, thiserror::Error)]
pub enum HostError {
    #[error("the ledger failed")]
    Ledger(#[from] LedgerError),
    #[error("the host's namespaces can't be used")]
    Netns(#[from] NetnsError),
    #[error("the namespaces in {dir} can't be listed")]
    List {
        dir: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

/// A port that its instance has acquired.
#[derive(Debug)]
pub struct Acquired {
    /// None with ports that are wired as veths.
    pub tap: Option<OwnedFd>,
    pub mac: MacAddr,
    pub mtu: u32,
}

/// Why a port isn't.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub reason: RefusedReason,
    pub detail: String,
}

impl Refusal {
    fn new(reason: RefusedReason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }
}

pub struct Host {
    pub config: Config,
    /// Threads of networks' namespaces, for opening taps. They end before the ledger is free for the next agent, which would meet
    /// their last changes.
    workers: Mutex<BTreeMap<NetworkId, Arc<Worker>>>,
    /// The thread of the host's own namespace.
    pub worker: Worker,
    underlay: Underlay,
    /// What others changed of ours.
    pub disturbances: Disturbances,
    /// What the kernel told of each namespace since its last round.
    changed_by_others: Mutex<BTreeMap<NetworkId, Changed>>,
    /// Networks that wait until a ledger that was lost knows them again.
    recovery: Recovery,
    /// What services may open for instances.
    pub budget: Arc<Budget>,
    pub ledger: Ledger,
    pub outbox: Outbox<Observation>,
    pub signal: Signal,
    tracked: Mutex<TrackedState>,
    /// The host's addresses, which no instance may reach. Whoever waits is told when they are others.
    own: watch::Sender<BTreeSet<IpAddr>>,
    /// What no instance of this host may reach: made anew when what it follows from changes, since every round needs it.
    protected: Mutex<Arc<BTreeSet<Cidr>>>,
    /// The addresses that the manager was told of.
    reported_addresses: Mutex<BTreeSet<IpAddr>>,
    /// When each version was received of, until it is programmed.
    received: Mutex<BTreeMap<Key, (Version, Instant)>>,
    /// One batch of the manager at a time.
    accepting: tokio::sync::Mutex<()>,
    /// Deletions that aren't reported yet: what they touch, and the round they are done with.
    pending_deletions: Mutex<Vec<PendingDeletion>>,
}

#[derive(Debug)]
struct PendingDeletion {
    key: Key,
    version: Version,
    networks: BTreeSet<NetworkId>,
    round: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock()
}

impl Host {
    /// Opens the ledger and marks all it holds to be made so. Blocking.
    pub fn open(config: Config, worker: Worker) -> Result<Self, HostError> {
        let ledger = Ledger::open(&config.state_dir, config.host_id)?;
        let mut desired_state = DesiredState::default();
        let mut marked = BTreeSet::new();
        for (key, record) in ledger.all() {
            let parsed = match Desired::parse(&record.desired) {
                Ok(parsed) => parsed,
                Err(error) => {
                    tracing::error!(?key, %error, "an object of the ledger is kept, but can't be acted on");
                    continue;
                }
            };
            let Some(object) = parsed.object else {
                // What a crash left of it is removed.
                if let Key::Network(id) = key {
                    marked.insert(id);
                }
                continue;
            };
            if let Object::Port(port) = &object
                && record.acquired_epoch == parsed.version.epoch
                && record.acquired_epoch != 0
            {
                desired_state.acquired.insert(port.id);
            }
            desired_state.versions.insert(key, parsed.version);
            marked.extend(desired_state.put(object));
        }
        if config.netns_dir == Path::new(netns::SYSTEM_DIR)
            && let Err(error) = netns::prepare_dir(&config.netns_dir)
        {
            tracing::warn!(%error, "the directory of namespaces can't be made a mount of its own");
        }
        // No round may begin without them.
        let own = worker.run_blocking(|inside| observe::own_addresses(&mut inside.netlink))?;
        let own =
            own.inspect_err(|error| tracing::warn!(%error, "the host's addresses can't be read")).unwrap_or_default();
        let host = Self {
            underlay: Underlay::new(&worker)?,
            budget: Arc::default(),
            recovery: Recovery::find(ledger.loss(), &config.netns_dir, &config.prefix),
            disturbances: Disturbances::default(),
            changed_by_others: Mutex::default(),
            config,
            ledger,
            worker,
            outbox: Outbox::default(),
            signal: Signal::default(),
            tracked: Mutex::new(TrackedState::new(desired_state)),
            own: watch::Sender::new(own),
            protected: Mutex::default(),
            reported_addresses: Mutex::default(),
            received: Mutex::default(),
            accepting: tokio::sync::Mutex::default(),
            pending_deletions: Mutex::default(),
            workers: Mutex::default(),
        };
        host.refresh_protected();
        host.signal.mark(marked);
        Ok(host)
    }

    /// Reads which addresses the host has by now; the next rounds use them. True if they are others than before.
    async fn refresh_own_addresses(&self) -> bool {
        match self.worker.run(|inside| observe::own_addresses(&mut inside.netlink)).await {
            Ok(Ok(own)) => {
                let changed = self.own.send_if_modified(|before| std::mem::replace(before, own.clone()) != own);
                if changed {
                    self.refresh_protected();
                }
                return changed;
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "the host's addresses can't be read: those known before stay protected");
            }
            Err(error) => tracing::warn!(%error, "the host's addresses can't be read"),
        }
        false
    }

    fn facts(&self) -> HostFacts {
        self.config.facts(Arc::clone(&lock(&self.protected)))
    }

    /// Of the desired state and the host's addresses as they are now.
    fn refresh_protected(&self) {
        // Two at once would else leave what the slower one saw.
        let mut protected = lock(&self.protected);
        let fresh = self.config.protected_with(&self.own.borrow(), self.desired_state().protected());
        if **protected != fresh {
            *protected = Arc::new(fresh);
        }
    }

    /// The host's addresses, which the manager is told now.
    pub(crate) fn tell_addresses(&self) -> BTreeSet<IpAddr> {
        let own = self.own.borrow().clone();
        own.clone_into(&mut lock(&self.reported_addresses));
        own
    }

    /// Resolves when the host has other addresses than the manager was told.
    pub(crate) async fn addresses_changed(&self) {
        let reported = lock(&self.reported_addresses).clone();
        // The sender lives as long as the host.
        let _ = self.own.subscribe().wait_for(|own| *own != reported).await;
    }

    /// The desired state as it is now.
    #[must_use]
    pub fn desired_state(&self) -> Arc<DesiredState> {
        Arc::clone(lock(&self.tracked).desired_state())
    }

    /// Makes the manager's commands durable and marks the networks that they affect. What can't be understood is reported as an error and not taken.
    pub async fn accept(&self, commands: Vec<DesiredObject>, revision: i64) -> Result<(), LedgerError> {
        let _one = self.accepting.lock().await;
        let now = Instant::now();
        let mut parsed = Vec::with_capacity(commands.len());
        for command in commands {
            match Desired::parse(&command) {
                Ok(desired) => parsed.push((command, desired)),
                Err(error) => {
                    tracing::error!(id = command.id, %error, "a command was not understood");
                    if let Ok(key) = Key::parse(command.kind, &command.id) {
                        let version = Version { epoch: command.epoch, generation: command.generation };
                        self.outbox.post(Observation::failed(key, version, error.to_string()));
                    }
                }
            }
        }
        let Accepted { outcomes, left_out } = self.ledger.accept(parsed, revision).await?;
        let mut affected = BTreeSet::new();
        let mut deletions = Vec::new();
        let mut protected = false;
        {
            let mut tracked = lock(&self.tracked);
            let mut received = lock(&self.received);
            for Outcome { desired, decision } in outcomes {
                match decision {
                    Decision::Take | Decision::RaiseTombstone => {
                        let (key, version, deleted) = (desired.key, desired.version, desired.object.is_none());
                        let networks = self.take(&mut tracked, desired);
                        affected.extend(networks.iter().copied());
                        protected |= matches!(key, Key::Protected(_));
                        if deleted {
                            received.remove(&key);
                            deletions.push(PendingDeletion { key, version, networks, round: 0 });
                        } else if matches!(key, Key::Protected(_)) {
                            // It isn't any network's: that it is here is all there is to say.
                            self.outbox.post(Observation::ready(key, version));
                        } else {
                            received.insert(key, (version, now));
                        }
                    }
                    Decision::Repeat => {
                        if desired.object.is_none() && self.outbox.last(desired.key).is_none() {
                            self.outbox.post(Observation::deleted(desired.key, desired.version));
                        }
                        self.outbox.repeat(desired.key);
                    }
                    Decision::Refuse { held } => {
                        tracing::warn!(key = ?desired.key, version = ?desired.version, ?held, "an older command was refused");
                    }
                }
            }
        }
        if protected {
            self.refresh_protected();
        }
        let round = self.signal.mark(affected);
        lock(&self.pending_deletions)
            .extend(deletions.into_iter().map(|deletion| PendingDeletion { round, ..deletion }));
        self.report_deletions();
        if left_out == 0 { Ok(()) } else { Err(self.ledger.full()) }
    }

    /// Reports the deletions that the kernel has carried out.
    fn report_deletions(&self) {
        let done =
            |deletion: &PendingDeletion| deletion.networks.iter().all(|id| self.signal.reached(*id, deletion.round));
        let (carried_out, left): (Vec<PendingDeletion>, Vec<PendingDeletion>) =
            lock(&self.pending_deletions).drain(..).partition(done);
        lock(&self.pending_deletions).extend(left);
        for PendingDeletion { key, version, .. } in carried_out {
            self.outbox.post(Observation::deleted(key, version));
        }
    }

    fn take(&self, tracked: &mut TrackedState, desired: Desired) -> BTreeSet<NetworkId> {
        let Desired { key, version, object } = desired;
        // A port's epoch that rose, and a port that left, is no longer acquired (the ledger has it so).
        if let Key::Port(port_id) = key {
            let acquired = self.ledger.held(key).is_some_and(|(held, _, epoch)| epoch != 0 && epoch == held.epoch);
            if !acquired {
                tracked.set_acquired(port_id, false);
            }
        }
        if object.is_some() {
            tracked.versions().insert(key, version);
        } else {
            tracked.versions().remove(&key);
        }
        tracked.put(key, object)
    }

    /// Hands a port to its instance, once it is programmed and answers.
    pub async fn acquire(
        &self,
        port_id: PortId,
        instance_id: InstanceId,
        epoch: i64,
        timeout: Duration,
    ) -> Result<Acquired, Refusal> {
        let deadline = tokio::time::Instant::now() + timeout;
        let network_id = self.hand_over(port_id, instance_id, epoch, deadline).await?;
        let round = self.signal.mark([network_id]);
        let done = tokio::time::timeout_at(deadline, self.signal.done(network_id, round)).await;
        if done.is_err() {
            return Err(Refusal::new(RefusedReason::NotYet, "the port is not programmed yet"));
        }
        let last = self.outbox.last(Key::Port(port_id));
        if let Some(observation) = last
            && observation.state == ObjectState::Error
        {
            return Err(Refusal::new(RefusedReason::Failed, observation.reason));
        }
        let acquired = self.open_port(port_id, network_id, deadline).await?;
        if self.is_handed_over(port_id, epoch) { Ok(acquired) } else { Err(over(port_id, epoch)) }
    }

    /// Notes that an instance which runs has the port: its tap is open, and only this ledger may not know it.
    pub async fn confirm(
        &self,
        port_id: PortId,
        instance_id: InstanceId,
        epoch: i64,
        timeout: Duration,
    ) -> Result<(), Refusal> {
        if self.is_handed_over(port_id, epoch) && self.may_acquire(port_id, instance_id, epoch).is_ok() {
            return Ok(());
        }
        let deadline = tokio::time::Instant::now() + timeout;
        let network_id = self.hand_over(port_id, instance_id, epoch, deadline).await?;
        self.signal.mark([network_id]);
        Ok(())
    }

    /// Whether the port is acquired under this epoch, as far as is durable.
    fn is_handed_over(&self, port_id: PortId, epoch: i64) -> bool {
        let held = self.ledger.held(Key::Port(port_id));
        held.is_some_and(|(held, _, acquired_epoch)| held.epoch == epoch && acquired_epoch == epoch)
    }

    /// Durably; what is programmed follows.
    async fn hand_over(
        &self,
        port_id: PortId,
        instance_id: InstanceId,
        epoch: i64,
        deadline: tokio::time::Instant,
    ) -> Result<NetworkId, Refusal> {
        let mut changes = self.signal.changes();
        let network_id = loop {
            match self.may_acquire(port_id, instance_id, epoch) {
                Ok(network_id) => break network_id,
                Err(refusal) if refusal.reason == RefusedReason::NotYet => {
                    if tokio::time::timeout_at(deadline, changes.changed()).await.is_err() {
                        return Err(refusal);
                    }
                }
                Err(refusal) => return Err(refusal),
            }
        };
        let current = self.ledger.set_acquired(port_id, epoch, true).await;
        if !current.map_err(|e| Refusal::new(RefusedReason::Failed, e.to_string()))? {
            return Err(over(port_id, epoch));
        }
        let mut tracked = lock(&self.tracked);
        // A higher epoch may have become durable since; whoever takes it in does so after us, or we see it here.
        if !self.is_handed_over(port_id, epoch) {
            return Err(over(port_id, epoch));
        }
        tracked.set_acquired(port_id, true);
        Ok(network_id)
    }

    async fn open_port(
        &self,
        port_id: PortId,
        network_id: NetworkId,
        deadline: tokio::time::Instant,
    ) -> Result<Acquired, Refusal> {
        let failed = |detail: String| Refusal::new(RefusedReason::Failed, detail);
        let (port, network) = {
            let desired_state = self.desired_state();
            (desired_state.ports.get(&port_id).cloned(), desired_state.networks.get(&network_id).cloned())
        };
        let (Some(port), Some(network)) = (port, network) else {
            return Err(Refusal::new(RefusedReason::Stale, "the port was deleted meanwhile"));
        };
        let tap = match self.config.wiring {
            crate::model::state::Wiring::Veth => None,
            crate::model::state::Wiring::Tap => {
                let worker = lock(&self.workers).get(&network_id).cloned();
                let worker = worker.ok_or_else(|| failed("the network's namespace is gone".into()))?;
                Some(open_tap(&worker, port_id, deadline).await?)
            }
        };
        Ok(Acquired { tap, mac: port.mac, mtu: network.mtu })
    }

    /// The network, if this instance may have the port under this epoch now.
    fn may_acquire(&self, port_id: PortId, instance_id: InstanceId, epoch: i64) -> Result<NetworkId, Refusal> {
        let not_yet = |detail: &str| Refusal::new(RefusedReason::NotYet, detail);
        let Some((held, tombstone, _)) = self.ledger.held(Key::Port(port_id)) else {
            return Err(not_yet("this host doesn't know the port yet"));
        };
        if held.epoch > epoch || (tombstone && held.epoch == epoch) {
            return Err(Refusal::new(
                RefusedReason::Stale,
                format!("the epoch {epoch} of port {port_id} is over: {} is known here", held.epoch),
            ));
        }
        if held.epoch < epoch {
            return Err(not_yet("this host doesn't know that epoch of the port yet"));
        }
        let desired_state = self.desired_state();
        let Some(port) = desired_state.ports.get(&port_id) else { return Err(not_yet("the port is being taken in")) };
        match &port.binding {
            Binding::Local { instance_id: bound, .. } if *bound == instance_id => {}
            Binding::Local { .. } => {
                return Err(Refusal::new(RefusedReason::NotYours, "the port is bound to another instance"));
            }
            Binding::Remote { .. } | Binding::Unbound => {
                return Err(Refusal::new(RefusedReason::NotYours, "the port is not bound to this host"));
            }
        }
        if !desired_state.networks.contains_key(&port.network_id) {
            return Err(not_yet("this host doesn't know the port's network yet"));
        }
        Ok(port.network_id)
    }

    /// Takes a port back from its instance: it no longer answers when this returns.
    pub async fn release(&self, port_id: PortId, instance_id: InstanceId, epoch: i64) -> Result<(), Refusal> {
        let port = self.desired_state().ports.get(&port_id).cloned();
        let Some(port) = port else { return Ok(()) };
        if port.version.epoch == epoch && port.instance().is_some_and(|bound| bound != instance_id) {
            return Err(Refusal::new(RefusedReason::NotYours, "the port is bound to another instance"));
        }
        let released = self.ledger.set_acquired(port_id, epoch, false).await;
        let mine = released.map_err(|e| Refusal::new(RefusedReason::Failed, e.to_string()))?;
        if mine {
            lock(&self.tracked).set_acquired(port_id, false);
            let round = self.signal.mark([port.network_id]);
            self.signal.done(port.network_id, round).await;
        }
        Ok(())
    }

    /// The thread of a network's namespace, if the network is here.
    #[must_use]
    pub fn worker_of(&self, network_id: NetworkId) -> Option<Arc<Worker>> {
        lock(&self.workers).get(&network_id).cloned()
    }

    /// Microseconds since a version was received, the first time it is requested.
    fn program_us_of(&self, key: Key, version: Version) -> Option<i64> {
        let mut received = lock(&self.received);
        let (known, at) = *received.get(&key)?;
        if known != version {
            return None;
        }
        received.remove(&key);
        i64::try_from(at.elapsed().as_micros()).ok()
    }

    pub(crate) fn path_of(&self, network_id: NetworkId) -> PathBuf {
        self.config.netns_dir.join(names::namespace(&self.config.prefix, network_id))
    }

    /// Namespaces that look like ours, of networks that the ledger doesn't know: kept, and shown.
    pub fn orphans(&self) -> Result<Vec<NetworkId>, HostError> {
        let dir = &self.config.netns_dir;
        let names = netns::list(dir).map_err(|source| HostError::List { dir: dir.clone(), source })?;
        let mounted = names.iter().filter(|name| netns::mounted(&dir.join(name)));
        let ids = mounted.filter_map(|name| names::network_of(&self.config.prefix, name));
        Ok(ids.filter(|id| self.ledger.held(Key::Network(*id)).is_none()).collect())
    }
}

fn over(port_id: PortId, epoch: i64) -> Refusal {
    Refusal::new(RefusedReason::Stale, format!("the epoch {epoch} of port {port_id} is over"))
}

/// A tap has one descriptor at a time. Its last holder may still be going: a QEMU that the kernel is ending, or an acquisition whose
/// caller gave up while the answer was on its way. The kernel reports nothing when a tap is released, so it is tried again.
async fn open_tap(worker: &Worker, port_id: PortId, deadline: tokio::time::Instant) -> Result<OwnedFd, Refusal> {
    let failed = |detail: String| Refusal::new(RefusedReason::Failed, detail);
    loop {
        let opened = worker.run(move |_| tap::open(&names::port_link(port_id))).await;
        match opened.map_err(|e| failed(e.to_string()))? {
            Ok(tap) => return Ok(tap),
            Err(error) if error.raw_os_error() == Some(nix::libc::EBUSY) => {
                if tokio::time::Instant::now() >= deadline {
                    return Err(Refusal::new(RefusedReason::NotYet, "whoever had its tap before still holds it"));
                }
                tokio::time::sleep(HELD_TAP_PAUSE).await;
            }
            Err(error) => return Err(failed(format!("the tap: {error}"))),
        }
    }
}
