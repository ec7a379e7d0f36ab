//! Ports: with their addresses, and the instances whose NICs they are.

use crate::names::{PortStateName, PortStatusName};
use domain::{
    HostId, InstanceId, Name, NetworkId, PortId, ProjectId, SecurityGroupId, SubnetId, Timestamp,
    network::{self, Cidr, MacAddr, PortState, PortStatus},
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, net::IpAddr};
use utoipa::ToSchema;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Port {
    #[schema(value_type = String, format = "uuid")]
    pub id: PortId,
    #[schema(value_type = String, format = "uuid")]
    pub project_id: ProjectId,
    #[schema(value_type = String, format = "uuid")]
    pub network_id: NetworkId,
    #[schema(value_type = Option<String>)]
    pub network: Option<Name>,
    /// Null: it was created with its instance, and is deleted with it.
    #[schema(value_type = Option<String>)]
    pub name: Option<Name>,
    #[schema(value_type = String)]
    pub mac: MacAddr,
    #[schema(value_type = Vec<String>)]
    pub addresses: Vec<IpAddr>,
    pub fixed_ips: Vec<FixedIp>,
    /// The floating IPs that lead to one of its addresses.
    #[schema(value_type = Vec<String>)]
    pub floating_ips: Vec<IpAddr>,
    /// Blocks that it may also send from.
    #[schema(value_type = Vec<String>)]
    pub allowed_addresses: Vec<Cidr>,
    pub security_groups: Vec<SecurityGroupOfPort>,
    pub rate_limit: RateLimit,
    #[schema(value_type = PortStateName)]
    pub state: PortState,
    /// What its host last reported of it.
    #[schema(value_type = PortStatusName)]
    pub status: PortStatus,
    /// Why it is in `error`.
    pub status_reason: String,
    #[schema(value_type = Option<String>, format = "uuid")]
    pub instance_id: Option<InstanceId>,
    #[schema(value_type = Option<String>)]
    pub instance: Option<Name>,
    /// For system admins only, else null.
    #[schema(value_type = Option<String>, format = "uuid")]
    pub host_id: Option<HostId>,
    pub generation: i64,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FixedIp {
    #[schema(value_type = String, format = "uuid")]
    pub subnet_id: SubnetId,
    #[schema(value_type = String)]
    pub address: IpAddr,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SecurityGroupOfPort {
    #[schema(value_type = String, format = "uuid")]
    pub id: SecurityGroupId,
    #[schema(value_type = Option<String>)]
    pub name: Option<Name>,
}

/// Bits per second; 0: no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct RateLimit {
    pub to_instance_bps: u64,
    pub from_instance_bps: u64,
}

/// What passed and what was dropped since the port's network came to its host, as its instance sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PortTraffic {
    /// The age of these figures: the host reports every few seconds.
    pub age_ms: u64,
    pub rx_bytes: u64,
    pub rx_packets: u64,
    pub tx_bytes: u64,
    pub tx_packets: u64,
    /// Packets that were dropped, by reason: `spoof`, `dhcp_server`, `router_advertisement`, `security_group`, `protected` (addresses that
    /// no instance may reach), `host` (services that the host doesn't offer), `rate`, `transit`, `stale_nat`, `not_routable`
    /// (a private address on its way between a network and the outside, which nothing translates).
    pub drops: BTreeMap<String, u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PortCreate {
    pub name: String,
    /// Id or name.
    pub network: String,
    /// Chosen for you unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// Each is an address, or a subnet (id or name) of which any free address is taken. Without them: one address of an IPv4 subnet and one
    /// of an IPv6 subnet, as far as the network has them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fixed_ips: Vec<String>,
    /// Blocks that it may also send from, as a router or the holder of a shared address does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_addresses: Vec<String>,
    /// Ids or names; without it, the project's `default`. `[]`: none, so that nothing passes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security_groups: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimitRequest>,
}

/// Bits per second; 0: no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RateLimitRequest {
    #[serde(default)]
    pub to_instance_bps: u64,
    #[serde(default)]
    pub from_instance_bps: u64,
}

impl From<RateLimitRequest> for network::RateLimit {
    fn from(request: RateLimitRequest) -> Self {
        let RateLimitRequest { to_instance_bps, from_instance_bps } = request;
        Self { to_instance_bps, from_instance_bps }
    }
}

/// What isn't named stays.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PortChange {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Replaces all: ids or names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security_groups: Option<Vec<String>>,
    /// Replaces all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed_addresses: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimitRequest>,
}
