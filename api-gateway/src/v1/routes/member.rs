//! Who is in a project, with which role.

use crate::{
    app::{App, intent::Intent, member},
    http::{
        intent::{Change, MutationHeaders, MutationParams},
        page::{List, ListParams},
        path::Path,
        problem::ApiResult,
        query::Query,
    },
    v1::{
        answer,
        scope::{Manage, OfProject, Read},
    },
};
use api_types::{Member, MemberPut};
use axum::extract::State;
use http::StatusCode;
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(put, remove))
}

/// Lists the members of a project.
#[utoipa::path(get, path = "/v1/projects/{project}/members", tag = "projects",
    params(("project" = String, Path, description = "Id or name."), ListParams),
    responses((status = 200, body = List<Member>)))]
async fn list(State(app): State<App>, scope: OfProject<Read>, Query(params): Query<ListParams>) -> ApiResult {
    let page = params.page(&format!("members of {}", scope.id()))?;
    let rows = member::list(&app, scope.id(), &page.store_page()).await?;
    page.reply(rows, |row| row.user_id.to_string(), Member::from)
}

/// Gives a user a role in a project, or changes it. Admins of the project only.
#[utoipa::path(put, path = "/v1/projects/{project}/members/{user}", tag = "projects",
    params(("project" = String, Path, description = "Id or name."), ("user" = String, Path, description = "Id or name."),
        MutationParams, MutationHeaders),
    request_body = MemberPut, responses((status = 200, body = Member)))]
async fn put(
    State(app): State<App>,
    scope: OfProject<Manage>,
    Path(path): Path<(String, String)>,
    _: Query<MutationParams>,
    Change { body, intent }: Change<MemberPut>,
) -> ApiResult {
    let done = member::put(&app, &scope.caller, &scope.project, &path.1, body.role, &intent).await?;
    answer::plain(StatusCode::OK, done, Member::from)
}

/// Removes a user from a project. Admins of the project only.
#[utoipa::path(delete, path = "/v1/projects/{project}/members/{user}", tag = "projects",
    params(("project" = String, Path, description = "Id or name."), ("user" = String, Path, description = "Id or name."),
        MutationParams, MutationHeaders),
    responses((status = 204, description = "The user is no longer a member.")))]
async fn remove(
    State(app): State<App>,
    scope: OfProject<Manage>,
    Path(path): Path<(String, String)>,
    _: Query<MutationParams>,
    intent: Intent,
) -> ApiResult {
    answer::deleted(member::remove(&app, &scope.caller, &scope.project, &path.1, &intent).await?)
}
