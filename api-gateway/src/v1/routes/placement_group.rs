//! Placement groups: instances of a project that keep together or apart.

use crate::{
    app::{
        App,
        catalog::shown,
        mutate::{self, Answer, Deed, OwnChange},
    },
    auth::scope::{InProject, Read, Write},
    http::{
        intent::{Change, Intent, MutationHeaders, MutationParams},
        page::{List, ListParams},
        path::Path,
        problem::{ApiError, ApiResult},
        query::{ProjectParams, Query},
        reply,
    },
    v1::view::{
        placement_group::{PlacementGroupCreate, PlacementGroupView},
        plan::DryRun,
    },
};
use axum::extract::State;
use domain::{
    PlacementGroupId, Problem, ProjectId, Timestamp, limits,
    placement::{GroupScope, GroupStrength, PlacementGroup},
};
use http::StatusCode;
use store::{PlacementGroupDelete, PlacementGroupInsert, Unit};
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(show, delete))
}

/// Lists the project's placement groups.
#[utoipa::path(get, path = "/v1/placement-groups", tag = "placement groups", params(ListParams),
    responses((status = 200, body = List<PlacementGroupView>)))]
async fn list(State(app): State<App>, scope: InProject<Read>, Query(params): Query<ListParams>) -> ApiResult {
    let page = params.page(&format!("placement groups of {}", scope.id()))?;
    let rows = app.store().placement_group_list(scope.id(), page.store_page()).await?;
    page.reply(rows, |row| row.id.to_string(), PlacementGroupView::from)
}

/// Makes a placement group. Instances join it when they are made (`placement.groups`).
#[utoipa::path(post, path = "/v1/placement-groups", tag = "placement groups", params(MutationParams, MutationHeaders),
    request_body = PlacementGroupCreate,
    responses((status = 201, body = PlacementGroupView), (status = 200, description = "With dry_run.", body = DryRun)))]
async fn create(
    State(app): State<App>,
    scope: InProject<Write>,
    _: Query<MutationParams>,
    Change { body, intent }: Change<PlacementGroupCreate>,
) -> ApiResult {
    mutate::own(&app, &scope.caller, &intent, async || {
        let taken = app.store().placement_group_find_by_name(scope.id(), body.name.as_str()).await;
        if intent.dry_run && taken?.is_some() {
            return Err(Problem::already_exists("placement group", &body.name).into());
        }
        let group = PlacementGroup {
            id: PlacementGroupId::new(),
            project_id: scope.id(),
            name: body.name.clone(),
            policy: body.policy,
            scope: body.scope.unwrap_or(GroupScope::Host),
            strength: body.strength.unwrap_or(GroupStrength::Hard),
            generation: 1,
            created_at: Timestamp::now(),
        };
        let unit = Unit::new().op(PlacementGroupInsert {
            id: group.id,
            project_id: group.project_id,
            name: group.name.clone(),
            policy: group.policy,
            scope: group.scope,
            strength: group.strength,
            created_at: group.created_at,
        });
        let deed = deed("placement_group.create", "placement_group.created", "was created", &group);
        let answer = Answer::object(StatusCode::CREATED, group.generation, &with_members(group, vec![]))?;
        Ok(OwnChange { unit, deed, answer, touches_identity: false })
    })
    .await
}

fn with_members(group: PlacementGroup, members: Vec<domain::InstanceId>) -> PlacementGroupView {
    PlacementGroupView { instance_ids: Some(members), ..PlacementGroupView::from(group) }
}

/// Shows a placement group with its instances.
#[utoipa::path(get, path = "/v1/placement-groups/{group}", tag = "placement groups",
    params(("group" = String, Path, description = "Id or name."), ProjectParams),
    responses((status = 200, body = PlacementGroupView)))]
async fn show(
    State(app): State<App>,
    scope: InProject<Read>,
    Path(key): Path<String>,
    _: Query<ProjectParams>,
) -> ApiResult {
    let group = fetch(&app, scope.id(), &key).await?;
    let members = app.store().placement_group_members(group.id, limits::PAGE_MAX).await?;
    reply::object(StatusCode::OK, group.generation, &with_members(group, members))
}

/// Deletes a placement group that no instance is in.
#[utoipa::path(delete, path = "/v1/placement-groups/{group}", tag = "placement groups",
    params(("group" = String, Path, description = "Id or name."), MutationParams, MutationHeaders),
    responses((status = 204, description = "It is gone."), (status = 200, description = "With dry_run.", body = DryRun)))]
async fn delete(
    State(app): State<App>,
    scope: InProject<Write>,
    Path(key): Path<String>,
    _: Query<MutationParams>,
    intent: Intent,
) -> ApiResult {
    mutate::own(&app, &scope.caller, &intent, async || {
        let group = fetch(&app, scope.id(), &key).await?;
        intent.check_generation(group.generation)?;
        if intent.dry_run && !app.store().placement_group_members(group.id, 1).await?.is_empty() {
            return Err(crate::app::failure::placement_group_in_use().into());
        }
        let unit = Unit::new().op(PlacementGroupDelete { id: group.id });
        let deed = deed("placement_group.delete", "placement_group.deleted", "was deleted", &group);
        Ok(OwnChange { unit, deed, answer: Answer::none(), touches_identity: false })
    })
    .await
}

/// The group behind an id or a name, in this project only.
pub async fn fetch(app: &App, project_id: ProjectId, key: &str) -> Result<PlacementGroup, ApiError> {
    let found = match key.parse::<PlacementGroupId>() {
        Ok(id) => app.store().placement_group_find(project_id, id).await?,
        Err(_) => app.store().placement_group_find_by_name(project_id, key).await?,
    };
    found.ok_or_else(|| Problem::not_found("placement group", shown(key)).into())
}

fn deed(action: &'static str, event: &'static str, what: &str, group: &PlacementGroup) -> Deed {
    Deed {
        action,
        event,
        object_kind: "placement_group",
        object_id: group.id.to_string(),
        object_name: group.name.to_string(),
        project_id: Some(group.project_id),
        message: format!("placement group {} {what}", group.name),
    }
}
