//! The objects of the virtual resource manager, as they are stored and shown. Each has its project, a name that is unique there, and a
//! generation that rises with every desired-state write.
//!
//! Addresses have one owner each: `(scope, address)`, the scope being a network or an external network. Who owns one is said by the
//! row of the address; what an object says of its addresses repeats it.

use super::{Cidr, HostRoute, IpRange, MacAddr, SecurityRule, SubnetSpec, Vni};
use crate::{
    ExternalNetworkId, FloatingIpId, HostId, InstanceId, Name, NetworkId, PeeringId, PortId, ProjectId, RouterId,
    SecurityGroupId, SecurityRuleId, SubnetId, Timestamp,
};
use core::net::IpAddr;
use serde::{Deserialize, Serialize};

/// The kinds of objects, as events, quotas and problems name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ObjectKind {
    ExternalNetwork,
    Network,
    Subnet,
    Port,
    Router,
    FloatingIp,
    SecurityGroup,
    SecurityRule,
    Peering,
}

impl ObjectKind {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ExternalNetwork => "external_network",
            Self::Network => "network",
            Self::Subnet => "subnet",
            Self::Port => "port",
            Self::Router => "router",
            Self::FloatingIp => "floating_ip",
            Self::SecurityGroup => "security_group",
            Self::SecurityRule => "security_rule",
            Self::Peering => "peering",
        }
    }

    /// For people.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::ExternalNetwork => "external network",
            Self::Network => "network",
            Self::Subnet => "subnet",
            Self::Port => "port",
            Self::Router => "router",
            Self::FloatingIp => "floating IP",
            Self::SecurityGroup => "security group",
            Self::SecurityRule => "security rule",
            Self::Peering => "peering",
        }
    }
}

/// A block of the outside that this cloud may use: its gateway is the way out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExternalSubnet {
    pub cidr: Cidr,
    pub gateway: IpAddr,
    /// Where routers' and floating addresses are taken from. Empty: everywhere but the gateway.
    #[serde(default)]
    pub allocation: Vec<IpRange>,
}

impl ExternalSubnet {
    /// The same rules as for a tenant's subnet.
    #[must_use]
    pub fn spec(&self) -> SubnetSpec {
        SubnetSpec {
            cidr: self.cidr,
            gateway: self.gateway,
            dns: vec![],
            allocation: self.allocation.clone(),
            host_routes: vec![],
        }
    }
}

/// A network outside of the cloud that hosts are wired to. The operator's; every project may route to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExternalNetwork {
    pub id: ExternalNetworkId,
    /// Also its name in the hosts' configuration (`[network.external]`).
    pub name: Name,
    pub description: String,
    pub subnets: Vec<ExternalSubnet>,
    pub generation: i64,
    pub created_at: Timestamp,
}

/// A tenant's isolated layer-3 domain (a VPC).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    pub id: NetworkId,
    pub project_id: ProjectId,
    pub name: Name,
    pub description: String,
    pub vni: Vni,
    /// What guests are told. None: what the underlay allows.
    pub mtu: Option<u32>,
    /// Rises with its subnets, router and peerings as well: all of them are what hosts are told of a network.
    pub generation: i64,
    pub created_at: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    pub id: SubnetId,
    pub project_id: ProjectId,
    pub network_id: NetworkId,
    pub name: Name,
    pub spec: SubnetSpec,
    pub dhcp: bool,
    pub generation: i64,
    pub created_at: Timestamp,
}

/// Bits per second; 0: no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RateLimit {
    pub to_instance_bps: u64,
    pub from_instance_bps: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FixedIp {
    pub subnet_id: SubnetId,
    pub address: IpAddr,
}

/// The life of a port's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PortState {
    /// Made for an instance that isn't committed yet; expires.
    Reserved,
    Active,
    /// Its instance is being deleted: the quota is given back, the addresses are held until the host proves that it is gone.
    Releasing,
}

impl PortState {
    pub const ALL: [Self; 3] = [Self::Reserved, Self::Active, Self::Releasing];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reserved => "reserved",
            Self::Active => "active",
            Self::Releasing => "releasing",
        }
    }

    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.as_str() == text)
    }
}

/// Whose card a port is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PortOwner {
    pub instance_id: InstanceId,
    /// Made with the instance, and goes with it. A port of its own is only detached.
    pub with_instance: bool,
}

/// What hosts last said of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PortStatus {
    /// Bound to no host.
    #[default]
    Down,
    /// Bound; its host hasn't programmed it yet.
    Building,
    /// Programmed; its instance doesn't have it yet.
    Ready,
    /// Handed to its instance; answers.
    Active,
    Error,
}

