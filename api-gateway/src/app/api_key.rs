//! The caller's own API keys. A key's secret is shown once.

use crate::{
    app::{
        App,
        catalog::shown,
        intent::Intent,
        mutate::{OwnChange, commit_own_change},
        page::on_page,
        plan::Done,
    },
    auth::{api_key, caller::Caller},
    failure::{ApiError, api_keys_refused},
};
use domain::{ApiKeyId, ErrorKind, Name, Problem, Timestamp, identity::ApiKey, policy::Role};
use operation::Activity;
use serde::{Deserialize, Serialize};
use store::{ApiKeyDelete, ApiKeyInsert, ApiKeyRow, Page, Unit};

pub struct ApiKeyRequest {
    pub name: Name,
    /// Id or name of the only project that it works in.
    pub project: Option<String>,
    pub role: Option<Role>,
    pub expires_at: Option<Timestamp>,
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

pub async fn list(app: &App, caller: &Caller, page: &Page) -> Result<Vec<ApiKey>, ApiError> {
    let rows = app.store().api_key_list(caller.identity.user_id).await?;
    let rows = on_page(rows, page, |row| row.id.to_string());
    Ok(rows.into_iter().map(from_row).collect())
}

pub async fn create(
    app: &App,
    caller: &Caller,
    request: ApiKeyRequest,
    intent: &Intent,
) -> Result<Done<NewApiKey>, ApiError> {
    commit_own_change(app, caller, intent, async {
        unrestricted(caller)?;
        let ApiKeyRequest { name, project, role, expires_at } = request;
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
        let user_id = caller.identity.user_id;
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
        let activity = activity("api_key.create", "api_key.created", "was created", caller, &key);
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

pub async fn delete(app: &App, caller: &Caller, key: &str, intent: &Intent) -> Result<Done<()>, ApiError> {
    commit_own_change(app, caller, intent, async {
        unrestricted(caller)?;
        let user_id = caller.identity.user_id;
        let id = key.parse::<ApiKeyId>().ok();
        let rows = app.store().api_key_list(user_id).await?;
        let found = rows.into_iter().find(|row| Some(row.id) == id || row.name.as_str() == key);
        let key = from_row(found.ok_or_else(|| Problem::not_found("api key", shown(key)))?);
        let unit = Unit::new().op(ApiKeyDelete { id: key.id, user_id });
        let activity = activity("api_key.delete", "api_key.deleted", "was deleted", caller, &key);
        Ok(OwnChange { unit, activity, object_name: key.name.to_string(), outcome: (), changes_identity: true })
    })
    .await
}

fn activity(action: &'static str, event: &'static str, what: &str, caller: &Caller, key: &ApiKey) -> Activity {
    let message = format!("API key {} of {} {what}", key.name, caller.identity.user_name);
    Activity::new("api_key", key.id, action, event, message)
}
