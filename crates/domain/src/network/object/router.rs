//! Routers: how a network leaves to the outside. A router runs on every host that has its network.

use super::Bounded;
use crate::{ExternalNetworkId, Name, NetworkId, ProjectId, RouterId, Timestamp};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Router {
    pub id: RouterId,
    pub project_id: ProjectId,
    pub name: Name,
    /// A network has at most one router.
    pub network_id: NetworkId,
    pub external_network_id: ExternalNetworkId,
    /// Instances without a floating IP leave by an address of the router.
    pub source_nat: bool,
    pub generation: i64,
    pub created_at: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewRouter {
    pub id: RouterId,
    pub name: Name,
    pub network_id: NetworkId,
    pub external_network_id: ExternalNetworkId,
    pub source_nat: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RouterPatch {
    pub name: Option<Name>,
    pub source_nat: Option<bool>,
}

impl Bounded for NewRouter {}
impl Bounded for RouterPatch {}
