//! The edge: what happens to every request before and after its route. One function around the router instead of a tower of layers:
//! request id, time limit, panic catcher, problem rendering, security headers, metrics, access log. A layer of each would box a future
//! and clone a service per request to the same end.

use crate::{
    app::App,
    auth::peer::TrustedProxies,
    config::AccessLog,
    http::{
        dialect::Dialect,
        log_budget::LogBudget,
        problem::{self, PendingProblem},
        query,
        scope::{RequestScope, Scope},
    },
};
use axum::{Router, body::Body, response::Response};
use domain::{Problem, limits};
use futures::FutureExt;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header};
use std::{
    net::IpAddr,
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};
use tower::ServiceExt;
use tracing::Instrument;

pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

pub struct Edge {
    app: App,
    /// The routes of all dialects.
    router: Router,
    /// The dialects, without their routes; the longest prefixes first.
    dialects: Vec<Dialect>,
    proxies: TrustedProxies,
    /// Refusals of strangers that may yet be logged.
    strangers: LogBudget,
    tls: bool,
}

impl Edge {
    #[must_use]
    pub fn new(app: App, dialects: Vec<Dialect>, tls: bool) -> Self {
        let mut router = Router::new();
        let mut kept = Vec::with_capacity(dialects.len());
        for Dialect { router: routes, prefix, render, unlimited } in dialects {
            router = router.merge(routes);
            kept.push(Dialect { router: Router::new(), prefix, render, unlimited });
        }
        kept.sort_by_key(|dialect| std::cmp::Reverse(dialect.prefix.len()));
        let proxies = TrustedProxies::new(app.config().api.trusted_proxies.clone());
        let strangers = LogBudget::default();
        Self { router: router.with_state(app.clone()), app, dialects: kept, proxies, strangers, tls }
    }

    fn render(&self, path: &str, problem: &Problem, request_id: &str) -> Response {
        let render = self.dialect(path).map_or(problem::render as fn(&Problem, &str) -> Response, |d| d.render);
        render(problem, request_id)
    }

    fn dialect(&self, path: &str) -> Option<&Dialect> {
        self.dialects.iter().find(|dialect| path.starts_with(dialect.prefix))
    }
}

/// Answers one request. Never fails: whatever goes wrong is a problem document.
pub async fn handle<B>(edge: &Edge, peer: IpAddr, request: Request<B>) -> Response
where
    B: axum::body::HttpBody<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<axum::BoxError>,
{
    let started = Instant::now();
    let mut request = request.map(Body::new);
    let client = edge.proxies.client(peer, request.headers());
    let scope = RequestScope::new(request_id(request.headers()), client);
    request.extensions_mut().insert(Arc::clone(&scope));
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let limit = time_limit(edge, &request);

    let span = tracing::info_span!("request", request_id = %scope.request_id);
    let routed = AssertUnwindSafe(edge.router.clone().oneshot(request)).catch_unwind();
    let outcome = match limit {
        Some(limit) => tokio::time::timeout(limit, routed).instrument(span.clone()).await,
        None => Ok(routed.instrument(span.clone()).await),
    };
    let response = match outcome {
        Ok(Ok(Ok(response))) => as_problem(edge, response, &method, &path, &scope),
        Ok(Ok(Err(never))) => match never {},
        Ok(Err(panic)) => {
            span.in_scope(|| tracing::error!(panic = panic_text(&*panic), %method, path, "a route panicked"));
            edge.render(&path, &Problem::internal(), &scope.request_id)
        }
        Err(_) => edge.render(&path, &problem::timed_out(), &scope.request_id),
    };
    finish(edge, response, &method, &path, &scope, started, &span)
}

/// A client's id is taken when it is short and plain, so that it can be logged and sent on as it is.
fn request_id(headers: &HeaderMap) -> String {
    let given = headers.get(REQUEST_ID).and_then(|v| v.to_str().ok());
    let sane =
        |t: &&str| (8..=128).contains(&t.len()) && t.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b));
    match given.filter(sane) {
        Some(id) => id.to_owned(),
        None => uuid::Uuid::now_v7().to_string(),
    }
}

