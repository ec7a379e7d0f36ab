//! Peerings: two networks of a project whose instances may talk to each other.

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
        peering::{PeeringCreate, PeeringView},
        plan::DryRun,
    },
};
use axum::extract::State;
use domain::{
    PeeringId, Problem,
    network::{Change as Wanted, Peering},
};
use http::StatusCode;
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(show, delete))
}

async fn shown(app: &App, status: StatusCode, done: Done<Peering>) -> ApiResult {
    let object = match done {
        Done::Plan(plan) => return planned(plan),
        Done::Change(object) => object,
    };
    let around = look::peerings(app, std::slice::from_ref(&object)).await?;
    reply::object(status, object.generation, &PeeringView::new(object, &around))
}

/// Lists the project's peerings, or those of one network.
#[utoipa::path(get, path = "/v1/network-peerings", tag = "network peerings", params(OfNetworkParams),
    responses((status = 200, body = List<PeeringView>)))]
async fn list(State(app): State<App>, scope: InProject<Read>, Query(params): Query<OfNetworkParams>) -> ApiResult {
    let (page, network_id) = params.page(&app, scope.id(), "peerings").await?;
    let rows = match network_id {
        Some(id) => cut(&page, app.store().peering_load_many_of_networks(&[id]).await?, |row| row.id),
        None => app.store().peering_list(scope.id(), page.store_page()).await?,
    };
    let around = look::peerings(&app, &rows).await?;
    page.reply(rows, |row| row.id.to_string(), |row| PeeringView::new(row, &around))
}

/// Lets the instances of two networks talk to each other, as their security groups allow. Their ranges must not overlap.
#[utoipa::path(post, path = "/v1/network-peerings", tag = "network peerings", params(MutationParams, MutationHeaders),
    request_body = PeeringCreate,
    responses((status = 201, body = PeeringView), (status = 200, description = "With dry_run.", body = DryRun)))]
async fn create(
    State(app): State<App>,
    scope: InProject<Write>,
    _: Query<MutationParams>,
    Change { body, intent }: Change<PeeringCreate>,
) -> ApiResult {
    let name = check::peering(&body)?;
    let ids = async || Ok(vec![PeeringId::new().0]);
    let call = Call::open(&app, &scope.caller, Some(scope.id()), &intent, ids).await?;
    let id = PeeringId(call.id()?);
    let change = async || {
        let network = in_field("/network", find::network(&app, scope.id(), &body.network)).await?;
        let peer = in_field("/peer_network", find::network(&app, scope.id(), &body.peer_network)).await?;
        if network.id == peer.id {
            return Err(Problem::invalid("/peer_network", "another network is expected").into());
        }
        Ok(Wanted::PeeringCreate { id, name, network_id: network.id, peer_network_id: peer.id })
    };
    let done = call.run(change).await?;
    shown(&app, StatusCode::CREATED, done).await
}

/// Shows a peering.
#[utoipa::path(get, path = "/v1/network-peerings/{peering}", tag = "network peerings",
    params(("peering" = String, Path, description = "Id or name."), ProjectParams),
    responses((status = 200, body = PeeringView)))]
async fn show(
    State(app): State<App>,
    scope: InProject<Read>,
    Path(key): Path<String>,
    _: Query<ProjectParams>,
) -> ApiResult {
    let object = find::peering(&app, scope.id(), &key).await?;
    shown(&app, StatusCode::OK, Done::Change(object)).await
}

/// Ends a peering: the two networks don't see each other any more.
#[utoipa::path(delete, path = "/v1/network-peerings/{peering}", tag = "network peerings",
    params(("peering" = String, Path, description = "Id or name."), MutationParams, MutationHeaders),
    responses((status = 204, description = "It is gone."), (status = 200, description = "With dry_run.", body = DryRun)))]
async fn delete(
    State(app): State<App>,
    scope: InProject<Write>,
    Path(key): Path<String>,
    _: Query<MutationParams>,
    intent: Intent,
) -> ApiResult {
    let ids = async || Ok(vec![find::peering(&app, scope.id(), &key).await?.id.0]);
    let call = Call::open(&app, &scope.caller, Some(scope.id()), &intent, ids).await?;
    let id = PeeringId(call.id()?);
    ended(call.end(async || Ok(Wanted::PeeringDelete { id })).await?)
}
