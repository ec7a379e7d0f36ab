//! What placement refused, and what it decided for instances that were deleted.

pub use api_types::KeptPlacement as PlacementRecordView;

use crate::auth::caller::SystemRole;
use domain::placement::KeptPlacement;

/// The record as the caller may see it: tenants see no host.
#[must_use]
pub fn placement_record(kept: KeptPlacement, role: SystemRole) -> PlacementRecordView {
    let KeptPlacement { id, project_id, instance_id, instance_name, outcome, record, kept_at } = kept;
    let placement = match role {
        SystemRole::Admin => record,
        SystemRole::Tenant => record.redacted(),
    };
    PlacementRecordView { id, project_id, instance_id, instance_name, outcome, kept_at, placement }
}
