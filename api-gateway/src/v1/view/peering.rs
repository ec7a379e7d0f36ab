//! Peerings: two networks of a project whose instances may talk to each other.

use crate::app::network::related::Related;
use domain::{Name, NetworkId, PeeringId, ProjectId, Timestamp, network::Peering};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = NetworkPeering)]
pub struct PeeringView {
    #[schema(value_type = String, format = "uuid")]
    pub id: PeeringId,
    #[schema(value_type = String, format = "uuid")]
    pub project_id: ProjectId,
    #[schema(value_type = String)]
    pub name: Name,
    #[schema(value_type = String, format = "uuid")]
    pub network_id: NetworkId,
    #[schema(value_type = Option<String>)]
    pub network: Option<Name>,
    #[schema(value_type = String, format = "uuid")]
    pub peer_network_id: NetworkId,
    #[schema(value_type = Option<String>)]
    pub peer_network: Option<Name>,
    pub generation: i64,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
}

impl PeeringView {
    #[must_use]
    pub fn new(peering: Peering, related: &Related) -> Self {
        let Peering { id, project_id, name, network_id, peer_network_id, generation, created_at } = peering;
        Self {
            id,
            project_id,
            name,
            network_id,
            network: related.network(network_id),
            peer_network_id,
            peer_network: related.network(peer_network_id),
            generation,
            created_at,
        }
    }
}

/// Two networks whose ranges don't overlap.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PeeringCreate {
    pub name: String,
    /// Id or name.
    pub network: String,
    /// Id or name of the other one.
    pub peer_network: String,
}
