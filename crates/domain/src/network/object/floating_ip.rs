//! Floating IPs: an address of an external network that stands for one of a port's, one to one.

use super::Bounded;
use crate::{ExternalNetworkId, FloatingIpId, PortId, ProjectId, Timestamp, Violations};
use core::net::IpAddr;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FloatingIp {
    pub id: FloatingIpId,
    pub project_id: ProjectId,
    pub external_network_id: ExternalNetworkId,
    pub address: IpAddr,
    pub description: String,
    pub port_id: Option<PortId>,
    /// An address of the port.
    pub fixed_ip: Option<IpAddr>,
    pub generation: i64,
    pub created_at: Timestamp,
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
pub struct NewFloatingIp {
    pub id: FloatingIpId,
    pub external_network_id: ExternalNetworkId,
    /// None: any address that is free.
    pub address: Option<IpAddr>,
    pub description: String,
    pub target: FloatingTarget,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FloatingIpPatch {
    pub description: Option<String>,
    pub target: Option<FloatingTarget>,
}

impl Bounded for NewFloatingIp {
    fn check(&self, violations: &mut Violations) {
        violations.description("description", &self.description);
    }
}

impl Bounded for FloatingIpPatch {
    fn check(&self, violations: &mut Violations) {
        violations.description("description", self.description.as_deref().unwrap_or_default());
    }
}
