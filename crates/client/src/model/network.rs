//! Networks and what belongs to them. Addresses and blocks are texts: they are the server's to read.

use domain::{
    ExternalNetworkId, FloatingIpId, HostId, InstanceId, NetworkId, PeeringId, PortId, ProjectId, RouterId,
    SecurityGroupId, SecurityRuleId, SubnetId, Timestamp,
    network::{Direction, Ethertype, PortState, PortStatus},
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    pub id: NetworkId,
    pub project_id: ProjectId,
    pub name: String,
    #[serde(default)]
    pub description: String,
    #[serde(default)]
    pub mtu: Option<u32>,
    /// For system admins.
    #[serde(default)]
    pub vni: Option<u32>,
    #[serde(default)]
    pub subnets: Vec<SubnetOfNetwork>,
    #[serde(default)]
    pub router: Option<RouterOfNetwork>,
    #[serde(default)]
    pub peerings: Vec<PeeringOfNetwork>,
    #[serde(default)]
    pub generation: i64,
    pub created_at: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubnetOfNetwork {
    pub id: SubnetId,
    pub name: String,
    pub cidr: String,
    pub gateway: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouterOfNetwork {
    pub id: RouterId,
    pub name: String,
    pub external_network_id: ExternalNetworkId,
    #[serde(default)]
    pub external_network: Option<String>,
    pub source_nat: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeeringOfNetwork {
    pub id: PeeringId,
    pub name: String,
    /// The other network.
    pub network_id: NetworkId,
    #[serde(default)]
    pub network: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NetworkCreate {
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
}

/// A new name or description of whatever has both; what is `None` stays.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Described {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    pub id: SubnetId,
    pub project_id: ProjectId,
    pub network_id: NetworkId,
    #[serde(default)]
    pub network: Option<String>,
    pub name: String,
    pub cidr: String,
    pub gateway: String,
    #[serde(default)]
    pub dns: Vec<String>,
    #[serde(default)]
    pub allocation: Vec<String>,
    #[serde(default)]
    pub host_routes: Vec<HostRoute>,
    #[serde(default)]
    pub dhcp: bool,
    #[serde(default)]
    pub generation: i64,
    pub created_at: Timestamp,
}

/// A route that guests are told of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRoute {
    pub destination: String,
    pub next_hop: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SubnetCreate {
    pub name: String,
    pub network: String,
    pub cidr: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allocation: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub host_routes: Vec<HostRoute>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dhcp: Option<bool>,
}

/// What is `None` stays.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SubnetChange {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allocation: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_routes: Option<Vec<HostRoute>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dhcp: Option<bool>,
}

/// Since the port's network came to its host, as its instance sees it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct PortTraffic {
    /// Since the host last said anything.
    pub age_ms: u64,
    pub rx_bytes: u64,
    pub rx_packets: u64,
    pub tx_bytes: u64,
    pub tx_packets: u64,
    /// Packets, by the reason they were dropped for.
    #[serde(default)]
    pub drops: BTreeMap<String, u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    pub id: PortId,
    pub project_id: ProjectId,
    pub network_id: NetworkId,
    #[serde(default)]
    pub network: Option<String>,
    /// None: made with its instance.
    #[serde(default)]
    pub name: Option<String>,
    pub mac: String,
    #[serde(default)]
    pub addresses: Vec<String>,
    #[serde(default)]
    pub floating_ips: Vec<String>,
    #[serde(default)]
    pub allowed_addresses: Vec<String>,
    #[serde(default)]
    pub security_groups: Vec<SecurityGroupOfPort>,
    #[serde(default)]
    pub rate_limit: RateLimit,
    pub state: PortState,
    pub status: PortStatus,
    #[serde(default)]
    pub status_reason: String,
    #[serde(default)]
    pub instance_id: Option<InstanceId>,
    #[serde(default)]
    pub instance: Option<String>,
    /// For system admins.
    #[serde(default)]
    pub host_id: Option<HostId>,
    #[serde(default)]
    pub generation: i64,
    pub created_at: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecurityGroupOfPort {
    pub id: SecurityGroupId,
    #[serde(default)]
    pub name: Option<String>,
}

/// Bits per second; 0: no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RateLimit {
    pub to_instance_bps: u64,
    pub from_instance_bps: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PortCreate {
    pub name: String,
    pub network: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// Each an address, or a subnet to take any of.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fixed_ips: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allowed_addresses: Vec<String>,
    /// None: the project's `default`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security_groups: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,
}

/// What is `None` stays.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PortChange {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security_groups: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed_addresses: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Router {
    pub id: RouterId,
    pub project_id: ProjectId,
    pub name: String,
    pub network_id: NetworkId,
    #[serde(default)]
    pub network: Option<String>,
    pub external_network_id: ExternalNetworkId,
    #[serde(default)]
    pub external_network: Option<String>,
    pub source_nat: bool,
    #[serde(default)]
    pub generation: i64,
    pub created_at: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RouterCreate {
    pub name: String,
    pub network: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_network: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_nat: Option<bool>,
}

/// What is `None` stays.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RouterChange {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_nat: Option<bool>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FloatingIp {
    pub id: FloatingIpId,
    pub project_id: ProjectId,
    pub address: String,
    #[serde(default)]
    pub description: String,
    pub external_network_id: ExternalNetworkId,
    #[serde(default)]
    pub external_network: Option<String>,
    #[serde(default)]
    pub port_id: Option<PortId>,
    #[serde(default)]
    pub fixed_ip: Option<String>,
    #[serde(default)]
    pub port_status: Option<PortStatus>,
    #[serde(default)]
    pub instance_id: Option<InstanceId>,
    #[serde(default)]
    pub instance: Option<String>,
    #[serde(default)]
    pub generation: i64,
    pub created_at: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FloatingIpCreate {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_network: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fixed_ip: Option<String>,
}

/// What is `None` stays; `port` of `Some(None)` dissociates it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct FloatingIpChange {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<Option<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fixed_ip: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecurityGroup {
    pub id: SecurityGroupId,
    pub project_id: ProjectId,
    pub name: String,
    #[serde(default)]
    pub description: String,
    #[serde(default)]
    pub rules: Vec<SecurityRule>,
    #[serde(default)]
    pub generation: i64,
    pub created_at: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecurityRule {
    pub id: SecurityRuleId,
    pub direction: Direction,
    pub ethertype: Ethertype,
    /// None: every protocol.
    #[serde(default)]
    pub protocol: Option<String>,
    /// None: every port.
    #[serde(default)]
    pub port_range: Option<String>,
    #[serde(default)]
    pub icmp_type: Option<u8>,
    #[serde(default)]
    pub icmp_code: Option<u8>,
    #[serde(default)]
    pub remote_cidr: Option<String>,
    #[serde(default)]
    pub remote_group_id: Option<SecurityGroupId>,
    #[serde(default)]
    pub remote_group: Option<String>,
    #[serde(default)]
    pub description: String,
}

impl SecurityRule {
    /// Whether it lets somebody outside open TCP connections to `port`.
    #[must_use]
    pub fn opens_tcp(&self, port: u16) -> bool {
        let ports = self.port_range.as_deref().is_none_or(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            matches!((first.parse::<u16>(), last.parse::<u16>()), (Ok(first), Ok(last)) if (first..=last).contains(&port))
        });
        let protocol = self.protocol.as_deref().is_none_or(|protocol| protocol == "tcp");
        self.direction == Direction::Ingress && protocol && ports && self.remote_group_id.is_none()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SecurityGroupCreate {
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// None: everything out, nothing in but replies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rules: Option<Vec<SecurityRuleCreate>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecurityRuleCreate {
    pub direction: Direction,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ethertype: Option<Ethertype>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port_range: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub icmp_type: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub icmp_code: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote_cidr: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote_group: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peering {
    pub id: PeeringId,
    pub project_id: ProjectId,
    pub name: String,
    pub network_id: NetworkId,
    #[serde(default)]
    pub network: Option<String>,
    pub peer_network_id: NetworkId,
    #[serde(default)]
    pub peer_network: Option<String>,
    #[serde(default)]
    pub generation: i64,
    pub created_at: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PeeringCreate {
    pub name: String,
    pub network: String,
    pub peer_network: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExternalNetwork {
    pub id: ExternalNetworkId,
    pub name: String,
    #[serde(default)]
    pub description: String,
    #[serde(default)]
    pub subnets: Vec<ExternalSubnet>,
    #[serde(default)]
    pub generation: i64,
    pub created_at: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ExternalSubnet {
    pub cidr: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allocation: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ExternalNetworkCreate {
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    pub subnets: Vec<ExternalSubnet>,
}

/// What is `None` stays.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ExternalNetworkChange {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subnets: Option<Vec<ExternalSubnet>>,
}
