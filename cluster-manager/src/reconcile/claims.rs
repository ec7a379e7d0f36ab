//! The steps about what an instance holds of other services: its disks of the storage-manager, its ports of the resource-manager. The
//! same step of many instances is one call to each, and the two are called side by side.

use super::{
    plan::bound,
    target::{Outcomes, PassOutcome, PassTarget, Progress, commit_outcome, render_progress},
};
use crate::{
    client::{
        Clients,
        resource::{BoundPorts, PortBinding},
        storage::{DiskBinding, DiskReservation},
    },
    instance::nic::{hostname, port_reservation, request_again},
    manager::Manager,
};
use domain::{
    DiskId, ErrorKind, InstanceId, PortId, Problem, Timestamp,
    instance::{InstanceState, PortReservation},
    network::{Port, PortState},
    problem::Retry,
};
use std::collections::HashSet;
use store::{DiskState, Unit};

/// Which of the claims a step is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Which {
    pub disks: bool,
    pub ports: bool,
}

pub(super) async fn reserve_disks(
    manager: &Manager,
    targets: Vec<PassTarget>,
    next: &mut Vec<PassTarget>,
    outcomes: &mut Outcomes,
) {
    let calls = targets.iter().map(|target| manager.clients.storage.reserve(disk_reservations(target)));
    let reserved = futures::future::join_all(calls).await;
    for (mut target, reserved) in targets.into_iter().zip(reserved) {
        match reserved {
            Ok(()) => {
                target.disks_reserved();
                next.push(target);
            }
            Err(problem) if is_refusal(&problem) => {
                let shown = show_refusal(manager, &target, format!("its disks can't be reserved: {problem}")).await;
                outcomes.push((target.id(), shown));
            }
            Err(problem) => outcomes.push(target.failed("reserving its disks", &problem)),
        }
    }
}

/// A refusal is the instance's error, not a failure of ours.
fn is_refusal(problem: &Problem) -> bool {
    problem.kind.retry() == Retry::No && problem.kind != ErrorKind::Internal
}

async fn show_refusal(manager: &Manager, target: &PassTarget, reason: String) -> PassOutcome {
    let status = &target.instance().status;
    if status.state == InstanceState::Error && status.reason == reason {
        return PassOutcome::Settled;
    }
    let progress = Progress { state: InstanceState::Error, step: String::new(), reason, deadline_at: None };
    match manager.store.commit(render_progress(target, progress, Timestamp::now())).await {
        Ok(()) => PassOutcome::Settled,
        Err(error) => commit_outcome(&error),
    }
}

fn disk_reservations(target: &PassTarget) -> Vec<DiskReservation> {
    let (instance_id, project_id, pool) = (target.id(), target.instance().project_id, target.instance().spec.pool);
    let missing = target.missing_disks().into_iter();
    missing.map(|disk| DiskReservation { disk, pool, instance_id, project_id }).collect()
}

/// Makes reservations again that expired: the same ports, MACs and addresses as were promised. The rows are read again after that.
pub(super) async fn reserve_ports(manager: &Manager, targets: Vec<PassTarget>, outcomes: &mut Outcomes) {
    if targets.is_empty() {
        return;
    }
    let missing: Vec<PortId> = targets.iter().flat_map(missing_ports).collect();
    let standing: HashSet<PortId> = match manager.store.port_load_many(&missing).await {
        Ok(ports) => ports.iter().map(|p| p.id).collect(),
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "ports can't be read yet");
            let text = "the database can't be read";
            return outcomes.extend(targets.iter().map(|t| (t.id(), PassOutcome::Failed(text.to_owned()))));
        }
    };
    let calls = targets.iter().map(|target| manager.clients.resource.reserve(port_reservations(target, &standing)));
    let reserved = futures::future::join_all(calls).await;
    for (target, reserved) in targets.iter().zip(reserved) {
        let outcome = match reserved {
            Ok(_) => PassOutcome::Again,
            Err(problem) if is_refusal(&problem) => {
                let reason = format!("its NICs can't be reserved again: {problem}");
                match show_refusal(manager, target, reason.clone()).await {
                    // An address may be free again later: that is tried, ever more rarely.
                    PassOutcome::Settled => PassOutcome::Failed(reason),
                    other @ (PassOutcome::Again | PassOutcome::Failed(_)) => other,
                }
            }
            Err(problem) => target.failed("reserving its ports", &problem).1,
        };
        outcomes.push((target.id(), outcome));
    }
}

