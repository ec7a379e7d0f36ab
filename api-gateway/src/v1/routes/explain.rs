//! Why an instance is as it is, and what happened to it.

use crate::{
    app::{App, explain},
    http::{
        page::{List, ListParams},
        path::Path,
        problem::ApiResult,
        query::{ProjectParams, Query},
        reply,
    },
    v1::{
        scope::{InProject, Read},
        view::explain::{ExplainView, TimelineItem, explain_view},
    },
};
use axum::extract::State;
use domain::Problem;
use http::StatusCode;
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(explain)).routes(routes!(timeline))
}

/// Explains an instance: why it is where it is, why it isn't running, what would make it fit, what happened to it. Also one that was
/// refused or deleted, as long as its records are kept.
#[utoipa::path(get, path = "/v1/instances/{instance}/explain", tag = "instances",
    params(("instance" = String, Path, description = "Id or name."), ProjectParams),
    responses((status = 200, body = ExplainView)))]
async fn explain(
    State(app): State<App>,
    scope: InProject<Read>,
    Path(key): Path<String>,
    _: Query<ProjectParams>,
) -> ApiResult {
    let role = scope.caller.system_role();
    let explanation = explain::explain(&app, scope.id(), &key, role).await?;
    let generation = explanation.instance.as_ref().map(|(instance, _)| instance.generation);
    let view = explain_view(explanation, role);
    match generation {
        Some(generation) => reply::object(StatusCode::OK, generation, &view),
        None => reply::json(StatusCode::OK, &view),
    }
}

/// Lists what happened to an instance, the oldest first. Works by id also after it was deleted.
#[utoipa::path(get, path = "/v1/instances/{instance}/timeline", tag = "instances",
    params(("instance" = String, Path, description = "Id or name."), ListParams),
    responses((status = 200, body = List<TimelineItem>)))]
async fn timeline(
    State(app): State<App>,
    scope: InProject<Read>,
    Path(key): Path<String>,
    Query(params): Query<ListParams>,
) -> ApiResult {
    let page = params.page(&format!("timeline of {} {key}", scope.id()))?;
    let after = page.after.as_deref().map_or(Ok(0), str::parse::<i64>);
    let after = after.map_err(|_| Problem::invalid("cursor", "this cursor is not from this API"))?;
    let events = explain::timeline(&app, scope.id(), &key, after, page.limit + 1).await?;
    page.reply(events, |event| event.id.to_string(), TimelineItem::from)
}
