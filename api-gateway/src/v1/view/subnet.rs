//! Subnets.

pub use api_types::Subnet as SubnetView;

use crate::app::network::related::Related;
use domain::network::{HostRoute, Subnet, SubnetSpec};

#[must_use]
pub fn subnet_view(subnet: Subnet, related: &Related) -> SubnetView {
    let Subnet { id, project_id, network_id, name, spec, dhcp, generation, created_at } = subnet;
    let SubnetSpec { cidr, gateway, dns, allocation, host_routes } = spec;
    let route = |HostRoute { destination, next_hop }| api_types::HostRoute { destination, next_hop };
    SubnetView {
        id,
        project_id,
        network_id,
        network: related.network(network_id),
        name,
        cidr,
        gateway,
        dns,
        allocation,
        host_routes: host_routes.into_iter().map(route).collect(),
        dhcp,
        generation,
        created_at,
    }
}
