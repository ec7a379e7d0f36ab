//! What all parts of this service share: memory (rows and addresses), how it follows commits, and how it is corrected when a commit shows
//! that it was wrong.

use crate::{
    agents,
    config::Config,
    network::{
        ipam::{Ipam, ScopedAddress, Use},
        plan::{Plan, PlanContext, Planner, PoolChange, uplink},
        topology::{RowChange, RowKey, Topology},
    },
};
use domain::{
    ProjectId, Timestamp,
    network::{Cidr, ExternalSubnet},
};
use operation::Operations;
use parking_lot::{Mutex, MutexGuard, RwLock, RwLockReadGuard};
use service_kit::host_streams::HostStreams;
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};
use store::{AddressRow, CommitError, OperationTable, ReadError, Store, Unit};
use tokio::sync::Notify;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// A commit whose outcome isn't known has ended by then, one way or the other: longer than any statement or transaction may take.
const COMMIT_ENDS_WITHIN: Duration = Duration::from_secs(45);

pub struct Manager {
    pub config: Config,
    pub store: Store,
    /// Never held across an await. Taken before `ipam` by those who take both.
    topology: RwLock<Topology>,
    /// Never held across an await.
    ipam: Mutex<Ipam>,
    /// Whose uplinks changes have put into question since the last look.
    uplink_scope: Mutex<uplink::Scope>,
    pub streams: HostStreams<Self>,
    /// What hosts keep of instances that no row knows.
    pub kept: agents::orphan::Kept,
    pub operations: Operations,
    /// Notified when memory took in a change, for the reconcilers.
    pub changed: Notify,
    unknown_outcomes: Mutex<Vec<UnknownOutcome>>,
    pub tasks: TaskTracker,
    /// Ends streams and background work.
    pub shutdown: CancellationToken,
}

/// What a commit of unknown outcome was about: read again once the commit must have ended.
#[derive(Debug)]
pub struct UnknownOutcome {
    since: Instant,
    pub keys: Vec<RowKey>,
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
            operations: Operations::new(store.clone(), OperationTable::Resource),
            // A set of keys is bounded by the objects that there are.
            streams: HostStreams::new(usize::MAX, agents::SILENCE, tasks.clone(), shutdown.clone())
                .under_term(store.term_number(), leads(&store)),
            store,
            topology: RwLock::new(topology),
            ipam: Mutex::new(ipam),
            uplink_scope: Mutex::new(uplink::Scope::All),
            kept: agents::orphan::Kept::default(),
            changed: Notify::new(),
            unknown_outcomes: Mutex::default(),
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

    /// Memory takes in what was committed, and the hosts that it affects are sent what changed for them.
    pub fn apply_committed(&self, changes: impl IntoIterator<Item = RowChange>) {
        let affected = {
            let mut topology = self.topology.write();
            let mut scope = uplink::Scope::default();
            let affected = changes.into_iter().fold(Vec::new(), |mut affected, change| {
                scope.add(uplink::Scope::of(&topology, &change));
                affected.extend(topology.apply(change));
                affected
            });
            self.recheck_uplinks(scope);
            affected
        };
        self.streams.push(affected.into_iter().map(|(host_id, key)| (host_id, key, ())));
        self.changed.notify_one();
    }

    /// What of the managers' side no instance of the fleet may reach, in the place of what was said before.
    pub fn protect(&self, blocks: BTreeSet<Cidr>) {
        let affected = self.topology.write().protect(blocks);
        self.streams.push(affected.into_iter().map(|(host_id, key)| (host_id, key, ())));
    }

    /// The uplinks of these must be looked at.
    pub fn recheck_uplinks(&self, scope: uplink::Scope) {
        self.uplink_scope.lock().add(scope);
    }

    /// Whose uplinks must be looked at: they are taken, and given back where a look fails.
    pub fn take_uplinks_to_recheck(&self) -> uplink::Scope {
        std::mem::take(&mut *self.uplink_scope.lock())
    }

    /// What a change comes with that names no generation.
    #[must_use]
    pub fn context(&self, project_id: Option<ProjectId>) -> PlanContext {
        PlanContext {
            project_id,
            expected_generation: 0,
            now: Timestamp::now(),
            quarantine_secs: self.config.quarantine_secs,
            vni: (self.config.vni_first, self.config.vni_last),
            dry_run: false,
        }
    }

