//! Routers: how networks reach the outside.

pub use api_types::Router as RouterView;

use crate::app::network::related::Related;
use domain::network::Router;

#[must_use]
pub fn router_view(router: Router, related: &Related) -> RouterView {
    let Router { id, project_id, name, network_id, external_network_id, source_nat, generation, created_at } = router;
    RouterView {
        id,
        project_id,
        name,
        network_id,
        network: related.network(network_id),
        external_network_id,
        external_network: related.external_network(external_network_id),
        source_nat,
        generation,
        created_at,
    }
}
