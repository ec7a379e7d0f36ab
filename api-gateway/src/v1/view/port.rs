//! Ports: with their addresses, and the instances whose NICs they are.

use super::names::{PortStateName, PortStatusName};
use crate::app::network::related::Related;
use crate::auth::caller::SystemRole;
use domain::{
    HostId, InstanceId, Name, NetworkId, PortId, ProjectId, SecurityGroupId, SubnetId, Timestamp,
    network::{Cidr, FixedIp, MacAddr, Port, PortState, PortStatus, RateLimit},
};
use proto::resource::v1::ReadTrafficResponse;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, net::IpAddr};
use utoipa::ToSchema;

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Port)]
pub struct PortView {
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
    pub fixed_ips: Vec<FixedIpView>,
    /// The floating IPs that lead to one of its addresses.
    #[schema(value_type = Vec<String>)]
    pub floating_ips: Vec<IpAddr>,
    /// Blocks that it may also send from.
    #[schema(value_type = Vec<String>)]
    pub allowed_addresses: Vec<Cidr>,
    pub security_groups: Vec<SecurityGroupOfPort>,
    pub rate_limit: RateLimitView,
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

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = FixedIp)]
pub struct FixedIpView {
    #[schema(value_type = String, format = "uuid")]
    pub subnet_id: SubnetId,
    #[schema(value_type = String)]
    pub address: IpAddr,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct SecurityGroupOfPort {
    #[schema(value_type = String, format = "uuid")]
    pub id: SecurityGroupId,
    #[schema(value_type = Option<String>)]
    pub name: Option<Name>,
}

/// Bits per second; 0: no limit.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RateLimit)]
pub struct RateLimitView {
    pub to_instance_bps: u64,
    pub from_instance_bps: u64,
}

impl PortView {
    #[must_use]
    pub fn new(port: Port, related: &Related, role: SystemRole) -> Self {
        let instance_id = port.owner.map(|owner| owner.instance_id);
        let group = |id: SecurityGroupId| SecurityGroupOfPort { id, name: related.security_groups.get(&id).cloned() };
        let RateLimit { to_instance_bps, from_instance_bps } = port.rate_limit;
        let fixed = |FixedIp { subnet_id, address }| FixedIpView { subnet_id, address };
        Self {
            id: port.id,
            project_id: port.project_id,
            network_id: port.network_id,
            network: related.network(port.network_id),
            name: port.name,
            mac: port.mac,
            addresses: port.fixed_ips.iter().map(|f| f.address).collect(),
            fixed_ips: port.fixed_ips.into_iter().map(fixed).collect(),
            floating_ips: related.floating_ips_of(port.id),
            allowed_addresses: port.allowed_addresses,
            security_groups: port.security_group_ids.into_iter().map(group).collect(),
            rate_limit: RateLimitView { to_instance_bps, from_instance_bps },
            state: port.state,
            status: port.status,
            status_reason: port.status_reason,
            instance_id,
            instance: related.instance(instance_id),
            host_id: port.host_id.filter(|_| role == SystemRole::Admin),
            generation: port.generation,
            created_at: port.created_at,
        }
    }
}

/// What passed and what was dropped since the port's network came to its host, as its instance sees it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PortTraffic)]
pub struct PortTrafficView {
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

impl From<ReadTrafficResponse> for PortTrafficView {
    fn from(read: ReadTrafficResponse) -> Self {
        Self {
            age_ms: read.age_ms,
            rx_bytes: read.rx_bytes,
            rx_packets: read.rx_packets,
            tx_bytes: read.tx_bytes,
            tx_packets: read.tx_packets,
            drops: read.drops.into_iter().collect(),
        }
    }
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PortCreate {
    pub name: String,
    /// Id or name.
    pub network: String,
    /// Chosen for you unless given.
    #[serde(default)]
    pub mac: Option<String>,
    /// Each is an address, or a subnet (id or name) of which any free address is taken. Without them: one address of an IPv4 subnet and one
    /// of an IPv6 subnet, as far as the network has them.
    #[serde(default)]
    pub fixed_ips: Vec<String>,
    /// Blocks that it may also send from, as a router or the holder of a shared address does.
    #[serde(default)]
    pub allowed_addresses: Vec<String>,
    /// Ids or names; without it, the project's `default`. `[]`: none, so that nothing passes.
    #[serde(default)]
    pub security_groups: Option<Vec<String>>,
    #[serde(default)]
    pub rate_limit: Option<RateLimitRequest>,
}

/// Bits per second; 0: no limit.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RateLimitRequest {
    #[serde(default)]
    pub to_instance_bps: u64,
    #[serde(default)]
    pub from_instance_bps: u64,
}

impl From<RateLimitRequest> for RateLimit {
    fn from(request: RateLimitRequest) -> Self {
        let RateLimitRequest { to_instance_bps, from_instance_bps } = request;
        Self { to_instance_bps, from_instance_bps }
    }
}

/// What isn't named stays.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PortChange {
    #[serde(default)]
    pub name: Option<String>,
    /// Replaces all: ids or names.
    #[serde(default)]
    pub security_groups: Option<Vec<String>>,
    /// Replaces all.
    #[serde(default)]
    pub allowed_addresses: Option<Vec<String>>,
    #[serde(default)]
    pub rate_limit: Option<RateLimitRequest>,
}
