//! Routers: how networks leave to the outside.

use super::network::{OfNetworkParams, cut, ended, planned};
use crate::{
    app::{
        App,
        instance::Done,
        network::{
            Call, check,
            find::{self, in_field},
            look,
        },
    },
    auth::scope::{InProject, Read, Write},
    http::{
        intent::{Change, Intent, MutationHeaders, MutationParams},
        page::List,
        path::Path,
        problem::ApiResult,
        query::{ProjectParams, Query},
        reply,
    },
    v1::view::{
        plan::DryRun,
        router::{RouterChange, RouterCreate, RouterView},
    },
};
use axum::extract::State;
use domain::{
    RouterId,
    network::{Change as Wanted, Router},
};
use http::StatusCode;
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(show, change, delete))
}

async fn shown(app: &App, status: StatusCode, done: Done<Router>) -> ApiResult {
    let object = match done {
        Done::Plan(plan) => return planned(plan),
        Done::Change(object) => object,
    };
    let around = look::routers(app, std::slice::from_ref(&object)).await?;
    reply::object(status, object.generation, &RouterView::new(object, &around))
}

/// Lists the project's routers, or that of one network.
#[utoipa::path(get, path = "/v1/routers", tag = "routers", params(OfNetworkParams),
    responses((status = 200, body = List<RouterView>)))]
async fn list(State(app): State<App>, scope: InProject<Read>, Query(params): Query<OfNetworkParams>) -> ApiResult {
    let (page, network_id) = params.page(&app, scope.id(), "routers").await?;
    let rows = match network_id {
        Some(id) => cut(&page, app.store().router_load_many_of_networks(&[id]).await?, |row| row.id),
        None => app.store().router_list(scope.id(), page.store_page()).await?,
    };
    let around = look::routers(&app, &rows).await?;
    page.reply(rows, |row| row.id.to_string(), |row| RouterView::new(row, &around))
}

/// Gives a network a way to the outside. It runs on every host that has the network.
#[utoipa::path(post, path = "/v1/routers", tag = "routers", params(MutationParams, MutationHeaders),
    request_body = RouterCreate,
    responses((status = 201, body = RouterView), (status = 200, description = "With dry_run.", body = DryRun)))]
async fn create(
    State(app): State<App>,
    scope: InProject<Write>,
    _: Query<MutationParams>,
    Change { body, intent }: Change<RouterCreate>,
) -> ApiResult {
    let name = check::router(&body)?;
    let ids = async || Ok(vec![RouterId::new().0]);
    let call = Call::open(&app, &scope.caller, Some(scope.id()), &intent, ids).await?;
    let id = RouterId(call.id()?);
    let change = async || {
        let network = in_field("/network", find::network(&app, scope.id(), &body.network)).await?;
        let outside = find::external_network_or_usual(&app, body.external_network.as_deref()).await?;
        Ok(Wanted::RouterCreate {
            id,
            name,
            network_id: network.id,
            external_network_id: outside.id,
            source_nat: body.source_nat.unwrap_or(true),
        })
    };
    let done = call.run(change).await?;
    shown(&app, StatusCode::CREATED, done).await
}

/// Shows a router.
#[utoipa::path(get, path = "/v1/routers/{router}", tag = "routers",
    params(("router" = String, Path, description = "Id or name."), ProjectParams),
    responses((status = 200, body = RouterView)))]
async fn show(
    State(app): State<App>,
    scope: InProject<Read>,
    Path(key): Path<String>,
    _: Query<ProjectParams>,
) -> ApiResult {
    let object = find::router(&app, scope.id(), &key).await?;
    shown(&app, StatusCode::OK, Done::Change(object)).await
}

/// Changes name or source NAT.
#[utoipa::path(patch, path = "/v1/routers/{router}", tag = "routers",
    params(("router" = String, Path, description = "Id or name."), MutationParams, MutationHeaders),
    request_body = RouterChange,
    responses((status = 200, body = RouterView)))]
async fn change(
    State(app): State<App>,
    scope: InProject<Write>,
    Path(key): Path<String>,
    _: Query<MutationParams>,
    Change { body, intent }: Change<RouterChange>,
) -> ApiResult {
    let name = check::router_change(&body)?;
    let ids = async || Ok(vec![find::router(&app, scope.id(), &key).await?.id.0]);
    let call = Call::open(&app, &scope.caller, Some(scope.id()), &intent, ids).await?;
    let id = RouterId(call.id()?);
    let done = call.run(async || Ok(Wanted::RouterUpdate { id, name, source_nat: body.source_nat })).await?;
    shown(&app, StatusCode::OK, done).await
}

/// Deletes a router, when no floating IP needs it: its network is then without a way out.
#[utoipa::path(delete, path = "/v1/routers/{router}", tag = "routers",
    params(("router" = String, Path, description = "Id or name."), MutationParams, MutationHeaders),
    responses((status = 204, description = "It is gone."), (status = 200, description = "With dry_run.", body = DryRun)))]
async fn delete(
    State(app): State<App>,
    scope: InProject<Write>,
    Path(key): Path<String>,
    _: Query<MutationParams>,
    intent: Intent,
) -> ApiResult {
    let ids = async || Ok(vec![find::router(&app, scope.id(), &key).await?.id.0]);
    let call = Call::open(&app, &scope.caller, Some(scope.id()), &intent, ids).await?;
    let id = RouterId(call.id()?);
    ended(call.end(async || Ok(Wanted::RouterDelete { id })).await?)
}
