//! Ports: attachment points of networks, with their addresses.

use super::network::{ended, planned};
use crate::{
    app::{
        App,
        instance::{self, Done},
        network::{
            Call,
            check::{self, PortAsked},
            find::{self, in_field},
            look,
        },
    },
    auth::scope::{Caller, InProject, Read, Write},
    http::{
        intent::{Change, Intent, MutationHeaders, MutationParams},
        page::{List, PageRequest},
        path::Path,
        problem::{ApiError, ApiResult},
        query::{ProjectParams, Query},
        reply,
    },
    v1::view::{
        instance::Viewer,
        plan::DryRun,
        port::{PortChange, PortCreate, PortTrafficView, PortView},
    },
};
use axum::extract::State;
use domain::{
    PortId, ProjectId,
    network::{Change as Wanted, Port},
};
use http::StatusCode;
use proto::resource::v1::ReadTrafficRequest;
use serde::Deserialize;
use store::PortFilter;
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(show, change, delete)).routes(routes!(traffic))
}

async fn shown(app: &App, caller: &Caller, status: StatusCode, done: Done<Port>) -> ApiResult {
    let object = match done {
        Done::Plan(plan) => return planned(plan),
        Done::Change(object) => object,
    };
    let around = look::ports(app, std::slice::from_ref(&object)).await?;
    reply::object(status, object.generation, &PortView::new(object, &around, Viewer::of(caller)))
}

#[derive(Debug, Clone, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct PortListParams {
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
    /// Only of this instance: id or name.
    instance: Option<String>,
    /// Only in this security group: id or name.
    security_group: Option<String>,
}

async fn filter(app: &App, project_id: ProjectId, params: &PortListParams) -> Result<PortFilter, ApiError> {
    let network_id = match &params.network {
        Some(key) => Some(find::network(app, project_id, key).await?.id),
        None => None,
    };
    let instance_id = match &params.instance {
        Some(key) => Some(instance::find(app, project_id, key).await?.id),
        None => None,
    };
    let security_group_id = match &params.security_group {
        Some(key) => Some(find::security_group(app, project_id, key).await?.id),
        None => None,
    };
    Ok(PortFilter { project_id, network_id, instance_id, security_group_id })
}

/// Lists the project's ports, those of instances included.
#[utoipa::path(get, path = "/v1/ports", tag = "ports", params(PortListParams),
    responses((status = 200, body = List<PortView>)))]
async fn list(State(app): State<App>, scope: InProject<Read>, Query(params): Query<PortListParams>) -> ApiResult {
    let PortListParams { network, instance, security_group, .. } = &params;
    let list = format!("ports of {} {network:?} {instance:?} {security_group:?}", scope.id());
    let page = PageRequest::new(params.limit, params.cursor.as_deref(), params.fields.as_deref(), &list)?;
    let filter = filter(&app, scope.id(), &params).await?;
    let rows = app.store().port_list_filtered(&filter, page.store_page()).await?;
    let (around, viewer) = (look::ports(&app, &rows).await?, Viewer::of(&scope.caller));
    page.reply(rows, |row| row.id.to_string(), |row| PortView::new(row, &around, viewer))
}

/// Makes a port of its own, to be given to an instance, and to outlive it.
#[utoipa::path(post, path = "/v1/ports", tag = "ports", params(MutationParams, MutationHeaders),
    request_body = PortCreate,
    responses((status = 201, body = PortView), (status = 200, description = "With dry_run.", body = DryRun)))]
