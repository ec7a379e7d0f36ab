//! Floating IPs: addresses of the outside that stand for one of a port's.

use super::network::{cut, ended, planned};
use crate::{
    app::{
        App,
        instance::{self, Done},
        network::{
            Call,
            check::{self, FloatingIpAsked},
            find, floating_ip, look,
        },
    },
    auth::scope::{InProject, Read, Write},
    http::{
        intent::{Change, Intent, MutationHeaders, MutationParams},
        page::{List, PageRequest},
        path::Path,
        problem::{ApiError, ApiResult},
        query::{ProjectParams, Query},
        reply,
    },
    v1::view::{
        floating_ip::{FloatingIpChange, FloatingIpCreate, FloatingIpView},
        plan::DryRun,
    },
};
use axum::extract::State;
use domain::{
    FloatingIpId, PortId, ProjectId,
    network::{Change as Wanted, FloatingIp},
};
use http::StatusCode;
use serde::Deserialize;
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(show, change, delete))
}

async fn shown(app: &App, status: StatusCode, done: Done<FloatingIp>) -> ApiResult {
    let object = match done {
        Done::Plan(plan) => return planned(plan),
        Done::Change(object) => object,
    };
    let around = look::floating_ips(app, std::slice::from_ref(&object)).await?;
    reply::object(status, object.generation, &FloatingIpView::new(object, &around))
}

#[derive(Debug, Clone, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct FloatingIpListParams {
    /// Id or name of the project; else the header `X-Iaas-Project`, the API key's, or your only one.
    #[allow(dead_code)]
    project: Option<String>,
    /// Items a page, 1 to 1000; 100 unless told.
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// Only these fields of each item, separated by commas.
    fields: Option<String>,
    /// Only those that stand for this port: id or name.
    port: Option<String>,
    /// Only those that stand for a card of this instance: id or name.
    instance: Option<String>,
}

/// The ports that the list is narrowed to; none: it isn't.
async fn ports(
    app: &App,
    project_id: ProjectId,
    params: &FloatingIpListParams,
) -> Result<Option<Vec<PortId>>, ApiError> {
    let port = match &params.port {
        Some(key) => Some(find::port(app, project_id, key).await?.id),
        None => None,
    };
    let Some(key) = &params.instance else { return Ok(port.map(|id| vec![id])) };
    let instance = instance::find(app, project_id, key).await?;
    let cards = instance.spec.nics.iter().map(|nic| nic.port_id);
    Ok(Some(cards.filter(|id| port.is_none_or(|port| port == *id)).collect()))
}

/// Lists the project's floating IPs.
#[utoipa::path(get, path = "/v1/floating-ips", tag = "floating IPs", params(FloatingIpListParams),
    responses((status = 200, body = List<FloatingIpView>)))]
async fn list(State(app): State<App>, scope: InProject<Read>, Query(params): Query<FloatingIpListParams>) -> ApiResult {
    let FloatingIpListParams { port, instance, .. } = &params;
    let list = format!("floating IPs of {} {port:?} {instance:?}", scope.id());
    let page = PageRequest::new(params.limit, params.cursor.as_deref(), params.fields.as_deref(), &list)?;
    let rows = match ports(&app, scope.id(), &params).await? {
        Some(ids) => cut(&page, app.store().floating_ip_load_many_of_ports(&ids).await?, |row| row.id),
        None => app.store().floating_ip_list(scope.id(), page.store_page()).await?,
    };
    let around = look::floating_ips(&app, &rows).await?;
    page.reply(rows, |row| row.id.to_string(), |row| FloatingIpView::new(row, &around))
}

/// Takes an address of an external network; with `port` or `instance`, it stands for it at once.
#[utoipa::path(post, path = "/v1/floating-ips", tag = "floating IPs", params(MutationParams, MutationHeaders),
    request_body = FloatingIpCreate,
    responses((status = 201, body = FloatingIpView), (status = 200, description = "With dry_run.", body = DryRun)))]
