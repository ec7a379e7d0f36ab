//! One's own API keys. The secret is shown once.

use crate::{
    app::{
        App,
        mutate::{self, Answer, Deed, OwnChange},
    },
    auth::{api_key, scope::Caller},
    http::{
        intent::{Change, Intent, MutationHeaders, MutationParams},
        page::{List, ListParams},
        path::Path,
        problem::{ApiError, ApiResult},
        query::Query,
    },
    v1::view::{
        api_key::{ApiKeyCreate, ApiKeyCreated, ApiKeyView},
        plan::DryRun,
    },
};
use axum::extract::State;
use domain::{ApiKeyId, ErrorKind, Problem, Timestamp, policy::Role};
use http::StatusCode;
use store::{ApiKeyDelete, ApiKeyInsert, ApiKeyRow, Unit};
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(delete))
}

/// A key that carries less than its user must not make one that carries more, or take others away.
fn unrestricted(caller: &Caller) -> Result<(), Problem> {
    match &caller.identity.api_key {
        Some(key) if key.restricted() => Err(Problem::new(
            ErrorKind::PermissionDenied,
            "key_restricted",
            "an API key that is bound to a project, a role or a time can't manage API keys",
        )
        .with_hint("use a login, or a key without bounds")),
        Some(_) | None => Ok(()),
    }
}

/// Lists your API keys, without their secrets.
#[utoipa::path(get, path = "/v1/api-keys", tag = "api keys", params(ListParams),
    responses((status = 200, body = List<ApiKeyView>)))]
async fn list(State(app): State<App>, caller: Caller, Query(params): Query<ListParams>) -> ApiResult {
    let page = params.page(&format!("api keys of {}", caller.identity.user_id))?;
    let mut rows = app.store().api_key_list(caller.identity.user_id).await?;
    if let Some(after) = &page.after {
        rows.retain(|row| row.id.to_string() > *after);
    }
    page.reply(rows, |row| row.id.to_string(), ApiKeyView::from)
}

/// Makes an API key. The answer is the only one that holds its secret.
#[utoipa::path(post, path = "/v1/api-keys", tag = "api keys", params(MutationParams, MutationHeaders),
    request_body = ApiKeyCreate,
    responses((status = 201, body = ApiKeyCreated), (status = 200, description = "With dry_run.", body = DryRun)))]
async fn create(
    State(app): State<App>,
    caller: Caller,
    _: Query<MutationParams>,
    Change { body, intent }: Change<ApiKeyCreate>,
) -> ApiResult {
    mutate::own(&app, &caller, &intent, async || {
        unrestricted(&caller)?;
        let now = Timestamp::now();
        if body.expires_at.is_some_and(|at| at <= now) {
            return Err(Problem::invalid("/expires_at", "this is in the past").into());
        }
        let project = match &body.project {
            None => None,
            Some(key) => {
                let unknown = || Problem::not_found("project", key.chars().take(64).collect::<String>());
                let found = app.auth().identities.project(&app, key).await?.ok_or_else(unknown)?;
                let theirs = caller.system_admin() || caller.identity.principal.role_in(found.id).is_some();
                Some(if theirs { found } else { return Err(unknown().into()) })
            }
        };
        if intent.dry_run {
            let keys = app.store().api_key_list(caller.identity.user_id).await?;
            if keys.iter().any(|key| key.name == body.name) {
                return Err(Problem::already_exists("api key", &body.name).into());
            }
        }
        let made = api_key::generate();
        let row = ApiKeyRow {
            id: ApiKeyId::new(),
            user_id: caller.identity.user_id,
            project_id: project.as_ref().map(|p| p.id),
            name: body.name.clone(),
            prefix: made.prefix,
            secret_hash: made.secret_hash,
            role: body.role.map(Role::from),
            expires_at: body.expires_at,
            created_at: now,
        };
        let unit = Unit::new().op(ApiKeyInsert {
            id: row.id,
            user_id: row.user_id,
            project_id: row.project_id,
            name: row.name.clone(),
            prefix: row.prefix.clone(),
            secret_hash: row.secret_hash.clone(),
            role: row.role,
            expires_at: row.expires_at,
            created_at: row.created_at,
        });
        let deed = deed("api_key.create", "api_key.created", "was created", &caller, &row);
        let answer =
            Answer::plain(StatusCode::CREATED, &ApiKeyCreated { key: ApiKeyView::from(row), secret: made.key })?;
        Ok(OwnChange { unit, deed, answer, touches_identity: true })
    })
    .await
}

/// Deletes one of your API keys: it stops working at once.
#[utoipa::path(delete, path = "/v1/api-keys/{key}", tag = "api keys",
    params(("key" = String, Path, description = "Id or name."), MutationParams, MutationHeaders),
    responses((status = 204, description = "It is gone.")))]
async fn delete(
    State(app): State<App>,
    caller: Caller,
    Path(key): Path<String>,
    _: Query<MutationParams>,
    intent: Intent,
) -> ApiResult {
    mutate::own(&app, &caller, &intent, async || {
        unrestricted(&caller)?;
        let row = fetch(&app, &caller, &key).await?;
        let unit = Unit::new().op(ApiKeyDelete { id: row.id, user_id: row.user_id });
        let deed = deed("api_key.delete", "api_key.deleted", "was deleted", &caller, &row);
        Ok(OwnChange { unit, deed, answer: Answer::none(), touches_identity: true })
    })
    .await
}

async fn fetch(app: &App, caller: &Caller, key: &str) -> Result<ApiKeyRow, ApiError> {
    let rows = app.store().api_key_list(caller.identity.user_id).await?;
    let id = key.parse::<ApiKeyId>().ok();
    let found = rows.into_iter().find(|row| Some(row.id) == id || row.name.as_str() == key);
    found.ok_or_else(|| Problem::not_found("api key", key.chars().take(64).collect::<String>()).into())
}

fn deed(action: &'static str, event: &'static str, what: &str, caller: &Caller, row: &ApiKeyRow) -> Deed {
    Deed {
        action,
        event,
        object_kind: "api_key",
        object_id: row.id.to_string(),
        object_name: row.name.to_string(),
        project_id: None,
        message: format!("API key {} of {} {what}", row.name, caller.identity.user_name),
    }
}