async fn create(
    State(app): State<App>,
    scope: InProject<Write>,
    _: Query<MutationParams>,
    Change { body, intent }: Change<PortCreate>,
) -> ApiResult {
    let asked = check::port(&body)?;
    let ids = async || Ok(vec![PortId::new().0]);
    let call = Call::open(&app, &scope.caller, Some(scope.id()), &intent, ids).await?;
    let id = PortId(call.id()?);
    let change = async || {
        let project_id = scope.id();
        let network = in_field("/network", find::network(&app, project_id, &body.network)).await?;
        let security_group_ids = match &body.security_groups {
            Some(keys) => Some(find::security_groups(&app, project_id, "/security_groups", keys).await?),
            None => None,
        };
        let PortAsked { name, mac, allowed_addresses, rate_limit } = asked;
        Ok(Wanted::PortCreate {
            id,
            network_id: network.id,
            name,
            mac,
            fixed_ips: find::fixed_ips(&app, network.id, "/fixed_ips", &body.fixed_ips).await?,
            allowed_addresses,
            security_group_ids,
            rate_limit,
        })
    };
    let done = call.run(change).await?;
    shown(&app, &scope.caller, StatusCode::CREATED, done).await
}

/// Shows a port.
#[utoipa::path(get, path = "/v1/ports/{port}", tag = "ports",
    params(("port" = String, Path, description = "Id or name."), ProjectParams),
    responses((status = 200, body = PortView)))]
async fn show(
    State(app): State<App>,
    scope: InProject<Read>,
    Path(key): Path<String>,
    _: Query<ProjectParams>,
) -> ApiResult {
    let object = find::port(&app, scope.id(), &key).await?;
    shown(&app, &scope.caller, StatusCode::OK, Done::Change(object)).await
}

/// Changes name, security groups, allowed addresses or rate limit.
#[utoipa::path(patch, path = "/v1/ports/{port}", tag = "ports",
    params(("port" = String, Path, description = "Id or name."), MutationParams, MutationHeaders),
    request_body = PortChange,
    responses((status = 200, body = PortView)))]
async fn change(
    State(app): State<App>,
    scope: InProject<Write>,
    Path(key): Path<String>,
    _: Query<MutationParams>,
    Change { body, intent }: Change<PortChange>,
) -> ApiResult {
    let mut change = check::port_change(&body)?;
    let ids = async || Ok(vec![find::port(&app, scope.id(), &key).await?.id.0]);
    let call = Call::open(&app, &scope.caller, Some(scope.id()), &intent, ids).await?;
    let id = PortId(call.id()?);
    let change = async || {
        if let Some(keys) = &body.security_groups {
            let groups = find::security_groups(&app, scope.id(), "/security_groups", keys).await?;
            change.security_group_ids = Some(groups);
        }
        Ok(Wanted::PortUpdate { id, change })
    };
    let done = call.run(change).await?;
    shown(&app, &scope.caller, StatusCode::OK, done).await
}

/// Deletes a port that no instance has and no floating IP stands for. Its addresses rest for a minute before others get them.
#[utoipa::path(delete, path = "/v1/ports/{port}", tag = "ports",
    params(("port" = String, Path, description = "Id or name."), MutationParams, MutationHeaders),
    responses((status = 204, description = "It is gone."), (status = 200, description = "With dry_run.", body = DryRun)))]
async fn delete(
    State(app): State<App>,
    scope: InProject<Write>,
    Path(key): Path<String>,
    _: Query<MutationParams>,
    intent: Intent,
) -> ApiResult {
    let ids = async || Ok(vec![find::port(&app, scope.id(), &key).await?.id.0]);
    let call = Call::open(&app, &scope.caller, Some(scope.id()), &intent, ids).await?;
    let id = PortId(call.id()?);
    ended(call.end(async || Ok(Wanted::PortDelete { id })).await?)
}

/// What passed through a port, and what was dropped at it and why.
#[utoipa::path(get, path = "/v1/ports/{port}/traffic", tag = "ports",
    params(("port" = String, Path, description = "Id or name."), ProjectParams),
    responses((status = 200, body = PortTrafficView)))]
async fn traffic(
    State(app): State<App>,
    scope: InProject<Read>,
    Path(key): Path<String>,
    _: Query<ProjectParams>,
) -> ApiResult {
    let port = find::port(&app, scope.id(), &key).await?;
    let request = ReadTrafficRequest { port_id: port.id.to_string() };
    let read = app.resource().read_traffic(request).await?.into_inner();
    reply::json(StatusCode::OK, &PortTrafficView::from(read))
}
