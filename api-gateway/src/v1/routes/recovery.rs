//! Recoveries from the loss of hosts: what each instance's took.

use crate::{
    app::{App, recovery},
    http::{
        page::{List, PageRequest},
        path::Path,
        problem::ApiResult,
        query::{ProjectParams, Query},
        reply,
    },
    v1::scope::SystemAdmin,
};
use api_types::Recovery;
use axum::extract::State;
use domain::{Problem, RecoveryId};
use http::StatusCode;
use serde::Deserialize;
use store::RecoveryFilter;
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(show))
}

#[derive(Debug, Clone, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct RecoveryListParams {
    /// Accepted as everywhere; it has no meaning here.
    #[allow(dead_code)]
    project: Option<String>,
    /// Only recoveries of the instance with this id.
    instance: Option<String>,
    /// Only recoveries that aren't over.
    #[serde(default)]
    #[param(required = false)]
    open: bool,
    /// The newest first; else the oldest.
    #[serde(default)]
    #[param(required = false)]
    newest_first: bool,
    /// Items per page, 1 to 1000; 100 unless given.
    limit: Option<u32>,
    /// The `next_cursor` of the previous page.
    cursor: Option<String>,
    /// Only these fields of each item, separated by commas.
    fields: Option<String>,
}

/// Lists the recoveries of instances whose hosts were lost, the oldest first. They are kept for 30 days unless the operator configures another
/// time. System admins only.
#[utoipa::path(get, path = "/v1/recoveries", tag = "hosts", params(RecoveryListParams),
    responses((status = 200, body = List<Recovery>)))]
async fn list(State(app): State<App>, _: SystemAdmin, Query(params): Query<RecoveryListParams>) -> ApiResult {
    let RecoveryListParams { instance, open, newest_first, .. } = &params;
    let list = format!("recoveries of {instance:?} {open} {newest_first}");
    let page = PageRequest::new(params.limit, params.cursor.as_deref(), params.fields.as_deref(), &list)?;
    let after = page.after.as_deref().map(str::parse::<RecoveryId>).transpose();
    let filter = RecoveryFilter {
        instance_id: None,
        open: *open,
        after: after.map_err(|_| Problem::invalid("cursor", "this cursor is not from this API"))?,
        limit: page.limit + 1,
        newest_first: *newest_first,
    };
    let rows = recovery::list(&app, instance.as_deref(), filter).await?;
    page.reply(rows, |row| row.id.to_string(), Recovery::from)
}

/// Shows a recovery. System admins only.
#[utoipa::path(get, path = "/v1/recoveries/{recovery}", tag = "hosts",
    params(("recovery" = String, Path, description = "Id."), ProjectParams), responses((status = 200, body = Recovery)))]
async fn show(State(app): State<App>, _: SystemAdmin, Path(key): Path<String>, _: Query<ProjectParams>) -> ApiResult {
    reply::json(StatusCode::OK, &Recovery::from(recovery::find(&app, &key).await?))
}
