//! The audit log: who requested what, and with which outcome.

use crate::{
    app::App,
    auth::caller::Caller,
    http::{
        page::{List, PageRequest},
        problem::ApiResult,
        query::Query,
    },
};
use api_types::AuditEntry;
use axum::extract::State;
use serde::Deserialize;
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list))
}

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct AuditParams {
    /// Id or name of the project; without it a system admin reads the whole log.
    #[allow(dead_code)]
    project: Option<String>,
    /// The whole log, even when a project is named. System admins only.
    #[serde(default)]
    #[param(required = false)]
    all_projects: bool,
    /// Items per page, 1 to 1000; 100 unless given.
    limit: Option<u32>,
    /// The `next_cursor` of the previous page.
    cursor: Option<String>,
    /// Only these fields of each item, separated by commas.
    fields: Option<String>,
}

/// Lists a project's audit log, the oldest first. Without a project: the whole one, for system admins.
#[utoipa::path(get, path = "/v1/audit", tag = "audit", params(AuditParams),
    responses((status = 200, body = List<AuditEntry>)))]
async fn list(State(app): State<App>, caller: Caller, Query(params): Query<AuditParams>) -> ApiResult {
    let project_id = caller.reading_scope(app.auth(), params.all_projects).await?;
    let whose = project_id.map_or_else(|| "all".to_owned(), |id| id.to_string());
    let page = PageRequest::new(
        params.limit,
        params.cursor.as_deref(),
        params.fields.as_deref(),
        &format!("audit of {whose}"),
    )?;
    let entries = app.store().audit_list(project_id, page.store_page()).await?;
    page.reply(entries, |entry| entry.id.to_string(), AuditEntry::from)
}
