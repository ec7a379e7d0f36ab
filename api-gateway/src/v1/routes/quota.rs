//! What a project may hold, and what it holds.

use crate::{
    app::{
        App,
        mutate::{self, Answer, Deed, OwnChange},
    },
    auth::scope::{OfProject, Read, SystemAdmin},
    http::{
        intent::{Change, MutationHeaders, MutationParams},
        path::Path,
        problem::{ApiError, ApiResult},
        query::{ProjectParams, Query},
        reply,
    },
    v1::view::quota::{QuotaPut, QuotaView},
};
use axum::extract::State;
use domain::{Problem, ProjectId, quota::QuotaAmounts};
use http::StatusCode;
use store::{QuotaLimitPut, QuotaLimitRow, Unit};
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(show, put))
}

async fn limit_of(app: &App, project_id: ProjectId) -> Result<QuotaLimitRow, ApiError> {
    let found = app.store().quota_limit_find(project_id).await?;
    // A project without a row has no room: what the managers count against.
    Ok(found.unwrap_or(QuotaLimitRow { project_id, limit: QuotaAmounts::default(), generation: 0 }))
}

/// Shows a project's limits and usage.
#[utoipa::path(get, path = "/v1/projects/{project}/quota", tag = "quotas",
    params(("project" = String, Path, description = "Id or name.")), responses((status = 200, body = QuotaView)))]
async fn show(State(app): State<App>, scope: OfProject<Read>, _: Query<ProjectParams>) -> ApiResult {
    let limit = limit_of(&app, scope.id()).await?;
    let used = app.store().quota_usage(scope.id()).await?;
    let view = QuotaView { limits: limit.limit.into(), used: used.into() };
    reply::object(StatusCode::OK, limit.generation, &view)
}

/// Sets limits; those not named stay. A limit below what is used stops growth and takes nothing away. System admins only.
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
    mutate::own(&app, &caller, &intent, async || {
        let found = app.auth().identities.project(&app, &project).await?;
        let project = found.ok_or_else(|| Problem::not_found("project", &project))?;
        let now = limit_of(&app, project.id).await?;
        intent.check_generation(now.generation)?;
        let limit = body.applied_to(now.limit)?;
        let used = app.store().quota_usage(project.id).await?;
        let unit = Unit::new().op(QuotaLimitPut::new(project.id, &limit, now.generation));
        let deed = Deed {
            action: "quota.change",
            event: "quota.changed",
            object_kind: "quota",
            object_id: project.id.to_string(),
            object_name: project.name.clone(),
            project_id: Some(project.id),
            message: format!(
                "project {} may hold {} instances, {} vCPUs, {} MiB memory, {} GiB disk",
                project.name, limit.instances, limit.vcpus, limit.memory_mib, limit.disk_gib
            ),
        };
        let view = QuotaView { limits: limit.into(), used: used.into() };
        let answer = Answer::object(StatusCode::OK, now.generation + 1, &view)?;
        Ok(OwnChange { unit, deed, answer, touches_identity: false })
    })
    .await
}
