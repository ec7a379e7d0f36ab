//! What a project may hold, and what it holds.

use crate::{
    app::{App, quota},
    http::{
        intent::{Change, MutationHeaders, MutationParams},
        path::Path,
        problem::ApiResult,
        query::{ProjectParams, Query},
        reply,
    },
    v1::{
        answer,
        scope::{OfProject, Read, SystemAdmin},
        view::quota::{QuotaPut, QuotaView},
    },
};
use axum::extract::State;
use http::StatusCode;
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(show, put))
}

/// Shows a project's limits and usage.
#[utoipa::path(get, path = "/v1/projects/{project}/quota", tag = "quotas",
    params(("project" = String, Path, description = "Id or name.")), responses((status = 200, body = QuotaView)))]
async fn show(State(app): State<App>, scope: OfProject<Read>, _: Query<ProjectParams>) -> ApiResult {
    let quota = quota::find(&app, scope.id()).await?;
    reply::object(StatusCode::OK, quota.generation, &QuotaView::from(quota))
}

/// Sets limits; those that aren't named stay. A limit below the usage refuses new objects and removes none. System admins only.
#[utoipa::path(put, path = "/v1/projects/{project}/quota", tag = "quotas",
    params(("project" = String, Path, description = "Id or name."), MutationParams, MutationHeaders),
    request_body = QuotaPut, responses((status = 200, body = QuotaView)))]
async fn put(
    State(app): State<App>,
    SystemAdmin(caller): SystemAdmin,
    Path(project): Path<String>,
    _: Query<MutationParams>,
    Change { body, intent }: Change<QuotaPut>,
) -> ApiResult {
    let done = quota::put(&app, &caller, &project, |now| body.applied_to(now), &intent).await?;
    answer::object(StatusCode::OK, done, |quota| quota.generation, QuotaView::from)
}
