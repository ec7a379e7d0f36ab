//! Subnets: blocks of addresses of a network.

use super::network::{OfNetworkParams, cut, ended, planned};
use crate::{
    app::{
        App,
        instance::Done,
        network::{
            Call,
            check::{self, SubnetAsked},
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
        subnet::{SubnetChange, SubnetCreate, SubnetView},
    },
};
use axum::extract::State;
use domain::{
    SubnetId,
    network::{Change as Wanted, Subnet},
};
use http::StatusCode;
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(show, change, delete))
}

async fn shown(app: &App, status: StatusCode, done: Done<Subnet>) -> ApiResult {
    let object = match done {
        Done::Plan(plan) => return planned(plan),
        Done::Change(object) => object,
    };
    let around = look::subnets(app, std::slice::from_ref(&object)).await?;
    reply::object(status, object.generation, &SubnetView::new(object, &around))
}

/// Lists the project's subnets, or those of one network.
#[utoipa::path(get, path = "/v1/subnets", tag = "subnets", params(OfNetworkParams),
    responses((status = 200, body = List<SubnetView>)))]
async fn list(State(app): State<App>, scope: InProject<Read>, Query(params): Query<OfNetworkParams>) -> ApiResult {
    let (page, network_id) = params.page(&app, scope.id(), "subnets").await?;
    let rows = match network_id {
        Some(id) => cut(&page, app.store().subnet_load_many_of_networks(&[id]).await?, |row| row.id),
        None => app.store().subnet_list(scope.id(), page.store_page()).await?,
    };
    let around = look::subnets(&app, &rows).await?;
    page.reply(rows, |row| row.id.to_string(), |row| SubnetView::new(row, &around))
}

/// Makes a subnet: a block of addresses that the network's ports get theirs from.
#[utoipa::path(post, path = "/v1/subnets", tag = "subnets", params(MutationParams, MutationHeaders),
    request_body = SubnetCreate,
    responses((status = 201, body = SubnetView), (status = 200, description = "With dry_run.", body = DryRun)))]
async fn create(
    State(app): State<App>,
    scope: InProject<Write>,
    _: Query<MutationParams>,
    Change { body, intent }: Change<SubnetCreate>,
) -> ApiResult {
    let asked = check::subnet(&body)?;
    let ids = async || Ok(vec![SubnetId::new().0]);
    let call = Call::open(&app, &scope.caller, Some(scope.id()), &intent, ids).await?;
    let id = SubnetId(call.id()?);
    let change = async || {
        let network = in_field("/network", find::network(&app, scope.id(), &body.network)).await?;
        let SubnetAsked { name, spec } = asked;
        Ok(Wanted::SubnetCreate { id, network_id: network.id, name, spec, dhcp: body.dhcp.unwrap_or(true) })
    };
    let done = call.run(change).await?;
    shown(&app, StatusCode::CREATED, done).await
}

/// Shows a subnet.
#[utoipa::path(get, path = "/v1/subnets/{subnet}", tag = "subnets",
    params(("subnet" = String, Path, description = "Id or name."), ProjectParams),
    responses((status = 200, body = SubnetView)))]
async fn show(
    State(app): State<App>,
    scope: InProject<Read>,
    Path(key): Path<String>,
    _: Query<ProjectParams>,
) -> ApiResult {
    let object = find::subnet(&app, scope.id(), &key).await?;
    shown(&app, StatusCode::OK, Done::Change(object)).await
}

/// Changes what guests are told: name, DNS, ranges, routes, DHCP. Guests learn of it when they renew their lease.
#[utoipa::path(patch, path = "/v1/subnets/{subnet}", tag = "subnets",
    params(("subnet" = String, Path, description = "Id or name."), MutationParams, MutationHeaders),
    request_body = SubnetChange,
    responses((status = 200, body = SubnetView)))]
async fn change(
    State(app): State<App>,
    scope: InProject<Write>,
    Path(key): Path<String>,
    _: Query<MutationParams>,
    Change { body, intent }: Change<SubnetChange>,
) -> ApiResult {
    let change = check::subnet_change(&body)?;
    let ids = async || Ok(vec![find::subnet(&app, scope.id(), &key).await?.id.0]);
    let call = Call::open(&app, &scope.caller, Some(scope.id()), &intent, ids).await?;
    let id = SubnetId(call.id()?);
    let done = call.run(async || Ok(Wanted::SubnetUpdate { id, change })).await?;
    shown(&app, StatusCode::OK, done).await
}

/// Deletes a subnet that nobody has an address of.
#[utoipa::path(delete, path = "/v1/subnets/{subnet}", tag = "subnets",
    params(("subnet" = String, Path, description = "Id or name."), MutationParams, MutationHeaders),
    responses((status = 204, description = "It is gone."), (status = 200, description = "With dry_run.", body = DryRun)))]
async fn delete(
    State(app): State<App>,
    scope: InProject<Write>,
    Path(key): Path<String>,
    _: Query<MutationParams>,
    intent: Intent,
) -> ApiResult {
    let ids = async || Ok(vec![find::subnet(&app, scope.id(), &key).await?.id.0]);
    let call = Call::open(&app, &scope.caller, Some(scope.id()), &intent, ids).await?;
    let id = SubnetId(call.id()?);
    ended(call.end(async || Ok(Wanted::SubnetDelete { id })).await?)
}
