//! Why an instance is as it is, and what happened to it.

use crate::{
    app::{App, host, instance, network::look},
    auth::scope::{InProject, Read},
    http::{
        page::{List, ListParams},
        path::Path,
        problem::{ApiError, ApiResult},
        query::{ProjectParams, Query},
        reply,
    },
    v1::routes::placement_record,
    v1::view::{explain::ExplainView, instance::Viewer, timeline::TimelineItem},
};
use axum::extract::State;
use domain::{ErrorKind, InstanceId, Problem, ProjectId, event::Event, placement::KeptPlacement};
use http::StatusCode;
use std::collections::VecDeque;
use store::PlacementRecordFilter;
use utoipa_axum::{router::OpenApiRouter, routes};

/// The last events that an explanation has.
const LAST: usize = 20;
/// Rows of one read.
const BATCH: u32 = 500;
/// An instance with more events is explained by the last of the first so many: a bound, not a case that occurs within the retention.
const PAGES: usize = 20;
/// Placement records that an explanation has.
const RECORDS: u32 = 20;

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(explain)).routes(routes!(timeline))
}

/// Explains an instance: why it is where it is, why it isn't running, what would make it fit, what happened to it. Also one that was
/// refused or is gone, as long as that is kept.
#[utoipa::path(get, path = "/v1/instances/{instance}/explain", tag = "instances",
    params(("instance" = String, Path, description = "Id or name."), ProjectParams),
    responses((status = 200, body = ExplainView)))]
async fn explain(
    State(app): State<App>,
    scope: InProject<Read>,
    Path(key): Path<String>,
    _: Query<ProjectParams>,
) -> ApiResult {
    let viewer = Viewer::of(&scope.caller);
    let instance = match instance::find(&app, scope.id(), &key).await {
        Ok(instance) => instance,
        Err(missing) if missing.problem().kind == ErrorKind::NotFound => {
            return match of_records(&app, scope.id(), &key, viewer).await? {
                Some(view) => reply::json(StatusCode::OK, &view),
                None => Err(missing),
            };
        }
        Err(other) => return Err(other),
    };
    let records = records(&app, scope.id(), instance.name.as_str()).await?;
    let host = match instance.host_id.filter(|_| viewer == Viewer::SystemAdmin) {
        Some(id) => Some(host::find(&app, &id.to_string()).await?),
        None => None,
    };
    let timeline = last_events(&app, instance.id).await?;
    let generation = instance.generation;
    let around = look::nics(&app, [&instance]).await?;
    reply::object(
        StatusCode::OK,
        generation,
        &ExplainView::new(instance, &around, host.as_ref(), records, timeline, viewer),
    )
}

/// What is kept of an id or a name, the newest first.
async fn records(app: &App, project_id: ProjectId, key: &str) -> Result<Vec<KeptPlacement>, ApiError> {
    let filter = PlacementRecordFilter {
        project_id: Some(project_id),
        limit: RECORDS,
        newest_first: true,
        ..placement_record::of_instance(Some(key))
    };
    Ok(app.store().placement_record_list(&filter).await?)
}

async fn of_records(
    app: &App,
    project_id: ProjectId,
    key: &str,
    viewer: Viewer,
) -> Result<Option<ExplainView>, ApiError> {
    let records = records(app, project_id, key).await?;
    let timeline = match records.first() {
        Some(newest) => last_events(app, newest.instance_id).await?,
        None => Vec::new(),
    };
    Ok(ExplainView::of_records(records, timeline, viewer))
}

async fn last_events(app: &App, id: InstanceId) -> Result<Vec<TimelineItem>, ApiError> {
    let mut last: VecDeque<Event> = VecDeque::with_capacity(LAST);
    for _ in 0..PAGES {
        let after = last.back().map_or(0, |event| event.id);
        let events = app.store().event_of_object(&id.to_string(), after, BATCH).await?;
        let ended = events.len() < BATCH as usize;
        last.extend(events);
        while last.len() > LAST {
            last.pop_front();
        }
        if ended {
            break;
        }
    }
    Ok(last.into_iter().map(TimelineItem::from).collect())
}

/// Lists what happened to an instance, the oldest first. By its id also when it is gone.
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
    let after = after.map_err(|_| Problem::invalid("cursor", "this is none of ours"))?;
    let id = match key.parse::<InstanceId>() {
        Ok(id) => id,
        Err(_) => instance::find(&app, scope.id(), &key).await?.id,
    };
    let mut events = app.store().event_of_object(&id.to_string(), after, page.limit + 1).await?;
    // An id of another project, or of nothing, or of what is past retention.
    let foreign = events.iter().any(|event| event.project_id != Some(scope.id()));
    if foreign || (events.is_empty() && after == 0) {
        instance::find(&app, scope.id(), &key).await?;
        events.clear();
    }
    page.reply(events, |event| event.id.to_string(), TimelineItem::from)
}
