//! Login, refresh, logout, and the public keys that verify our tokens. None of it needs a token.

use crate::{
    app::App,
    auth::{
        keyring::Jwks,
        session::{self, Tokens},
    },
    failure::ApiError,
    http::{
        body::Json,
        problem::ApiResult,
        reply,
        scope::{Scope, scope_of},
    },
    v1::view::session::{LoginRequest, RefreshRequest, TokensView},
};
use axum::extract::{FromRequestParts, State};
use http::{StatusCode, request::Parts};
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(login)).routes(routes!(refresh)).routes(routes!(logout)).routes(routes!(jwks))
}

/// The request's scope, for routes that authenticate nobody, within what its peer may send of such requests.
pub struct Anyone(pub Scope);

impl FromRequestParts<App> for Anyone {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Self::Rejection> {
        let scope = scope_of(parts);
        app.auth().limits.stranger(scope.peer)?;
        Ok(Self(scope))
    }
}

fn answer(tokens: Tokens) -> ApiResult {
    let view = TokensView {
        access_token: tokens.access_token,
        refresh_token: tokens.refresh_token,
        token_type: "Bearer",
        expires_in: tokens.expires_in,
    };
    reply::json(StatusCode::OK, &view)
}

/// Logs in with name and password. It takes no `Idempotency-Key`: a repeat is another login.
#[utoipa::path(post, path = "/v1/auth/login", tag = "auth", request_body = LoginRequest,
    responses((status = 200, body = TokensView)))]
async fn login(State(app): State<App>, Anyone(scope): Anyone, Json(body): Json<LoginRequest>) -> ApiResult {
    answer(session::login(app.auth(), &body.username, body.password, scope.peer, &scope.request_id).await?)
}

/// Exchanges a refresh token for new tokens. A refresh token works once, so there is no `Idempotency-Key`: whoever lost the answer logs in again.
#[utoipa::path(post, path = "/v1/auth/refresh", tag = "auth", request_body = RefreshRequest,
    responses((status = 200, body = TokensView)))]
async fn refresh(State(app): State<App>, Anyone(scope): Anyone, Json(body): Json<RefreshRequest>) -> ApiResult {
    answer(session::refresh(app.auth(), &body.refresh_token, &scope.request_id).await?)
}

/// Ends the login that a refresh token belongs to. A repeat changes nothing, so there is no `Idempotency-Key`.
#[utoipa::path(post, path = "/v1/auth/logout", tag = "auth", request_body = RefreshRequest,
    responses((status = 204, description = "The login has ended.")))]
async fn logout(State(app): State<App>, Anyone(scope): Anyone, Json(body): Json<RefreshRequest>) -> ApiResult {
    session::logout(app.auth(), &body.refresh_token, &scope.request_id).await?;
    Ok(reply::no_content())
}

/// Shows the public keys of access tokens (RFC 7517).
#[utoipa::path(get, path = "/.well-known/jwks.json", tag = "auth", responses((status = 200, body = Jwks)))]
async fn jwks(State(app): State<App>, _: Anyone) -> ApiResult {
    reply::json(StatusCode::OK, &app.auth().keyring.jwks())
}
