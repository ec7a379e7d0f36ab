//! Hosts that join. They need no token of the API, since a host has none.

use crate::{
    app::{
        App,
        host_token::{self, JoinRequest},
    },
    http::{body::Json, problem::ApiResult, reply},
    v1::{
        routes::auth::Anyone,
        view::host_token::{HostJoin, HostJoined},
    },
};
use axum::extract::State;
use http::StatusCode;
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(join))
}

/// Admits a host with a host token's secret, or again with the key that it was admitted with; answers with a certificate for one of its
/// agents. A repeat gets another certificate for the same host and key, so there is no `Idempotency-Key`.
#[utoipa::path(post, path = "/v1/host-joins", tag = "hosts", request_body = HostJoin,
    responses((status = 200, body = HostJoined)))]
async fn join(State(app): State<App>, Anyone(scope): Anyone, Json(body): Json<HostJoin>) -> ApiResult {
    let HostJoin { secret, host_id, role, name, csr_pem } = body;
    let request = JoinRequest { secret, host_id, role, name, csr_pem };
    let joined = host_token::join(&app, &scope.request_id, scope.peer, request).await?;
    reply::json(StatusCode::OK, &HostJoined::from(joined))
}