async fn create(
    State(app): State<App>,
    scope: InProject<Write>,
    _: Query<MutationParams>,
    Change { body, intent }: Change<FloatingIpCreate>,
) -> ApiResult {
    let FloatingIpAsked { address, target } = check::floating_ip(&body)?;
    let ids = async || Ok(vec![FloatingIpId::new().0]);
    let call = Call::open(&app, &scope.caller, Some(scope.id()), &intent, ids).await?;
    let id = FloatingIpId(call.id()?);
    let change = async || {
        let outside = find::external_network_or_usual(&app, body.external_network.as_deref()).await?;
        let target = floating_ip::target(&app, scope.id(), outside.id, target).await?;
        let description = body.description;
        Ok(Wanted::FloatingIpCreate { id, external_network_id: outside.id, address, description, target })
    };
    let done = call.run(change).await?;
    shown(&app, StatusCode::CREATED, done).await
}

/// Shows a floating IP.
#[utoipa::path(get, path = "/v1/floating-ips/{floating_ip}", tag = "floating IPs",
    params(("floating_ip" = String, Path, description = "Id or address."), ProjectParams),
    responses((status = 200, body = FloatingIpView)))]
async fn show(
    State(app): State<App>,
    scope: InProject<Read>,
    Path(key): Path<String>,
    _: Query<ProjectParams>,
) -> ApiResult {
    let object = find::floating_ip(&app, scope.id(), &key).await?;
    shown(&app, StatusCode::OK, Done::Change(object)).await
}

/// Moves a floating IP to another port or instance, dissociates it (`"port": null`), or describes it anew.
#[utoipa::path(patch, path = "/v1/floating-ips/{floating_ip}", tag = "floating IPs",
    params(("floating_ip" = String, Path, description = "Id or address."), MutationParams, MutationHeaders),
    request_body = FloatingIpChange,
    responses((status = 200, body = FloatingIpView)))]
async fn change(
    State(app): State<App>,
    scope: InProject<Write>,
    Path(key): Path<String>,
    _: Query<MutationParams>,
    Change { body, intent }: Change<FloatingIpChange>,
) -> ApiResult {
    let target = check::floating_ip_change(&body)?;
    let ids = async || Ok(vec![find::floating_ip(&app, scope.id(), &key).await?.id.0]);
    let call = Call::open(&app, &scope.caller, Some(scope.id()), &intent, ids).await?;
    let id = FloatingIpId(call.id()?);
    let change = async || {
        let target = match target {
            Some(asked) => {
                let now = find::floating_ip(&app, scope.id(), &id.to_string()).await?;
                Some(floating_ip::target(&app, scope.id(), now.external_network_id, asked).await?)
            }
            None => None,
        };
        Ok(Wanted::FloatingIpUpdate { id, description: body.description, target })
    };
    let done = call.run(change).await?;
    shown(&app, StatusCode::OK, done).await
}

/// Gives the address back. Nobody gets it for a minute.
#[utoipa::path(delete, path = "/v1/floating-ips/{floating_ip}", tag = "floating IPs",
    params(("floating_ip" = String, Path, description = "Id or address."), MutationParams, MutationHeaders),
    responses((status = 204, description = "It is gone."), (status = 200, description = "With dry_run.", body = DryRun)))]
async fn delete(
    State(app): State<App>,
    scope: InProject<Write>,
    Path(key): Path<String>,
    _: Query<MutationParams>,
    intent: Intent,
) -> ApiResult {
    let ids = async || Ok(vec![find::floating_ip(&app, scope.id(), &key).await?.id.0]);
    let call = Call::open(&app, &scope.caller, Some(scope.id()), &intent, ids).await?;
    let id = FloatingIpId(call.id()?);
    ended(call.end(async || Ok(Wanted::FloatingIpDelete { id })).await?)
}