fn missing_ports(target: &PassTarget) -> Vec<PortId> {
    let ports = &target.row.ports;
    let desired = target.instance().spec.nics.iter().map(|nic| nic.port_id);
    desired.filter(|id| ports.iter().all(|p| p.id != *id)).collect()
}

fn port_reservations(target: &PassTarget, standing: &HashSet<PortId>) -> Vec<PortReservation> {
    let (instance, missing) = (target.instance(), missing_ports(target));
    let nics = instance.spec.nics.iter().filter(|nic| missing.contains(&nic.port_id));
    nics.map(|nic| {
        let request = request_again(nic, standing.contains(&nic.port_id));
        port_reservation(request, instance.id, instance.project_id, &hostname(&instance.name))
    })
    .collect()
}

/// Binds disks and ports to their instances' hosts and epochs.
pub(super) async fn bind(
    manager: &Manager,
    targets: Vec<(PassTarget, Which)>,
    next: &mut Vec<PassTarget>,
    outcomes: &mut Outcomes,
) {
    if targets.is_empty() {
        return;
    }
    let clients = &manager.clients;
    let disks: Vec<DiskBinding> =
        targets.iter().filter(|(_, which)| which.disks).flat_map(|(t, _)| disk_bindings(t)).collect();
    let ports: Vec<Vec<PortBinding>> =
        targets.iter().map(|(t, which)| if which.ports { port_bindings(t) } else { vec![] }).collect();
    let (disks, ports) = tokio::join!(clients.storage.confirm(&disks), bind_ports(clients, ports));
    for ((mut target, which), ports) in targets.into_iter().zip(ports) {
        match (&disks, &ports) {
            (Err(problem), _) if which.disks => outcomes.push(target.failed("confirming its disks", problem)),
            (_, Err(problem)) if which.ports => outcomes.push(target.failed("binding its ports", problem)),
            (disks, ports) => {
                if let (true, Ok(expired)) = (which.disks, disks) {
                    target.disks_confirmed(expired);
                }
                let mut bound_again = false;
                if let (true, Ok(bound)) = (which.ports, ports) {
                    bound_again = target.row.ports.iter().any(|port| is_bound_again(port, bound));
                    ports_bound(&mut target, bound);
                }
                if bound_again && let Err(outcome) = raise_generation(manager, &mut target).await {
                    outcomes.push(outcome);
                    continue;
                }
                next.push(target);
            }
        }
    }
}

/// The port had been brought above what its host holds of it, and is bound under a new epoch now.
fn is_bound_again(port: &Port, bound: &BoundPorts) -> bool {
    let lifted = port.instance_epoch == 0 && port.host_id.is_some();
    lifted && bound.epochs.get(&port.id).is_some_and(|epoch| *epoch > port.epoch)
}

/// Its host has the instance in this generation already, with the old epochs of its ports: only another generation brings the new ones.
async fn raise_generation(manager: &Manager, target: &mut PassTarget) -> Result<(), (InstanceId, PassOutcome)> {
    let instance = &mut target.row.instance.instance;
    let (id, now) = (instance.id, Timestamp::now());
    let deadline_at = instance.status.deadline_at.or(Some(now.plus_secs(manager.config.deadlines.settle_secs)));
    let mut unit = Unit::new().op(store::InstanceLift {
        id,
        expected_generation: instance.generation,
        generation: instance.generation + 1,
        epoch: instance.epoch,
        spec: instance.spec.clone(),
        step: instance.status.step.clone(),
        deadline_at,
        at: now,
    });
    unit.extend(instance.host_id.map(|host_id| store::HostRevision { host_id }));
    manager.store.commit(unit).await.map_err(|error| (id, commit_outcome(&error)))?;
    if let Some(host_id) = instance.host_id {
        manager.inventory().raise_revision(host_id);
    }
    instance.generation += 1;
    instance.status.deadline_at = deadline_at;
    Ok(())
}

/// All go in one call; when that is refused, each instance's ports on their own: one that can't be bound keeps no other from its host.
async fn bind_ports(clients: &Clients, bindings: Vec<Vec<PortBinding>>) -> Vec<Result<BoundPorts, Problem>> {
    let together: Vec<PortBinding> = bindings.iter().flatten().cloned().collect();
    match clients.resource.bind(&together).await {
        Ok(bound) => bindings.iter().map(|_| Ok(bound.clone())).collect(),
        Err(problem) if is_refusal(&problem) && bindings.iter().filter(|b| !b.is_empty()).count() > 1 => {
            futures::future::join_all(bindings.iter().map(|ports| clients.resource.bind(ports))).await
        }
        Err(problem) => bindings.iter().map(|_| Err(problem.clone())).collect(),
    }
}