impl PortStatus {
    pub const ALL: [Self; 5] = [Self::Down, Self::Building, Self::Ready, Self::Active, Self::Error];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Building => "building",
            Self::Ready => "ready",
            Self::Active => "active",
            Self::Error => "error",
        }
    }

    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.as_str() == text)
    }
}

/// An attachment point of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    pub id: PortId,
    pub project_id: ProjectId,
    pub network_id: NetworkId,
    /// None: made with its instance.
    pub name: Option<Name>,
    pub mac: MacAddr,
    pub fixed_ips: Vec<FixedIp>,
    /// Blocks that it may also send from, as a router or a holder of virtual addresses does.
    pub allowed_addresses: Vec<Cidr>,
    pub security_group_ids: Vec<SecurityGroupId>,
    pub rate_limit: RateLimit,
    /// Its instance's name, in lower case: what DNS answers. Empty without an instance.
    pub hostname: String,
    pub state: PortState,
    pub owner: Option<PortOwner>,
    pub host_id: Option<HostId>,
    /// Rises each time the port is given to another instance, host or epoch of its instance.
    pub epoch: i64,
    /// The epoch of its instance under which it is bound.
    pub instance_epoch: i64,
    /// Of what the metadata service says of its instance, as the cluster-manager digests it.
    pub metadata_digest: String,
    pub expires_at: Option<Timestamp>,
    pub status: PortStatus,
    pub status_reason: String,
    pub generation: i64,
    pub created_at: Timestamp,
}

/// How a network leaves to the outside. It runs on every host that has the network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Router {
    pub id: RouterId,
    pub project_id: ProjectId,
    pub name: Name,
    /// A network has at most one.
    pub network_id: NetworkId,
    pub external_network_id: ExternalNetworkId,
    /// Instances without a floating IP leave by an address of the router.
    pub source_nat: bool,
    pub generation: i64,
    pub created_at: Timestamp,
}

/// An address of an external network that stands for one of a port's, one to one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FloatingIp {
    pub id: FloatingIpId,
    pub project_id: ProjectId,
    pub external_network_id: ExternalNetworkId,
    pub address: IpAddr,
    pub description: String,
    pub port_id: Option<PortId>,
    /// Of the port's.
    pub fixed_ip: Option<IpAddr>,
    pub generation: i64,
    pub created_at: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecurityGroupRule {
    pub id: SecurityRuleId,
    pub security_group_id: SecurityGroupId,
    pub rule: SecurityRule,
    pub description: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecurityGroup {
    pub id: SecurityGroupId,
    pub project_id: ProjectId,
    pub name: Name,
    pub description: String,
    /// By id.
    pub rules: Vec<SecurityGroupRule>,
    pub generation: i64,
    pub created_at: Timestamp,
}

/// Two networks of a project whose instances may talk to each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peering {
    pub id: PeeringId,
    pub project_id: ProjectId,
    pub name: Name,
    /// The lower id of the two.
    pub network_id: NetworkId,
    pub peer_network_id: NetworkId,
    pub generation: i64,
    pub created_at: Timestamp,
}

impl Subnet {
    /// The routes and resolvers that guests are told are part of what hosts are told.
    #[must_use]
    pub fn host_routes(&self) -> &[HostRoute] {
        &self.spec.host_routes
    }
}

/// Any of them: what a change answers with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum NetworkObject {
    ExternalNetwork(ExternalNetwork),
    Network(Network),
    Subnet(Subnet),
    Port(Port),
    Router(Router),
    FloatingIp(FloatingIp),
    SecurityGroup(SecurityGroup),
    SecurityRule(SecurityGroupRule),
    Peering(Peering),
}

impl NetworkObject {
    #[must_use]
    pub fn kind(&self) -> ObjectKind {
        match self {
            Self::ExternalNetwork(_) => ObjectKind::ExternalNetwork,
            Self::Network(_) => ObjectKind::Network,
            Self::Subnet(_) => ObjectKind::Subnet,
            Self::Port(_) => ObjectKind::Port,
            Self::Router(_) => ObjectKind::Router,
            Self::FloatingIp(_) => ObjectKind::FloatingIp,
            Self::SecurityGroup(_) => ObjectKind::SecurityGroup,
            Self::SecurityRule(_) => ObjectKind::SecurityRule,
            Self::Peering(_) => ObjectKind::Peering,
        }
    }
}
