//! What needs no token: health, readiness, metrics, the API's description.

use crate::{
    app::{App, readiness},
    http::{problem::ApiResult, reply},
    v1::routes::auth::Anyone,
    v1::view::health::{Health, Readiness},
};
use axum::{Extension, body::Body, extract::State, response::Response};
use http::{HeaderValue, StatusCode, header};
use utoipa_axum::{router::OpenApiRouter, routes};

/// The API's description, as JSON.
#[derive(Clone)]
pub struct Document(pub bytes::Bytes);

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(healthz))
        .routes(routes!(readyz))
        .routes(routes!(metrics))
        .routes(routes!(openapi))
}

/// Says whether the process is alive.
#[utoipa::path(get, path = "/healthz", tag = "system", responses((status = 200, body = Health)))]
async fn healthz(_: Anyone) -> ApiResult {
    reply::json(StatusCode::OK, &Health { status: "ok" })
}

/// Says whether the gateway can do its work: the database reads and writes, and the services behind it answer. 503 when not.
#[utoipa::path(get, path = "/readyz", tag = "system",
    responses((status = 200, body = Readiness)))]
async fn readyz(State(app): State<App>, _: Anyone) -> ApiResult {
    let checks = readiness::check(&app).await?;
    reply::json(StatusCode::OK, &Readiness::from(checks))
}

/// Shows the process's metrics in Prometheus' text format.
#[utoipa::path(get, path = "/metrics", tag = "system",
    responses((status = 200, description = "Prometheus' text format.", body = String, content_type = "text/plain")))]
async fn metrics(State(app): State<App>, _: Anyone) -> Response {
    let counters = app.store().counters();
    ::metrics::counter!("iaas_store_commits_total").absolute(counters.commits);
    ::metrics::counter!("iaas_store_units_total").absolute(counters.units);
    ::metrics::counter!("iaas_store_batch_reruns_total").absolute(counters.batch_reruns);
    let mut response = Response::new(Body::from(app.metrics().render()));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"));
    response
}

/// Shows this document.
#[utoipa::path(get, path = "/openapi.json", tag = "system",
    responses((status = 200, description = "OpenAPI 3.1.", body = Object)))]
async fn openapi(Extension(Document(bytes)): Extension<Document>, _: Anyone) -> Response {
    reply::raw_json(StatusCode::OK, bytes)
}
