//! External networks: a change of one affects the networks that are routed to it.

use super::{Affected, NamedRow, Row, Topology};
use domain::{Name, ProjectId, network::ExternalNetwork};
use store::{Page, ReadError, Store};

/// All of them, page by page.
pub(super) async fn load_all(store: &Store) -> Result<Vec<ExternalNetwork>, ReadError> {
    let mut page = Page { after: None, limit: 1000 };
    let mut all = Vec::new();
    loop {
        let found = store.external_network_list(page.clone()).await?;
        page.after = found.last().map(|network| network.id.to_string());
        let last = found.len() < page.limit as usize;
        all.extend(found);
        if last {
            return Ok(all);
        }
    }
}

impl Row for ExternalNetwork {
    fn affected(&self, topology: &Topology) -> Vec<Affected> {
        let routers = topology.routers().filter(|router| router.external_network_id == self.id);
        routers.flat_map(|router| topology.affected_by_network(router.network_id)).collect()
    }
}

impl NamedRow for ExternalNetwork {
    fn project_id(&self) -> Option<ProjectId> {
        None
    }

    fn name(&self) -> Option<&Name> {
        Some(&self.name)
    }
}
