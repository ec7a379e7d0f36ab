//! Who is in a project, with which role.

use crate::{
    app::{
        App,
        catalog::shown,
        intent::Intent,
        mutate::{OwnChange, commit_own_change},
        page::on_page,
        plan::Done,
        user,
    },
    auth::{caller::Caller, identity::ProjectRef},
    failure::ApiError,
};
use domain::{
    ErrorKind, Problem, ProjectId, Timestamp,
    identity::{Member, User},
    policy::Role,
};
use operation::{Activity, AuditOutcome};
use store::{Page, RoleBindingDelete, RoleBindingPut, Unit, UserHomeClear, UserHomeDefault};

pub async fn list(app: &App, project_id: ProjectId, page: &Page) -> Result<Vec<Member>, ApiError> {
    let rows = app.store().role_binding_list_of_project(project_id).await?;
    let rows = on_page(rows, page, |row| row.user_id.to_string());
    let member = |row: store::RoleMemberRow| Member {
        user_id: row.user_id,
        user_name: row.user_name,
        role: row.role,
        created_at: row.created_at,
    };
    Ok(rows.into_iter().map(member).collect())
}

/// Gives a user a role in the project, or another one. It becomes the home of a user who has none only when a system admin does it: an
/// admin of a project can't decide what others' requests mean.
pub async fn put(
    app: &App,
    caller: &Caller,
    project: &ProjectRef,
    user_key: &str,
    role: Role,
    intent: &Intent,
) -> Result<Done<Member>, ApiError> {
    commit_own_change(app, caller, intent, async {
        let user = find_to_take_in(app, caller, project, user_key).await?;
        let created_at = Timestamp::now();
        let mut unit = Unit::new().op(RoleBindingPut { project_id: project.id, user_id: user.id, role, created_at });
        if caller.system_admin() {
            unit.push(UserHomeDefault { user_id: user.id, project_id: project.id });
        }
        let what = format!("is {} of", role.as_str());
        let activity = activity(project, &user, "member.put", "member.changed", &what);
        let object_name = user.name.to_string();
        let outcome = Member { user_id: user.id, user_name: user.name, role, created_at };
        Ok(OwnChange { unit, activity, object_name, outcome, changes_identity: true })
    })
    .await
}

/// Takes a user out of the project.
pub async fn remove(
    app: &App,
    caller: &Caller,
    project: &ProjectRef,
    user_key: &str,
    intent: &Intent,
) -> Result<Done<()>, ApiError> {
    commit_own_change(app, caller, intent, async {
        let user = find_member(app, project, user_key).await?;
        let unit = Unit::new()
            .op(RoleBindingDelete { project_id: project.id, user_id: user.id })
            .op(UserHomeClear { user_id: user.id, project_id: project.id });
        let activity = activity(project, &user, "member.delete", "member.deleted", "is no longer a member of");
        Ok(OwnChange { unit, activity, object_name: user.name.to_string(), outcome: (), changes_identity: true })
    })
    .await
}

/// The user of that name, whom an admin of the project wants in it. Who names many that don't exist searches, and is refused.
async fn find_to_take_in(app: &App, caller: &Caller, project: &ProjectRef, key: &str) -> Result<User, ApiError> {
    if caller.system_admin() {
        return user::find(app, key).await;
    }
    let (auth, searcher) = (app.auth(), caller.identity.user_id);
    auth.name_searches.attempt(searcher)?;
    let found = user::find(app, key).await;
    match &found {
        Err(error) if error.problem().kind == ErrorKind::NotFound => {
            let detail = "named a user that doesn't exist, to be a member";
            let activity = Activity::new("project", project.id, "member.put", "", detail).in_project(project.id);
            let context = caller.context(None, false);
            auth.audit.refused(activity.audit_entry(&context, AuditOutcome::Denied, Timestamp::now()));
        }
        Ok(_) | Err(_) => auth.name_searches.known(searcher),
    }
    found
}

/// A member. Whether somebody who isn't one is a user at all isn't told.
async fn find_member(app: &App, project: &ProjectRef, key: &str) -> Result<User, ApiError> {
    let not_found = || ApiError::from(Problem::not_found("member", shown(key)));
    let user = match user::find(app, key).await {
        Err(error) if error.problem().kind == ErrorKind::NotFound => return Err(not_found()),
        found => found?,
    };
    let bindings = app.store().role_binding_list_of_user(user.id).await?;
    if bindings.iter().any(|b| b.project_id == project.id) { Ok(user) } else { Err(not_found()) }
}

fn activity(project: &ProjectRef, user: &User, action: &'static str, event: &'static str, what: &str) -> Activity {
    let message = format!("user {} {what} project {}", user.name, project.name);
    Activity::new("member", format!("{}/{}", project.id, user.id), action, event, message).in_project(project.id)
}