/// Uploads end by themselves (a stalled one by the reader's own limit), and a `wait` adds its time.
fn time_limit(edge: &Edge, request: &Request<Body>) -> Option<Duration> {
    let path = request.uri().path();
    if edge.dialect(path).is_some_and(|dialect| (dialect.unlimited)(request.method(), path)) {
        return None;
    }
    let limit = Duration::from_secs(edge.app.config().api.request_timeout_secs);
    match query::find(request.uri().query(), "wait") {
        Some(_) => Some(limit + Duration::from_secs(limits::WAIT_SECS_MAX)),
        None => Some(limit),
    }
}

/// Renders the route's problem, or makes one of an answer that a library made.
fn as_problem(edge: &Edge, mut response: Response, method: &Method, path: &str, scope: &Scope) -> Response {
    let status = response.status();
    if !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let pending = response.extensions_mut().remove::<PendingProblem>();
    let problem = match pending {
        Some(PendingProblem(problem)) => problem,
        None if response.headers().get(header::CONTENT_TYPE) == Some(&problem::PROBLEM_JSON) => return response,
        None => Box::new(problem::for_status(status, method, path)),
    };
    let mut rendered = edge.render(path, &problem, &scope.request_id);
    // What the route said beside its body stays: Allow, Location, Connection.
    for (name, value) in response.headers() {
        if *name != header::CONTENT_TYPE && *name != header::CONTENT_LENGTH && !rendered.headers().contains_key(name) {
            rendered.headers_mut().insert(name.clone(), value.clone());
        }
    }
    rendered
}

fn finish(
    edge: &Edge,
    mut response: Response,
    method: &Method,
    path: &str,
    scope: &Scope,
    started: Instant,
    span: &tracing::Span,
) -> Response {
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&scope.request_id) {
        headers.insert(REQUEST_ID, id);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"),
    );
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    if edge.tls {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000"));
    }
    if let Some(rate) = scope.rate.get() {
        headers.insert("ratelimit-limit", HeaderValue::from(rate.limit_per_second));
        headers.insert("ratelimit-remaining", HeaderValue::from(rate.remaining));
        headers.insert("ratelimit-reset", HeaderValue::from_static("1"));
    }

    let took = started.elapsed();
    let status = response.status();
    let route = scope.route.get().map_or("none", |r| r.as_str()).to_owned();
    metrics::histogram!("iaas_http_request_seconds", "method" => method_label(method), "route" => route.clone())
        .record(took.as_secs_f64());
    metrics::counter!("iaas_http_requests_total", "method" => method_label(method), "route" => route, "status" => status_label(status))
        .increment(1);
    let reading = matches!(*method, Method::GET | Method::HEAD);
    let failed = status.is_client_error() || status.is_server_error();
    let logged = match edge.app.config().api.access_log {
        AccessLog::All => true,
        AccessLog::Changes => failed || !reading,
        AccessLog::Failures => failed,
    };
    // What strangers are refused could fill the disk: a few of them a second are enough to see what goes on.
    let unlogged = if scope.principal.get().is_none() && failed { edge.strangers.take() } else { Some(0) };
    if logged && let Some(unlogged) = unlogged {
        if unlogged > 0 {
            tracing::info!(target: "access", unlogged, "refusals of requests without a valid token weren't logged");
        }
        let path = shown_path(path);
        span.in_scope(|| {
            tracing::info!(
                target: "access",
                %method,
                path,
                status = status.as_u16(),
                ms = took.as_secs_f64() * 1000.0,
                principal = scope.principal.get().map_or("-", String::as_str),
                peer = %scope.peer,
                "answered"
            );
        });
    }
    response
}

/// A path as it is logged: as long as a line may be.
fn shown_path(path: &str) -> &str {
    const LONGEST: usize = 512;
    let end = (0..=path.len().min(LONGEST)).rev().find(|at| path.is_char_boundary(*at)).unwrap_or(0);
    &path[..end]
}

fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}

fn status_label(status: StatusCode) -> &'static str {
    match status.as_u16() {
        100..=199 => "1xx",
        200..=299 => "2xx",
        300..=399 => "3xx",
        429 => "429",
        400..=499 => "4xx",
        503 => "503",
        507 => "507",
        _ => "5xx",
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("(no text)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sane_request_id_is_kept() {
        let id = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, HeaderValue::from_static(text));
            request_id(&headers)
        };
        assert_eq!(id("deploy-2026.01:7"), "deploy-2026.01:7");
        for bad in ["short", "with space in it", "<script>alert</script>", "semi;colon;and/slash"] {
            assert_ne!(id(bad), bad);
        }
    }
}
