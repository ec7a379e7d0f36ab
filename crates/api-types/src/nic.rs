//! NICs of instances: as they are shown, and as they are requested.

use domain::{Name, NetworkId, PortId, network::MacAddr};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use utoipa::ToSchema;

/// A network interface (NIC), in the order in which the guest sees them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Nic {
    #[schema(value_type = String, format = "uuid")]
    pub port_id: PortId,
    #[schema(value_type = String, format = "uuid")]
    pub network_id: NetworkId,
    #[schema(value_type = Option<String>)]
    pub network: Option<Name>,
    #[schema(value_type = String)]
    pub mac: MacAddr,
    #[schema(value_type = Vec<String>)]
    pub addresses: Vec<IpAddr>,
    /// The floating IPs that lead to one of these addresses.
    #[schema(value_type = Vec<String>)]
    pub floating_ips: Vec<IpAddr>,
}

/// A NIC on a network, with a new port that is deleted with the instance; or an existing port.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NicRequest {
    /// Id or name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// With `network`. Each is an address, or a subnet (id or name) of which any free address is taken. Without them: one address of an IPv4 subnet
    /// and one of an IPv6 subnet, as far as the network has them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fixed_ips: Vec<String>,
    /// With `network`. Ids or names; without it, the project's `default`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security_groups: Option<Vec<String>>,
    /// Id or name of a port that no instance has; instead of a network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
}
