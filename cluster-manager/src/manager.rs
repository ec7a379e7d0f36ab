//! What all parts of this service share. Each field is a part that knows no manager; what needs several of them is a function elsewhere.

use crate::{
    client::Clients, config::Config, console::session::Sessions, host::admission::Admission, placement::PlacementState,
    reconcile::signal::Signal, recovery::signal::Recoveries, scheduler::Inventory,
};
use domain::{HostId, host::HostState};
use operation::Operations;
use parking_lot::MappedMutexGuard;
use service_kit::host_streams::HostStreams;
use std::{collections::HashMap, sync::Arc};
use store::{OperationTable, Page, Store};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Hosts whose rows are compared with memory in one read.
const REFRESH_PAGE: u32 = 256;

pub struct Manager {
    pub config: Config,
    pub store: Store,
    pub placement: PlacementState,
    pub agents: HostStreams<Self>,
    pub admission: Option<Arc<Admission>>,
    pub clients: Clients,
    pub signal: Signal,
    pub recoveries: Recoveries,
    pub operations: Operations,
    pub consoles: Sessions,
    pub lifetime: Lifetime,
}

/// What this role has started, and what ends it.
#[derive(Clone)]
pub struct Lifetime {
    pub tasks: TaskTracker,
    /// Ends streams and background work.
    pub shutdown: CancellationToken,
}

/// What a manager is made of that it doesn't make itself.
pub struct Parts {
    pub config: Config,
    pub store: Store,
    pub inventory: Inventory,
    pub clients: Clients,
    pub admission: Option<Arc<Admission>>,
    pub lifetime: Lifetime,
}

impl Manager {
    pub fn new(parts: Parts) -> Self {
        let Parts { config, store, inventory, clients, admission, lifetime } = parts;
        let Lifetime { tasks, shutdown } = lifetime.clone();
        let agents = HostStreams::new(config.agent_queue_max, config.heartbeat_timeout(), tasks, shutdown)
            .under_term(store.term_number(), leads(&store))
            .with_beats(config.lease.heartbeat_ms);
        Self {
            consoles: Sessions::new(config.console_sessions_max),
            operations: Operations::new(store.clone(), OperationTable::Compute),
            placement: PlacementState::new(inventory),
            agents,
            signal: Signal::default(),
            recoveries: Recoveries::default(),
            config,
            store,
            admission,
            clients,
            lifetime,
        }
    }

    pub fn inventory(&self) -> MappedMutexGuard<'_, Inventory> {
        self.placement.inventory()
    }

    /// Held while a commit is on its way that releases claims of the host, and until memory counted it.
    pub fn releasing(&self, host_id: HostId) -> Releasing<'_> {
        self.inventory().release_begins(host_id);
        Releasing { placement: &self.placement, host_id }
    }

    /// The desired-state revision of a host, as far as it is committed.
    #[must_use]
    pub fn revision(&self, host_id: HostId) -> i64 {
        self.inventory().find(host_id).map_or(0, |h| h.revision)
    }

    /// The state in which a host is shown.
    #[must_use]
    pub fn host_state(&self, host_id: HostId) -> Option<HostState> {
        self.inventory().find(host_id).map(|h| h.state)
    }

    #[must_use]
    pub fn host_name(&self, host_id: HostId) -> String {
        self.inventory().find(host_id).map_or_else(|| host_id.to_string(), |h| h.name.clone())
    }

    /// Starts in progress on a host: what its agent reports, and what it can't know of yet.
    #[must_use]
    pub fn starts(&self, host_id: HostId) -> u32 {
        let placed = self.inventory().find(host_id).map_or(0, |h| h.starts_in_progress());
        let reported = self.agents.find(host_id).map_or(0, |stream| stream.statistics.lock().starts_in_progress);
        placed.max(reported)
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

    /// Takes over what the rows of a page of hosts say, in one read; answers where the next page begins.
    pub async fn refresh_hosts(&self, after: Option<String>) -> Option<String> {
        let moments: HashMap<_, _> = {
            let inventory = self.inventory();
            inventory.hosts().filter_map(|h| Some((h.id, inventory.moment(h.id)?))).collect()
        };
        match self.store.host_list_page(Page { after, limit: REFRESH_PAGE }).await {
            Ok(rows) => {
                let mut inventory = self.inventory();
                for row in &rows {
                    if let Some(moment) = moments.get(&row.id) {
                        inventory.refresh(*moment, row);
                    }
                }
                rows.last().filter(|_| rows.len() == REFRESH_PAGE as usize).map(|row| row.id.to_string())
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the hosts can't be read");
                None
            }
        }
    }
}

/// Whether this process still leads, by its own clock.
fn leads(store: &Store) -> impl Fn() -> bool + Send + Sync + use<> {
    let store = store.clone();
    move || store.leads()
}

pub struct Releasing<'a> {
    placement: &'a PlacementState,
    host_id: HostId,
}

impl Drop for Releasing<'_> {
    fn drop(&mut self) {
        self.placement.inventory().release_ends(self.host_id);
    }
}
