//! User accounts. System admins only.

use crate::{
    app::{App, intent::Intent, user},
    http::{
        intent::{Change, MutationHeaders, MutationParams},
        page::{List, ListParams},
        path::Path,
        problem::ApiResult,
        query::{ProjectParams, Query},
        reply,
    },
    v1::{
        answer,
        scope::SystemAdmin,
        view::{
            plan::DryRun,
            user::{UserChange, UserCreate, UserView},
        },
    },
};
use axum::extract::State;
use http::StatusCode;
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(show, change, delete))
}

/// Lists all users.
#[utoipa::path(get, path = "/v1/users", tag = "users", params(ListParams),
    responses((status = 200, body = List<UserView>)))]
async fn list(State(app): State<App>, _: SystemAdmin, Query(params): Query<ListParams>) -> ApiResult {
    let page = params.page("users")?;
    let rows = user::list(&app, page.store_page()).await?;
    page.reply(rows, |row| row.id.to_string(), UserView::from)
}

/// Creates a user.
#[utoipa::path(post, path = "/v1/users", tag = "users", params(MutationParams, MutationHeaders),
    request_body = UserCreate,
    responses((status = 201, body = UserView), (status = 200, description = "With dry_run.", body = DryRun)))]
async fn create(
    State(app): State<App>,
    SystemAdmin(caller): SystemAdmin,
    _: Query<MutationParams>,
    Change { body, intent }: Change<UserCreate>,
) -> ApiResult {
    let UserCreate { name, password, system_admin } = body;
    let done = user::create(&app, &caller, name, password, system_admin, &intent).await?;
    answer::object(StatusCode::CREATED, done, |user| user.generation, UserView::from)
}

/// Shows a user.
#[utoipa::path(get, path = "/v1/users/{user}", tag = "users", params(("user" = String, Path, description = "Id or name.")),
    responses((status = 200, body = UserView)))]
async fn show(State(app): State<App>, _: SystemAdmin, Path(key): Path<String>, _: Query<ProjectParams>) -> ApiResult {
    let user = user::find(&app, &key).await?;
    reply::object(StatusCode::OK, user.generation, &UserView::from(user))
}

/// Sets a new password, enables or disables the user, or changes whether they are a system admin. A new password or disabling ends the user's sessions; a new password revokes their API keys too, unless `keep_api_keys` is set.
#[utoipa::path(patch, path = "/v1/users/{user}", tag = "users",
    params(("user" = String, Path, description = "Id or name."), MutationParams, MutationHeaders),
    request_body = UserChange, responses((status = 200, body = UserView)))]
async fn change(
    State(app): State<App>,
    SystemAdmin(caller): SystemAdmin,
    Path(key): Path<String>,
    _: Query<MutationParams>,
    Change { body, intent }: Change<UserChange>,
) -> ApiResult {
    let UserChange { password, enabled, system_admin, keep_api_keys } = body;
    let change = user::UserChange { password, enabled, system_admin, keep_api_keys };
    let done = user::change(&app, &caller, &key, change, &intent).await?;
    answer::object(StatusCode::OK, done, |user| user.generation, UserView::from)
}

/// Deletes a user with their roles, API keys and logins. What they created stays.
#[utoipa::path(delete, path = "/v1/users/{user}", tag = "users",
    params(("user" = String, Path, description = "Id or name."), MutationParams, MutationHeaders),
    responses((status = 204, description = "It is gone.")))]
async fn delete(
    State(app): State<App>,
    SystemAdmin(caller): SystemAdmin,
    Path(key): Path<String>,
    _: Query<MutationParams>,
    intent: Intent,
) -> ApiResult {
    answer::deleted(user::delete(&app, &caller, &key, &intent).await?)
}
