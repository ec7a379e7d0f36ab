//! What all parts of this service share: memory (rows and addresses), how it follows commits, and how it is put right when a commit says
//! that it was wrong.

use crate::{
    agents,
    config::Config,
    network::ipam::{Ipam, ScopedAddress, Use},
    network::plan::{Ask, Draft, Plan, PoolChange},
    network::topology::{Key, Learned, Topology},
};
use domain::{ProjectId, Timestamp, network::ExternalSubnet};
use parking_lot::{Mutex, MutexGuard, RwLock, RwLockReadGuard};
use service_kit::{host_streams::HostStreams, in_flight::InFlight};
use std::time::{Duration, Instant};
use store::{AddressRow, CommitError, ReadError, Store, Unit};
use tokio::sync::Notify;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// A commit whose outcome isn't known has ended by then, one way or the other: longer than any statement or transaction may take.
const DOUBT: Duration = Duration::from_secs(45);

pub struct Manager {
    pub config: Config,
    pub store: Store,
    /// Never held across an await. Taken before `ipam` by those who take both.
    topology: RwLock<Topology>,
    /// Never held across an await.
    ipam: Mutex<Ipam>,
    pub streams: HostStreams<Self>,
    pub operations: InFlight,
    /// Something was learned: the reconcilers look.
    pub wake: Notify,
    doubts: Mutex<Vec<Doubt>>,
    pub tasks: TaskTracker,
    /// Ends streams and background work.
    pub shutdown: CancellationToken,
}

/// What a commit of unknown outcome was about: looked up once it must have ended.
#[derive(Debug)]
pub struct Doubt {
    since: Instant,
    pub keys: Vec<Key>,
    pub addresses: Vec<ScopedAddress>,
}

impl Manager {
    /// With all that is in the database.
    pub async fn load(
        config: Config,
        store: Store,
        tasks: TaskTracker,
        shutdown: CancellationToken,
    ) -> Result<Self, ReadError> {
        let topology = Topology::load(&store).await?;
        let addresses = store.address_load_all().await?;
        let ipam = ipam_of(&topology, &addresses);
        tracing::info!(
            networks = topology.networks().count(),
            ports = topology.ports().count(),
            addresses = addresses.len(),
            "the resource-manager starts"
        );
        Ok(Self {
            config,
            store,
            topology: RwLock::new(topology),
            ipam: Mutex::new(ipam),
            // A set of keys is bounded by the objects that there are.
            streams: HostStreams::new(usize::MAX, agents::SILENCE, tasks.clone(), shutdown.clone()),
            operations: InFlight::default(),
            wake: Notify::new(),
            doubts: Mutex::default(),
            tasks,
            shutdown,
        })
    }

