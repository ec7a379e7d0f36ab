//! Everything that may be asked of the virtual resource manager, in one enum: the contract between the api-gateway, which names ids and
//! checks form, and the resource-manager, which decides. It travels as JSON in one call, so that a new wish is a variant here and an arm
//! there, and the compiler names what is missing.
//!
//! New objects' ids come from the asker, so that a repeat means the same object.

use super::{Cidr, ExternalSubnet, HostRoute, IpRange, MacAddr, NetworkObject, RateLimit, SecurityRule, SubnetSpec};
use crate::{
    ExternalNetworkId, FloatingIpId, Name, NetworkId, PeeringId, PortId, RouterId, SecurityGroupId, SecurityRuleId,
    SubnetId,
};
use core::net::IpAddr;
use serde::{Deserialize, Serialize};

/// An address that a port shall have: this one, or any of this subnet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FixedIpRequest {
    /// Of whichever of the network's subnets it is in.
    Address(IpAddr),
    AnyOf(SubnetId),
}

/// What of a subnet may change later. None: stays.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SubnetChange {
    pub name: Option<Name>,
    pub dns: Option<Vec<IpAddr>>,
    pub allocation: Option<Vec<IpRange>>,
    pub host_routes: Option<Vec<HostRoute>>,
    pub dhcp: Option<bool>,
}

/// What of a port may change later. None: stays.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PortChange {
    pub name: Option<Name>,
    pub security_group_ids: Option<Vec<SecurityGroupId>>,
    pub allowed_addresses: Option<Vec<Cidr>>,
    pub rate_limit: Option<RateLimit>,
}

/// What a floating IP shall stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FloatingTarget {
    Nothing,
    Port {
        port_id: PortId,
        /// None: the port's first IPv4 address.
        fixed_ip: Option<IpAddr>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Change {
    /// The project's network and security group named `default`, once in its life. Repeating it succeeds.
    ProjectDefaults,

    /// The operator's: the project is ignored.
    ExternalNetworkCreate {
        id: ExternalNetworkId,
        name: Name,
        description: String,
        subnets: Vec<ExternalSubnet>,
    },
    ExternalNetworkUpdate {
        id: ExternalNetworkId,
        description: Option<String>,
        subnets: Option<Vec<ExternalSubnet>>,
    },
    ExternalNetworkDelete {
        id: ExternalNetworkId,
    },

    NetworkCreate {
        id: NetworkId,
        name: Name,
        description: String,
        mtu: Option<u32>,
    },
    NetworkUpdate {
        id: NetworkId,
        name: Option<Name>,
        description: Option<String>,
    },
    NetworkDelete {
        id: NetworkId,
    },

    SubnetCreate {
        id: SubnetId,
        network_id: NetworkId,
        name: Name,
        spec: SubnetSpec,
        dhcp: bool,
    },
    SubnetUpdate {
        id: SubnetId,
        change: SubnetChange,
    },
    SubnetDelete {
        id: SubnetId,
    },

    PortCreate {
        id: PortId,
        network_id: NetworkId,
        name: Name,
        mac: Option<MacAddr>,
        /// Empty: one of an IPv4 subnet and one of an IPv6 subnet, as far as the network has them.
        fixed_ips: Vec<FixedIpRequest>,
        allowed_addresses: Vec<Cidr>,
        /// None: the project's `default` group.
        security_group_ids: Option<Vec<SecurityGroupId>>,
        rate_limit: RateLimit,
    },
    PortUpdate {
        id: PortId,
        change: PortChange,
    },
    PortDelete {
        id: PortId,
    },

    RouterCreate {
        id: RouterId,
        name: Name,
        network_id: NetworkId,
        external_network_id: ExternalNetworkId,
        source_nat: bool,
    },
    RouterUpdate {
        id: RouterId,
        name: Option<Name>,
        source_nat: Option<bool>,
    },
    RouterDelete {
        id: RouterId,
    },

    FloatingIpCreate {
        id: FloatingIpId,
        external_network_id: ExternalNetworkId,
        /// None: any that is free.
        address: Option<IpAddr>,
        description: String,
        target: FloatingTarget,
    },
    FloatingIpUpdate {
        id: FloatingIpId,
        description: Option<String>,
        target: Option<FloatingTarget>,
    },
    FloatingIpDelete {
        id: FloatingIpId,
    },

    SecurityGroupCreate {
        id: SecurityGroupId,
        name: Name,
        description: String,
        /// With their ids and descriptions.
        rules: Vec<(SecurityRuleId, SecurityRule, String)>,
    },
    SecurityGroupUpdate {
        id: SecurityGroupId,
        name: Option<Name>,
        description: Option<String>,
    },
    SecurityGroupDelete {
        id: SecurityGroupId,
    },
    SecurityRuleCreate {
        id: SecurityRuleId,
        security_group_id: SecurityGroupId,
        rule: SecurityRule,
        description: String,
    },
    SecurityRuleDelete {
        id: SecurityRuleId,
        security_group_id: SecurityGroupId,
    },

    PeeringCreate {
        id: PeeringId,
        name: Name,
        network_id: NetworkId,
        peer_network_id: NetworkId,
    },
    PeeringDelete {
        id: PeeringId,
    },
}

/// What a change came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeOutcome {
    /// As it is now; of a deletion: as it was. None for [`Change::ProjectDefaults`].
    pub object: Option<NetworkObject>,
    /// One sentence. Of a dry run: what would be done.
    pub summary: String,
    /// "network blue (0198…)": objects that the change touches, for people.
    pub touches: Vec<String>,
}
