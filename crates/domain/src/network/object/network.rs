//! Networks: a tenant's isolated layer-3 domain (a VPC).

use super::Bounded;
use crate::{Name, NetworkId, ProjectId, Timestamp, Violations, network::Vni, validate};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    pub id: NetworkId,
    pub project_id: ProjectId,
    pub name: Name,
    pub description: String,
    pub vni: Vni,
    /// What guests are given. None: what the underlay allows.
    pub mtu: Option<u32>,
    /// Rises with its subnets, router and peerings as well: all of them are part of what hosts get of a network.
    pub generation: i64,
    pub created_at: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewNetwork {
    pub id: NetworkId,
    pub name: Name,
    pub description: String,
    pub mtu: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NetworkPatch {
    pub name: Option<Name>,
    pub description: Option<String>,
}

impl Bounded for NewNetwork {
    fn check(&self, violations: &mut Violations) {
        violations.description("description", &self.description);
        validate::network::mtu(violations, "mtu", self.mtu);
    }
}

impl Bounded for NetworkPatch {
    fn check(&self, violations: &mut Violations) {
        violations.description("description", self.description.as_deref().unwrap_or_default());
    }
}
