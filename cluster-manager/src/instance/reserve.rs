//! What a create takes of other services before it commits: disks and ports, side by side, all or none. Reservations that serve no instance
//! are released where it is certain that they don't, and expire where it isn't.

use super::{
    nic::{hostname, port_reservation},
    request::{CreateRequest, InstanceRequest},
};
use crate::{client::storage::DiskReservation, manager::Manager};
use domain::{
    InstanceId, Problem,
    instance::{Nic, PortReservation, disks as disks_of},
};
use service_kit::context::CallContext;

/// The NICs of each instance, in order. When either service refuses, the other's reservations are released.
pub async fn reserve(
    manager: &Manager,
    context: &CallContext,
    request: &CreateRequest,
) -> Result<Vec<Vec<Nic>>, Problem> {
    let clients = &manager.clients;
    let (disks, nics) = tokio::join!(clients.storage.reserve(disks(request)), clients.resource.reserve(ports(request)));
    match (disks, nics) {
        (Ok(()), Ok(nics)) => Ok(by_instance(request, nics)),
        (Err(problem), _) | (Ok(()), Err(problem)) => {
            release(manager, context, request, &request.instances).await;
            Err(problem)
        }
    }
}

/// All checks of the resource-manager, and the NICs as they would be.
pub async fn dry_run(manager: &Manager, context: &CallContext, request: &CreateRequest) -> Result<Vec<Nic>, Problem> {
    manager.clients.resource.dry_run(context, ports(request)).await
}

/// Describes a NIC for people.
pub fn describe_nic(nic: &Nic) -> String {
    let addresses: Vec<String> = nic.addresses.iter().map(ToString::to_string).collect();
    format!("port {} of network {}: {}", nic.port_id, nic.network_id, addresses.join(", "))
}

/// Releases what was reserved for these of the request.
pub async fn release(manager: &Manager, context: &CallContext, request: &CreateRequest, instances: &[InstanceRequest]) {
    let ids: Vec<InstanceId> = instances.iter().map(|i| i.id).collect();
    let (has_disks, has_ports) = (request.spec.size.disk_gib > 0, instances.iter().any(|i| !i.nics.is_empty()));
    if ids.is_empty() || (!has_disks && !has_ports) {
        return;
    }
    // A repeat fails because its first attempt succeeded: those disks and ports are in use.
    match manager.store.instance_load_many(&ids).await {
        Ok(rows) if rows.is_empty() => {}
        Ok(_) | Err(_) => return,
    }
    if let Err(problem) = manager.clients.remove_claims(&ids, has_ports).await {
        tracing::info!(request_id = context.request_id, %problem, "reservations of a refused create are left to expire");
    }
}

fn disks(request: &CreateRequest) -> Vec<DiskReservation> {
    let (project_id, pool) = (request.project_id, request.spec.pool);
    let of_instance = |instance: &InstanceRequest| {
        let instance_id = instance.id;
        let disks = disks_of(instance.root_disk_id, request.spec.size).into_iter();
        disks.map(move |disk| DiskReservation { disk, pool, instance_id, project_id })
    };
    request.instances.iter().flat_map(of_instance).collect()
}

fn ports(request: &CreateRequest) -> Vec<PortReservation> {
    let ports = |instance: &InstanceRequest| {
        let hostname = hostname(&instance.name);
        let nics = instance.nics.iter();
        nics.map(|nic| port_reservation(nic.clone(), instance.id, request.project_id, &hostname)).collect::<Vec<_>>()
    };
    request.instances.iter().flat_map(ports).collect()
}

fn by_instance(request: &CreateRequest, nics: Vec<Nic>) -> Vec<Vec<Nic>> {
    let mut nics = nics.into_iter();
    request.instances.iter().map(|instance| nics.by_ref().take(instance.nics.len()).collect()).collect()
}
