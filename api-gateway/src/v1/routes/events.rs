//! Events as they happen: a stream of server-sent events that loses nothing across reconnects.

use crate::{
    app::{
        App,
        event_stream::{self, EventScope, Subscription},
    },
    auth::caller::Caller,
    failure::ApiError,
    http::{problem::ApiResult, query::Query},
};
use axum::{
    body::Body,
    extract::{FromRequestParts, State},
    response::Response,
};
use domain::{
    Problem,
    policy::{Action, Resource},
};
use http::{HeaderValue, header, request::Parts};
use serde::Deserialize;
use tokio_stream::wrappers::ReceiverStream;
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(stream))
}

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct EventParams {
    /// Id or name of one project; without it and `X-Iaas-Project`, all events that you may see.
    #[allow(dead_code)]
    project: Option<String>,
    /// All events, of all projects and of the system. System admins only.
    #[serde(default)]
    #[param(required = false)]
    all_projects: bool,
    /// Only events after this id; the header `Last-Event-ID` takes precedence. Without either: from now on.
    after: Option<i64>,
}

/// The id that a reconnecting reader names.
struct LastEventId(Option<i64>);

impl<S: Send + Sync> FromRequestParts<S> for LastEventId {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let Some(value) = parts.headers.get("last-event-id") else { return Ok(Self(None)) };
        let text = value.to_str().unwrap_or("?").trim();
        if text.is_empty() {
            return Ok(Self(None));
        }
        match text.parse() {
            Ok(id) => Ok(Self(Some(id))),
            Err(_) => Err(Problem::invalid("Last-Event-ID", "the id of an event is expected").into()),
        }
    }
}

/// Streams events. `event:` is the kind, `data:` the event as JSON; `event: reset` says that ids before are no longer kept.
#[utoipa::path(get, path = "/v1/events", tag = "events",
    params(EventParams, ("Last-Event-ID" = Option<i64>, Header, description = "The last id that was received.")),
    responses((status = 200, description = "A stream.", body = String, content_type = "text/event-stream")))]
async fn stream(
    State(app): State<App>,
    caller: Caller,
    Query(params): Query<EventParams>,
    LastEventId(last): LastEventId,
) -> ApiResult {
    let bound_key = caller.identity.api_key.as_ref().is_some_and(|key| key.project_id.is_some());
    let scope = if params.all_projects {
        caller.authorize(app.auth(), Action::SystemManage, Resource::System).await?;
        EventScope::Visible
    } else if caller.names_project() || bound_key {
        let project = caller.project(app.auth()).await?;
        caller.authorize(app.auth(), Action::ProjectRead, Resource::Project(project.id)).await?;
        EventScope::Project(project.id)
    } else {
        EventScope::Visible
    };
    let place = app.events().place(caller.identity.user_id)?;
    let subscription = Subscription { identity: caller.identity.clone(), scope, after: last.or(params.after) };
    let chunks = event_stream::open(&app, subscription, place).await?;
    let mut response = Response::new(Body::from_stream(ReceiverStream::new(chunks)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    // Proxies that buffer would hold events back.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}
