//! SSH public keys of a project. Instances get copies at their creation, so that deleting a key changes no instance.

use crate::{
    app::{
        App,
        mutate::{self, Answer, Deed, OwnChange},
    },
    auth::scope::{InProject, Read, Write},
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
        ssh_key::{SshKeyCreate, SshKeyView},
    },
};
use axum::extract::State;
use domain::{
    Problem, ProjectId, SshKeyId, Timestamp,
    ssh_key::{SshKey, parse_public_key},
};
use http::StatusCode;
use store::{SshKeyDelete, SshKeyInsert, Unit};
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(show, delete))
}

/// Lists the project's SSH keys.
#[utoipa::path(get, path = "/v1/ssh-keys", tag = "ssh keys", params(ListParams),
    responses((status = 200, body = List<SshKeyView>)))]
async fn list(State(app): State<App>, scope: InProject<Read>, Query(params): Query<ListParams>) -> ApiResult {
    let page = params.page(&format!("ssh keys of {}", scope.id()))?;
    let rows = app.store().ssh_key_list(scope.id(), page.store_page()).await?;
    page.reply(rows, |row| row.id.to_string(), SshKeyView::from)
}

/// Stores a public key.
#[utoipa::path(post, path = "/v1/ssh-keys", tag = "ssh keys", params(MutationParams, MutationHeaders),
    request_body = SshKeyCreate,
    responses((status = 201, body = SshKeyView), (status = 200, description = "With dry_run.", body = DryRun)))]
async fn create(
    State(app): State<App>,
    scope: InProject<Write>,
    _: Query<MutationParams>,
    Change { body, intent }: Change<SshKeyCreate>,
) -> ApiResult {
    mutate::own(&app, &scope.caller, &intent, async || {
        let parsed = parse_public_key(&body.public_key);
        let (public_key, fingerprint) = parsed.map_err(|e| Problem::invalid("/public_key", e.to_string()))?;
        if intent.dry_run && app.store().ssh_key_find_by_name(scope.id(), body.name.as_str()).await?.is_some() {
            return Err(Problem::already_exists("ssh key", &body.name).into());
        }
        let key = SshKey {
            id: SshKeyId::new(),
            project_id: scope.id(),
            name: body.name.clone(),
            public_key,
            fingerprint,
            generation: 1,
            created_at: Timestamp::now(),
        };
        let unit = Unit::new().op(SshKeyInsert {
            id: key.id,
            project_id: key.project_id,
            name: key.name.clone(),
            public_key: key.public_key.clone(),
            fingerprint: key.fingerprint.clone(),
            created_at: key.created_at,
        });
        let deed = deed("ssh_key.create", "ssh_key.created", "was created", &key);
        let answer = Answer::object(StatusCode::CREATED, key.generation, &SshKeyView::from(key))?;
        Ok(OwnChange { unit, deed, answer, touches_identity: false })
    })
    .await
}

/// Shows an SSH key.
#[utoipa::path(get, path = "/v1/ssh-keys/{key}", tag = "ssh keys",
    params(("key" = String, Path, description = "Id or name."), ProjectParams), responses((status = 200, body = SshKeyView)))]
async fn show(
    State(app): State<App>,
    scope: InProject<Read>,
    Path(key): Path<String>,
    _: Query<ProjectParams>,
) -> ApiResult {
    let key = fetch(&app, scope.id(), &key).await?;
    reply::object(StatusCode::OK, key.generation, &SshKeyView::from(key))
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
    mutate::own(&app, &scope.caller, &intent, async || {
        let key = fetch(&app, scope.id(), &key).await?;
        intent.check_generation(key.generation)?;
        let unit = Unit::new().op(SshKeyDelete { id: key.id });
        let deed = deed("ssh_key.delete", "ssh_key.deleted", "was deleted", &key);
        Ok(OwnChange { unit, deed, answer: Answer::none(), touches_identity: false })
    })
    .await
}

/// The key behind an id or a name, in this project only.
pub async fn fetch(app: &App, project_id: ProjectId, key: &str) -> Result<SshKey, ApiError> {
    let found = match key.parse::<SshKeyId>() {
        Ok(id) => app.store().ssh_key_find(project_id, id).await?,
        Err(_) => app.store().ssh_key_find_by_name(project_id, key).await?,
    };
    found.ok_or_else(|| Problem::not_found("ssh key", key.chars().take(64).collect::<String>()).into())
}

fn deed(action: &'static str, event: &'static str, what: &str, key: &SshKey) -> Deed {
    Deed {
        action,
        event,
        object_kind: "ssh_key",
        object_id: key.id.to_string(),
        object_name: key.name.to_string(),
        project_id: Some(key.project_id),
        message: format!("SSH key {} {what}", key.name),
    }
}
