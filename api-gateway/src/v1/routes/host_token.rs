//! Tokens that admit hosts. A token's secret is shown once, and not kept: of it the cluster-manager has the SHA-256.

use crate::{
    app::{App, host_token, intent::Intent},
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
        scope::SystemAdmin,
        view::{
            host_token::{HostTokenCreated, HostTokenView, host_token_created, host_token_view},
            plan::DryRun,
        },
    },
};
use api_types::HostTokenCreate;
use axum::extract::State;
use http::StatusCode;
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(show, delete))
}

/// Lists the tokens that admit hosts, without their secrets. System admins only.
#[utoipa::path(get, path = "/v1/host-tokens", tag = "hosts", params(ListParams),
    responses((status = 200, body = List<HostTokenView>)))]
async fn list(State(app): State<App>, _: SystemAdmin, Query(params): Query<ListParams>) -> ApiResult {
    let page = params.page("host tokens")?;
    let rows = app.store().host_token_list(page.store_page()).await?;
    page.reply(rows, |row| row.id.to_string(), host_token_view)
}

/// Creates a token that admits one host. Only this answer contains it. System admins only.
#[utoipa::path(post, path = "/v1/host-tokens", tag = "hosts", params(MutationParams, MutationHeaders),
    request_body = HostTokenCreate,
    responses((status = 201, body = HostTokenCreated), (status = 200, description = "With dry_run.", body = DryRun)))]
async fn create(
    State(app): State<App>,
    SystemAdmin(caller): SystemAdmin,
    _: Query<MutationParams>,
    Change { body, intent }: Change<HostTokenCreate>,
) -> ApiResult {
    let HostTokenCreate { name, zone, ttl_secs } = body;
    let name = name.map(|name| check::name("/name", &name)).transpose()?;
    let zone = zone.map(|zone| check::name("/zone", &zone)).transpose()?;
    let done = host_token::create(&app, &caller, name, zone, ttl_secs, &intent).await?;
    answer::plain(StatusCode::CREATED, done, host_token_created)
}

/// Shows a token, without its secret. System admins only.
#[utoipa::path(get, path = "/v1/host-tokens/{host_token}", tag = "hosts",
    params(("host_token" = String, Path, description = "Id."), ProjectParams), responses((status = 200, body = HostTokenView)))]
async fn show(State(app): State<App>, _: SystemAdmin, Path(key): Path<String>, _: Query<ProjectParams>) -> ApiResult {
    reply::json(StatusCode::OK, &host_token_view(host_token::find(&app, &key).await?))
}

/// Deletes a token, which then admits no host. The host that it has admitted stays. System admins only.
#[utoipa::path(delete, path = "/v1/host-tokens/{host_token}", tag = "hosts",
    params(("host_token" = String, Path, description = "Id."), MutationParams, MutationHeaders),
    responses((status = 204, description = "It is gone."), (status = 200, description = "With dry_run.", body = DryRun)))]
async fn delete(
    State(app): State<App>,
    SystemAdmin(caller): SystemAdmin,
    Path(key): Path<String>,
    _: Query<MutationParams>,
    intent: Intent,
) -> ApiResult {
    answer::deleted(host_token::delete(&app, &caller, &key, &intent).await?)
}
