//! Health, readiness and the API's description, which need no token, and metrics.

use crate::{
    app::{App, readiness},
    auth::caller::Caller,
    http::{
        problem::ApiResult,
        query::{ProjectParams, Query},
        reply,
    },
    v1::{
        routes::auth::Anyone,
        scope::SystemAdmin,
        view::health::{Health, Readiness},
    },
};
use axum::{
    Extension,
    body::Body,
    extract::{FromRequestParts, State},
    response::Response,
};
use http::{HeaderValue, StatusCode, header, request::Parts};
use utoipa_axum::{router::OpenApiRouter, routes};

/// The API's description, as JSON.
#[derive(Clone)]
pub struct Document(pub bytes::Bytes);

/// Whether a request that needs no token comes from a system admin.
struct AsAdmin(bool);

impl FromRequestParts<App> for AsAdmin {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Self::Rejection> {
        if !parts.headers.contains_key(header::AUTHORIZATION) {
            return Ok(Self(false));
        }
        let caller = Caller::from_request_parts(parts, app).await;
        Ok(Self(caller.is_ok_and(|caller| caller.system_admin())))
    }
}

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

/// Says whether the gateway can do its work: the database reads and writes, and the services behind it answer. 503 when not; the reasons are told to
/// system admins.
#[utoipa::path(get, path = "/readyz", tag = "system",
    responses((status = 200, body = Readiness)))]
async fn readyz(State(app): State<App>, _: Anyone, AsAdmin(admin): AsAdmin) -> ApiResult {
    let checks = readiness::check(&app, admin).await?;
    reply::json(StatusCode::OK, &Readiness::from(checks))
}

/// Shows the process's metrics in Prometheus' text format. System admins only; `links.ops_listen` serves them without a token.
#[utoipa::path(get, path = "/metrics", tag = "system",
    responses((status = 200, description = "Prometheus' text format.", body = String, content_type = "text/plain")))]
async fn metrics(State(app): State<App>, _: SystemAdmin, _: Query<ProjectParams>) -> Response {
    app.store().record_counters();
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
