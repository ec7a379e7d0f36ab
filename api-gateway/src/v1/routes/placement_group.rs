//! Placement groups: instances of a project that stay together or apart.

use crate::{
    app::{
        App,
        intent::Intent,
        placement_group::{self, GroupRequest},
    },
    http::{
        intent::{Change, MutationHeaders, MutationParams},
        page::{List, ListParams},
        path::Path,
        problem::ApiResult,
        query::{ProjectParams, Query},
        reply,
    },
    v1::{
        answer, check,
        scope::{InProject, Read, Write},
        view::plan::DryRun,
    },
};
use api_types::{PlacementGroup as PlacementGroupView, PlacementGroupCreate};
use axum::extract::State;
use domain::placement::{GroupScope, GroupStrength, PlacementGroup};
use http::StatusCode;
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

/// Creates a placement group. Instances join it when they are created (`placement.groups`).
#[utoipa::path(post, path = "/v1/placement-groups", tag = "placement groups", params(MutationParams, MutationHeaders),
    request_body = PlacementGroupCreate,
    responses((status = 201, body = PlacementGroupView), (status = 200, description = "With dry_run.", body = DryRun)))]
async fn create(
    State(app): State<App>,
    scope: InProject<Write>,
    _: Query<MutationParams>,
    Change { body, intent }: Change<PlacementGroupCreate>,
) -> ApiResult {
    let request = GroupRequest {
        name: check::name("/name", &body.name)?,
        policy: body.policy,
        scope: body.scope.unwrap_or(GroupScope::Host),
        strength: body.strength.unwrap_or(GroupStrength::Hard),
    };
    let done = placement_group::create(&app, &scope.caller, scope.id(), request, &intent).await?;
    answer::object(StatusCode::CREATED, done, |group| group.generation, |group| with_members(group, vec![]))
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
    let group = placement_group::find(&app, scope.id(), &key).await?;
    let members = placement_group::members(&app, &group).await?;
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
    answer::deleted(placement_group::delete(&app, &scope.caller, scope.id(), &key, &intent).await?)
}
