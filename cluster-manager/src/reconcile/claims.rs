//! The steps about what an instance holds of other services: its disk of the storage-manager, its ports of the resource-manager. The
//! same step of many instances is one call to each, and the two are called side by side.

use super::{
    plan::{DiskStage, DiskView, bound, wanted_disk},
    step::{End, Subjected, commit_end, failed, progress},
};
use crate::{
    client::{
        resource::{Bound, PortBinding},
        storage::{Binding, LOCAL_POOL, ROOT},
    },
    instance::nic::{card_again, hostname, reservation},
    manager::Manager,
};
use domain::{
    DiskId, ErrorKind, InstanceId, PortId, Problem, Timestamp,
    instance::InstanceState,
    network::{Port, PortState},
    problem::Retry,
};
use proto::{resource::v1 as resource, storage::v1 as storage};
use std::collections::HashSet;

/// Which of the claims a step is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Which {
    pub disk: bool,
    pub ports: bool,
}

type Ends = Vec<(InstanceId, End)>;

pub(super) async fn reserve_disks(
    manager: &Manager,
    subjects: Vec<Subjected>,
    next: &mut Vec<Subjected>,
    ends: &mut Ends,
) {
    let calls = subjects.iter().map(|s| manager.storage.reserve(disk_reservation(s)));
    let outcomes = futures::future::join_all(calls).await;
    for (mut subject, outcome) in subjects.into_iter().zip(outcomes) {
        match outcome {
            Ok(()) => {
                let size_gib = subject.instance().spec.size.disk_gib;
                subject.set_disk(Some(DiskView {
                    size_gib,
                    state: DiskStage::Reserved,
                    host_id: None,
                    epoch: 0,
                    generation: 0,
                }));
                next.push(subject);
            }
            Err(problem) if refusal(&problem) => {
                let shown = show_refusal(manager, &subject, format!("its disk can't be reserved: {problem}")).await;
                ends.push((subject.id(), shown));
            }
            Err(problem) => ends.push(failed(&subject, "reserving its disk", &problem)),
        }
    }
}

/// A refusal is the instance's error, not a failure of ours.
fn refusal(problem: &Problem) -> bool {
    problem.kind.retry() == Retry::No && problem.kind != ErrorKind::Internal
}

async fn show_refusal(manager: &Manager, subject: &Subjected, reason: String) -> End {
    let instance = subject.instance();
    if instance.status.state == InstanceState::Error && instance.status.reason == reason {
        return End::Settled;
    }
    let unit = progress(subject, InstanceState::Error, String::new(), reason, None, Timestamp::now());
    match manager.store.commit(unit).await {
        Ok(()) => End::Settled,
        Err(error) => commit_end(&error),
    }
}

fn disk_reservation(subject: &Subjected) -> Vec<storage::DiskReservation> {
    let instance = subject.instance();
    let (Some(disk_id), Some(size_gib)) = (instance.root_disk_id, wanted_disk(instance)) else { return vec![] };
    vec![storage::DiskReservation {
        disk_id: disk_id.to_string(),
        instance_id: instance.id.to_string(),
        project_id: instance.project_id.to_string(),
        role: ROOT.to_owned(),
        pool: LOCAL_POOL.to_owned(),
        size_gib,
    }]
}

/// Makes reservations anew that expired: the same ports, MACs and addresses as were promised. What comes of it is read again.
pub(super) async fn reserve_ports(manager: &Manager, subjects: Vec<Subjected>, ends: &mut Ends) {
    if subjects.is_empty() {
        return;
    }
    let missing: Vec<PortId> = subjects.iter().flat_map(missing_cards).collect();
    let standing: HashSet<PortId> = match manager.store.port_load_many(&missing).await {
        Ok(ports) => ports.iter().map(|p| p.id).collect(),
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "ports can't be read yet");
            let text = "the database can't be read";
            return ends.extend(subjects.iter().map(|s| (s.id(), End::Failed(text.to_owned()))));
        }
    };
    let calls = subjects.iter().map(|s| manager.resource.reserve(port_reservations(s, &standing)));
    let outcomes = futures::future::join_all(calls).await;
    for (subject, outcome) in subjects.iter().zip(outcomes) {
        let end = match outcome {
            Ok(_) => End::Again,
            Err(problem) if refusal(&problem) => {
                let reason = format!("its network cards can't be had again: {problem}");
                match show_refusal(manager, subject, reason.clone()).await {
                    // An address may be free again later: that is tried, ever more rarely.
                    End::Settled => End::Failed(reason),
                    other => other,
                }
            }
            Err(problem) => failed(subject, "reserving its ports", &problem).1,
        };
        ends.push((subject.id(), end));
    }
}

