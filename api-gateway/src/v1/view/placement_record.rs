//! What placement refused, and what it decided of instances that are gone.

use super::names::PlacementOutcomeName;
use crate::auth::caller::SystemRole;
use domain::{
    InstanceId, Name, PlacementRecordId, ProjectId, Timestamp,
    explain::PlacementRecord,
    placement::{KeptPlacement, PlacementOutcome},
};
use serde::Serialize;
use utoipa::ToSchema;

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PlacementRecord)]
pub struct PlacementRecordView {
    #[schema(value_type = String, format = "uuid")]
    pub id: PlacementRecordId,
    #[schema(value_type = String, format = "uuid")]
    pub project_id: ProjectId,
    /// Of a refused create: the id that it would have had.
    #[schema(value_type = String, format = "uuid")]
    pub instance_id: InstanceId,
    #[schema(value_type = String)]
    pub instance_name: Name,
    #[schema(value_type = PlacementOutcomeName)]
    pub outcome: PlacementOutcome,
    /// When it was refused, or when its instance ended.
    #[schema(value_type = String, format = DateTime)]
    pub kept_at: Timestamp,
    /// Hosts rejected per filter, the best candidates, the nearest fit; for tenants without hosts.
    #[schema(value_type = Object)]
    pub placement: PlacementRecord,
}

impl PlacementRecordView {
    #[must_use]
    pub fn new(kept: KeptPlacement, role: SystemRole) -> Self {
        let KeptPlacement { id, project_id, instance_id, instance_name, outcome, record, kept_at } = kept;
        let placement = match role {
            SystemRole::Admin => record,
            SystemRole::Tenant => record.redacted(),
        };
        Self { id, project_id, instance_id, instance_name, outcome, kept_at, placement }
    }
}
