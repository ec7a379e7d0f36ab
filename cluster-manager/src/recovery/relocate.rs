//! One instance goes to another host: a place, and the one unit that gives it there and takes it from the lost host.

use super::plan::{cost, disks_outlive};
use crate::{
    instance::{
        claim::{release_claim, take_claim},
        create::binding,
        place::{PlacementFailure, TentativePlacement},
    },
    manager::Manager,
    placement::constraints::{ResolvedConstraints, restore_placed_instances},
    reconcile::report::event,
    scheduler::{Placed, Request},
};
use domain::{
    HostId, Timestamp,
    explain::PlacementRecord,
    host::HostState,
    instance::InstanceState,
    placement::Fill,
    recovery::{Recovery, RecoveryPhase},
};
use operation::{commit_problem, read_problem};
use std::collections::HashMap;
use store::{CommitError, Constraint, Guard, InstanceRow, Unit};

const ATTEMPTS: usize = 5;

/// What became of a recovery that waited for a place.
#[derive(Debug)]
pub enum Relocated {
    /// It has a place.
    Placed(Recovery),
    /// There is no capacity for it now. The request, so that others of its shape needn't be tried.
    NoCapacity { request: Box<Request>, reason: String },
    /// The hosts that have capacity start as many instances as they may at once, or its own host is connected and is about to have it again.
    NotYet,
    /// It is over: it was deleted, or its host has it again.
    Over(Recovery),
    /// It is tried again later.
    Failed(String),
}

/// An instance that waits for a place, as it is now, and what it needs.
pub struct Candidate<'a> {
    recovery: &'a Recovery,
    row: InstanceRow,
    constraints: ResolvedConstraints,
}

/// The place that was found for a candidate, which nobody else gets until this is gone.
pub struct Chosen<'a> {
    placement: TentativePlacement<'a>,
    placed: Placed,
    record: PlacementRecord,
}

/// Reads what is needed to find a place for a recovery that waits for one.
pub async fn prepare<'a>(manager: &Manager, recovery: &'a Recovery) -> Result<Candidate<'a>, Relocated> {
    let rows = manager.store.instance_load_many(&[recovery.instance_id]).await;
    let rows = rows.map_err(|error| Relocated::Failed(read_problem(error).to_string()))?;
    let row = still_waits(manager, recovery, rows.into_iter().next())?;
    let constraints = ResolvedConstraints::load(&manager.store, row.instance.project_id, &row.instance.spec).await;
    let mut constraints = constraints.map_err(|problem| Relocated::Failed(problem.to_string()))?;
    if constraints.request.pool.is_some() {
        // Its disk is in the pool that its host had.
        constraints.request.pool =
            manager.inventory().find(recovery.host_id).and_then(|host| host.pool.as_deref().map(str::to_owned));
        if constraints.request.pool.is_none() {
            let reason = "its host never said which shared pool it has: start the host's agent with its pool, or delete the instance";
            return Err(Relocated::Failed(reason.to_owned()));
        }
    }
    Ok(Candidate { recovery, row, constraints })
}

/// Gives the candidate the place that was chosen for it; where that is taken by others meanwhile, another one.
pub async fn relocate<'a>(manager: &'a Manager, candidate: Candidate<'a>, chosen: Chosen<'a>) -> Relocated {
    let recovery = candidate.recovery;
    let (mut candidate, mut chosen, mut avoid) = (candidate, chosen, Vec::new());
    for _ in 0..ATTEMPTS {
        match carry_out(manager, &candidate, chosen, &mut avoid).await {
            Attempt::Done(relocated) => return relocated,
            Attempt::Again => {}
        }
        candidate = match prepare(manager, recovery).await {
            Ok(candidate) => candidate,
            Err(relocated) => return relocated,
        };
        chosen = match candidate.choose(manager, &avoid, &HashMap::new()) {
            Ok(chosen) => chosen,
            Err(relocated) => return relocated,
        };
    }
    Relocated::Failed("other requests took the chosen place each time".to_owned())
}