fn disk_bindings(target: &PassTarget) -> Vec<DiskBinding> {
    let instance = target.instance();
    let Some(host_id) = instance.host_id else { return vec![] };
    let (instance_id, epoch) = (instance.id, instance.epoch);
    let disks = instance.disks().into_iter();
    disks.map(|disk| DiskBinding { disk_id: disk.id, instance_id, host_id, epoch }).collect()
}

/// The bindings of ports that aren't bound as they must be, or carry old metadata.
fn port_bindings(target: &PassTarget) -> Vec<PortBinding> {
    let (instance, digest) = (target.instance(), &target.metadata_digest);
    let Some(host_id) = instance.host_id else { return vec![] };
    let due = |port: &Port| !bound(instance, port) || port.metadata_digest != *digest;
    let desired = |port: &Port| instance.spec.nics.iter().any(|nic| nic.port_id == port.id);
    let binding = |port: &Port| PortBinding {
        port_id: port.id,
        instance_id: instance.id,
        host_id,
        instance_epoch: instance.epoch,
        metadata_digest: digest.clone(),
        hostname: hostname(&instance.name),
    };
    target.row.ports.iter().filter(|p| desired(p) && due(p)).map(binding).collect()
}

fn ports_bound(target: &mut PassTarget, done: &BoundPorts) {
    let instance = &target.row.instance.instance;
    let digest = &target.metadata_digest;
    target.row.ports.retain(|port| !done.expired.contains(&port.id));
    for port in &mut target.row.ports {
        if let Some(epoch) = done.epochs.get(&port.id) {
            port.state = PortState::Active;
            port.expires_at = None;
            port.host_id = instance.host_id;
            port.epoch = *epoch;
            port.instance_epoch = instance.epoch;
            port.metadata_digest.clone_from(digest);
        }
    }
}

pub(super) async fn resize_disk(
    clients: &Clients,
    mut target: PassTarget,
    disk_id: DiskId,
    size_gib: u64,
    generation: i64,
) -> Result<PassTarget, (InstanceId, PassOutcome)> {
    match clients.storage.resize(disk_id, target.id(), size_gib, generation).await {
        Ok(()) => {
            for disk in target.row.disks.iter_mut().filter(|disk| disk.id == disk_id) {
                (disk.size_gib, disk.generation) = (size_gib, generation);
            }
            Ok(target)
        }
        Err(problem) => Err(target.failed("resizing its disk", &problem)),
    }
}

pub(super) async fn release(
    clients: &Clients,
    targets: Vec<(PassTarget, Which)>,
    next: &mut Vec<PassTarget>,
    outcomes: &mut Outcomes,
) {
    let ids = |selected: fn(&Which) -> bool| -> Vec<InstanceId> {
        targets.iter().filter(|(_, which)| selected(which)).map(|(t, _)| t.id()).collect()
    };
    let (disks, ports) = (ids(|w| w.disks), ids(|w| w.ports));
    let (disks, ports) = tokio::join!(clients.storage.release(&disks), clients.resource.release(&ports));
    for (mut target, which) in targets {
        match (&disks, &ports) {
            (Err(problem), _) if which.disks => outcomes.push(target.failed("releasing its disks", problem)),
            (_, Err(problem)) if which.ports => outcomes.push(target.failed("releasing its ports", problem)),
            _ => {
                if which.disks {
                    target.row.disks.iter_mut().for_each(|disk| disk.state = DiskState::Releasing);
                }
                if which.ports {
                    let made_with_it = |p: &&mut Port| p.owner.is_some_and(|o| o.with_instance);
                    target.row.ports.iter_mut().filter(made_with_it).for_each(|p| p.state = PortState::Releasing);
                }
                next.push(target);
            }
        }
    }
}

pub(super) async fn remove_ports(
    clients: &Clients,
    targets: Vec<(PassTarget, Vec<PortId>)>,
    next: &mut Vec<PassTarget>,
    outcomes: &mut Outcomes,
) {
    let removed: Vec<(InstanceId, PortId)> =
        targets.iter().flat_map(|(t, ports)| ports.iter().map(|port| (t.id(), *port))).collect();
    match clients.resource.remove_ports(&removed).await {
        Ok(()) => {
            for (mut target, ports) in targets {
                target.row.ports.retain(|port| !ports.contains(&port.id));
                next.push(target);
            }
        }
        Err(problem) => {
            outcomes.extend(targets.iter().map(|(t, _)| t.failed("freeing the ports of detached NICs", &problem)))
        }
    }
}
