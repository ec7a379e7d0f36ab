//! Hosts that join. No token of the API: a host has none.

use crate::{
    app::{App, host_token},
    http::{body::Json, problem::ApiResult, reply},
    v1::routes::auth::Anyone,
    v1::view::host_token::{HostJoin, HostJoined},
};
use axum::extract::State;
use http::StatusCode;
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(join))
}

/// A host joins with a host token's secret, or comes back with the key it was admitted with: a certificate for one of its agents. A repeat
/// is answered with another certificate for the same key.
#[utoipa::path(post, path = "/v1/host-joins", tag = "hosts", request_body = HostJoin,
    responses((status = 200, body = HostJoined)))]
async fn join(State(app): State<App>, Anyone(scope): Anyone, Json(body): Json<HostJoin>) -> ApiResult {
    reply::json(StatusCode::OK, &host_token::join(&app, &scope, body).await?)
}