fn missing_cards(subject: &Subjected) -> Vec<PortId> {
    let ports = &subject.row.ports;
    let wanted = subject.instance().spec.nics.iter().map(|nic| nic.port_id);
    wanted.filter(|id| ports.iter().all(|p| p.id != *id)).collect()
}

fn port_reservations(subject: &Subjected, standing: &HashSet<PortId>) -> Vec<resource::PortReservation> {
    let (instance, missing) = (subject.instance(), missing_cards(subject));
    let nics = instance.spec.nics.iter().filter(|nic| missing.contains(&nic.port_id));
    nics.map(|nic| {
        let card = card_again(nic, standing.contains(&nic.port_id));
        reservation(&card, instance.id, instance.project_id, &hostname(&instance.name))
    })
    .collect()
}

/// Binds disks and ports to their instances' hosts and epochs.
pub(super) async fn bind(
    manager: &Manager,
    subjects: Vec<(Subjected, Which)>,
    next: &mut Vec<Subjected>,
    ends: &mut Ends,
) {
    if subjects.is_empty() {
        return;
    }
    let disks: Vec<Binding> =
        subjects.iter().filter(|(_, which)| which.disk).filter_map(|(s, _)| disk_binding(s)).collect();
    let ports: Vec<Vec<PortBinding>> =
        subjects.iter().map(|(s, which)| if which.ports { port_bindings(s) } else { vec![] }).collect();
    let (disks, ports) = tokio::join!(manager.storage.confirm(&disks), bind_ports(manager, ports));
    for ((mut subject, which), ports) in subjects.into_iter().zip(ports) {
        match (&disks, &ports) {
            (Err(problem), _) if which.disk => ends.push(failed(&subject, "confirming its disk", problem)),
            (_, Err(problem)) if which.ports => ends.push(failed(&subject, "binding its ports", problem)),
            (disks, ports) => {
                if let (true, Ok(expired)) = (which.disk, disks) {
                    disk_confirmed(&mut subject, expired);
                }
                if let (true, Ok(bound)) = (which.ports, ports) {
                    ports_bound(&mut subject, bound);
                }
                next.push(subject);
            }
        }
    }
}

/// All in one call; when that is refused, each instance's on their own: one that can't be bound keeps no other from its host.
async fn bind_ports(manager: &Manager, bindings: Vec<Vec<PortBinding>>) -> Vec<Result<Bound, Problem>> {
    let together: Vec<PortBinding> = bindings.iter().flatten().cloned().collect();
    match manager.resource.bind(&together).await {
        Ok(bound) => bindings.iter().map(|_| Ok(bound.clone())).collect(),
        Err(problem) if refusal(&problem) && bindings.iter().filter(|b| !b.is_empty()).count() > 1 => {
            futures::future::join_all(bindings.iter().map(|ports| manager.resource.bind(ports))).await
        }
        Err(problem) => bindings.iter().map(|_| Err(problem.clone())).collect(),
    }
}

fn disk_binding(subject: &Subjected) -> Option<Binding> {
    let instance = subject.instance();
    Some(Binding {
        disk_id: instance.root_disk_id?,
        instance_id: instance.id,
        host_id: instance.host_id?,
        epoch: instance.epoch,
    })
}

