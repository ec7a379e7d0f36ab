//! External networks: what lies outside of the cloud and is wired to hosts. They are the operator's; every project may route to them.

use super::Bounded;
use crate::{
    ExternalNetworkId, Name, Timestamp, Violations,
    network::{Cidr, IpRange, SubnetSpec},
    validate::network,
};
use core::net::IpAddr;
use serde::{Deserialize, Serialize};

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
    /// The same rules hold as for a tenant's subnet.
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

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewExternalNetwork {
    pub id: ExternalNetworkId,
    pub name: Name,
    pub description: String,
    pub subnets: Vec<ExternalSubnet>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ExternalNetworkPatch {
    pub description: Option<String>,
    pub subnets: Option<Vec<ExternalSubnet>>,
}

impl Bounded for NewExternalNetwork {
    fn check(&self, violations: &mut Violations) {
        violations.description("description", &self.description);
        check_subnets(violations, &self.subnets);
    }
}

impl Bounded for ExternalNetworkPatch {
    fn check(&self, violations: &mut Violations) {
        violations.description("description", self.description.as_deref().unwrap_or_default());
        if let Some(subnets) = &self.subnets {
            check_subnets(violations, subnets);
        }
    }
}

fn check_subnets(violations: &mut Violations, subnets: &[ExternalSubnet]) {
    network::external_subnets(violations, "subnets", subnets.len());
    network::external_ranges(violations, subnets);
}
