//! User accounts. System admins only.

use crate::{
    app::{
        App,
        mutate::{self, Answer, Deed, OwnChange},
    },
    auth::{password, scope::SystemAdmin},
    http::{
        intent::{Change, Intent, MutationHeaders, MutationParams},
        page::{List, ListParams},
        path::Path,
        problem::{ApiError, ApiResult},
        query::{ProjectParams, Query},
        reply,
    },
    v1::view::{
        plan::DryRun,
        user::{UserChange, UserCreate, UserView},
    },
};
use axum::extract::State;
use domain::{Problem, Timestamp, UserId};
use http::StatusCode;
use store::{RefreshUserRevoke, Unit, UserDelete, UserInsert, UserRow, UserUpdate};
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(show, change, delete))
}

/// Lists all users.
#[utoipa::path(get, path = "/v1/users", tag = "users", params(ListParams),
    responses((status = 200, body = List<UserView>)))]
async fn list(State(app): State<App>, _: SystemAdmin, Query(params): Query<ListParams>) -> ApiResult {
    let page = params.page("users")?;
    let rows = app.store().user_list(page.store_page()).await?;
    page.reply(rows, |row| row.id.to_string(), UserView::from)
}

/// Makes a user.
#[utoipa::path(post, path = "/v1/users", tag = "users", params(MutationParams, MutationHeaders),
    request_body = UserCreate,
    responses((status = 201, body = UserView), (status = 200, description = "With dry_run.", body = DryRun)))]
async fn create(
    State(app): State<App>,
    SystemAdmin(caller): SystemAdmin,
    _: Query<MutationParams>,
    Change { body, intent }: Change<UserCreate>,
) -> ApiResult {
    mutate::own(&app, &caller, &intent, async || {
        password::check_strength("/password", body.name.as_str(), &body.password)?;
        if intent.dry_run && app.store().user_find_by_name(body.name.as_str()).await?.is_some() {
            return Err(Problem::already_exists("user", &body.name).into());
        }
        let password_hash =
            if intent.dry_run { String::new() } else { app.auth().passwords.hash(body.password.clone()).await? };
        let row = UserRow {
            id: UserId::new(),
            name: body.name.clone(),
            password_hash,
            system_admin: body.system_admin,
            enabled: true,
            generation: 1,
            created_at: Timestamp::now(),
        };
        let unit = Unit::new().op(UserInsert {
            id: row.id,
            name: row.name.clone(),
            password_hash: row.password_hash.clone(),
            system_admin: row.system_admin,
            enabled: row.enabled,
            created_at: row.created_at,
        });
        let deed = deed("user.create", "user.created", "was created", &row);
        let answer = Answer::object(StatusCode::CREATED, row.generation, &UserView::from(row))?;
        Ok(OwnChange { unit, deed, answer, touches_identity: true })
    })
    .await
}

/// Shows a user.
#[utoipa::path(get, path = "/v1/users/{user}", tag = "users", params(("user" = String, Path, description = "Id or name.")),
    responses((status = 200, body = UserView)))]
async fn show(State(app): State<App>, _: SystemAdmin, Path(user): Path<String>, _: Query<ProjectParams>) -> ApiResult {
    let row = fetch(&app, &user).await?;
    reply::object(StatusCode::OK, row.generation, &UserView::from(row))
}

/// Sets a new password, enables or disables, makes a system admin. A new password or disabling ends the user's logins.
#[utoipa::path(patch, path = "/v1/users/{user}", tag = "users",
    params(("user" = String, Path, description = "Id or name."), MutationParams, MutationHeaders),
    request_body = UserChange, responses((status = 200, body = UserView)))]
async fn change(
    State(app): State<App>,
    SystemAdmin(caller): SystemAdmin,
    Path(user): Path<String>,
    _: Query<MutationParams>,
    Change { body, intent }: Change<UserChange>,
) -> ApiResult {
    mutate::own(&app, &caller, &intent, async || {
        let mut row = fetch(&app, &user).await?;
        intent.check_generation(row.generation)?;
        if row.id == caller.identity.user_id && (body.enabled == Some(false) || body.system_admin == Some(false)) {
            return Err(not_oneself("take your own access away").into());
        }
        let expected_generation = row.generation;
        let password_hash = match &body.password {
            None => None,
            Some(new) => {
                password::check_strength("/password", row.name.as_str(), new)?;
                if intent.dry_run { None } else { Some(app.auth().passwords.hash(new.clone()).await?) }
            }
        };
        let mut unit = Unit::new();
        if password_hash.is_some() || body.enabled == Some(false) {
            unit.push(RefreshUserRevoke { user_id: row.id });
        }
        unit.push(UserUpdate {
            id: row.id,
            expected_generation,
            password_hash,
            system_admin: body.system_admin,
            enabled: body.enabled,
        });
        row.system_admin = body.system_admin.unwrap_or(row.system_admin);
        row.enabled = body.enabled.unwrap_or(row.enabled);
        row.generation += 1;
        let deed = deed("user.change", "user.changed", "was changed", &row);
        let answer = Answer::object(StatusCode::OK, row.generation, &UserView::from(row))?;
        Ok(OwnChange { unit, deed, answer, touches_identity: true })
    })
    .await
}

/// Deletes a user, with their roles, API keys and logins. What they made stays.
#[utoipa::path(delete, path = "/v1/users/{user}", tag = "users",
    params(("user" = String, Path, description = "Id or name."), MutationParams, MutationHeaders),
    responses((status = 204, description = "It is gone.")))]
async fn delete(
    State(app): State<App>,
    SystemAdmin(caller): SystemAdmin,
    Path(user): Path<String>,
    _: Query<MutationParams>,
    intent: Intent,
) -> ApiResult {
    mutate::own(&app, &caller, &intent, async || {
        let row = fetch(&app, &user).await?;
        intent.check_generation(row.generation)?;
        if row.id == caller.identity.user_id {
            return Err(not_oneself("delete yourself").into());
        }
        let unit = Unit::new().op(UserDelete { id: row.id });
        let deed = deed("user.delete", "user.deleted", "was deleted", &row);
        Ok(OwnChange { unit, deed, answer: Answer::none(), touches_identity: true })
    })
    .await
}

/// So that an installation can't lose its last administrator by a slip.
fn not_oneself(what: &str) -> Problem {
    Problem::new(domain::ErrorKind::InvalidState, "not_oneself", format!("you can't {what}"))
        .with_hint("another system administrator can")
}

async fn fetch(app: &App, key: &str) -> Result<UserRow, ApiError> {
    let found = match key.parse::<UserId>() {
        Ok(id) => app.store().user_find(id).await?,
        Err(_) => app.store().user_find_by_name(key).await?,
    };
    found.ok_or_else(|| Problem::not_found("user", key.chars().take(64).collect::<String>()).into())
}

fn deed(action: &'static str, event: &'static str, what: &str, row: &UserRow) -> Deed {
    Deed {
        action,
        event,
        object_kind: "user",
        object_id: row.id.to_string(),
        object_name: row.name.to_string(),
        project_id: None,
        message: format!("user {} {what}", row.name),
    }
}