/// Of those that aren't bound as they must be, or carry old metadata.
fn port_bindings(subject: &Subjected) -> Vec<PortBinding> {
    let (instance, digest) = (subject.instance(), &subject.metadata_digest);
    let Some(host_id) = instance.host_id else { return vec![] };
    let due = |port: &Port| !bound(instance, port) || port.metadata_digest != *digest;
    let wanted = |port: &Port| instance.spec.nics.iter().any(|nic| nic.port_id == port.id);
    let binding = |port: &Port| PortBinding {
        port_id: port.id,
        instance_id: instance.id,
        host_id,
        instance_epoch: instance.epoch,
        metadata_digest: digest.clone(),
        hostname: hostname(&instance.name),
    };
    subject.row.ports.iter().filter(|p| wanted(p) && due(p)).map(binding).collect()
}

fn disk_confirmed(subject: &mut Subjected, expired: &[DiskId]) {
    let instance = subject.instance();
    let (size_gib, generation) =
        subject.disk.as_ref().map_or((instance.spec.size.disk_gib, 0), |d| (d.size_gib, d.generation));
    let (host_id, epoch) = (instance.host_id, instance.epoch);
    let gone = instance.root_disk_id.is_some_and(|id| expired.contains(&id));
    let confirmed = DiskView { size_gib, state: DiskStage::Confirmed, host_id, epoch, generation };
    subject.set_disk((!gone).then_some(confirmed));
}

fn ports_bound(subject: &mut Subjected, done: &Bound) {
    let instance = &subject.row.instance.instance;
    let digest = &subject.metadata_digest;
    subject.row.ports.retain(|port| !done.expired.contains(&port.id));
    for port in &mut subject.row.ports {
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
    manager: &Manager,
    mut subject: Subjected,
    size_gib: u64,
    generation: i64,
    next: &mut Vec<Subjected>,
    ends: &mut Ends,
) {
    let instance = subject.instance();
    let (Some(disk_id), id) = (instance.root_disk_id, instance.id) else { return };
    match manager.storage.resize(disk_id, id, size_gib, generation).await {
        Ok(()) => {
            let disk = subject.disk.take().map(|d| DiskView { size_gib, generation, ..d });
            subject.set_disk(disk);
            next.push(subject);
        }
        Err(problem) => ends.push(failed(&subject, "resizing its disk", &problem)),
    }
}

pub(super) async fn release(
    manager: &Manager,
    subjects: Vec<(Subjected, Which)>,
    next: &mut Vec<Subjected>,
    ends: &mut Ends,
) {
    let ids = |wanted: fn(&Which) -> bool| -> Vec<InstanceId> {
        subjects.iter().filter(|(_, which)| wanted(which)).map(|(s, _)| s.id()).collect()
    };
    let (disks, ports) = (ids(|w| w.disk), ids(|w| w.ports));
    let (disks, ports) = tokio::join!(manager.storage.release(&disks), manager.resource.release(&ports));
    for (mut subject, which) in subjects {
        match (&disks, &ports) {
            (Err(problem), _) if which.disk => ends.push(failed(&subject, "releasing its disk", problem)),
            (_, Err(problem)) if which.ports => ends.push(failed(&subject, "releasing its ports", problem)),
            _ => {
                if which.disk {
                    let disk = subject.disk.take().map(|d| DiskView { state: DiskStage::Releasing, ..d });
                    subject.set_disk(disk);
                }
                if which.ports {
                    let made = |p: &&mut Port| p.owner.is_some_and(|o| o.with_instance);
                    subject.row.ports.iter_mut().filter(made).for_each(|p| p.state = PortState::Releasing);
                }
                next.push(subject);
            }
        }
    }
}

pub(super) async fn forget_cards(
    manager: &Manager,
    subjects: Vec<(Subjected, Vec<PortId>)>,
    next: &mut Vec<Subjected>,
    ends: &mut Ends,
) {
    let cards: Vec<(InstanceId, PortId)> =
        subjects.iter().flat_map(|(s, ports)| ports.iter().map(|port| (s.id(), *port))).collect();
    match manager.resource.forget_cards(&cards).await {
        Ok(()) => {
            for (mut subject, ports) in subjects {
                subject.row.ports.retain(|port| !ports.contains(&port.id));
                next.push(subject);
            }
        }
        Err(problem) => {
            ends.extend(subjects.iter().map(|(s, _)| failed(s, "freeing the ports of removed cards", &problem)))
        }
    }
}
