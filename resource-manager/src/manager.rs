//! What all parts of this service share.

use crate::{
    claim::used_of,
    config::Config,
    ipam::Ipam,
    link::Links,
    topology::{Key, Learned, Topology},
};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use store::{ReadError, Store};
use tokio::sync::Notify;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub struct Manager {
    pub config: Config,
    pub store: Store,
    /// Never held across an await; taken after the topology, never before it.
    ipam: Mutex<Ipam>,
    /// Never held across an await.
    topology: RwLock<Topology>,
    pub links: Links,
    /// Wakes the reconcilers.
    pub wake: Notify,
    pub tasks: TaskTracker,
    /// Ends streams and background work.
    pub shutdown: CancellationToken,
}

impl Manager {
    /// With all that the database says.
    pub async fn load(
        config: Config,
        store: Store,
        tasks: TaskTracker,
        shutdown: CancellationToken,
    ) -> Result<Self, ReadError> {
        let topology = Topology::load(&store).await?;
        let mut ipam = Ipam::default();
        for external in topology.external_networks() {
            for subnet in &external.subnets {
                ipam.put_pool(external.id.0, None, &subnet.spec());
            }
        }
        for network in topology.networks() {
            for subnet in topology.subnets_of(network.id) {
                ipam.put_pool(network.id.0, Some(subnet.id), &subnet.spec);
            }
        }
        for row in store.address_load_all().await? {
            if let Ok(scope) = row.scope_id.parse() {
                ipam.set((scope, row.address), Some(used_of(&row)));
            }
        }
        Ok(Self {
            config,
            store,
            ipam: Mutex::new(ipam),
            topology: RwLock::new(topology),
            links: Links::default(),
            wake: Notify::new(),
            tasks,
            shutdown,
        })
    }

    pub fn ipam(&self) -> MutexGuard<'_, Ipam> {
        self.ipam.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn topology(&self) -> RwLockReadGuard<'_, Topology> {
        self.topology.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was committed: memory follows, and the hosts that it concerns are told.
    pub fn learn(&self, news: impl IntoIterator<Item = Learned>) {
        let mut touched = Vec::new();
        let mut moved = false;
        {
            let mut topology = self.topology.write().unwrap_or_else(PoisonError::into_inner);
            for one in news {
                self.follow(&topology, &one);
                moved |= moves_uplinks(&one);
                touched.extend(topology.learn(one));
            }
        }
        self.links.mark(touched);
        if moved {
            self.wake.notify_one();
        }
    }

    /// The allocator knows of the blocks that there are. Before the topology learns: what goes is looked up there.
    fn follow(&self, topology: &Topology, news: &Learned) {
        match news {
            Learned::Subnet(subnet) => {
                self.ipam().put_pool(subnet.network_id.0, Some(subnet.id), &subnet.spec);
            }
            Learned::ExternalNetwork(external) => {
                let mut ipam = self.ipam();
                ipam.retain_pools(external.id.0, |pool| external.subnets.iter().any(|s| s.cidr == pool.cidr()));
                for subnet in &external.subnets {
                    ipam.put_pool(external.id.0, None, &subnet.spec());
                }
            }
            Learned::Gone(Key::Subnet(id)) => {
                if let Some(subnet) = topology.subnet(*id) {
                    self.ipam().remove_subnet(subnet.network_id.0, *id);
                }
            }
            Learned::Gone(Key::Network(id)) => self.ipam().remove_scope(id.0),
            Learned::Gone(Key::ExternalNetwork(id)) => self.ipam().remove_scope(id.0),
            Learned::Network(_)
            | Learned::Port(_)
            | Learned::Router(_)
            | Learned::FloatingIp(_)
            | Learned::SecurityGroup(_)
            | Learned::Peering(_)
            | Learned::Uplink(_)
            | Learned::Host(_)
            | Learned::Gone(_) => {}
        }
    }
}

/// Whether a network may need an address on the outside, or no longer, because of it.
fn moves_uplinks(news: &Learned) -> bool {
    match news {
        Learned::Port(_) | Learned::Router(_) | Learned::ExternalNetwork(_) | Learned::Host(_) => true,
        Learned::Gone(key) => matches!(key, Key::Port(_) | Key::Router(_) | Key::Network(_)),
        Learned::Network(_)
        | Learned::Subnet(_)
        | Learned::FloatingIp(_)
        | Learned::SecurityGroup(_)
        | Learned::Peering(_)
        | Learned::Uplink(_) => false,
    }
}
