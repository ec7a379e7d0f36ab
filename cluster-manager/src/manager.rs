//! What all parts of this service share.

pub use crate::problem::read_problem;
use crate::{
    agents::{ingest::Ingest, registry::Registry},
    client::{coalesce::Coalescer, resource::Resource, storage::Storage},
    config::Config,
    console::Sessions,
    host::admission::Admission,
    placement::PlacementState,
    reconcile::signal::Signal,
    scheduler::Inventory,
};
use domain::{HostId, ImageId, InstanceId, Problem, image::Image};
use parking_lot::{MappedMutexGuard, Mutex, MutexGuard};
use service_kit::in_flight::InFlight;
use std::collections::HashSet;
use store::{ReadError, Store};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Images read in one go.
const IMAGES_MAX: usize = 256;

pub struct Manager {
    pub config: Config,
    pub store: Store,
    pub placement: PlacementState,
    pub agents: Registry,
    pub ingest: Ingest,
    pub admission: Option<Admission>,
    pub storage: Storage,
    pub resource: Resource,
    /// Instances whose host's word is awaited that cards are out. A hint: what is missed here is found by the sweep.
    cards_leaving: Mutex<HashSet<InstanceId>>,
    pub signal: Signal,
    pub operations: InFlight,
    pub consoles: Sessions,
    pub images: Coalescer<ImageId, Result<Option<Image>, ReadError>>,
    pub tasks: TaskTracker,
    /// Ends streams and background work.
    pub shutdown: CancellationToken,
}

impl Manager {
    pub fn new(
        config: Config,
        store: Store,
        inventory: Inventory,
        storage: Storage,
        resource: Resource,
        ingest: Ingest,
        admission: Option<Admission>,
        tasks: TaskTracker,
        shutdown: CancellationToken,
    ) -> Self {
        let reader = store.clone();
        let images = Coalescer::start(&tasks, IMAGES_MAX, 1, move |ids: Vec<ImageId>| {
            let store = reader.clone();
            async move { find_images(&store, &ids).await }
        });
        Self {
            consoles: Sessions::new(config.console_sessions_max),
            config,
            store,
            placement: PlacementState::new(inventory),
            agents: Registry::default(),
            ingest,
            admission,
            storage,
            resource,
            cards_leaving: Mutex::default(),
            signal: Signal::default(),
            operations: InFlight::default(),
            images,
            tasks,
            shutdown,
        }
    }

    pub fn inventory(&self) -> MappedMutexGuard<'_, Inventory> {
        self.placement.inventory()
    }

    fn cards_leaving(&self) -> MutexGuard<'_, HashSet<InstanceId>> {
        self.cards_leaving.lock()
    }

    /// While a commit is on its way that releases claims of the host, and until memory counted it.
    pub fn releasing(&self, host_id: HostId) -> Releasing<'_> {
        self.inventory().release_begins(host_id);
        Releasing { manager: self, host_id }
    }

    pub fn await_cards_out(&self, id: InstanceId) {
        self.cards_leaving().insert(id);
    }

    /// The host did all that was asked: whether that is what an instance's removed cards waited for.
    pub fn cards_are_out(&self, id: InstanceId) -> bool {
        self.cards_leaving().remove(&id)
    }

    /// What proven-gone instances held of other services; `ports`: some had cards.
    pub async fn forget_claims(&self, ids: &[InstanceId], ports: bool) -> Result<(), Problem> {
        let with_ports = if ports { ids } else { &[] };
        let (disks, ports) = tokio::join!(self.storage.forget(ids), self.resource.forget(with_ports));
        disks.and(ports)
    }

    /// The desired-state revision of a host, as far as it is committed.
    #[must_use]
    pub fn revision(&self, host_id: HostId) -> i64 {
        self.inventory().find(host_id).map_or(0, |h| h.revision)
    }

    #[must_use]
    pub fn host_name(&self, host_id: HostId) -> String {
        self.inventory().find(host_id).map_or_else(|| host_id.to_string(), |h| h.name.clone())
    }

    /// Starts in progress on a host: what its agent says, and what it can't know of yet.
    #[must_use]
    pub fn starts(&self, host_id: HostId) -> u32 {
        let placed = self.inventory().find(host_id).map_or(0, |h| h.starts_in_progress());
        let told = self.agents.find(host_id).map_or(0, |link| link.last_heard().1.starts_in_progress);
        placed.max(told)
    }

    /// Takes over what a host's row says, if memory isn't ahead of it. Answers whether it did.
    pub async fn refresh_host(&self, host_id: HostId) -> bool {
        let Some(moment) = self.inventory().moment(host_id) else { return false };
        match self.store.host_find(host_id).await {
            Ok(Some(row)) => self.inventory().refresh(moment, &row),
            Ok(None) => false,
            Err(error) => {
                tracing::warn!(%host_id, error = &error as &dyn std::error::Error, "a host can't be read");
                false
            }
        }
    }

    /// The same for all hosts, in one read.
    pub async fn refresh_hosts(&self) {
        let moments: Vec<_> = {
            let inventory = self.inventory();
            inventory.hosts().filter_map(|h| Some((h.id, inventory.moment(h.id)?))).collect()
        };
        match self.store.host_list().await {
            Ok(rows) => {
                let moments: std::collections::HashMap<_, _> = moments.into_iter().collect();
                let mut inventory = self.inventory();
                for row in &rows {
                    if let Some(moment) = moments.get(&row.id) {
                        inventory.refresh(*moment, row);
                    }
                }
            }
            Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "the hosts can't be read"),
        }
    }

    pub async fn image(&self, id: ImageId) -> Result<Option<Image>, Problem> {
        match self.images.call(id).await {
            Ok(found) => found.map_err(|e| read_problem(&e)),
            Err(stopped) => Err(Problem::unavailable(stopped.to_string())),
        }
    }
}

pub struct Releasing<'a> {
    manager: &'a Manager,
    host_id: HostId,
}

impl Drop for Releasing<'_> {
    fn drop(&mut self) {
        self.manager.inventory().release_ends(self.host_id);
    }
}

/// Concurrent creates mostly name the same few images: each is read once per round.
async fn find_images(store: &Store, ids: &[ImageId]) -> Vec<Result<Option<Image>, ReadError>> {
    let mut distinct = ids.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    let found = futures::future::join_all(distinct.iter().map(|id| store.image_find(*id))).await;
    ids.iter().map(|id| found[distinct.partition_point(|d| d < id)].clone()).collect()
}
