//! The caller's own account: their projects, which of them is their home, leaving one, and a new password.

use crate::{
    app::{
        App,
        catalog::shown,
        intent::Intent,
        mutate::{OwnChange, commit_own_change},
        plan::Done,
        project,
    },
    auth::{caller::Caller, identity::ProjectRef, password, token},
    failure::ApiError,
};
use domain::{ErrorKind, Problem, identity::Project, limits, policy::Role};
use operation::Activity;
use std::sync::Arc;
use store::{ApiKeyUserRevoke, Page, RefreshUserRevoke, RoleBindingDelete, Unit, UserHomeClear, UserRow, UserUpdate};

/// The projects that the caller has a role in, as far as their token reaches.
pub async fn projects(app: &App, caller: &Caller) -> Result<Vec<(Project, Role)>, ApiError> {
    let identity = &caller.identity;
    let rows = app.store().project_list_of_user(identity.user_id, Page::first(limits::PAGE_MAX)).await?;
    let with_role = |row: store::ProjectRow| {
        let role = identity.principal.role_in(row.id)?;
        Some((project::from_row(row), role))
    };
    Ok(rows.into_iter().filter_map(with_role).collect())
}

/// A new password, and what proves the right to set it.
pub struct PasswordRequest {
    pub current: String,
    pub new: String,
    /// Whether the API keys stay.
    pub keep_api_keys: bool,
}

/// Checks that it is the caller's password. Wrong ones are counted like those of logins.
pub async fn check_password(
    app: &App,
    caller: &Caller,
    user: &UserRow,
    password: String,
    field: &str,
) -> Result<(), ApiError> {
    let (auth, peer) = (app.auth(), caller.peer);
    auth.throttle.attempt(user.name.as_str(), peer)?;
    if !auth.passwords.verify(peer, Some(user.password_hash.clone()), password).await? {
        let problem = Problem::new(ErrorKind::PermissionDenied, "wrong_password", "the password is wrong");
        return Err(problem.with_field(field, "wrong").into());
    }
    auth.throttle.succeeded(user.name.as_str(), peer);
    Ok(())
}

/// The caller's own row, for what only a login may do: with an API key it would outlive the key's revocation.
pub async fn own_row(app: &App, caller: &Caller, what: &str) -> Result<UserRow, ApiError> {
    if caller.identity.api_key.is_some() {
        let detail = format!("{what} needs a login: an API key can't do it");
        let problem = Problem::new(ErrorKind::PermissionDenied, "session_required", detail);
        return Err(problem.with_hint("log in: iaasctl login, or POST /v1/auth/login").into());
    }
    Ok(app.store().user_find(caller.identity.user_id).await?.ok_or_else(token::invalid)?)
}

/// Sets a new password. Every session of the caller ends with the old one, this one too; so do the API keys, unless they are to stay.
pub async fn change_password(
    app: &App,
    caller: &Caller,
    request: PasswordRequest,
    intent: &Intent,
) -> Result<Done<()>, ApiError> {
    commit_own_change(app, caller, intent, async {
        let PasswordRequest { current, new, keep_api_keys } = request;
        let user = own_row(app, caller, "a new password").await?;
        password::check_strength("/new", user.name.as_str(), &new)?;
        check_password(app, caller, &user, current, "/current").await?;
        let mut unit = Unit::new()
            .op(UserUpdate {
                id: user.id,
                expected_generation: user.generation,
                password_hash: Some(app.auth().passwords.hash(caller.peer, new).await?),
                system_admin: None,
                enabled: None,
                home_project_id: None,
            })
            .op(RefreshUserRevoke { user_id: user.id });
        if !keep_api_keys {
            unit.push(ApiKeyUserRevoke { user_id: user.id });
        }
        let message = format!("user {} set a new password", user.name);
        let activity = Activity::new("user", user.id, "user.change_password", "user.password_changed", message);
        let object_name = user.name.to_string();
        Ok(OwnChange { unit, activity, object_name, outcome: (), changes_identity: true })
    })
    .await
}

/// The project among the caller's that `key` names.
async fn own_project(app: &App, caller: &Caller, key: &str) -> Result<Arc<ProjectRef>, ApiError> {
    let unknown = || Problem::not_found("project", shown(key));
    let found = app.auth().identities.project(key).await?.ok_or_else(unknown)?;
    match caller.identity.principal.role_in(found.id) {
        Some(_) => Ok(found),
        None => Err(unknown().into()),
    }
}

/// Chooses the project that the caller's requests mean when they name none.
pub async fn set_home_project(app: &App, caller: &Caller, key: &str, intent: &Intent) -> Result<Done<()>, ApiError> {
    commit_own_change(app, caller, intent, async {
        let user = own_row(app, caller, "the home project").await?;
        let project = own_project(app, caller, key).await?;
        let unit = Unit::new().op(UserUpdate {
            id: user.id,
            expected_generation: user.generation,
            password_hash: None,
            system_admin: None,
            enabled: None,
            home_project_id: Some(project.id),
        });
        let message = format!("user {} chose {} as home project", user.name, project.name);
        let activity = Activity::new("user", user.id, "user.set_home", "user.home_changed", message);
        Ok(OwnChange { unit, activity, object_name: user.name.to_string(), outcome: (), changes_identity: true })
    })
    .await
}

/// Takes the caller out of a project: nobody has to stay where others have put them.
pub async fn leave_project(app: &App, caller: &Caller, key: &str, intent: &Intent) -> Result<Done<()>, ApiError> {
    commit_own_change(app, caller, intent, async {
        let user = own_row(app, caller, "leaving a project").await?;
        let project = own_project(app, caller, key).await?;
        let unit = Unit::new()
            .op(RoleBindingDelete { project_id: project.id, user_id: user.id })
            .op(UserHomeClear { user_id: user.id, project_id: project.id });
        let message = format!("user {} left project {}", user.name, project.name);
        let id = format!("{}/{}", project.id, user.id);
        let activity = Activity::new("member", id, "member.leave", "member.deleted", message).in_project(project.id);
        Ok(OwnChange { unit, activity, object_name: user.name.to_string(), outcome: (), changes_identity: true })
    })
    .await
}
