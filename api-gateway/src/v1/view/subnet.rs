//! Subnets.

use crate::app::network::related::Related;
use domain::{
    Name, NetworkId, ProjectId, SubnetId, Timestamp,
    network::{Cidr, HostRoute, IpRange, Subnet, SubnetSpec},
};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use utoipa::ToSchema;

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Subnet)]
pub struct SubnetView {
    #[schema(value_type = String, format = "uuid")]
    pub id: SubnetId,
    #[schema(value_type = String, format = "uuid")]
    pub project_id: ProjectId,
    #[schema(value_type = String, format = "uuid")]
    pub network_id: NetworkId,
    #[schema(value_type = Option<String>)]
    pub network: Option<Name>,
    #[schema(value_type = String)]
    pub name: Name,
    #[schema(value_type = String)]
    pub cidr: Cidr,
    #[schema(value_type = String)]
    pub gateway: IpAddr,
    /// The DNS servers of guests; empty: the network's own resolver.
    #[schema(value_type = Vec<String>)]
    pub dns: Vec<IpAddr>,
    /// The ranges that addresses are taken from when none is requested; empty: the whole block.
    #[schema(value_type = Vec<String>)]
    pub allocation: Vec<IpRange>,
    pub host_routes: Vec<HostRouteView>,
    pub dhcp: bool,
    pub generation: i64,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
}

/// A route that guests get.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = HostRoute)]
pub struct HostRouteView {
    #[schema(value_type = String)]
    pub destination: Cidr,
    #[schema(value_type = String)]
    pub next_hop: IpAddr,
}

impl SubnetView {
    #[must_use]
    pub fn new(subnet: Subnet, related: &Related) -> Self {
        let Subnet { id, project_id, network_id, name, spec, dhcp, generation, created_at } = subnet;
        let SubnetSpec { cidr, gateway, dns, allocation, host_routes } = spec;
        let route = |HostRoute { destination, next_hop }| HostRouteView { destination, next_hop };
        Self {
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
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SubnetCreate {
    pub name: String,
    /// Id or name.
    pub network: String,
    /// A block like `10.1.0.0/24` or `fd00:1::/64` that overlaps none of the network's other subnets.
    pub cidr: String,
    /// The block's first address unless given.
    #[serde(default)]
    pub gateway: Option<String>,
    /// The DNS servers of guests, at most 8; without them, the network's own resolver.
    #[serde(default)]
    pub dns: Vec<String>,
    /// Ranges like `10.1.0.100-10.1.0.199` that addresses are taken from when none is requested; without them, the whole block.
    #[serde(default)]
    pub allocation: Vec<String>,
    #[serde(default)]
    pub host_routes: Vec<HostRouteRequest>,
    /// Whether guests get their address by DHCP; true unless given.
    #[serde(default)]
    pub dhcp: Option<bool>,
}

#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HostRouteRequest {
    pub destination: String,
    pub next_hop: String,
}

/// What isn't named stays.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SubnetChange {
    #[serde(default)]
    pub name: Option<String>,
    /// Replaces all.
    #[serde(default)]
    pub dns: Option<Vec<String>>,
    /// Replaces all. Addresses in use stay.
    #[serde(default)]
    pub allocation: Option<Vec<String>>,
    /// Replaces all.
    #[serde(default)]
    pub host_routes: Option<Vec<HostRouteRequest>>,
    #[serde(default)]
    pub dhcp: Option<bool>,
}
