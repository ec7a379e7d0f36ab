//! What a create takes of other services before it commits: disks and ports, side by side, all or none. Reservations that serve no
//! instance are given back where that is certain, and expire where it isn't.

use super::create::{One, Wanted};
use crate::{
    client::storage::{LOCAL_POOL, ROOT},
    instance::nic::{hostname, reservation},
    manager::Manager,
};
use domain::{InstanceId, Problem, instance::Nic};
use proto::{resource::v1 as resource, storage::v1 as storage};
use service_kit::context::CallContext;

/// What happens to what was reserved for a create that failed.
pub(super) enum Reservations {
    /// It is certain that nothing was committed.
    GiveBack,
    /// It may have been, now or by an earlier try: what isn't confirmed expires.
    LeaveToExpire,
}

/// The cards of each instance, in order. When either service refuses, the other's reservations are given back.
pub(super) async fn reserve(
    manager: &Manager,
    context: &CallContext,
    wanted: &Wanted,
) -> Result<Vec<Vec<Nic>>, Problem> {
    let (disks, nics) = tokio::join!(manager.storage.reserve(disks(wanted)), manager.resource.reserve(ports(wanted)));
    match (disks, nics) {
        (Ok(()), Ok(nics)) => Ok(by_instance(wanted, nics)),
        (Err(problem), _) | (Ok(()), Err(problem)) => {
            give_back(manager, context, wanted, &wanted.instances).await;
            Err(problem)
        }
    }
}

/// The checks of the resource-manager, and the cards as they would be.
pub(super) async fn rehearse(manager: &Manager, context: &CallContext, wanted: &Wanted) -> Result<Vec<Nic>, Problem> {
    manager.resource.rehearse(context, ports(wanted)).await
}

/// For people.
pub(super) fn describe_nic(nic: &Nic) -> String {
    let addresses: Vec<String> = nic.addresses.iter().map(ToString::to_string).collect();
    format!("port {} of network {}: {}", nic.port_id, nic.network_id, addresses.join(", "))
}

/// What was reserved for these of the request.
pub(super) async fn give_back(manager: &Manager, context: &CallContext, wanted: &Wanted, instances: &[One]) {
    let ids: Vec<InstanceId> = instances.iter().map(|i| i.id).collect();
    let (has_disks, has_ports) = (wanted.spec.size.disk_gib > 0, instances.iter().any(|i| !i.cards.is_empty()));
    if ids.is_empty() || (!has_disks && !has_ports) {
        return;
    }
    // A repeat fails because its first try succeeded: those disks and ports are in use.
    match manager.store.instance_load_many(&ids).await {
        Ok(rows) if rows.is_empty() => {}
        Ok(_) | Err(_) => return,
    }
    if let Err(problem) = manager.forget_claims(&ids, has_ports).await {
        tracing::info!(request_id = context.request_id, %problem, "reservations of a refused create are left to expire");
    }
}

fn disks(wanted: &Wanted) -> Vec<storage::DiskReservation> {
    let disk = |one: &One| {
        Some(storage::DiskReservation {
            disk_id: one.root_disk_id?.to_string(),
            instance_id: one.id.to_string(),
            project_id: wanted.project_id.to_string(),
            role: ROOT.to_owned(),
            pool: LOCAL_POOL.to_owned(),
            size_gib: wanted.spec.size.disk_gib,
        })
    };
    wanted.instances.iter().filter_map(disk).collect()
}

fn ports(wanted: &Wanted) -> Vec<resource::PortReservation> {
    let instances = wanted.instances.iter();
    instances
        .flat_map(|one| {
            let hostname = hostname(&one.name);
            one.cards.iter().map(move |card| reservation(card, one.id, wanted.project_id, &hostname))
        })
        .collect()
}

fn by_instance(wanted: &Wanted, nics: Vec<Nic>) -> Vec<Vec<Nic>> {
    let mut nics = nics.into_iter();
    wanted.instances.iter().map(|one| nics.by_ref().take(one.cards.len()).collect()).collect()
}
