//! API keys: the caller's own, and those of a user, for system admins. The secret is shown once.

use crate::{
    app::{
        App,
        api_key::{self, ApiKeyRequest},
        intent::Intent,
        user,
    },
    auth::caller::Caller,
    http::{
        intent::{Change, MutationHeaders, MutationParams},
        page::{List, ListParams},
        path::Path,
        problem::ApiResult,
        query::Query,
    },
    v1::{
        answer,
        scope::SystemAdmin,
        view::{
            api_key::{ApiKeyCreate, ApiKeyCreated, ApiKeyView},
            plan::DryRun,
        },
    },
};
use axum::extract::State;
use domain::policy::Role;
use http::StatusCode;
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(delete))
        .routes(routes!(list_of_user))
        .routes(routes!(delete_of_user))
}

/// Lists your API keys, without their secrets.
#[utoipa::path(get, path = "/v1/api-keys", tag = "api keys", params(ListParams),
    responses((status = 200, body = List<ApiKeyView>)))]
async fn list(State(app): State<App>, caller: Caller, Query(params): Query<ListParams>) -> ApiResult {
    let page = params.page(&format!("api keys of {}", caller.identity.user_id))?;
    let rows = api_key::list(&app, caller.identity.user_id, &page.store_page()).await?;
    page.reply(rows, |row| row.id.to_string(), ApiKeyView::from)
}

/// Creates an API key, after a login. Only this answer contains its secret.
#[utoipa::path(post, path = "/v1/api-keys", tag = "api keys", params(MutationParams, MutationHeaders),
    request_body = ApiKeyCreate,
    responses((status = 201, body = ApiKeyCreated), (status = 200, description = "With dry_run.", body = DryRun)))]
async fn create(
    State(app): State<App>,
    caller: Caller,
    _: Query<MutationParams>,
    Change { body, intent }: Change<ApiKeyCreate>,
) -> ApiResult {
    let ApiKeyCreate { name, project, role, expires_at, password } = body;
    let request = ApiKeyRequest { name, project, role: role.map(Role::from), expires_at, password };
    let done = api_key::create(&app, &caller, request, &intent).await?;
    answer::plain(StatusCode::CREATED, done, ApiKeyCreated::from)
}

/// Deletes one of your API keys: it stops working at once.
#[utoipa::path(delete, path = "/v1/api-keys/{key}", tag = "api keys",
    params(("key" = String, Path, description = "Id or name."), MutationParams, MutationHeaders),
    responses((status = 204, description = "It is gone.")))]
async fn delete(
    State(app): State<App>,
    caller: Caller,
    Path(key): Path<String>,
    _: Query<MutationParams>,
    intent: Intent,
) -> ApiResult {
    answer::deleted(api_key::delete(&app, &caller, &key, &intent).await?)
}

/// Lists the API keys of a user, without their secrets. System admins only.
#[utoipa::path(get, path = "/v1/users/{user}/api-keys", tag = "users",
    params(("user" = String, Path, description = "Id or name."), ListParams),
    responses((status = 200, body = List<ApiKeyView>)))]
async fn list_of_user(
    State(app): State<App>,
    _: SystemAdmin,
    Path(user_key): Path<String>,
    Query(params): Query<ListParams>,
) -> ApiResult {
    let user = user::find(&app, &user_key).await?;
    let page = params.page(&format!("api keys of {}", user.id))?;
    let rows = api_key::list(&app, user.id, &page.store_page()).await?;
    page.reply(rows, |row| row.id.to_string(), ApiKeyView::from)
}

/// Revokes an API key of a user: it stops working at once. System admins only.
#[utoipa::path(delete, path = "/v1/users/{user}/api-keys/{key}", tag = "users",
    params(("user" = String, Path, description = "Id or name."), ("key" = String, Path, description = "Id or name."),
        MutationParams, MutationHeaders),
    responses((status = 204, description = "It is gone.")))]
async fn delete_of_user(
    State(app): State<App>,
    SystemAdmin(caller): SystemAdmin,
    Path(path): Path<(String, String)>,
    _: Query<MutationParams>,
    intent: Intent,
) -> ApiResult {
    answer::deleted(api_key::delete_of(&app, &caller, &path.0, &path.1, &intent).await?)
}
