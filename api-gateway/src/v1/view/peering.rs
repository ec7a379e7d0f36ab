//! Peerings: two networks of a project whose instances may talk to each other.

pub use api_types::Peering as PeeringView;

use crate::app::network::related::Related;
use domain::network::Peering;

#[must_use]
pub fn peering_view(peering: Peering, related: &Related) -> PeeringView {
    let Peering { id, project_id, name, network_id, peer_network_id, generation, created_at } = peering;
    PeeringView {
        id,
        project_id,
        name,
        network_id,
        network: related.network(network_id),
        peer_network_id,
        peer_network: related.network(peer_network_id),
        generation,
        created_at,
    }
}