/// The instance's row, if it is still to be moved from the lost host.
fn still_waits(manager: &Manager, recovery: &Recovery, row: Option<InstanceRow>) -> Result<InstanceRow, Relocated> {
    let over = |phase, reason: &str| {
        let closed_at = Some(Timestamp::now());
        Relocated::Over(Recovery { phase, reason: reason.to_owned(), closed_at, ..recovery.clone() })
    };
    let Some(row) = row.filter(|row| !row.spec.deleted) else { return Err(over(RecoveryPhase::Deleted, "")) };
    if (row.epoch, row.host_id) != (recovery.epoch, Some(recovery.host_id)) {
        return Err(over(RecoveryPhase::Returned, "it was given to another host by something else"));
    }
    if manager.host_state(recovery.host_id) != Some(HostState::Lost) {
        return Err(over(RecoveryPhase::Returned, "its host came back before there was capacity elsewhere"));
    }
    if manager.agents.find(recovery.host_id).is_some() {
        return Err(Relocated::NotYet);
    }
    Ok(row)
}

enum Attempt {
    Done(Relocated),
    Again,
}

impl Candidate<'_> {
    /// Finds a place in memory. `refused`: requests for which there was none since capacity changed last.
    pub fn choose<'a>(
        &self,
        manager: &'a Manager,
        avoid: &[HostId],
        refused: &HashMap<Request, String>,
    ) -> Result<Chosen<'a>, Relocated> {
        let resolved = &self.constraints.request;
        let none = |reason: String| Relocated::NoCapacity { request: Box::new(resolved.clone()), reason };
        // What is reserved for one is for no other, so that each of those is tried.
        if let Some(reason) = refused.get(resolved).filter(|_| !resolved.protected) {
            return Err(none(reason.clone()));
        }
        let starts_max = manager.config.recovery_starts_per_host;
        let busy: Vec<HostId> = {
            let inventory = manager.inventory();
            inventory.hosts().filter(|host| host.starts_in_progress() >= starts_max).map(|host| host.id).collect()
        };
        let (id, host_id) = (self.row.instance.id, self.recovery.host_id);
        let request = Request { recovers: Some(id), avoid: [&[host_id], avoid, &busy].concat(), ..resolved.clone() };
        let now = Timestamp::now();
        let found = TentativePlacement::find(&manager.placement, None, &[id], &request, Fill::AllOrNothing, now);
        let placement = match found {
            Ok((placement, _)) => placement,
            Err(_) if !busy.is_empty() => return Err(Relocated::NotYet),
            Err(PlacementFailure { record, .. }) => return Err(none(record.summary)),
        };
        let (_, placed, record) = placement.places.first().ok_or(Relocated::NotYet)?;
        let (placed, record) = (*placed, record.clone());
        Ok(Chosen { placement, placed, record })
    }
}

async fn carry_out(
    manager: &Manager,
    candidate: &Candidate<'_>,
    chosen: Chosen<'_>,
    avoid: &mut Vec<HostId>,
) -> Attempt {
    let Candidate { recovery, row, constraints } = candidate;
    let Chosen { placement, placed, record } = chosen;
    let (instance, now) = (&row.instance, Timestamp::now());
    let placed_recovery = Recovery {
        phase: RecoveryPhase::Placed,
        reason: String::new(),
        to_host_id: Some(placed.host_id),
        placed_at: Some(now),
        ..Recovery::clone(recovery)
    };
    let unit = unit(manager, &placed_recovery, row, (placed, record), constraints);
    let releasing = manager.releasing(recovery.host_id);
    let error = match manager.store.commit(unit).await {
        Ok(()) => {
            placement.confirm();
            manager.inventory().release(recovery.host_id, row.claim);
            drop(releasing);
            after_commit(manager, recovery, row, placed);
            return Attempt::Done(Relocated::Placed(placed_recovery));
        }
        Err(error) => error,
    };
    drop((releasing, placement));
    restore_placed_instances(&manager.store, &manager.placement, &[instance.id]).await;
    match error {
        CommitError::Guard(Guard::HostCapacity) => {
            if !manager.refresh_host(placed.host_id).await {
                avoid.push(placed.host_id);
            }
            Attempt::Again
        }
        CommitError::Guard(Guard::PlacementAnchor) | CommitError::Constraint(Constraint::PlacementPlace) => {
            avoid.push(placed.host_id);
            Attempt::Again
        }
        // The row changed, the host is back, or another manager was faster: what is so now is read again.
        CommitError::Guard(Guard::InstanceGeneration | Guard::HostVerdict) => Attempt::Again,
        CommitError::Guard(Guard::Recovery) => {
            Attempt::Done(Relocated::Failed("another step was taken meanwhile".to_owned()))
        }
        CommitError::Guard(_) | CommitError::Constraint(_) | CommitError::Unavailable(_) | CommitError::Internal(_) => {
            Attempt::Done(Relocated::Failed(commit_problem(error).to_string()))
        }
    }
}

