//! Placement groups: instances of a project that stay together or apart.

use crate::{
    app::{
        App,
        catalog::shown,
        intent::Intent,
        mutate::{OwnChange, commit_own_change},
        plan::Done,
    },
    auth::caller::Caller,
    failure::{ApiError, placement_group_in_use},
};
use domain::{
    InstanceId, Name, PlacementGroupId, Problem, ProjectId, Timestamp, limits,
    placement::{GroupPolicy, GroupScope, GroupStrength, PlacementGroup},
};
use operation::Activity;
use store::{IdentityUsageAdd, PlacementGroupDelete, PlacementGroupInsert, Unit};

pub struct GroupRequest {
    pub name: Name,
    pub policy: GroupPolicy,
    pub scope: GroupScope,
    pub strength: GroupStrength,
}

/// The group behind an id or a name, in this project only.
pub async fn find(app: &App, project_id: ProjectId, key: &str) -> Result<PlacementGroup, ApiError> {
    let found = match key.parse::<PlacementGroupId>() {
        Ok(id) => app.store().placement_group_find(project_id, id).await?,
        Err(_) => app.store().placement_group_find_by_name(project_id, key).await?,
    };
    found.ok_or_else(|| Problem::not_found("placement group", shown(key)).into())
}

/// The first instances in the group.
pub async fn members(app: &App, group: &PlacementGroup) -> Result<Vec<InstanceId>, ApiError> {
    Ok(app.store().placement_group_members(group.id, limits::PAGE_MAX).await?)
}

pub async fn create(
    app: &App,
    caller: &Caller,
    project_id: ProjectId,
    request: GroupRequest,
    intent: &Intent,
) -> Result<Done<PlacementGroup>, ApiError> {
    commit_own_change(app, caller, intent, async {
        let GroupRequest { name, policy, scope, strength } = request;
        let taken = app.store().placement_group_find_by_name(project_id, name.as_str()).await;
        if intent.dry_run && taken?.is_some() {
            return Err(Problem::already_exists("placement group", &name).into());
        }
        let (id, created_at) = (PlacementGroupId::new(), Timestamp::now());
        let group = PlacementGroup { id, project_id, name, policy, scope, strength, generation: 1, created_at };
        let unit = Unit::new().op(IdentityUsageAdd::placement_groups(project_id, 1)).op(PlacementGroupInsert {
            id: group.id,
            project_id: group.project_id,
            name: group.name.clone(),
            policy: group.policy,
            scope: group.scope,
            strength: group.strength,
            created_at: group.created_at,
        });
        let activity = activity("placement_group.create", "placement_group.created", "was created", &group);
        Ok(OwnChange { unit, activity, object_name: group.name.to_string(), outcome: group, changes_identity: false })
    })
    .await
}

pub async fn delete(
    app: &App,
    caller: &Caller,
    project_id: ProjectId,
    key: &str,
    intent: &Intent,
) -> Result<Done<()>, ApiError> {
    commit_own_change(app, caller, intent, async {
        let group = find(app, project_id, key).await?;
        intent.check_generation(group.generation)?;
        if intent.dry_run && !app.store().placement_group_members(group.id, 1).await?.is_empty() {
            return Err(placement_group_in_use().into());
        }
        let unit = Unit::new()
            .op(PlacementGroupDelete { id: group.id })
            .op(IdentityUsageAdd::placement_groups(project_id, -1));
        let activity = activity("placement_group.delete", "placement_group.deleted", "was deleted", &group);
        Ok(OwnChange { unit, activity, object_name: group.name.to_string(), outcome: (), changes_identity: false })
    })
    .await
}

fn activity(action: &'static str, event: &'static str, what: &str, group: &PlacementGroup) -> Activity {
    let message = format!("placement group {} {what}", group.name);
    Activity::new("placement_group", group.id, action, event, message).in_project(group.project_id)
}