    pub fn topology(&self) -> RwLockReadGuard<'_, Topology> {
        self.topology.read()
    }

    pub fn ipam(&self) -> MutexGuard<'_, Ipam> {
        self.ipam.lock()
    }

    /// What was committed: memory follows, and the hosts that it concerns are told.
    pub fn learn(&self, news: impl IntoIterator<Item = Learned>) {
        let touched = {
            let mut topology = self.topology.write();
            news.into_iter().fold(Vec::new(), |mut touched, one| {
                touched.extend(topology.learn(one));
                touched
            })
        };
        self.streams.push(touched.into_iter().map(|(host_id, key)| (host_id, key, ())));
        self.wake.notify_one();
    }

    /// What a wish without generation or project comes with.
    #[must_use]
    pub fn ask(&self, project_id: Option<ProjectId>) -> Ask {
        Ask {
            project_id,
            expected_generation: 0,
            now: Timestamp::now(),
            quarantine_secs: self.config.quarantine_secs,
            vni: (self.config.vni_first, self.config.vni_last),
            dry_run: false,
        }
    }

    /// Decides on what is in memory now. What the plan claims must be settled: by [`Manager::commit`], or given back.
    pub fn decide<T>(&self, ask: Ask, decide: impl FnOnce(Draft<'_>) -> T) -> T {
        let topology = self.topology();
        let mut ipam = self.ipam();
        let mut dice = rand::random::<u64>;
        decide(Draft::new(&topology, &mut ipam, ask, &mut dice))
    }

    /// Gives back what a plan claimed that won't be committed.
    pub fn abandon(&self, plan: &Plan) {
        let mut ipam = self.ipam();
        plan.claimed.iter().for_each(|at| ipam.give_back(*at));
    }

    /// Commits `unit`, in which the plan's ops are, and lets memory follow the outcome. Not to be cancelled: call it on a task of its own.
    pub async fn commit(&self, plan: Plan, unit: Unit) -> Result<(), CommitError> {
        match self.store.commit(unit).await {
            Ok(()) => {
                self.settle(plan);
                Ok(())
            }
            Err(error @ CommitError::Unavailable(_)) => {
                let keys = plan.seen.iter().copied().chain(plan.learned.iter().map(key_of)).collect();
                let addresses = plan.claimed.into_iter().chain(plan.resting.into_iter().map(|(at, _)| at)).collect();
                let doubt = Doubt { since: Instant::now(), keys, addresses };
                self.doubts.lock().push(doubt);
                Err(error)
            }
            Err(error) => {
                self.abandon(&plan);
                Err(error)
            }
        }
    }

    /// The plan's unit stands. What comes is there before rows name it, what goes goes after.
    fn settle(&self, plan: Plan) {
        let (put, removed): (Vec<PoolChange>, Vec<PoolChange>) =
            plan.pools.into_iter().partition(|change| matches!(change, PoolChange::Put(..)));
        {
            let mut ipam = self.ipam();
            put.into_iter().for_each(|change| apply(&mut ipam, change));
            plan.claimed.iter().for_each(|at| ipam.hold(*at));
            plan.resting.iter().for_each(|(at, until)| ipam.rest(*at, *until));
        }
        self.learn(plan.learned);
        if !removed.is_empty() {
            let mut ipam = self.ipam();
            removed.into_iter().for_each(|change| apply(&mut ipam, change));
        }
    }

    /// Those whose commits must have ended by now.
    pub fn ripe_doubts(&self) -> Vec<Doubt> {
        let mut doubts = self.doubts.lock();
        doubts.extract_if(.., |doubt| doubt.since.elapsed() >= DOUBT).collect()
    }

    pub fn doubt_again(&self, doubt: Doubt) {
        self.doubts.lock().push(doubt);
    }

    /// Reads these rows again: memory was behind.
    pub async fn refresh(&self, keys: &[Key]) -> Result<(), ReadError> {
        let mut keys = keys.to_vec();
        keys.sort_unstable();
        keys.dedup();
        for key in keys {
            let learned = self.read(key).await?;
            // A network comes with its subnets and router: changes of these were decided on it.
            if let Some(Learned::Network(network)) = &learned {
                let subnets = self.store.subnet_list_of_network(network.id).await?;
                let mut ipam = self.ipam();
                subnets.iter().for_each(|subnet| ipam.put_pool(network.id.0, Some(subnet.id), &subnet.spec));
                drop(ipam);
                self.learn(subnets.into_iter().map(Learned::Subnet));
            }
            self.learn(learned);
        }
        Ok(())
    }

    /// None: there is no reading it, or it was never there.
    async fn read(&self, key: Key) -> Result<Option<Learned>, ReadError> {
        let store = &self.store;
        let found = match key {
            Key::ExternalNetwork(id) => store.external_network_find(id).await?.map(Learned::ExternalNetwork),
            Key::Network(id) => store.network_find(id).await?.map(Learned::Network),
            Key::Subnet(id) => store.subnet_find(id).await?.map(Learned::Subnet),
            Key::Port(id) => store.port_find(id).await?.map(Learned::Port),
            Key::Router(id) => store.router_find(id).await?.map(Learned::Router),
            Key::FloatingIp(id) => store.floating_ip_find(id).await?.map(Learned::FloatingIp),
            Key::SecurityGroup(id) => store.security_group_find(id).await?.map(Learned::SecurityGroup),
            Key::Peering(id) => store.peering_find(id).await?.map(Learned::Peering),
            // Level-triggered or the agents' own.
            Key::Uplink(..) | Key::Host(_) => return Ok(None),
        };
        // An id that was never there may come yet: only what memory has can be gone.
        Ok(found.or_else(|| self.knows(key).then_some(Learned::Gone(key))))
    }

    fn knows(&self, key: Key) -> bool {
        let topology = self.topology();
        match key {
            Key::ExternalNetwork(id) => topology.external_network(id).is_some(),
            Key::Network(id) => topology.network(id).is_some(),
            Key::Subnet(id) => topology.subnet(id).is_some(),
            Key::Port(id) => topology.port(id).is_some(),
            Key::Router(id) => topology.router(id).is_some(),
            Key::FloatingIp(id) => topology.floating_ip(id).is_some(),
            Key::SecurityGroup(id) => topology.security_group(id).is_some(),
            Key::Peering(id) => topology.peering(id).is_some(),
            Key::Uplink(network_id, host_id) => topology.uplink(network_id, host_id).is_some(),
            Key::Host(id) => topology.host(id).is_some(),
        }
    }

    /// Takes over what the database says of these addresses.
    pub async fn refresh_addresses(&self, addresses: &[ScopedAddress]) -> Result<(), ReadError> {
        for at in addresses {
            let row = self.store.address_find(&at.0.to_string(), at.1).await?;
            self.ipam().set(*at, row.map(|row| used(&row)));
        }
        Ok(())
    }
}

