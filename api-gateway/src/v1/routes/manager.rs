//! The processes of the managers' roles.

use crate::{
    app::{App, manager, page::on_page},
    http::{
        page::{List, ListParams},
        problem::ApiResult,
        query::Query,
    },
    v1::scope::SystemAdmin,
};
use api_types::{ManagerProcess, ManagerState};
use axum::extract::State;
use store::{ManagerLease, ManagerStandby};
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list))
}

/// Lists the processes of the cluster-manager, the resource-manager and the storage-manager: which lead their roles and which wait to. System admins
/// only.
#[utoipa::path(get, path = "/v1/managers", tag = "system", params(ListParams),
    responses((status = 200, body = List<ManagerProcess>)))]
async fn list(State(app): State<App>, _: SystemAdmin, Query(params): Query<ListParams>) -> ApiResult {
    let page = params.page("managers")?;
    let manager::Managers { leases, standbys } = manager::list(&app).await?;
    let mut managers: Vec<_> = leases.into_iter().map(leader).chain(standbys.into_iter().map(standby)).collect();
    managers.sort_by_key(place);
    let rows = on_page(managers, &page.store_page(), place);
    page.reply(rows, place, |manager| manager)
}

/// By role, the leader before those that wait.
fn place(manager: &ManagerProcess) -> String {
    let waits = u8::from(manager.state == ManagerState::Standby);
    format!("{} {waits} {}", manager.role, manager.id)
}

fn leader((lease, vacant): (ManagerLease, bool)) -> ManagerProcess {
    let ManagerLease { role, term, holder, host, pid, address, led_since, .. } = lease;
    let state = if vacant { ManagerState::Gone } else { ManagerState::Leader };
    let role = role.as_str().to_owned();
    ManagerProcess { id: holder, role, state, host, pid, address, term: Some(term), since: led_since }
}

fn standby(standby: ManagerStandby) -> ManagerProcess {
    let ManagerStandby { id, role, host, pid, address, since, .. } = standby;
    let role = role.as_str().to_owned();
    ManagerProcess { id, role, state: ManagerState::Standby, host, pid, address, term: None, since }
}
