//! Hosts: what system admins see of them and decide about them.

use crate::{
    app::{App, host, intent::Intent},
    http::{
        intent::{Change, MutationHeaders, MutationParams},
        page::{List, ListParams},
        path::Path,
        problem::ApiResult,
        query::{ProjectParams, Query},
        reply,
    },
    v1::{answer, check::host::check_change, scope::SystemAdmin, view::plan::DryRun},
};
use api_types::{Host, HostChange, HostLoss, Orphan};
use axum::extract::State;
use domain::HostId;
use http::StatusCode;
use proto::cluster::v1 as pb;
use std::collections::BTreeMap;
use store::OrphanRow;
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(show, change, remove)).routes(routes!(declare_dead))
}

/// Lists the hosts. System admins only.
#[utoipa::path(get, path = "/v1/hosts", tag = "hosts", params(ListParams), responses((status = 200, body = List<Host>)))]
async fn list(State(app): State<App>, _: SystemAdmin, Query(params): Query<ListParams>) -> ApiResult {
    let page = params.page("hosts")?;
    let rows = app.store().host_list_page(page.store_page()).await?;
    let ids: Vec<HostId> = rows.iter().map(|row| row.id).collect();
    let mut orphans = host::orphans(&app, &ids).await?;
    page.reply(rows, |row| row.id.to_string(), |row| with_orphans(row, &mut orphans))
}

/// Shows a host. System admins only.
#[utoipa::path(get, path = "/v1/hosts/{host}", tag = "hosts",
    params(("host" = String, Path, description = "Id or name."), ProjectParams), responses((status = 200, body = Host)))]
async fn show(State(app): State<App>, _: SystemAdmin, Path(key): Path<String>, _: Query<ProjectParams>) -> ApiResult {
    let host = host::find(&app, &key).await?;
    let mut orphans = host::orphans(&app, &[host.id]).await?;
    reply::object(StatusCode::OK, host.generation, &with_orphans(host, &mut orphans))
}

fn with_orphans(host: domain::host::Host, orphans: &mut BTreeMap<HostId, Vec<OrphanRow>>) -> Host {
    let orphans = orphans.remove(&host.id).unwrap_or_default().into_iter().map(|row| Orphan {
        instance_id: row.instance_id,
        epoch: row.epoch,
        detail: row.detail,
        last_seen_at: row.last_seen_at,
    });
    Host { orphans: Some(orphans.collect()), ..Host::from(host) }
}

/// Cordons, drains or dedicates a host, or changes its zone, tags or overcommit. System admins only.
#[utoipa::path(patch, path = "/v1/hosts/{host}", tag = "hosts",
    params(("host" = String, Path, description = "Id or name."), MutationParams, MutationHeaders), request_body = HostChange,
    responses((status = 200, body = Host)))]
async fn change(
    State(app): State<App>,
    SystemAdmin(caller): SystemAdmin,
    Path(key): Path<String>,
    _: Query<MutationParams>,
    Change { body, intent }: Change<HostChange>,
) -> ApiResult {
    let change = check_change(body)?;
    let done = host::change(&app, &caller, &key, change, &intent).await?;
    answer::object(StatusCode::OK, done, |host| host.generation, Host::from)
}

/// Declares a host dead that isn't connected: its instances are recovered on other hosts, as each one's `on_host_loss` says, and deletions complete. Whoever
/// declares it says that nothing runs there any more. If it comes back, it must stop what was recovered before it may start anything. System admins only.
#[utoipa::path(post, path = "/v1/hosts/{host}/declare-dead", tag = "hosts",
    params(("host" = String, Path, description = "Id or name."), MutationParams, MutationHeaders),
    responses((status = 200, body = HostLoss)))]
async fn declare_dead(
    State(app): State<App>,
    SystemAdmin(caller): SystemAdmin,
    Path(key): Path<String>,
    _: Query<MutationParams>,
    intent: Intent,
) -> ApiResult {
    answer::plain(StatusCode::OK, host::declare_dead(&app, &caller, &key, &intent).await?, |loss| loss_view(&loss))
}

fn loss_view(loss: &host::Loss) -> HostLoss {
    let pb::DeclareHostLostResponse { already, recreated, restarted, waiting, deleted, ref lines, .. } = loss.declared;
    HostLoss {
        host_id: loss.host_id,
        host_name: loss.host_name.clone(),
        already_lost: already,
        recreated,
        restarted,
        waiting,
        deleted,
        instances: lines.clone(),
    }
}

/// Removes a host that has no instances: its certificates are refused from then on. System admins only.
#[utoipa::path(delete, path = "/v1/hosts/{host}", tag = "hosts",
    params(("host" = String, Path, description = "Id or name."), MutationParams, MutationHeaders),
    responses((status = 204, description = "It is gone."), (status = 200, description = "With dry_run.", body = DryRun)))]
async fn remove(
    State(app): State<App>,
    SystemAdmin(caller): SystemAdmin,
    Path(key): Path<String>,
    _: Query<MutationParams>,
    intent: Intent,
) -> ApiResult {
    answer::deleted(host::remove(&app, &caller, &key, &intent).await?)
}
