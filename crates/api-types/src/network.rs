//! Networks and what connects them: subnets, routers, peerings, external networks.

use domain::{
    ExternalNetworkId, Name, NetworkId, PeeringId, ProjectId, RouterId, SubnetId, Timestamp,
    network::{self, Cidr, IpRange},
};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use utoipa::ToSchema;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Network {
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

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
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

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
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

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
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

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NetworkCreate {
    /// 1 to 63 characters of a-z, 0-9 and '-', starting with a letter.
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// The MTU of guests, 1280 to 9216; without it, what the hosts' network allows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
}

/// What isn't named stays.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NetworkChange {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Subnet {
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
    pub host_routes: Vec<HostRoute>,
    pub dhcp: bool,
    pub generation: i64,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
}

/// A route that guests get.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HostRoute {
    #[schema(value_type = String)]
    pub destination: Cidr,
    #[schema(value_type = String)]
    pub next_hop: IpAddr,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SubnetCreate {
    pub name: String,
    /// Id or name.
    pub network: String,
    /// A block like `10.1.0.0/24` or `fd00:1::/64` that overlaps none of the network's other subnets.
    pub cidr: String,
    /// The block's first address unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    /// The DNS servers of guests, at most 8; without them, the network's own resolver.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<String>,
    /// Ranges like `10.1.0.100-10.1.0.199` that addresses are taken from when none is requested; without them, the whole block.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allocation: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_routes: Vec<HostRouteRequest>,
    /// Whether guests get their address by DHCP; true unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dhcp: Option<bool>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HostRouteRequest {
    pub destination: String,
    pub next_hop: String,
}

/// What isn't named stays.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SubnetChange {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Replaces all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns: Option<Vec<String>>,
    /// Replaces all. Addresses in use stay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allocation: Option<Vec<String>>,
    /// Replaces all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_routes: Option<Vec<HostRouteRequest>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dhcp: Option<bool>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Router {
    #[schema(value_type = String, format = "uuid")]
    pub id: RouterId,
    #[schema(value_type = String, format = "uuid")]
    pub project_id: ProjectId,
    #[schema(value_type = String)]
    pub name: Name,
    #[schema(value_type = String, format = "uuid")]
    pub network_id: NetworkId,
    #[schema(value_type = Option<String>)]
    pub network: Option<Name>,
    #[schema(value_type = String, format = "uuid")]
    pub external_network_id: ExternalNetworkId,
    #[schema(value_type = Option<String>)]
    pub external_network: Option<Name>,
    /// Whether instances without a floating IP reach the outside by an address of the router.
    pub source_nat: bool,
    pub generation: i64,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RouterCreate {
    pub name: String,
    /// Id or name. A network has at most one router.
    pub network: String,
    /// Id or name. Unless given: the only external network, or the one named `public`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_network: Option<String>,
    /// Whether instances without a floating IP reach the outside; true unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_nat: Option<bool>,
}

/// What isn't named stays.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RouterChange {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_nat: Option<bool>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = NetworkPeering)]
pub struct Peering {
    #[schema(value_type = String, format = "uuid")]
    pub id: PeeringId,
    #[schema(value_type = String, format = "uuid")]
    pub project_id: ProjectId,
    #[schema(value_type = String)]
    pub name: Name,
    #[schema(value_type = String, format = "uuid")]
    pub network_id: NetworkId,
    #[schema(value_type = Option<String>)]
    pub network: Option<Name>,
    #[schema(value_type = String, format = "uuid")]
    pub peer_network_id: NetworkId,
    #[schema(value_type = Option<String>)]
    pub peer_network: Option<Name>,
    pub generation: i64,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
}

/// Two networks whose ranges don't overlap.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PeeringCreate {
    pub name: String,
    /// Id or name.
    pub network: String,
    /// Id or name of the other one.
    pub peer_network: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExternalNetwork {
    #[schema(value_type = String, format = "uuid")]
    pub id: ExternalNetworkId,
    #[schema(value_type = String)]
    pub name: Name,
    pub description: String,
    pub subnets: Vec<ExternalSubnet>,
    pub generation: i64,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExternalSubnet {
    #[schema(value_type = String)]
    pub cidr: Cidr,
    #[schema(value_type = String)]
    pub gateway: IpAddr,
    /// The ranges of floating IPs and routers' addresses; empty: the whole block but the gateway.
    #[schema(value_type = Vec<String>)]
    pub allocation: Vec<IpRange>,
}

impl From<network::ExternalNetwork> for ExternalNetwork {
    fn from(network: network::ExternalNetwork) -> Self {
        let network::ExternalNetwork { id, name, description, subnets, generation, created_at } = network;
        let subnet =
            |network::ExternalSubnet { cidr, gateway, allocation }| ExternalSubnet { cidr, gateway, allocation };
        Self { id, name, description, subnets: subnets.into_iter().map(subnet).collect(), generation, created_at }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExternalNetworkCreate {
    /// Also its name in the hosts' configuration (`[network.external]`).
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    pub subnets: Vec<ExternalSubnetRequest>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExternalSubnetRequest {
    /// A block like `203.0.113.0/24`.
    pub cidr: String,
    /// The gateway to the outside; the block's first address unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    /// Ranges like `203.0.113.10-203.0.113.99` that may be used; without them, the whole block but the gateway.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allocation: Vec<String>,
}

/// What isn't named stays.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExternalNetworkChange {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Replaces all. Addresses in use must stay inside.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subnets: Option<Vec<ExternalSubnetRequest>>,
}
