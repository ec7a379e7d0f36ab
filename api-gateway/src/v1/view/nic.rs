//! NICs of instances: as they are shown, and as they are requested.

use crate::app::network::related::Related;
use domain::{Name, NetworkId, PortId, instance::Nic, network::MacAddr};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use utoipa::ToSchema;

/// A network interface (NIC), in the order in which the guest sees them.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Nic)]
pub struct NicView {
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

impl NicView {
    #[must_use]
    pub fn new(nic: Nic, related: &Related) -> Self {
        let Nic { port_id, network_id, mac, addresses, security_group_ids: _ } = nic;
        let (network, floating_ips) = (related.network(network_id), related.floating_ips_of(port_id));
        Self { port_id, network_id, network, mac, addresses, floating_ips }
    }
}

/// A NIC on a network, with a new port that is deleted with the instance; or an existing port.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NicRequest {
    /// Id or name.
    #[serde(default)]
    pub network: Option<String>,
    /// With `network`. Each is an address, or a subnet (id or name) of which any free address is taken. Without them: one address of an IPv4 subnet
    /// and one of an IPv6 subnet, as far as the network has them.
    #[serde(default)]
    pub fixed_ips: Vec<String>,
    /// With `network`. Ids or names; without it, the project's `default`.
    #[serde(default)]
    pub security_groups: Option<Vec<String>>,
    /// Id or name of a port that no instance has; instead of a network.
    #[serde(default)]
    pub port: Option<String>,
}
