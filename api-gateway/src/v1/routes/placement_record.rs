//! Placement records: what was refused, and what was decided of instances that are gone. A tenant reads its project's, without hosts.

use crate::{
    app::{App, placement_record},
    auth::caller::Caller,
    http::{
        page::{List, PageRequest},
        path::Path,
        problem::ApiResult,
        query::{ProjectParams, Query},
        reply,
    },
    v1::view::{
        names::PlacementOutcomeName,
        placement_record::{PlacementRecordView, placement_record},
    },
};
use axum::extract::State;
use domain::{PlacementRecordId, Problem, placement::PlacementOutcome};
use http::StatusCode;
use serde::Deserialize;
use store::PlacementRecordFilter;
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(show))
}

#[derive(Debug, Clone, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct PlacementRecordListParams {
    /// Id or name of the project; without it a system admin gets the records of all projects.
    #[allow(dead_code)]
    project: Option<String>,
    /// The records of all projects, even when one is named. System admins only.
    #[serde(default)]
    #[param(required = false)]
    all_projects: bool,
    /// Only records with this outcome.
    #[param(value_type = Option<PlacementOutcomeName>)]
    outcome: Option<PlacementOutcome>,
    /// Only records of the instance with this id or name.
    instance: Option<String>,
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

/// Lists what placement refused, and what it decided for instances that were deleted, the oldest first. The decision for an existing
/// instance is in its `explain`. Records are kept for a day unless the operator configures another time.
#[utoipa::path(get, path = "/v1/placement-records", tag = "placement records", params(PlacementRecordListParams),
    responses((status = 200, body = List<PlacementRecordView>)))]
async fn list(State(app): State<App>, caller: Caller, Query(params): Query<PlacementRecordListParams>) -> ApiResult {
    let project_id = caller.reading_scope(app.auth(), params.all_projects).await?;
    let PlacementRecordListParams { outcome, instance, newest_first, .. } = &params;
    let list = format!("placement records of {project_id:?} {outcome:?} {instance:?} {newest_first}");
    let page = PageRequest::new(params.limit, params.cursor.as_deref(), params.fields.as_deref(), &list)?;
    let after = page.after.as_deref().map(str::parse::<PlacementRecordId>).transpose();
    let filter = PlacementRecordFilter {
        project_id,
        outcome: params.outcome,
        after: after.map_err(|_| Problem::invalid("cursor", "this cursor is not from this API"))?,
        limit: page.limit + 1,
        newest_first: params.newest_first,
        ..placement_record::of_instance(params.instance.as_deref())
    };
    let rows = placement_record::list(&app, &filter).await?;
    let role = caller.system_role();
    page.reply(rows, |row| row.id.to_string(), |row| placement_record(row, role))
}

/// Shows a placement record.
#[utoipa::path(get, path = "/v1/placement-records/{record}", tag = "placement records",
    params(("record" = String, Path, description = "Id."), ProjectParams),
    responses((status = 200, body = PlacementRecordView)))]
async fn show(State(app): State<App>, caller: Caller, Path(key): Path<String>, _: Query<ProjectParams>) -> ApiResult {
    let project_id = caller.reading_scope(app.auth(), false).await?;
    let found = placement_record::find(&app, project_id, &key).await?;
    reply::json(StatusCode::OK, &placement_record(found, caller.system_role()))
}
