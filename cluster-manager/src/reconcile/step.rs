//! The steps of the reconciler, done: the same step of many instances is one call to another service, or commits that become one.
//! Each failure says what becomes of the instance in this pass ([`PassOutcome`]); none is retried here.

use super::{
    claims,
    plan::{HostView, Step, detached_ports, plan_step},
    report::event,
    target::{Outcomes, PassOutcome, PassTarget, Progress, commit_outcome, render_progress},
};
use crate::{
    agents::desired::{deliverable, render_desired, render_tombstone},
    instance::claim::{claims_removed, claims_to_remove, release_claim},
    manager::Manager,
    placement::{constraints::leave_groups, record::keep_decision},
};
use domain::{DiskId, HostId, InstanceId, PortId, Timestamp, flavor::Size, host::HostState};
use proto::sync::v1::DesiredObject;
use std::collections::HashMap;
use store::Unit;

/// The instances of a pass by the step that each takes in this round.
#[derive(Default)]
struct Round {
    reserve_disks: Vec<PassTarget>,
    reserve_ports: Vec<PassTarget>,
    bind: Vec<(PassTarget, claims::Which)>,
    resize_disk: Vec<(PassTarget, DiskId, u64, i64)>,
    release: Vec<(PassTarget, claims::Which)>,
    remove_ports: Vec<(PassTarget, Vec<PortId>)>,
    show: Vec<(PassTarget, Progress)>,
    remove_row: Vec<PassTarget>,
    deliver: HashMap<HostId, Vec<(InstanceId, DesiredObject)>>,
}

/// Takes one step for each; answers those that have another before them.
pub(super) async fn take_round(
    manager: &Manager,
    targets: Vec<PassTarget>,
    outcomes: &mut Outcomes,
) -> Vec<PassTarget> {
    let now = Timestamp::now();
    let round = sort_by_step(manager, targets, now, outcomes);
    for (host_id, instances) in round.deliver {
        // A host that isn't connected gets a snapshot when it is.
        if let Some(stream) = manager.agents.find(host_id) {
            stream.push(instances);
        }
    }
    let mut next = Vec::new();
    let clients = &manager.clients;
    claims::reserve_disks(manager, round.reserve_disks, &mut next, outcomes).await;
    claims::reserve_ports(manager, round.reserve_ports, outcomes).await;
    claims::bind(manager, round.bind, &mut next, outcomes).await;
    for (target, disk_id, size_gib, generation) in round.resize_disk {
        match claims::resize_disk(clients, target, disk_id, size_gib, generation).await {
            Ok(target) => next.push(target),
            Err(outcome) => outcomes.push(outcome),
        }
    }
    claims::release(clients, round.release, &mut next, outcomes).await;
    claims::remove_ports(clients, round.remove_ports, &mut next, outcomes).await;
    show_progress(manager, round.show, now, &mut next, outcomes).await;
    for target in round.remove_row {
        outcomes.push((target.id(), remove_row(manager, &target, now).await));
    }
    next
}

fn sort_by_step(manager: &Manager, targets: Vec<PassTarget>, now: Timestamp, outcomes: &mut Outcomes) -> Round {
    let mut round = Round::default();
    for target in targets {
        let step = plan(manager, &target, now);
        count(&step);
        match step {
            Step::Settled => outcomes.push((target.id(), PassOutcome::Settled)),
            Step::ReserveDisks => round.reserve_disks.push(target),
            Step::ReservePorts => round.reserve_ports.push(target),
            Step::Bind { disks, ports } => round.bind.push((target, claims::Which { disks, ports })),
            Step::ResizeDisk { disk_id, size_gib, generation } => {
                round.resize_disk.push((target, disk_id, size_gib, generation));
            }
            Step::Release { disks, ports } => round.release.push((target, claims::Which { disks, ports })),
            Step::RemovePorts { ports } => round.remove_ports.push((target, ports)),
            Step::RemoveRow => round.remove_row.push(target),
            Step::Show { state, step, reason, deadline_at } => {
                round.show.push((target, Progress { state, step, reason, deadline_at }));
            }
            Step::Deliver => {
                if let Some((host_id, desired)) = render_delivery(&target) {
                    round.deliver.entry(host_id).or_default().push((target.id(), desired));
                }
                outcomes.push((target.id(), PassOutcome::Settled));
            }
        }
    }
    round
}

fn render_delivery(target: &PassTarget) -> Option<(HostId, DesiredObject)> {
    let (row, instance) = (&target.row, target.instance());
    let host_id = instance.host_id.filter(|_| deliverable(instance, &row.disks, &row.ports))?;
    let request_id = target.request_id.as_deref().unwrap_or_default();
    let desired = render_desired(instance, &row.disks, &row.ports, row.image.as_ref(), request_id);
    tracing::debug!(
        instance_id = %instance.id, %host_id, request_id, epoch = instance.epoch, generation = instance.generation,
        "delivered to the host's agent"
    );
    Some((host_id, desired))
}

