//! Subnets: the ranges of addresses of a network.

use super::Bounded;
use crate::{
    Name, NetworkId, ProjectId, SubnetId, Timestamp, Violations,
    network::{HostRoute, IpRange, SubnetSpec},
    validate::network::subnet_lists,
};
use core::net::IpAddr;
use serde::{Deserialize, Serialize};

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

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewSubnet {
    pub id: SubnetId,
    pub network_id: NetworkId,
    pub name: Name,
    pub spec: SubnetSpec,
    pub dhcp: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SubnetPatch {
    pub name: Option<Name>,
    pub dns: Option<Vec<IpAddr>>,
    pub allocation: Option<Vec<IpRange>>,
    pub host_routes: Option<Vec<HostRoute>>,
    pub dhcp: Option<bool>,
}

impl Bounded for NewSubnet {
    fn check(&self, violations: &mut Violations) {
        let SubnetSpec { cidr: _, gateway: _, dns, allocation, host_routes } = &self.spec;
        subnet_lists(violations, [dns.len(), allocation.len(), host_routes.len()]);
    }
}

impl Bounded for SubnetPatch {
    fn check(&self, violations: &mut Violations) {
        let Self { name: _, dns, allocation, host_routes, dhcp: _ } = self;
        let (dns, allocation) = (dns.as_ref().map_or(0, Vec::len), allocation.as_ref().map_or(0, Vec::len));
        subnet_lists(violations, [dns, allocation, host_routes.as_ref().map_or(0, Vec::len)]);
    }
}
