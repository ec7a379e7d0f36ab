//! Placement records: what was refused, and what was decided for instances that no longer exist.

use crate::{
    app::{App, catalog::shown},
    failure::ApiError,
};
use domain::{InstanceId, PlacementRecordId, Problem, ProjectId, placement::KeptPlacement};
use store::PlacementRecordFilter;

pub async fn list(app: &App, filter: &PlacementRecordFilter) -> Result<Vec<KeptPlacement>, ApiError> {
    Ok(app.store().placement_record_list(filter).await?)
}

/// `project_id`: None looks in all projects.
pub async fn find(app: &App, project_id: Option<ProjectId>, key: &str) -> Result<KeptPlacement, ApiError> {
    let not_found = || Problem::not_found("placement record", shown(key));
    let id: PlacementRecordId = key.parse().map_err(|_| not_found())?;
    let found = app.store().placement_record_find(project_id, id).await?;
    found.ok_or_else(|| not_found().into())
}

/// The records of an instance, by its id or name.
#[must_use]
pub fn of_instance(key: Option<&str>) -> PlacementRecordFilter {
    let id = key.and_then(|key| key.parse::<InstanceId>().ok());
    PlacementRecordFilter {
        instance_id: id,
        instance_name: key.filter(|_| id.is_none()).map(str::to_owned),
        ..PlacementRecordFilter::default()
    }
}
