//! Recoveries from the loss of hosts, for system admins. The cluster-manager owns them; reads go to the store.

use crate::{
    app::{App, catalog::shown},
    failure::ApiError,
};
use domain::{InstanceId, Problem, RecoveryId, recovery::Recovery};
use store::RecoveryFilter;

pub async fn find(app: &App, key: &str) -> Result<Recovery, ApiError> {
    let not_found = || Problem::not_found("recovery", shown(key));
    let id: RecoveryId = key.parse().map_err(|_| not_found())?;
    app.store().recovery_find(id).await?.ok_or_else(|| not_found().into())
}

/// `instance`: an id, since the instances are of all projects.
pub async fn list(app: &App, instance: Option<&str>, filter: RecoveryFilter) -> Result<Vec<Recovery>, ApiError> {
    let instance_id = instance.map(str::parse::<InstanceId>).transpose();
    let instance_id = instance_id.map_err(|_| Problem::invalid("instance", "an id is expected"))?;
    Ok(app.store().recovery_list(&RecoveryFilter { instance_id, ..filter }).await?)
}
