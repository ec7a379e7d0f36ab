//! What a project may hold, and what it holds.

use crate::{
    app::{
        App,
        catalog::shown,
        intent::Intent,
        mutate::{OwnChange, commit_own_change},
        plan::Done,
    },
    auth::caller::Caller,
    failure::ApiError,
};
use domain::{Problem, ProjectId, identity::Quota, quota::QuotaAmounts};
use operation::Activity;
use store::{QuotaLimitPut, Unit};

pub async fn find(app: &App, project_id: ProjectId) -> Result<Quota, ApiError> {
    let used = app.store().quota_usage(project_id).await?;
    let limit = app.store().quota_limit_find(project_id).await?;
    // A project without a row may hold nothing: this is what the managers count against.
    let (limits, generation) = limit.map_or((QuotaAmounts::default(), 0), |row| (row.limit, row.generation));
    Ok(Quota { limits, used, generation })
}

/// Sets limits. `limits` gets the present ones.
pub async fn put(
    app: &App,
    caller: &Caller,
    project_key: &str,
    limits: impl FnOnce(QuotaAmounts) -> Result<QuotaAmounts, Problem> + Send,
    intent: &Intent,
) -> Result<Done<Quota>, ApiError> {
    commit_own_change(app, caller, intent, async {
        let found = app.auth().identities.project(project_key).await?;
        let project = found.ok_or_else(|| Problem::not_found("project", shown(project_key)))?;
        let now = find(app, project.id).await?;
        intent.check_generation(now.generation)?;
        let limits = limits(now.limits)?;
        let unit = Unit::new().op(QuotaLimitPut::new(project.id, &limits, now.generation));
        let QuotaAmounts { instances, vcpus, memory_mib, disk_gib, .. } = limits;
        let message = format!(
            "project {} may hold {instances} instances, {vcpus} vCPUs, {memory_mib} MiB memory, {disk_gib} GiB disk",
            project.name
        );
        let activity =
            Activity::new("quota", project.id, "quota.change", "quota.changed", message).in_project(project.id);
        let object_name = project.name.clone();
        let outcome = Quota { limits, used: now.used, generation: now.generation + 1 };
        Ok(OwnChange { unit, activity, object_name, outcome, changes_identity: false })
    })
    .await
}
