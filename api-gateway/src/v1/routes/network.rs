//! Networks (VPCs): make, list, show, rename, delete.

use crate::{
    app::{
        App,
        instance::Done,
        network::{Call, check, find, look},
    },
    auth::scope::{Caller, InProject, Read, Write},
    http::{
        intent::{Change, Intent, MutationHeaders, MutationParams},
        page::{List, ListParams, PageRequest},
        path::Path,
        problem::{ApiError, ApiResult},
        query::{ProjectParams, Query},
        reply,
    },
    v1::view::{
        instance::Viewer,
        network::{NetworkChange, NetworkCreate, NetworkView},
        plan::{DryRun, PlanView},
    },
};
use axum::extract::State;
use domain::{
    NetworkId, ProjectId,
    network::{Change as Wanted, Network},
};
use http::StatusCode;
use serde::Deserialize;
use std::fmt::Display;
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(show, change, delete))
}

/// The parameters of a list that can be narrowed to one network.
#[derive(Debug, Clone, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct OfNetworkParams {
    /// Id or name of the project; else the header `X-Iaas-Project`, the API key's, or your only one.
    #[allow(dead_code)]
    project: Option<String>,
    /// Items a page, 1 to 1000; 100 unless told.
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// Only these fields of each item, separated by commas.
    fields: Option<String>,
    /// Only of this network: id or name.
    network: Option<String>,
}

impl OfNetworkParams {
    /// The page, and the network that the list is narrowed to.
    pub async fn page(
        &self,
        app: &App,
        project_id: ProjectId,
        noun: &str,
    ) -> Result<(PageRequest, Option<NetworkId>), ApiError> {
        let list = format!("{noun} of {project_id} on {:?}", self.network);
        let page = PageRequest::new(self.limit, self.cursor.as_deref(), self.fields.as_deref(), &list)?;
        let network_id = match &self.network {
            Some(key) => Some(find::network(app, project_id, key).await?.id),
            None => None,
        };
        Ok((page, network_id))
    }
}

/// What of a short list, ordered by id, the page has, and one more.
pub fn cut<T, Id: Display>(page: &PageRequest, rows: Vec<T>, id: impl Fn(&T) -> Id) -> Vec<T> {
    let after = page.after.clone().unwrap_or_default();
    rows.into_iter().filter(|row| id(row).to_string() > after).take(page.limit as usize + 1).collect()
}

pub fn planned(plan: PlanView) -> ApiResult {
    reply::json(StatusCode::OK, &DryRun { dry_run: true, plan })
}

/// The answer of a deletion.
pub fn ended(done: Done<()>) -> ApiResult {
    match done {
        Done::Plan(plan) => planned(plan),
        Done::Change(()) => Ok(reply::no_content()),
    }
}

async fn shown(app: &App, caller: &Caller, status: StatusCode, done: Done<Network>) -> ApiResult {
    let network = match done {
        Done::Plan(plan) => return planned(plan),
        Done::Change(network) => network,
    };
    let around = look::networks(app, std::slice::from_ref(&network)).await?;
    let generation = network.generation;
    reply::object(status, generation, &NetworkView::new(network, &around, Viewer::of(caller)))
}

/// Lists the project's networks, each with its subnets, its router and its peerings.
#[utoipa::path(get, path = "/v1/networks", tag = "networks", params(ListParams),
    responses((status = 200, body = List<NetworkView>)))]
async fn list(State(app): State<App>, scope: InProject<Read>, Query(params): Query<ListParams>) -> ApiResult {
    let page = params.page(&format!("networks of {}", scope.id()))?;
    let rows = app.store().network_list(scope.id(), page.store_page()).await?;
    let (around, viewer) = (look::networks(&app, &rows).await?, Viewer::of(&scope.caller));
    page.reply(rows, |row| row.id.to_string(), |row| NetworkView::new(row, &around, viewer))
}

/// Makes a network: isolated from all others, whose ranges it may overlap. Give it subnets next.
#[utoipa::path(post, path = "/v1/networks", tag = "networks", params(MutationParams, MutationHeaders),
    request_body = NetworkCreate,
    responses((status = 201, body = NetworkView), (status = 200, description = "With dry_run.", body = DryRun)))]
async fn create(
    State(app): State<App>,
    scope: InProject<Write>,
    _: Query<MutationParams>,
    Change { body, intent }: Change<NetworkCreate>,
) -> ApiResult {
    let name = check::network(&body)?;
    let ids = async || Ok(vec![NetworkId::new().0]);
    let call = Call::open(&app, &scope.caller, Some(scope.id()), &intent, ids).await?;
    let id = NetworkId(call.id()?);
    let (description, mtu) = (body.description, body.mtu);
    let done = call.run(async || Ok(Wanted::NetworkCreate { id, name, description, mtu })).await?;
    shown(&app, &scope.caller, StatusCode::CREATED, done).await
}

/// Shows a network.
#[utoipa::path(get, path = "/v1/networks/{network}", tag = "networks",
    params(("network" = String, Path, description = "Id or name."), ProjectParams),
    responses((status = 200, body = NetworkView)))]
async fn show(
    State(app): State<App>,
    scope: InProject<Read>,
    Path(key): Path<String>,
    _: Query<ProjectParams>,
) -> ApiResult {
    let network = find::network(&app, scope.id(), &key).await?;
    shown(&app, &scope.caller, StatusCode::OK, Done::Change(network)).await
}

/// Changes name or description.
#[utoipa::path(patch, path = "/v1/networks/{network}", tag = "networks",
    params(("network" = String, Path, description = "Id or name."), MutationParams, MutationHeaders),
    request_body = NetworkChange,
    responses((status = 200, body = NetworkView)))]
async fn change(
    State(app): State<App>,
    scope: InProject<Write>,
    Path(key): Path<String>,
    _: Query<MutationParams>,
    Change { body, intent }: Change<NetworkChange>,
) -> ApiResult {
    let name = check::network_change(&body)?;
    let ids = async || Ok(vec![find::network(&app, scope.id(), &key).await?.id.0]);
    let call = Call::open(&app, &scope.caller, Some(scope.id()), &intent, ids).await?;
    let id = NetworkId(call.id()?);
    let done = call.run(async || Ok(Wanted::NetworkUpdate { id, name, description: body.description })).await?;
    shown(&app, &scope.caller, StatusCode::OK, done).await
}

/// Deletes a network and its subnets, when no port, router or peering is left in it.
#[utoipa::path(delete, path = "/v1/networks/{network}", tag = "networks",
    params(("network" = String, Path, description = "Id or name."), MutationParams, MutationHeaders),
    responses((status = 204, description = "It is gone."), (status = 200, description = "With dry_run.", body = DryRun)))]
async fn delete(
    State(app): State<App>,
    scope: InProject<Write>,
    Path(key): Path<String>,
    _: Query<MutationParams>,
    intent: Intent,
) -> ApiResult {
    let ids = async || Ok(vec![find::network(&app, scope.id(), &key).await?.id.0]);
    let call = Call::open(&app, &scope.caller, Some(scope.id()), &intent, ids).await?;
    let id = NetworkId(call.id()?);
    ended(call.end(async || Ok(Wanted::NetworkDelete { id })).await?)
}
