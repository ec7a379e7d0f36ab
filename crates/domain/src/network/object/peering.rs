//! Peerings: two networks of a project whose instances may talk to each other.

use super::Bounded;
use crate::{Name, NetworkId, PeeringId, ProjectId, Timestamp, Violations, validate};
use serde::{Deserialize, Serialize};

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

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewPeering {
    pub id: PeeringId,
    pub name: Name,
    pub network_id: NetworkId,
    pub peer_network_id: NetworkId,
}

impl Bounded for NewPeering {
    fn check(&self, violations: &mut Violations) {
        validate::network::peers(violations, "peer_network", self.network_id != self.peer_network_id);
    }
}
