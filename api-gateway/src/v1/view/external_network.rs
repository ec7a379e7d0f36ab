//! External networks: the outside that the operator's hosts are connected to.

use domain::{
    ExternalNetworkId, Name, Timestamp,
    network::{Cidr, ExternalNetwork, ExternalSubnet, IpRange},
};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use utoipa::ToSchema;

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ExternalNetwork)]
pub struct ExternalNetworkView {
    #[schema(value_type = String, format = "uuid")]
    pub id: ExternalNetworkId,
    #[schema(value_type = String)]
    pub name: Name,
    pub description: String,
    pub subnets: Vec<ExternalSubnetView>,
    pub generation: i64,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ExternalSubnet)]
pub struct ExternalSubnetView {
    #[schema(value_type = String)]
    pub cidr: Cidr,
    #[schema(value_type = String)]
    pub gateway: IpAddr,
    /// The ranges of floating IPs and routers' addresses; empty: the whole block but the gateway.
    #[schema(value_type = Vec<String>)]
    pub allocation: Vec<IpRange>,
}

impl From<ExternalNetwork> for ExternalNetworkView {
    fn from(network: ExternalNetwork) -> Self {
        let ExternalNetwork { id, name, description, subnets, generation, created_at } = network;
        let subnet = |ExternalSubnet { cidr, gateway, allocation }| ExternalSubnetView { cidr, gateway, allocation };
        Self { id, name, description, subnets: subnets.into_iter().map(subnet).collect(), generation, created_at }
    }
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExternalNetworkCreate {
    /// Also its name in the hosts' configuration (`[network.external]`).
    pub name: String,
    #[serde(default)]
    pub description: String,
    pub subnets: Vec<ExternalSubnetRequest>,
}

#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExternalSubnetRequest {
    /// A block like `203.0.113.0/24`.
    pub cidr: String,
    /// The gateway to the outside; the block's first address unless given.
    #[serde(default)]
    pub gateway: Option<String>,
    /// Ranges like `203.0.113.10-203.0.113.99` that may be used; without them, the whole block but the gateway.
    #[serde(default)]
    pub allocation: Vec<String>,
}

/// What isn't named stays.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExternalNetworkChange {
    #[serde(default)]
    pub description: Option<String>,
    /// Replaces all. Addresses in use must stay inside.
    #[serde(default)]
    pub subnets: Option<Vec<ExternalSubnetRequest>>,
}
