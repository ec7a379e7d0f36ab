//! The caller's own account: their projects, and a new password.

use crate::{
    app::{
        App,
        intent::Intent,
        mutate::{OwnChange, commit_own_change},
        plan::Done,
        project,
    },
    auth::{caller::Caller, password, token},
    failure::ApiError,
};
use domain::{ErrorKind, Problem, identity::Project, limits, policy::Role};
use operation::Activity;
use store::{Page, RefreshUserRevoke, Unit, UserUpdate};

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

/// Sets a new password. Every refresh token of the caller ends with the old one.
pub async fn change_password(
    app: &App,
    caller: &Caller,
    current: String,
    new: String,
    intent: &Intent,
) -> Result<Done<()>, ApiError> {
    commit_own_change(app, caller, intent, async {
        if caller.identity.api_key.is_some() {
            return Err(session_required().into());
        }
        let (auth, peer) = (app.auth(), caller.peer);
        let user = app.store().user_find(caller.identity.user_id).await?.ok_or_else(token::invalid)?;
        password::check_strength("/new", user.name.as_str(), &new)?;
        auth.throttle.attempt(user.name.as_str(), peer)?;
        if !auth.passwords.verify(Some(user.password_hash), current).await? {
            let detail = "the current password is wrong";
            let problem = Problem::new(ErrorKind::PermissionDenied, "wrong_password", detail);
            return Err(problem.with_field("/current", "wrong").into());
        }
        auth.throttle.succeeded(user.name.as_str(), peer);
        let unit = Unit::new()
            .op(UserUpdate {
                id: user.id,
                expected_generation: user.generation,
                password_hash: Some(auth.passwords.hash(new).await?),
                system_admin: None,
                enabled: None,
            })
            .op(RefreshUserRevoke { user_id: user.id });
        let message = format!("user {} set a new password", user.name);
        let activity = Activity::new("user", user.id, "user.change_password", "user.password_changed", message);
        let object_name = user.name.to_string();
        Ok(OwnChange { unit, activity, object_name, outcome: (), changes_identity: true })
    })
    .await
}

/// A password set with an API key would outlive the key's revocation.
fn session_required() -> Problem {
    let detail = "a password can only be changed after a login, not with an API key";
    Problem::new(ErrorKind::PermissionDenied, "session_required", detail)
        .with_hint("log in: iaasctl login, or POST /v1/auth/login")
}