    /// Decides on what is in memory now. What the plan claims must be settled: by [`Manager::commit`] or [`Manager::abandon`].
    pub fn decide<T>(&self, context: PlanContext, decide: impl FnOnce(Planner<'_>) -> T) -> T {
        let topology = self.topology();
        let mut ipam = self.ipam();
        let mut rng = rand::random::<u64>;
        decide(Planner::new(&topology, &mut ipam, context, &mut rng))
    }

    /// Releases what a plan claimed that won't be committed.
    pub fn abandon(&self, plan: &Plan) {
        let mut ipam = self.ipam();
        plan.claimed.iter().for_each(|at| ipam.release(*at));
    }

    /// Commits `unit`, in which the plan's ops are, and lets memory follow the outcome. Not to be cancelled: call it on a task of its own.
    pub async fn commit(&self, plan: Plan, unit: Unit) -> Result<(), CommitError> {
        match self.store.commit(unit).await {
            Ok(()) => {
                self.settle(plan);
                Ok(())
            }
            Err(error @ CommitError::Unavailable(_)) => {
                let keys = plan.read.iter().copied().chain(plan.changes.iter().map(RowChange::key)).collect();
                let quarantined = plan.quarantined.into_iter().map(|(at, _)| at);
                let addresses = plan.claimed.into_iter().chain(quarantined).collect();
                self.watch_unknown_outcome(UnknownOutcome { since: Instant::now(), keys, addresses });
                Err(error)
            }
            Err(error) => {
                self.abandon(&plan);
                Err(error)
            }
        }
    }

    /// The plan's unit stands. A pool comes before the rows that name it, and goes after them.
    fn settle(&self, plan: Plan) {
        let (put, removed): (Vec<PoolChange>, Vec<PoolChange>) =
            plan.pools.into_iter().partition(|change| matches!(change, PoolChange::Put(..)));
        {
            let mut ipam = self.ipam();
            put.into_iter().for_each(|change| apply_pool(&mut ipam, change));
            plan.claimed.iter().for_each(|at| ipam.hold(*at));
            plan.quarantined.iter().for_each(|(at, until)| ipam.quarantine(*at, *until));
        }
        self.apply_committed(plan.changes);
        if !removed.is_empty() {
            let mut ipam = self.ipam();
            removed.into_iter().for_each(|change| apply_pool(&mut ipam, change));
        }
    }

    pub fn watch_unknown_outcome(&self, outcome: UnknownOutcome) {
        self.unknown_outcomes.lock().push(outcome);
    }

    /// Those whose commits must have ended by now.
    pub fn due_unknown_outcomes(&self) -> Vec<UnknownOutcome> {
        let mut outcomes = self.unknown_outcomes.lock();
        outcomes.extract_if(.., |outcome| outcome.since.elapsed() >= COMMIT_ENDS_WITHIN).collect()
    }

    /// Reads these rows again: memory was behind.
    pub async fn refresh(&self, keys: &[RowKey]) -> Result<(), ReadError> {
        for key in keys.iter().copied().collect::<BTreeSet<RowKey>>() {
            let Some(change) = key.read(&self.store).await? else { continue };
            // An id that was never there may come yet: only what memory has can be gone.
            if matches!(change, RowChange::Gone(key) if !self.topology().contains(key)) {
                continue;
            }
            // A network comes with its subnets, on which changes of it were decided.
            if let RowChange::Network(network) = &change {
                let subnets = self.store.subnet_list_of_network(network.id).await?;
                {
                    let mut ipam = self.ipam();
                    subnets.iter().for_each(|subnet| ipam.put_pool(network.id.0, Some(subnet.id), &subnet.spec));
                }
                self.apply_committed(subnets.into_iter().map(RowChange::Subnet));
            }
            if let RowChange::ExternalNetwork(external) = &change {
                let specs = external.subnets.iter().map(ExternalSubnet::spec).collect();
                let mut ipam = self.ipam();
                external.subnets.iter().for_each(|subnet| ipam.put_pool(external.id.0, None, &subnet.spec()));
                apply_pool(&mut ipam, PoolChange::Retain(external.id.0, specs));
            }
            self.apply_committed([change]);
        }
        Ok(())
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

fn apply_pool(ipam: &mut Ipam, change: PoolChange) {
    match change {
        PoolChange::Put(scope, subnet_id, spec) => ipam.put_pool(scope, subnet_id, &spec),
        PoolChange::RemoveSubnet(scope, subnet_id) => ipam.remove_subnet(scope, subnet_id),
        PoolChange::Retain(scope, specs) => {
            ipam.retain_pools(scope, |pool| specs.iter().any(|spec| spec.cidr == pool.cidr()));
        }
        PoolChange::RemoveScope(scope) => ipam.remove_scope(scope),
    }
}

/// Whether this process still leads, by its own clock.
fn leads(store: &Store) -> impl Fn() -> bool + Send + Sync + use<> {
    let store = store.clone();
    move || store.leads()
}

/// What an address is, by its row.
#[must_use]
pub fn used(row: &AddressRow) -> Use {
    row.free_at.map_or(Use::Held, Use::Quarantined)
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
    for subnet in topology.subnets() {
        ipam.put_pool(subnet.network_id.0, Some(subnet.id), &subnet.spec);
    }
    for row in addresses {
        if let Ok(scope) = row.scope_id.parse() {
            ipam.set((scope, row.address), Some(used(row)));
        }
    }
    ipam
}
