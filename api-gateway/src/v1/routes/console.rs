//! Consoles: the log of what a guest printed, and the live serial port behind a one-use ticket.

use crate::{
    app::{
        App, console,
        console_log::{self, LOG_BYTES_MAX, LOG_TAIL_BYTES, LogFrom},
        console_ticket::{self, Grant},
        instance,
        plan::Plan,
    },
    http::{
        console_socket::{self, INPUT_BYTES_MAX},
        intent::{Change, IfMatchHeader, MutationParams},
        path::Path,
        problem::ApiResult,
        query::Query,
        reply,
    },
    v1::{
        answer,
        routes::auth::Anyone,
        scope::{InProject, Write},
        view::plan::DryRun,
    },
};
use api_types::{ConsoleTicket, NoFields};
use axum::{
    body::Body,
    extract::{State, WebSocketUpgrade},
    response::Response,
};
use domain::{Problem, Violations};
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde::Deserialize;
use tokio_stream::wrappers::ReceiverStream;
use utoipa_axum::{router::OpenApiRouter, routes};

/// The offset of the first byte of a log's answer.
const OFFSET: HeaderName = HeaderName::from_static("x-offset");
/// The offset to continue from.
const NEXT_OFFSET: HeaderName = HeaderName::from_static("x-next-offset");
/// Set when the requested beginning is no longer kept.
const TRUNCATED: HeaderName = HeaderName::from_static("x-truncated");

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(log)).routes(routes!(ticket)).routes(routes!(socket))
}

#[derive(Debug, Clone, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct LogParams {
    /// Id or name of the project; else the header `X-Iaas-Project`, the API key's, or your home project.
    #[allow(dead_code)]
    project: Option<String>,
    /// How many of the last bytes; 65536 unless this or `offset` is given.
    tail_bytes: Option<u64>,
    /// The first byte to read, counted from the first that the instance printed.
    offset: Option<u64>,
    /// Continue as the guest prints, until the caller disconnects.
    #[serde(default)]
    #[param(required = false)]
    follow: bool,
}

impl LogParams {
    fn from(&self) -> Result<LogFrom, Problem> {
        let mut violations = Violations::default();
        violations.unless(self.tail_bytes.is_none() || self.offset.is_none(), "tail_bytes", || {
            "give tail_bytes or offset, not both".to_owned()
        });
        let tail_ok = self.tail_bytes.is_none_or(|n| n <= LOG_BYTES_MAX);
        violations.unless(tail_ok, "tail_bytes", || format!("at most {LOG_BYTES_MAX}"));
        violations.finish()?;
        Ok(match self.offset {
            Some(offset) => LogFrom::Offset(offset),
            None => LogFrom::Tail(self.tail_bytes.unwrap_or(LOG_TAIL_BYTES)),
        })
    }
}

/// Reads what a guest printed on its serial console. The header `X-Next-Offset` says where to continue; with `follow`, `X-Offset`
/// says where the body begins, when that is known. Needs the role member, since consoles show secrets.
#[utoipa::path(get, path = "/v1/instances/{instance}/console-log", tag = "consoles",
    params(("instance" = String, Path, description = "Id or name."), LogParams),
    responses((status = 200, description = "The bytes as printed.", body = String, content_type = "text/plain")))]
async fn log(
    State(app): State<App>,
    scope: InProject<Write>,
    Path(key): Path<String>,
    Query(params): Query<LogParams>,
) -> ApiResult {
    let from = params.from()?;
    let instance = instance::find(&app, scope.id(), &key).await?;
    let grant = Grant::new(&scope.caller, scope.id(), instance.id);
    let mut response;
    let (offset, truncated);
    if params.follow {
        let log = console_log::follow(&app, &grant, from).await?;
        (offset, truncated) = (log.offset(), log.truncated());
        response = Response::new(Body::from_stream(ReceiverStream::new(log.bytes(app.clone(), grant))));
        // Proxies that buffer would hold lines back.
        response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    } else {
        let part = console_log::read(&app, &grant, from).await?;
        (offset, truncated) = (Some(part.offset), part.truncated);
        response = Response::new(Body::from(part.bytes));
        response.headers_mut().insert(NEXT_OFFSET, HeaderValue::from(part.next_offset));
    }
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    if let Some(offset) = offset {
        headers.insert(OFFSET, HeaderValue::from(offset));
    }
    if truncated {
        headers.insert(TRUNCATED, HeaderValue::from_static("true"));
    }
    Ok(response)
}

/// Issues a ticket for the live serial console: for one session with this instance, within a minute. It takes no `Idempotency-Key`: a repeat gets
/// another ticket, and one that isn't used just ends.
#[utoipa::path(post, path = "/v1/instances/{instance}/console-ticket", tag = "consoles",
    params(("instance" = String, Path, description = "Id or name."), MutationParams, IfMatchHeader), request_body = NoFields,
    responses((status = 201, body = ConsoleTicket), (status = 200, description = "With dry_run.", body = DryRun)))]
async fn ticket(
    State(app): State<App>,
    scope: InProject<Write>,
    Path(key): Path<String>,
    _: Query<MutationParams>,
    change: Change<NoFields>,
) -> ApiResult {
    let instance = instance::find(&app, scope.id(), &key).await?;
    change.intent.check_generation(instance.generation)?;
    if change.intent.dry_run {
        let summary = format!("a ticket for the console of {} would be issued", instance.name);
        return answer::planned(Plan::of(summary, vec![]));
    }
    let (ticket, expires_at) = console_ticket::issue(&app, &scope.caller, &instance).await?;
    let view = ConsoleTicket { url: console_ticket::url(&app, &ticket), ticket, expires_at };
    reply::json(StatusCode::CREATED, &view)
}

#[derive(Debug, Clone, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct SocketParams {
    /// The ticket of `POST …/console-ticket`. It works once.
    ticket: String,
}

/// Opens the live serial console: a WebSocket that carries bytes both ways in binary messages. The ticket is the credential.
#[utoipa::path(get, path = "/v1/console", tag = "consoles", params(SocketParams),
    responses((status = 101, description = "The WebSocket is open.")))]
async fn socket(
    State(app): State<App>,
    _: Anyone,
    Query(params): Query<SocketParams>,
    upgrade: WebSocketUpgrade,
) -> ApiResult {
    let grant = console_ticket::redeem(&app, &params.ticket).await?;
    // Opened first, so that a refusal is an answer with words and not a socket that closes.
    let session = console::open_serial(&app, &grant).await?;
    let upgrade = upgrade.max_message_size(INPUT_BYTES_MAX).max_frame_size(INPUT_BYTES_MAX);
    // A stop waits until the session has said goodbye.
    let tracked = app.tasks().token();
    Ok(upgrade.on_upgrade(move |socket| async move {
        let _tracked = tracked;
        console_socket::bridge(&app, &grant, socket, session).await;
    }))
}
