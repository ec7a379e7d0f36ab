//! Ports: attachment points of a network.

use super::Bounded;
use crate::{
    HostId, InstanceId, Name, NetworkId, PortId, ProjectId, SecurityGroupId, SubnetId, Timestamp, Violations, limits,
    network::{Cidr, MacAddr},
    validate::network,
};
use core::net::IpAddr;
use serde::{Deserialize, Serialize};

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

/// An address that a port shall have: this one, or any of this subnet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FixedIpRequest {
    /// Of whichever of the network's subnets it is in.
    Address(IpAddr),
    AnyOf(SubnetId),
}

/// The life of a port's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PortState {
    /// Made for an instance that isn't committed yet; expires.
    Reserved,
    Active,
    /// Its instance is being deleted: its quota is free again, its addresses are held until the host proves that the instance is gone.
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

/// The instance whose NIC a port is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PortOwner {
    pub instance_id: InstanceId,
    /// Made with the instance, and goes with it. A port of its own is only detached.
    pub with_instance: bool,
}

/// What hosts last reported of a port.
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
    /// The digest of what the metadata service says of its instance.
    pub metadata_digest: String,
    pub expires_at: Option<Timestamp>,
    pub status: PortStatus,
    pub status_reason: String,
    pub generation: i64,
    pub created_at: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewPort {
    pub id: PortId,
    pub network_id: NetworkId,
    pub name: Name,
    pub mac: Option<MacAddr>,
    /// Empty: one of an IPv4 subnet and one of an IPv6 subnet, as far as the network has them.
    pub fixed_ips: Vec<FixedIpRequest>,
    pub allowed_addresses: Vec<Cidr>,
    /// Whoever asks may allow addresses from outside the port's network: a system administrator.
    #[serde(default)]
    pub any_address: bool,
    /// None: the project's `default` group.
    pub security_group_ids: Option<Vec<SecurityGroupId>>,
    pub rate_limit: RateLimit,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PortPatch {
    pub name: Option<Name>,
    pub security_group_ids: Option<Vec<SecurityGroupId>>,
    pub allowed_addresses: Option<Vec<Cidr>>,
    /// This means the same as in [`NewPort`].
    pub any_address: bool,
    pub rate_limit: Option<RateLimit>,
}

impl Bounded for NewPort {
    fn check(&self, violations: &mut Violations) {
        let groups = self.security_group_ids.as_ref().map_or(0, Vec::len);
        network::new_port(violations, self.fixed_ips.len(), groups, self.mac);
        violations.at_most("allowed_addresses", self.allowed_addresses.len(), limits::ALLOWED_ADDRESSES_PER_PORT);
        network::rate_limit(violations, "rate_limit/", self.rate_limit);
    }
}

impl Bounded for PortPatch {
    fn check(&self, violations: &mut Violations) {
        let Self { name: _, security_group_ids, allowed_addresses, any_address: _, rate_limit } = self;
        let groups = security_group_ids.as_ref().map_or(0, Vec::len);
        violations.at_most("security_groups", groups, limits::SECURITY_GROUPS_PER_PORT);
        let allowed = allowed_addresses.as_ref().map_or(0, Vec::len);
        violations.at_most("allowed_addresses", allowed, limits::ALLOWED_ADDRESSES_PER_PORT);
        network::rate_limit(violations, "rate_limit/", rate_limit.unwrap_or_default());
    }
}