/// Of which row a piece of news is.
fn key_of(learned: &Learned) -> Key {
    match learned {
        Learned::ExternalNetwork(row) => Key::ExternalNetwork(row.id),
        Learned::Network(row) => Key::Network(row.id),
        Learned::Subnet(row) => Key::Subnet(row.id),
        Learned::Port(row) => Key::Port(row.id),
        Learned::Router(row) => Key::Router(row.id),
        Learned::FloatingIp(row) => Key::FloatingIp(row.id),
        Learned::SecurityGroup(row) => Key::SecurityGroup(row.id),
        Learned::Peering(row) => Key::Peering(row.id),
        Learned::Uplink(row) => Key::Uplink(row.network_id, row.host_id),
        Learned::Host(row) => Key::Host(row.host_id),
        Learned::Gone(key) => *key,
    }
}

fn apply(ipam: &mut Ipam, change: PoolChange) {
    match change {
        PoolChange::Put(scope, subnet_id, spec) => ipam.put_pool(scope, subnet_id, &spec),
        PoolChange::RemoveSubnet(scope, subnet_id) => ipam.remove_subnet(scope, subnet_id),
        PoolChange::Keep(scope, specs) => {
            ipam.retain_pools(scope, |pool| specs.iter().any(|spec| spec.cidr == pool.cidr()));
        }
        PoolChange::RemoveScope(scope) => ipam.remove_scope(scope),
    }
}

/// What an address is, by its row.
#[must_use]
pub fn used(row: &AddressRow) -> Use {
    row.free_at.map_or(Use::Held, Use::Resting)
}

/// The allocator of what is in the database.
#[must_use]
pub fn ipam_of(topology: &Topology, addresses: &[AddressRow]) -> Ipam {
    let mut ipam = Ipam::default();
    for external in topology.external_networks() {
        for spec in external.subnets.iter().map(ExternalSubnet::spec) {
            ipam.put_pool(external.id.0, None, &spec);
        }
    }
    for network in topology.networks() {
        for subnet in topology.subnets_of(network.id) {
            ipam.put_pool(network.id.0, Some(subnet.id), &subnet.spec);
        }
    }
    for row in addresses {
        if let Ok(scope) = row.scope_id.parse() {
            ipam.set((scope, row.address), Some(used(row)));
        }
    }
    ipam
}
