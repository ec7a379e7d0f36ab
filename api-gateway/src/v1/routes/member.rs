//! Who is in a project, with which role.

use crate::{
    app::{
        App,
        mutate::{self, Answer, Deed, OwnChange},
    },
    auth::scope::{Manage, OfProject, Read},
    http::{
        intent::{Change, Intent, MutationHeaders, MutationParams},
        page::{List, ListParams},
        path::Path,
        problem::{ApiError, ApiResult},
        query::Query,
    },
    v1::view::project::{MemberPut, MemberView},
};
use axum::extract::State;
use domain::{Problem, Timestamp, UserId, policy::Role};
use http::StatusCode;
use store::{RoleBindingDelete, RoleBindingPut, RoleMemberRow, Unit, UserRow};
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(put, remove))
}

/// Lists the members of a project.
#[utoipa::path(get, path = "/v1/projects/{project}/members", tag = "projects",
    params(("project" = String, Path, description = "Id or name."), ListParams),
    responses((status = 200, body = List<MemberView>)))]
async fn list(State(app): State<App>, scope: OfProject<Read>, Query(params): Query<ListParams>) -> ApiResult {
    let page = params.page(&format!("members of {}", scope.id()))?;
    let mut rows = app.store().role_binding_list_of_project(scope.id()).await?;
    if let Some(after) = &page.after {
        rows.retain(|row| row.user_id.to_string() > *after);
    }
    page.reply(rows, |row| row.user_id.to_string(), MemberView::from)
}

/// Gives a user a role in a project, or another one. Admins of the project.
#[utoipa::path(put, path = "/v1/projects/{project}/members/{user}", tag = "projects",
    params(("project" = String, Path, description = "Id or name."), ("user" = String, Path, description = "Id or name."),
        MutationParams, MutationHeaders),
    request_body = MemberPut, responses((status = 200, body = MemberView)))]
async fn put(
    State(app): State<App>,
    scope: OfProject<Manage>,
    Path(path): Path<(String, String)>,
    _: Query<MutationParams>,
    Change { body, intent }: Change<MemberPut>,
) -> ApiResult {
    mutate::own(&app, &scope.caller, &intent, async || {
        let user = user_fetch(&app, &path.1).await?;
        let role: Role = body.role.into();
        let now = Timestamp::now();
        let unit = Unit::new().op(RoleBindingPut { project_id: scope.id(), user_id: user.id, role, created_at: now });
        let deed = deed(&scope, &user, "member.put", "member.changed", &format!("is {} of", role.as_str()));
        let row =
            RoleMemberRow { project_id: scope.id(), user_id: user.id, user_name: user.name, role, created_at: now };
        let answer = Answer::plain(StatusCode::OK, &MemberView::from(row))?;
        Ok(OwnChange { unit, deed, answer, touches_identity: true })
    })
    .await
}

/// Takes a user out of a project. Admins of the project.
#[utoipa::path(delete, path = "/v1/projects/{project}/members/{user}", tag = "projects",
    params(("project" = String, Path, description = "Id or name."), ("user" = String, Path, description = "Id or name."),
        MutationParams, MutationHeaders),
    responses((status = 204, description = "It is no member any more.")))]
async fn remove(
    State(app): State<App>,
    scope: OfProject<Manage>,
    Path(path): Path<(String, String)>,
    _: Query<MutationParams>,
    intent: Intent,
) -> ApiResult {
    mutate::own(&app, &scope.caller, &intent, async || {
        let user = user_fetch(&app, &path.1).await?;
        let bindings = app.store().role_binding_list_of_user(user.id).await?;
        if !bindings.iter().any(|b| b.project_id == scope.id()) {
            return Err(Problem::not_found("member", &user.name).into());
        }
        let unit = Unit::new().op(RoleBindingDelete { project_id: scope.id(), user_id: user.id });
        let deed = deed(&scope, &user, "member.delete", "member.deleted", "is no member any more of");
        Ok(OwnChange { unit, deed, answer: Answer::none(), touches_identity: true })
    })
    .await
}

async fn user_fetch(app: &App, key: &str) -> Result<UserRow, ApiError> {
    let found = match key.parse::<UserId>() {
        Ok(id) => app.store().user_find(id).await?,
        Err(_) => app.store().user_find_by_name(key).await?,
    };
    found.ok_or_else(|| Problem::not_found("user", key.chars().take(64).collect::<String>()).into())
}

fn deed(scope: &OfProject<Manage>, user: &UserRow, action: &'static str, event: &'static str, what: &str) -> Deed {
    Deed {
        action,
        event,
        object_kind: "member",
        object_id: format!("{}/{}", scope.id(), user.id),
        object_name: user.name.to_string(),
        project_id: Some(scope.id()),
        message: format!("user {} {what} project {}", user.name, scope.project.name),
    }
}
