//! User accounts, for system admins.

use crate::{
    app::{
        App,
        catalog::shown,
        intent::Intent,
        mutate::{OwnChange, commit_own_change},
        plan::Done,
    },
    auth::{caller::Caller, password},
    failure::ApiError,
};
use domain::{ErrorKind, Name, Problem, Timestamp, UserId, identity::User};
use operation::Activity;
use store::{ApiKeyUserRevoke, Page, RefreshUserRevoke, Unit, UserDelete, UserInsert, UserRow, UserUpdate};

/// A change of a user. What it doesn't name stays.
pub struct UserChange {
    pub password: Option<String>,
    pub enabled: Option<bool>,
    pub system_admin: Option<bool>,
    /// With a new password: the user's API keys stay.
    pub keep_api_keys: bool,
}

fn from_row(row: UserRow) -> User {
    let UserRow { id, name, system_admin, enabled, generation, created_at, .. } = row;
    User { id, name, system_admin, enabled, generation, created_at }
}

pub async fn list(app: &App, page: Page) -> Result<Vec<User>, ApiError> {
    Ok(app.store().user_list(page).await?.into_iter().map(from_row).collect())
}

/// The user behind an id or a name.
pub async fn find(app: &App, key: &str) -> Result<User, ApiError> {
    let found = match key.parse::<UserId>() {
        Ok(id) => app.store().user_find(id).await?,
        Err(_) => app.store().user_find_by_name(key).await?,
    };
    found.map(from_row).ok_or_else(|| Problem::not_found("user", shown(key)).into())
}

pub async fn create(
    app: &App,
    caller: &Caller,
    name: Name,
    password: String,
    system_admin: bool,
    intent: &Intent,
) -> Result<Done<User>, ApiError> {
    commit_own_change(app, caller, intent, async {
        password::check_strength("/password", name.as_str(), &password)?;
        if intent.dry_run && app.store().user_find_by_name(name.as_str()).await?.is_some() {
            return Err(Problem::already_exists("user", &name).into());
        }
        let password_hash =
            if intent.dry_run { String::new() } else { app.auth().passwords.hash(caller.peer, password).await? };
        let (id, created_at) = (UserId::new(), Timestamp::now());
        let user = User { id, name, system_admin, enabled: true, generation: 1, created_at };
        let unit = Unit::new().op(UserInsert {
            id,
            name: user.name.clone(),
            password_hash,
            system_admin,
            enabled: user.enabled,
            created_at,
        });
        let activity = activity("user.create", "user.created", "was created", &user);
        Ok(OwnChange { unit, activity, object_name: user.name.to_string(), outcome: user, changes_identity: true })
    })
    .await
}

/// A new password or disabling ends the user's logins. A new password revokes their API keys too, unless they are to stay: whoever knew the old
/// one may have made some.
pub async fn change(
    app: &App,
    caller: &Caller,
    key: &str,
    change: UserChange,
    intent: &Intent,
) -> Result<Done<User>, ApiError> {
    commit_own_change(app, caller, intent, async {
        let UserChange { password, enabled, system_admin, keep_api_keys } = change;
        if keep_api_keys && password.is_none() {
            let detail = "only means something together with a new password";
            return Err(Problem::invalid("/keep_api_keys", detail).into());
        }
        let mut user = find(app, key).await?;
        intent.check_generation(user.generation)?;
        if user.id == caller.identity.user_id && (enabled == Some(false) || system_admin == Some(false)) {
            return Err(not_oneself("take your own access away").into());
        }
        let expected_generation = user.generation;
        let password_hash = match password {
            None => None,
            Some(new) => {
                password::check_strength("/password", user.name.as_str(), &new)?;
                if intent.dry_run { None } else { Some(app.auth().passwords.hash(caller.peer, new).await?) }
            }
        };
        let mut unit = Unit::new();
        if password_hash.is_some() || enabled == Some(false) {
            unit.push(RefreshUserRevoke { user_id: user.id });
        }
        if password_hash.is_some() && !keep_api_keys {
            unit.push(ApiKeyUserRevoke { user_id: user.id });
        }
        unit.push(UserUpdate {
            id: user.id,
            expected_generation,
            password_hash,
            system_admin,
            enabled,
            home_project_id: None,
        });
        user.system_admin = system_admin.unwrap_or(user.system_admin);
        user.enabled = enabled.unwrap_or(user.enabled);
        user.generation += 1;
        let activity = activity("user.change", "user.changed", "was changed", &user);
        Ok(OwnChange { unit, activity, object_name: user.name.to_string(), outcome: user, changes_identity: true })
    })
    .await
}

pub async fn delete(app: &App, caller: &Caller, key: &str, intent: &Intent) -> Result<Done<()>, ApiError> {
    commit_own_change(app, caller, intent, async {
        let user = find(app, key).await?;
        intent.check_generation(user.generation)?;
        if user.id == caller.identity.user_id {
            return Err(not_oneself("delete yourself").into());
        }
        let unit = Unit::new().op(UserDelete { id: user.id });
        let activity = activity("user.delete", "user.deleted", "was deleted", &user);
        Ok(OwnChange { unit, activity, object_name: user.name.to_string(), outcome: (), changes_identity: true })
    })
    .await
}

/// An installation can't lose its last administrator by mistake.
fn not_oneself(what: &str) -> Problem {
    Problem::new(ErrorKind::InvalidState, "not_oneself", format!("you can't {what}"))
        .with_hint("ask another system administrator to do it")
}

fn activity(action: &'static str, event: &'static str, what: &str, user: &User) -> Activity {
    let message = format!("user {} {what}", user.name);
    Activity::new("user", user.id, action, event, message)
}
