//! API keys: the caller's own, and (for system admins) another user's. A key's secret is shown once.

use crate::{
    app::{
        App, account,
        catalog::shown,
        intent::Intent,
        mutate::{OwnChange, commit_own_change},
        page::on_page,
        plan::Done,
        user,
    },
    auth::{api_key, caller::Caller},
    failure::{ApiError, api_keys_refused},
};
use domain::{ApiKeyId, ErrorKind, Name, Problem, Timestamp, UserId, identity::ApiKey, policy::Role};
use operation::Activity;
use serde::{Deserialize, Serialize};
use store::{ApiKeyDelete, ApiKeyInsert, ApiKeyRow, Page, Unit};

pub struct ApiKeyRequest {
    pub name: Name,
    /// Id or name of the only project that it works in.
    pub project: Option<String>,
    pub role: Option<Role>,
    pub expires_at: Option<Timestamp>,
    /// The caller's password: a key that can do all that they can needs it.
    pub password: Option<String>,
}

/// A new key with its secret.
#[derive(Serialize, Deserialize)]
pub struct NewApiKey {
    pub key: ApiKey,
    pub secret: String,
}

fn from_row(row: ApiKeyRow) -> ApiKey {
    let ApiKeyRow { id, user_id: _, project_id, name, prefix, secret_hash: _, role, expires_at, created_at } = row;
    ApiKey { id, name, prefix, project_id, role, expires_at, created_at }
}

/// A key that carries less than its user must not create one that carries more, or take others away.
fn unrestricted(caller: &Caller) -> Result<(), Problem> {
    match &caller.identity.api_key {
        Some(key) if key.restricted() => Err(Problem::new(
            ErrorKind::PermissionDenied,
            "key_restricted",
            "an API key that is limited to a project, a role or a time can't manage API keys",
        )
        .with_hint("log in, or use a key without such limits")),
        Some(_) | None => Ok(()),
    }
}

/// The keys of a user.
pub async fn list(app: &App, user_id: UserId, page: &Page) -> Result<Vec<ApiKey>, ApiError> {
    let rows = app.store().api_key_list(user_id).await?;
    let rows = on_page(rows, page, |row| row.id.to_string());
    Ok(rows.into_iter().map(from_row).collect())
}

/// Creates a key, after a login: a key that makes keys could never be taken away. A stolen access token alone makes none that can do all that
/// its user can.
pub async fn create(
    app: &App,
    caller: &Caller,
    request: ApiKeyRequest,
    intent: &Intent,
) -> Result<Done<NewApiKey>, ApiError> {
    commit_own_change(app, caller, intent, async {
        let user = account::own_row(app, caller, "an API key").await?;
        let ApiKeyRequest { name, project, role, expires_at, password } = request;
        let created_at = Timestamp::now();
        if expires_at.is_some_and(|at| at <= created_at) {
            return Err(Problem::invalid("/expires_at", "this time is in the past").into());
        }
        let project_id = match &project {
            None => None,
            Some(key) => {
                let unknown = || Problem::not_found("project", shown(key));
                let found = app.auth().identities.project(key).await?.ok_or_else(unknown)?;
                let theirs = caller.system_admin() || caller.identity.principal.role_in(found.id).is_some();
                Some(if theirs { found.id } else { return Err(unknown().into()) })
            }
        };
        let user_id = user.id;
        match password {
            Some(password) => account::check_password(app, caller, &user, password, "/password").await?,
            // An end alone is no limit, for it may be far away; nor is the highest role.
            None if project_id.is_none() && role.is_none_or(|role| role == Role::Admin) => {
                return Err(password_required().into());
            }
            None => {}
        }
        if intent.dry_run {
            let keys = app.store().api_key_list(user_id).await?;
            if keys.iter().any(|key| key.name == name) {
                return Err(Problem::already_exists("api key", &name).into());
            }
            if u32::try_from(keys.len()).is_ok_and(|count| count >= app.auth().api_keys_max) {
                return Err(api_keys_refused().into());
            }
        }
        let api_key::NewApiKey { prefix, secret_hash, key: secret } = api_key::generate();
        let id = ApiKeyId::new();
        let key = ApiKey { id, name, prefix, project_id, role, expires_at, created_at };
        let unit = Unit::new().op(ApiKeyInsert {
            id,
            user_id,
            project_id,
            name: key.name.clone(),
            prefix: key.prefix.clone(),
            secret_hash,
            role,
            expires_at,
            created_at,
            keys_max: app.auth().api_keys_max.into(),
        });
        let activity = activity("api_key.create", "api_key.created", "was created", user.name.as_str(), &key);
        Ok(OwnChange {
            unit,
            activity,
            object_name: key.name.to_string(),
            outcome: NewApiKey { key, secret },
            changes_identity: true,
        })
    })
    .await
}

fn password_required() -> Problem {
    let detail = "an API key that is limited neither to a project nor to a role needs your password";
    Problem::new(ErrorKind::PermissionDenied, "password_required", detail)
        .with_field("/password", "required here")
        .with_hint("send your password with the request, or limit the key to a project or a role")
}

pub async fn delete(app: &App, caller: &Caller, key: &str, intent: &Intent) -> Result<Done<()>, ApiError> {
    commit_own_change(app, caller, intent, async {
        unrestricted(caller)?;
        deletion(app, (caller.identity.user_id, &caller.identity.user_name), key).await
    })
    .await
}

/// Deletes another user's key, for system admins.
pub async fn delete_of(
    app: &App,
    caller: &Caller,
    user_key: &str,
    key: &str,
    intent: &Intent,
) -> Result<Done<()>, ApiError> {
    commit_own_change(app, caller, intent, async {
        let user = user::find(app, user_key).await?;
        deletion(app, (user.id, user.name.as_str()), key).await
    })
    .await
}

async fn deletion(app: &App, (user_id, user_name): (UserId, &str), key: &str) -> Result<OwnChange<()>, ApiError> {
    let id = key.parse::<ApiKeyId>().ok();
    let rows = app.store().api_key_list(user_id).await?;
    let found = rows.into_iter().find(|row| Some(row.id) == id || row.name.as_str() == key);
    let key = from_row(found.ok_or_else(|| Problem::not_found("api key", shown(key)))?);
    let unit = Unit::new().op(ApiKeyDelete { id: key.id, user_id });
    let activity = activity("api_key.delete", "api_key.deleted", "was deleted", user_name, &key);
    Ok(OwnChange { unit, activity, object_name: key.name.to_string(), outcome: (), changes_identity: true })
}

fn activity(action: &'static str, event: &'static str, what: &str, user_name: &str, key: &ApiKey) -> Activity {
    let message = format!("API key {} of {user_name} {what}", key.name);
    Activity::new("api_key", key.id, action, event, message)
}
