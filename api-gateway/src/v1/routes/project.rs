//! Projects. The example of a resource that the gateway owns: list, create, show, change, delete. (One that another service owns:
//! `routes/image.rs`.)

use crate::{
    app::{App, intent::Intent, project},
    auth::caller::Caller,
    http::{
        intent::{Change, MutationHeaders, MutationParams},
        page::{List, ListParams},
        path::Path,
        problem::ApiResult,
        query::{ProjectParams, Query},
        reply,
    },
    v1::{
        answer, check,
        scope::{Manage, OfProject, Read, SystemAdmin},
        view::plan::DryRun,
    },
};
use api_types::{Project, ProjectChange, ProjectCreate};
use axum::extract::State;
use http::StatusCode;
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(show, change, delete))
}

/// Lists the projects you are in; a system admin's list has all.
#[utoipa::path(get, path = "/v1/projects", tag = "projects", params(ListParams),
    responses((status = 200, body = List<Project>)))]
async fn list(State(app): State<App>, caller: Caller, Query(params): Query<ListParams>) -> ApiResult {
    let page = params.page(&format!("projects of {}", caller.identity.user_id))?;
    let rows = project::list(&app, &caller, page.store_page()).await?;
    page.reply(rows, |row| row.id.to_string(), Project::from)
}

/// Creates a project with the default quota, and the caller as its admin. System admins only.
#[utoipa::path(post, path = "/v1/projects", tag = "projects", params(MutationParams, MutationHeaders),
    request_body = ProjectCreate,
    responses((status = 201, body = Project), (status = 200, description = "With dry_run.", body = DryRun)))]
async fn create(
    State(app): State<App>,
    SystemAdmin(caller): SystemAdmin,
    _: Query<MutationParams>,
    Change { body, intent }: Change<ProjectCreate>,
) -> ApiResult {
    let name = check::name("/name", &body.name)?;
    let done = project::create(&app, &caller, name, body.description, &intent).await?;
    answer::object(StatusCode::CREATED, done, |project| project.generation, Project::from)
}

/// Shows a project.
#[utoipa::path(get, path = "/v1/projects/{project}", tag = "projects", params(("project" = String, Path, description = "Id or name.")),
    responses((status = 200, body = Project)))]
async fn show(State(app): State<App>, scope: OfProject<Read>, _: Query<ProjectParams>) -> ApiResult {
    let project = project::find(&app, &scope.id().to_string()).await?;
    reply::object(StatusCode::OK, project.generation, &Project::from(project))
}

/// Changes name or description. Admins of the project only.
#[utoipa::path(patch, path = "/v1/projects/{project}", tag = "projects",
    params(("project" = String, Path, description = "Id or name."), MutationParams, MutationHeaders),
    request_body = ProjectChange,
    responses((status = 200, body = Project)))]
async fn change(
    State(app): State<App>,
    scope: OfProject<Manage>,
    _: Query<MutationParams>,
    Change { body, intent }: Change<ProjectChange>,
) -> ApiResult {
    let name = body.name.map(|name| check::name("/name", &name)).transpose()?;
    let done = project::change(&app, &scope.caller, scope.id(), name, body.description, &intent).await?;
    answer::object(StatusCode::OK, done, |project| project.generation, Project::from)
}

/// Deletes a project that has no instances, images or disks. System admins only.
#[utoipa::path(delete, path = "/v1/projects/{project}", tag = "projects",
    params(("project" = String, Path, description = "Id or name."), MutationParams, MutationHeaders),
    responses((status = 204, description = "It is gone."), (status = 200, description = "With dry_run.", body = DryRun)))]
async fn delete(
    State(app): State<App>,
    SystemAdmin(caller): SystemAdmin,
    Path(key): Path<String>,
    _: Query<MutationParams>,
    intent: Intent,
) -> ApiResult {
    answer::deleted(project::delete(&app, &caller, &key, &intent).await?)
}
