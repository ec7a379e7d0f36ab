//! The host's share of all networks: its desired state ([`Host::accept`]), which ports are acquired ([`Host::acquire`],
//! [`Host::release`]), and the loop that makes it so ([`reconcile`]).
//!
//! Level-triggered: a change only marks its networks, and the loop brings each marked network from whatever it is to the
//! state that is desired then. Whoever must know that a change is in the kernel waits for the round that began after it.

mod accept;
mod addresses;
pub mod disturbance;
mod drift;
mod firewall;
mod flows;
mod ports;
pub mod reconcile;
mod recovery;
mod report;
pub mod signal;
pub mod tracked;
mod underlay;

use crate::{
    config::Config,
    ledger::{Ledger, LedgerError},
    link::{
        netns::{self, NetnsError, Worker},
        observe,
        watch::Changed,
    },
    model::{
        DesiredState, names,
        object::{Desired, Key, Object, Version},
    },
    observation::Observation,
    service::budget::Budget,
};
use accept::PendingDeletion;
use agent_kit::Outbox;
use disturbance::Disturbances;
use domain::{NetworkId, network::Cidr};
use parking_lot::{Mutex, MutexGuard};
pub use ports::{Acquired, Refusal};
use recovery::Recovery;
use signal::Signal;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};
use tokio::sync::watch;
use tracked::TrackedState;
use underlay::Underlay;

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

    /// The desired state as it is now.
    #[must_use]
    pub fn desired_state(&self) -> Arc<DesiredState> {
        Arc::clone(lock(&self.tracked).desired_state())
    }

    /// The thread of a network's namespace, if the network is here.
    #[must_use]
    pub fn worker_of(&self, network_id: NetworkId) -> Option<Arc<Worker>> {
        lock(&self.workers).get(&network_id).cloned()
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
