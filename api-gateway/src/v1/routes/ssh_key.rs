//! SSH public keys of a project. Instances get copies at their creation, so that deleting a key changes no instance.

use crate::{
    app::{App, intent::Intent, ssh_key},
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
        scope::{InProject, Read, Write},
        view::plan::DryRun,
    },
};
use api_types::{SshKey, SshKeyCreate};
use axum::extract::State;
use http::StatusCode;
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(show, delete))
}

/// Lists the project's SSH keys.
#[utoipa::path(get, path = "/v1/ssh-keys", tag = "ssh keys", params(ListParams),
    responses((status = 200, body = List<SshKey>)))]
async fn list(State(app): State<App>, scope: InProject<Read>, Query(params): Query<ListParams>) -> ApiResult {
    let page = params.page(&format!("ssh keys of {}", scope.id()))?;
    let rows = app.store().ssh_key_list(scope.id(), page.store_page()).await?;
    page.reply(rows, |row| row.id.to_string(), SshKey::from)
}

/// Stores a public key.
#[utoipa::path(post, path = "/v1/ssh-keys", tag = "ssh keys", params(MutationParams, MutationHeaders),
    request_body = SshKeyCreate,
    responses((status = 201, body = SshKey), (status = 200, description = "With dry_run.", body = DryRun)))]
async fn create(
    State(app): State<App>,
    scope: InProject<Write>,
    _: Query<MutationParams>,
    Change { body, intent }: Change<SshKeyCreate>,
) -> ApiResult {
    let name = check::name("/name", &body.name)?;
    let done = ssh_key::create(&app, &scope.caller, scope.id(), name, &body.public_key, &intent).await?;
    answer::object(StatusCode::CREATED, done, |key| key.generation, SshKey::from)
}

/// Shows an SSH key.
#[utoipa::path(get, path = "/v1/ssh-keys/{key}", tag = "ssh keys",
    params(("key" = String, Path, description = "Id or name."), ProjectParams), responses((status = 200, body = SshKey)))]
async fn show(
    State(app): State<App>,
    scope: InProject<Read>,
    Path(key): Path<String>,
    _: Query<ProjectParams>,
) -> ApiResult {
    let key = ssh_key::find(&app, scope.id(), &key).await?;
    reply::object(StatusCode::OK, key.generation, &SshKey::from(key))
}

/// Deletes an SSH key. Instances that have it keep it.
#[utoipa::path(delete, path = "/v1/ssh-keys/{key}", tag = "ssh keys",
    params(("key" = String, Path, description = "Id or name."), MutationParams, MutationHeaders),
    responses((status = 204, description = "It is gone.")))]
async fn delete(
    State(app): State<App>,
    scope: InProject<Write>,
    Path(key): Path<String>,
    _: Query<MutationParams>,
    intent: Intent,
) -> ApiResult {
    answer::deleted(ssh_key::delete(&app, &scope.caller, scope.id(), &key, &intent).await?)
}