fn unit(
    manager: &Manager,
    recovery: &Recovery,
    row: &InstanceRow,
    (placed, record): (Placed, PlacementRecord),
    constraints: &ResolvedConstraints,
) -> Unit {
    let (instance, now) = (&row.instance, Timestamp::now());
    let binding = binding(manager, placed);
    let deadline_at = manager.config.deadlines.of(InstanceState::Recovering, manager.starts(placed.host_id), now);
    let mut unit = Unit::new()
        .op(store::InstanceMove {
            id: instance.id,
            expected_generation: instance.generation,
            expected_epoch: recovery.epoch,
            epoch: recovery.epoch + 1,
            host_id: placed.host_id,
            placement: Some(record),
            claim_vcpus: placed.claim.vcpus,
            claim_memory_mib: placed.claim.memory_mib,
            claim_disk_gib: placed.claim.disk_gib,
            cpu_baseline: binding.cpu_baseline,
            numa_node: binding.numa_node,
            // A disk that comes along and isn't found there is lost, and none is made in its place.
            root_used_seq: instance.binding.root_used_seq.filter(|_| disks_outlive(instance)),
            state: InstanceState::Recovering,
            step: "starting on another host".to_owned(),
            reason: super::list::LOST.to_owned(),
            deadline_at,
            at: now,
        })
        .op(take_claim(&placed))
        .op(release_claim(recovery.host_id, row.claim))
        .op(store::HostTakenPut {
            host_id: recovery.host_id,
            instance_id: instance.id,
            epoch: recovery.epoch,
            generation: instance.generation + 1,
            taken_at: now,
        })
        .op(progress(recovery, RecoveryPhase::Waiting));
    constraints.move_groups(&manager.inventory(), instance.id, recovery.host_id, &placed, &mut unit);
    let cost = cost(recovery.policy, !instance.disks().is_empty());
    let message = format!("{} starts on another host, because its host was lost: {cost}", instance.name);
    let data = serde_json::json!({
        "epoch_before": recovery.epoch, "policy": recovery.policy.as_str(), "waited_ms": now.millis_since(recovery.detected_at),
    });
    unit.op(store::EventInsert(event(instance, "recovery_placed", message, data, now)))
}

/// What is known of a recovery, as it is stored; decided when it was in `before`.
#[must_use]
pub fn progress(recovery: &Recovery, before: RecoveryPhase) -> store::RecoveryProgress {
    store::RecoveryProgress {
        id: recovery.id,
        expected_phase: before,
        phase: recovery.phase,
        reason: recovery.reason.clone(),
        to_host_id: recovery.to_host_id,
        placed_at: recovery.placed_at,
        started_at: recovery.started_at,
        reachable_at: recovery.reachable_at,
        verified_at: recovery.verified_at,
        closed_at: recovery.closed_at,
    }
}

fn after_commit(manager: &Manager, recovery: &Recovery, row: &InstanceRow, placed: Placed) {
    let id = row.id;
    manager.inventory().start_ends(recovery.host_id, id);
    tracing::info!(
        instance_id = %id, host_id = %placed.host_id, lost_host_id = %recovery.host_id, epoch = recovery.epoch + 1,
        "an instance of a lost host was given to another"
    );
    manager.signal.wake([id], None);
}
