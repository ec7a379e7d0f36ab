//! Networks: with their subnets, their way out and their peerings.

use crate::app::network::related::Related;
use crate::auth::caller::SystemRole;
use domain::{
    ExternalNetworkId, Name, NetworkId, PeeringId, ProjectId, RouterId, SubnetId, Timestamp,
    network::{Cidr, Network, Peering, Router, Subnet},
};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use utoipa::ToSchema;

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Network)]
pub struct NetworkView {
    #[schema(value_type = String, format = "uuid")]
    pub id: NetworkId,
    #[schema(value_type = String, format = "uuid")]
    pub project_id: ProjectId,
    #[schema(value_type = String)]
    pub name: Name,
    pub description: String,
    /// The MTU of guests; null: what the hosts' network allows.
    pub mtu: Option<u32>,
    /// The number of its tunnel between hosts. For system admins only, else null.
    pub vni: Option<u32>,
    pub subnets: Vec<SubnetOfNetwork>,
    /// The router to the outside, if it has one.
    pub router: Option<RouterOfNetwork>,
    pub peerings: Vec<PeeringOfNetwork>,
    /// Rises with changes of its subnets, router and peerings too; also the ETag.
    pub generation: i64,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct SubnetOfNetwork {
    #[schema(value_type = String, format = "uuid")]
    pub id: SubnetId,
    #[schema(value_type = String)]
    pub name: Name,
    #[schema(value_type = String)]
    pub cidr: Cidr,
    #[schema(value_type = String)]
    pub gateway: IpAddr,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct RouterOfNetwork {
    #[schema(value_type = String, format = "uuid")]
    pub id: RouterId,
    #[schema(value_type = String)]
    pub name: Name,
    #[schema(value_type = String, format = "uuid")]
    pub external_network_id: ExternalNetworkId,
    #[schema(value_type = Option<String>)]
    pub external_network: Option<Name>,
    pub source_nat: bool,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct PeeringOfNetwork {
    #[schema(value_type = String, format = "uuid")]
    pub id: PeeringId,
    #[schema(value_type = String)]
    pub name: Name,
    /// The other network.
    #[schema(value_type = String, format = "uuid")]
    pub network_id: NetworkId,
    #[schema(value_type = Option<String>)]
    pub network: Option<Name>,
}

impl NetworkView {
    #[must_use]
    pub fn new(network: Network, related: &Related, role: SystemRole) -> Self {
        let Network { id, project_id, name, description, vni, mtu, generation, created_at } = network;
        Self {
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

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NetworkCreate {
    /// 1 to 63 characters of a-z, 0-9 and '-', starting with a letter.
    pub name: String,
    #[serde(default)]
    pub description: String,
    /// The MTU of guests, 1280 to 9216; without it, what the hosts' network allows.
    #[serde(default)]
    pub mtu: Option<u32>,
}

/// What isn't named stays.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NetworkChange {
    #[serde(default)]
    pub name: Option<String>,
    #[serde(default)]
    pub description: Option<String>,
}
