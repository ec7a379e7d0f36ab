//! Routers: how networks reach the outside.

use crate::app::network::related::Related;
use domain::{ExternalNetworkId, Name, NetworkId, ProjectId, RouterId, Timestamp, network::Router};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Router)]
pub struct RouterView {
    #[schema(value_type = String, format = "uuid")]
    pub id: RouterId,
    #[schema(value_type = String, format = "uuid")]
    pub project_id: ProjectId,
    #[schema(value_type = String)]
    pub name: Name,
    #[schema(value_type = String, format = "uuid")]
    pub network_id: NetworkId,
    #[schema(value_type = Option<String>)]
    pub network: Option<Name>,
    #[schema(value_type = String, format = "uuid")]
    pub external_network_id: ExternalNetworkId,
    #[schema(value_type = Option<String>)]
    pub external_network: Option<Name>,
    /// Whether instances without a floating IP reach the outside by an address of the router.
    pub source_nat: bool,
    pub generation: i64,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
}

impl RouterView {
    #[must_use]
    pub fn new(router: Router, related: &Related) -> Self {
        let Router { id, project_id, name, network_id, external_network_id, source_nat, generation, created_at } =
            router;
        Self {
            id,
            project_id,
            name,
            network_id,
            network: related.network(network_id),
            external_network_id,
            external_network: related.external_network(external_network_id),
            source_nat,
            generation,
            created_at,
        }
    }
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RouterCreate {
    pub name: String,
    /// Id or name. A network has at most one router.
    pub network: String,
    /// Id or name. Unless given: the only external network, or the one named `public`.
    #[serde(default)]
    pub external_network: Option<String>,
    /// Whether instances without a floating IP reach the outside; true unless given.
    #[serde(default)]
    pub source_nat: Option<bool>,
}

/// What isn't named stays.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RouterChange {
    #[serde(default)]
    pub name: Option<String>,
    #[serde(default)]
    pub source_nat: Option<bool>,
}
