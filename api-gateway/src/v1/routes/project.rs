//! Projects. The example of a resource that the gateway owns: list, create, show, change, delete. (One that another service owns:
//! `routes/image.rs`.)

use crate::{
    app::{
        App,
        mutate::{self, Answer, Deed, OwnChange},
        network,
    },
    auth::scope::{Caller, Manage, OfProject, Read, SystemAdmin},
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
        project::{ProjectChange, ProjectCreate, ProjectView},
    },
};
use axum::extract::State;
use domain::{Problem, ProjectId, Timestamp, limits, policy::Role, quota::QuotaAmounts};
use http::StatusCode;
use store::{ProjectDelete, ProjectInsert, ProjectRow, ProjectUpdate, QuotaLimitPut, RoleBindingPut, Unit};
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(show, change, delete))
}

/// Lists the projects you are in; a system admin's list has all.
#[utoipa::path(get, path = "/v1/projects", tag = "projects", params(ListParams),
    responses((status = 200, body = List<ProjectView>)))]
async fn list(State(app): State<App>, caller: Caller, Query(params): Query<ListParams>) -> ApiResult {
    let page = params.page(&format!("projects of {}", caller.identity.user_id))?;
    let rows = if caller.system_admin() {
        app.store().project_list(page.store_page()).await?
    } else {
        let mut rows = app.store().project_list_of_user(caller.identity.user_id, page.store_page()).await?;
        // A key bound to one project knows of no other.
        rows.retain(|row| caller.identity.principal.role_in(row.id).is_some());
        rows
    };
    page.reply(rows, |row| row.id.to_string(), ProjectView::from)
}

/// Makes a project, with the default quota, and its maker as its admin. System admins only.
#[utoipa::path(post, path = "/v1/projects", tag = "projects", params(MutationParams, MutationHeaders),
    request_body = ProjectCreate,
    responses((status = 201, body = ProjectView), (status = 200, description = "With dry_run.", body = DryRun)))]
async fn create(
    State(app): State<App>,
    SystemAdmin(caller): SystemAdmin,
    _: Query<MutationParams>,
    Change { body, intent }: Change<ProjectCreate>,
) -> ApiResult {
    let id = ProjectId::new();
    let made = mutate::own(&app, &caller, &intent, async || {
        check_description(&body.description)?;
        if intent.dry_run && app.store().project_find_by_name(body.name.as_str()).await?.is_some() {
            return Err(Problem::already_exists("project", &body.name).into());
        }
        let row = ProjectRow {
            id,
            name: body.name.clone(),
            description: body.description.clone(),
            generation: 1,
            created_at: Timestamp::now(),
        };
        let unit = Unit::new()
            .op(ProjectInsert {
                id: row.id,
                name: row.name.clone(),
                description: row.description.clone(),
                created_at: row.created_at,
            })
            .op(QuotaLimitPut::new(row.id, &QuotaAmounts::DEFAULT_LIMIT, 0))
            .op(RoleBindingPut {
                project_id: row.id,
                user_id: caller.identity.user_id,
                role: Role::Admin,
                created_at: row.created_at,
            });
        let deed = deed("project.create", "project.created", "was created", &row);
        let answer = Answer::object(StatusCode::CREATED, row.generation, &ProjectView::from(row))?;
        Ok(OwnChange { unit, deed, answer, touches_identity: true })
    })
    .await?;
    // A repeat was answered from memory: the project has another id, and its defaults.
    if made.status() == StatusCode::CREATED && app.store().project_find(id).await?.is_some() {
        network::ensure_defaults(&app, &caller.context(None, false), id).await;
    }
    Ok(made)
}

/// Shows a project.
#[utoipa::path(get, path = "/v1/projects/{project}", tag = "projects", params(("project" = String, Path, description = "Id or name.")),
    responses((status = 200, body = ProjectView)))]
async fn show(State(app): State<App>, scope: OfProject<Read>, _: Query<ProjectParams>) -> ApiResult {
    let row = fetch(&app, &scope.id().to_string()).await?;
    reply::object(StatusCode::OK, row.generation, &ProjectView::from(row))
}

/// Changes name or description. Admins of the project.
#[utoipa::path(patch, path = "/v1/projects/{project}", tag = "projects",
    params(("project" = String, Path, description = "Id or name."), MutationParams, MutationHeaders),
    request_body = ProjectChange,
    responses((status = 200, body = ProjectView)))]
async fn change(
    State(app): State<App>,
    scope: OfProject<Manage>,
    _: Query<MutationParams>,
    Change { body, intent }: Change<ProjectChange>,
) -> ApiResult {
    mutate::own(&app, &scope.caller, &intent, async || {
        let mut row = fetch(&app, &scope.id().to_string()).await?;
        intent.check_generation(row.generation)?;
        let expected_generation = row.generation;
        if let Some(name) = &body.name {
            row.name = name.clone();
        }
        if let Some(description) = &body.description {
            check_description(description)?;
            row.description = description.clone();
        }
        row.generation += 1;
        let unit = Unit::new().op(ProjectUpdate {
            id: row.id,
            expected_generation,
            name: row.name.clone(),
            description: row.description.clone(),
        });
        let deed = deed("project.change", "project.changed", "was changed", &row);
        let answer = Answer::object(StatusCode::OK, row.generation, &ProjectView::from(row))?;
        Ok(OwnChange { unit, deed, answer, touches_identity: true })
    })
    .await
}

/// Deletes a project that has no instances, images or disks. System admins only.
#[utoipa::path(delete, path = "/v1/projects/{project}", tag = "projects",
    params(("project" = String, Path, description = "Id or name."), MutationParams, MutationHeaders),
    responses((status = 204, description = "It is gone."), (status = 200, description = "With dry_run.", body = DryRun)))]
async fn delete(
    State(app): State<App>,
    SystemAdmin(caller): SystemAdmin,
    Path(project): Path<String>,
    _: Query<MutationParams>,
    intent: Intent,
) -> ApiResult {
    mutate::own(&app, &caller, &intent, async || {
        let row = fetch(&app, &project).await?;
        intent.check_generation(row.generation)?;
        let unit = Unit::new().op(ProjectDelete { id: row.id });
        let deed = deed("project.delete", "project.deleted", "was deleted", &row);
        Ok(OwnChange { unit, deed, answer: Answer::none(), touches_identity: true })
    })
    .await
}

/// The row behind an id or a name.
async fn fetch(app: &App, key: &str) -> Result<ProjectRow, ApiError> {
    let found = match key.parse::<ProjectId>() {
        Ok(id) => app.store().project_find(id).await?,
        Err(_) => app.store().project_find_by_name(key).await?,
    };
    found.ok_or_else(|| Problem::not_found("project", key).into())
}

fn check_description(text: &str) -> Result<(), Problem> {
    if text.len() > limits::DESCRIPTION_BYTES {
        return Err(Problem::invalid("/description", format!("more than {} bytes", limits::DESCRIPTION_BYTES)));
    }
    Ok(())
}

fn deed(action: &'static str, event: &'static str, what: &str, row: &ProjectRow) -> Deed {
    Deed {
        action,
        event,
        object_kind: "project",
        object_id: row.id.to_string(),
        object_name: row.name.to_string(),
        project_id: Some(row.id),
        message: format!("project {} {what}", row.name),
    }
}