fn plan(manager: &Manager, target: &PassTarget, now: Timestamp) -> Step {
    let instance = target.instance();
    // One lock at a time: `starts` takes it again.
    let state = instance.host_id.and_then(|id| manager.inventory().find(id).map(|h| h.state));
    let starts = instance.host_id.map_or(0, |id| manager.starts(id));
    if instance.status.observed_generation != instance.generation
        && !detached_ports(instance, &target.row.ports).is_empty()
    {
        // The host's proof that it did all of it is awaited.
        manager.signal.await_detach(instance.id);
    }
    // Within the grace of a reconnect the host counts as connected, so nothing is shown.
    let view =
        |state: HostState| HostView { connected: state.takes_commands(), lost: state == HostState::Lost, starts };
    let host = state.map(view);
    plan_step(target.view(host), &manager.config.deadlines, now)
}

fn count(step: &Step) {
    let name = match step {
        Step::Settled => "settled",
        Step::ReserveDisks => "reserve_disks",
        Step::ReservePorts => "reserve_ports",
        Step::Bind { .. } => "bind",
        Step::ResizeDisk { .. } => "resize_disk",
        Step::Release { .. } => "release",
        Step::RemovePorts { .. } => "remove_ports",
        Step::Deliver => "deliver",
        Step::RemoveRow => "remove_row",
        Step::Show { .. } => "show",
    };
    metrics::counter!("iaas_reconcile_steps_total", "step" => name).increment(1);
}

async fn show_progress(
    manager: &Manager,
    shows: Vec<(PassTarget, Progress)>,
    now: Timestamp,
    next: &mut Vec<PassTarget>,
    outcomes: &mut Outcomes,
) {
    let commits =
        shows.iter().map(|(target, progress)| manager.store.commit(render_progress(target, progress.clone(), now)));
    let committed = futures::future::join_all(commits).await;
    for ((mut target, progress), committed) in shows.into_iter().zip(committed) {
        if let Err(error) = committed {
            outcomes.push((target.id(), commit_outcome(&error)));
            continue;
        }
        let Progress { state, step, reason, deadline_at } = progress;
        let instance = &mut target.row.instance.instance;
        tracing::info!(
            instance_id = %instance.id, generation = instance.generation, epoch = instance.epoch, state = state.as_str(), reason,
            "an instance's wait is shown"
        );
        if state.is_final()
            && let Some(host_id) = instance.host_id
        {
            manager.inventory().start_ends(host_id, instance.id);
        }
        let status = &mut instance.status;
        (status.state, status.step, status.reason, status.deadline_at) = (state, step, reason, deadline_at);
        // It is delivered to its host once more: a message that was lost is what deadlines are for.
        next.push(target);
    }
}

/// No host ever had it, or its host is lost, which is the proof: the row goes. A lost host that comes back is told.
async fn remove_row(manager: &Manager, target: &PassTarget, now: Timestamp) -> PassOutcome {
    let instance = target.instance();
    let data = serde_json::json!({ "from": instance.status.state.as_str(), "to": "deleted" });
    let mut unit = Unit::new()
        .op(store::InstanceDelete { id: instance.id, epoch: instance.epoch })
        .op(claims_to_remove(instance.id, now))
        .op(keep_decision(instance.id, now))
        .op(store::EventInsert(event(instance, "deleted", format!("{} is deleted", instance.name), data, now)));
    leave_groups(&instance.spec, &mut unit);
    // If its host isn't lost any more, this refuses: then the host itself must prove that it is gone.
    unit.extend(instance.host_id.map(|host_id| store::HostTakenPut {
        host_id,
        instance_id: instance.id,
        epoch: instance.epoch,
        generation: instance.generation + 1,
        taken_at: now,
    }));
    let claim = target.row.instance.claim;
    let claimed_on = instance.host_id.filter(|_| claim != Size::default());
    unit.extend(claimed_on.map(|host_id| release_claim(host_id, claim)));
    let releasing = claimed_on.map(|host_id| manager.releasing(host_id));
    if let Err(error) = manager.store.commit(unit).await {
        return commit_outcome(&error);
    }
    {
        let mut inventory = manager.inventory();
        if let Some(host_id) = claimed_on {
            inventory.release(host_id, claim);
        }
        inventory.remove_instance(instance.id);
    }
    drop(releasing);
    if let Some(stream) = instance.host_id.and_then(|host_id| manager.agents.find(host_id)) {
        stream.push([(instance.id, render_tombstone(instance, instance.epoch))]);
    }
    // If this fails, the sweep repeats it.
    match manager.clients.remove_claims(&[instance.id], !target.row.ports.is_empty()).await {
        Ok(()) => {
            claims_removed(manager, &[target.id()], now).await;
            PassOutcome::Settled
        }
        Err(problem) => target.failed("removing its disks and ports", &problem).1,
    }
}
