//! Networks: with their subnets, their way out and their peerings.

pub use api_types::Network as NetworkView;

use crate::{app::network::related::Related, auth::caller::SystemRole};
use api_types::{PeeringOfNetwork, RouterOfNetwork, SubnetOfNetwork};
use domain::{
    NetworkId,
    network::{Network, Peering, Router, Subnet},
};

#[must_use]
pub fn network_view(network: Network, related: &Related, role: SystemRole) -> NetworkView {
    let Network { id, project_id, name, description, vni, mtu, generation, created_at } = network;
    NetworkView {
        id,
        project_id,
        name,
        description,
        mtu,
        vni: (role == SystemRole::Admin).then_some(vni.get()),
        subnets: related.subnets.iter().filter(|s| s.network_id == id).map(subnet).collect(),
        router: related.routers.iter().find(|r| r.network_id == id).map(|r| router(r, related)),
        peerings: related.peerings.iter().filter_map(|p| peering(p, id, related)).collect(),
        generation,
        created_at,
    }
}

fn subnet(subnet: &Subnet) -> SubnetOfNetwork {
    let Subnet { id, name, spec, .. } = subnet;
    SubnetOfNetwork { id: *id, name: name.clone(), cidr: spec.cidr, gateway: spec.gateway }
}

fn router(router: &Router, related: &Related) -> RouterOfNetwork {
    RouterOfNetwork {
        id: router.id,
        name: router.name.clone(),
        external_network_id: router.external_network_id,
        external_network: related.external_network(router.external_network_id),
        source_nat: router.source_nat,
    }
}

/// The peering, from the side of one of its two networks.
fn peering(peering: &Peering, from: NetworkId, related: &Related) -> Option<PeeringOfNetwork> {
    let other = match from {
        id if id == peering.network_id => peering.peer_network_id,
        id if id == peering.peer_network_id => peering.network_id,
        _ => return None,
    };
    let network = related.network(other);
    Some(PeeringOfNetwork { id: peering.id, name: peering.name.clone(), network_id: other, network })
}
