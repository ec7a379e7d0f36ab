//! External networks: the outside that hosts are wired to. Everybody sees them, system admins change them.

use super::network::{ended, planned};
use crate::{
    app::{
        App,
        instance::Done,
        network::{Call, check, find},
    },
    auth::scope::{Caller, SystemAdmin},
    http::{
        intent::{Change, Intent, MutationHeaders, MutationParams},
        page::{List, ListParams},
        path::Path,
        problem::ApiResult,
        query::{ProjectParams, Query},
        reply,
    },
    v1::view::{
        external_network::{ExternalNetworkChange, ExternalNetworkCreate, ExternalNetworkView},
        plan::DryRun,
    },
};
use axum::extract::State;
use domain::{
    ExternalNetworkId,
    network::{Change as Wanted, ExternalNetwork},
};
use http::StatusCode;
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(show, change, delete))
}

fn shown(status: StatusCode, done: Done<ExternalNetwork>) -> ApiResult {
    match done {
        Done::Plan(plan) => planned(plan),
        Done::Change(network) => reply::object(status, network.generation, &ExternalNetworkView::from(network)),
    }
}

/// Lists the external networks.
#[utoipa::path(get, path = "/v1/external-networks", tag = "external networks", params(ListParams),
    responses((status = 200, body = List<ExternalNetworkView>)))]
async fn list(State(app): State<App>, _: Caller, Query(params): Query<ListParams>) -> ApiResult {
    let page = params.page("external networks")?;
    let rows = app.store().external_network_list(page.store_page()).await?;
    page.reply(rows, |row| row.id.to_string(), ExternalNetworkView::from)
}

/// Declares an external network. Hosts are wired to it by their configuration. System admins only.
#[utoipa::path(post, path = "/v1/external-networks", tag = "external networks", params(MutationParams, MutationHeaders),
    request_body = ExternalNetworkCreate,
    responses((status = 201, body = ExternalNetworkView), (status = 200, description = "With dry_run.", body = DryRun)))]
async fn create(
    State(app): State<App>,
    SystemAdmin(caller): SystemAdmin,
    _: Query<MutationParams>,
    Change { body, intent }: Change<ExternalNetworkCreate>,
) -> ApiResult {
    let (name, subnets) = check::external_network(&body)?;
    let ids = async || Ok(vec![ExternalNetworkId::new().0]);
    let call = Call::open(&app, &caller, None, &intent, ids).await?;
    let id = ExternalNetworkId(call.id()?);
    let description = body.description;
    let done = call.run(async || Ok(Wanted::ExternalNetworkCreate { id, name, description, subnets })).await?;
    shown(StatusCode::CREATED, done)
}

/// Shows an external network.
#[utoipa::path(get, path = "/v1/external-networks/{external_network}", tag = "external networks",
    params(("external_network" = String, Path, description = "Id or name."), ProjectParams),
    responses((status = 200, body = ExternalNetworkView)))]
async fn show(State(app): State<App>, _: Caller, Path(key): Path<String>, _: Query<ProjectParams>) -> ApiResult {
    shown(StatusCode::OK, Done::Change(find::external_network(&app, &key).await?))
}

/// Changes description or subnets. System admins only.
#[utoipa::path(patch, path = "/v1/external-networks/{external_network}", tag = "external networks",
    params(("external_network" = String, Path, description = "Id or name."), MutationParams, MutationHeaders),
    request_body = ExternalNetworkChange,
    responses((status = 200, body = ExternalNetworkView)))]
async fn change(
    State(app): State<App>,
    SystemAdmin(caller): SystemAdmin,
    Path(key): Path<String>,
    _: Query<MutationParams>,
    Change { body, intent }: Change<ExternalNetworkChange>,
) -> ApiResult {
    let subnets = check::external_network_change(&body)?;
    let ids = async || Ok(vec![find::external_network(&app, &key).await?.id.0]);
    let call = Call::open(&app, &caller, None, &intent, ids).await?;
    let id = ExternalNetworkId(call.id()?);
    let change = async || Ok(Wanted::ExternalNetworkUpdate { id, description: body.description, subnets });
    let done = call.run(change).await?;
    shown(StatusCode::OK, done)
}

/// Deletes an external network that no router leads to and no floating IP is of. System admins only.
#[utoipa::path(delete, path = "/v1/external-networks/{external_network}", tag = "external networks",
    params(("external_network" = String, Path, description = "Id or name."), MutationParams, MutationHeaders),
    responses((status = 204, description = "It is gone."), (status = 200, description = "With dry_run.", body = DryRun)))]
async fn delete(
    State(app): State<App>,
    SystemAdmin(caller): SystemAdmin,
    Path(key): Path<String>,
    _: Query<MutationParams>,
    intent: Intent,
) -> ApiResult {
    let ids = async || Ok(vec![find::external_network(&app, &key).await?.id.0]);
    let call = Call::open(&app, &caller, None, &intent, ids).await?;
    let id = ExternalNetworkId(call.id()?);
    ended(call.end(async || Ok(Wanted::ExternalNetworkDelete { id })).await?)
}
