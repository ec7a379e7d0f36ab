//! Changes of one instance, its deletion among them: read, decide purely ([`super::transition`]), claim what it takes beyond what it has,
//! and commit with the generation and the state it was decided on in the `WHERE` clause.

use super::{
    claim::{release_claim, take_claim},
    dry_run, nic,
    request::{ChangeTarget, Changed},
    resize::{ClaimChange, ResizeClaim, claim_change, restore_claim},
    transition::{Change, TransitionContext, plan_change},
    validate::check_image,
};
use crate::{manager::Manager, outcome::store_outcome, reconcile::plan::resize_generation, scheduler::Placed};
use domain::{
    ErrorKind, Problem, Timestamp,
    flavor::Size,
    instance::{Instance, InstanceDisk, InstanceState},
    quota::QuotaAmounts,
    validate,
};
use operation::{Activity, commit_problem, contended, quota_refusal, read_problem};
use service_kit::context::CallContext;
use store::{CommitError, Constraint, Guard, InstanceRow, Unit};

/// How often a change that meets a report's write is decided again.
const ATTEMPTS: usize = 5;

pub async fn change(
    manager: &Manager,
    context: &CallContext,
    target: ChangeTarget,
    change: &Change,
) -> Result<Changed, Problem> {
    let outcome = decide_and_commit(manager, context, target, change).await;
    if let (Change::AttachNic { request }, Err(problem)) = (change, &outcome) {
        nic::release(manager, target.id, request, problem).await;
    }
    outcome
}

async fn decide_and_commit(
    manager: &Manager,
    context: &CallContext,
    target: ChangeTarget,
    change: &Change,
) -> Result<Changed, Problem> {
    for _ in 0..ATTEMPTS {
        let row = fetch(manager, target).await?;
        let now = Timestamp::now();
        let host = row.instance.host_id;
        let transition = TransitionContext {
            now,
            deadlines: &manager.config.deadlines,
            starts: host.map_or(0, |id| manager.starts(id)),
            host_connected: host.is_none_or(|id| manager.inventory().find(id).is_none_or(|h| h.state.takes_commands())),
        };
        let Some(mut next) = plan_change(&row.instance, change, transition)? else {
            let plan = context.dry_run.then(|| dry_run::no_change(&row.instance));
            return Ok(Changed { instance: row.instance, plan });
        };
        check(manager, change, &next).await?;
        if let Change::AttachNic { request } = change {
            nic::reserve(manager, context, request, &mut next).await?;
        }
        if context.dry_run {
            let plan = dry_run::change(manager, change, &row, &next).await?;
            return Ok(Changed { instance: row.instance, plan: Some(plan) });
        }
        let decided = Decided { change, row: &row, claim: claim_change(manager, &row, &next), next, now };
        if commit(manager, context, &decided).await? == Committed::Yes {
            return Ok(Changed { instance: decided.next, plan: None });
        }
        tracing::debug!(instance_id = %target.id, "an instance's row changed under a change, which is decided again");
    }
    Err(contended("the instance"))
}

async fn fetch(manager: &Manager, target: ChangeTarget) -> Result<InstanceRow, Problem> {
    let rows = manager.store.instance_load_many(&[target.id]).await.map_err(read_problem)?;
    let row = rows
        .into_iter()
        .find(|row| row.instance.project_id == target.project_id)
        .ok_or_else(|| Problem::not_found("instance", target.id))?;
    let is = row.instance.generation;
    match target.expected_generation {
        Some(expected) if expected != is => Err(Problem::new(
            ErrorKind::PreconditionFailed,
            "stale_generation",
            format!("instance {} is at generation {is}, not {expected}", row.instance.name),
        )
        .with_hint("read it again, and repeat the change if it still makes sense")),
        Some(_) | None => Ok(row),
    }
}

/// Refuses what the change requests beyond the instance's own state.
async fn check(manager: &Manager, change: &Change, next: &Instance) -> Result<(), Problem> {
    match change {
        Change::Describe { tags, .. } => {
            validate::check(|v| validate::tags(v, "tags", tags.as_ref().unwrap_or(&next.tags)))
        }
        Change::SetPower { stop_timeout_secs, .. } => {
            let secs = stop_timeout_secs.unwrap_or_default();
            validate::check(|v| validate::instance::stop_timeout(v, "stop_timeout_secs", secs))
        }
        Change::Resize { size, .. } => {
            validate::check(|v| validate::instance::size(v, "", *size))?;
            let image = manager.clients.image(next.spec.image_id).await?;
            // Its image may be gone by now; what it needed of a size is then unknown, and the disk exists already.
            image.map_or(Ok(()), |i| check_image(i.id, Some(&i), next.project_id, *size))
        }
        Change::Rebuild { image_id } => {
            let image = manager.clients.image(*image_id).await?;
            check_image(*image_id, image.as_ref(), next.project_id, next.spec.size)
        }
        Change::Reboot { .. } | Change::AttachNic { .. } | Change::DetachNic { .. } | Change::Delete => Ok(()),
    }
}

/// A change as it was decided on a row.
struct Decided<'a> {
    change: &'a Change,
    row: &'a InstanceRow,
    next: Instance,
    /// What a new size changes of its claim. `None`: the size stays.
    claim: Option<ClaimChange>,
    now: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Committed {
    Yes,
    /// The row isn't as it was when the change was decided.
    RowChanged,
}

async fn commit(manager: &Manager, context: &CallContext, decided: &Decided<'_>) -> Result<Committed, Problem> {
    let Decided { row, next, now, .. } = decided;
    let resize =
        decided.claim.as_ref().map(|claim| ResizeClaim::take(manager, row, next.spec.size_on_host(), claim, *now));
    if let Some(Err(Problem { explain: Some(record), .. })) = &resize {
        manager.placement.refusals.add(next.project_id, (next.id, &next.name), record);
    }
    let resize = resize.transpose()?;
    let growing = growing_disks(&row.instance, next);
    for disk in &growing {
        // Quota first, so that its refusal is the answer. If the commit below fails, the reconciler puts the size back.
        let row = manager.store.disk_find(disk.id).await.map_err(read_problem)?;
        let generation = resize_generation(next.generation, row.map_or(0, |d| d.generation));
        manager.clients.storage.resize(disk.id, next.id, disk.size_gib, generation).await?;
    }
    let (unit, quota) = render(context, decided);
    let smaller = decided.claim.filter(|claim| claim.less != Size::default());
    let _releasing = smaller.map(|claim| manager.releasing(claim.host_id));
    let Err(error) = manager.store.commit(unit).await else {
        after_commit(manager, context, decided, resize);
        return Ok(Committed::Yes);
    };
    drop(resize);
    if !growing.is_empty() {
        manager.signal.wake([next.id], None);
    }
    match error {
        CommitError::Guard(Guard::InstanceGeneration) => {
            if decided.claim.is_some() {
                restore_claim(manager, next.id).await;
            }
            Ok(Committed::RowChanged)
        }
        CommitError::Guard(Guard::HostCapacity) => {
            if let Some(host_id) = next.host_id {
                manager.refresh_host(host_id).await;
            }
            Err(Problem::new(
                ErrorKind::NoCapacity,
                "no_capacity",
                format!("the host of {} has no capacity for this size, or takes nothing new now", next.name),
            )
            .with_hint("choose a smaller size, or create a new instance elsewhere"))
        }
        CommitError::Guard(Guard::ComputeQuota) => Err(quota_refusal(&manager.store, next.project_id, &quota).await),
        CommitError::Constraint(Constraint::InstanceName) => Err(Problem::already_exists("instance", &next.name)),
        CommitError::Guard(_) | CommitError::Constraint(_) | CommitError::Unavailable(_) | CommitError::Internal(_) => {
            Err(commit_problem(error))
        }
    }
}

/// The disks that the change makes larger.
fn growing_disks(old: &Instance, next: &Instance) -> Vec<InstanceDisk> {
    let old = old.disks();
    let grows = |disk: &InstanceDisk| old.iter().any(|before| before.id == disk.id && before.size_gib < disk.size_gib);
    next.disks().into_iter().filter(grows).collect()
}

/// The change as one unit, and what it takes of the quota.
fn render(context: &CallContext, decided: &Decided<'_>) -> (Unit, QuotaAmounts) {
    let Decided { change, row, next, claim: claim_change, now } = decided;
    let (old, now) = (&row.instance, *now);
    let (before, after) = (QuotaAmounts::of_instances(old.spec.size, 1), QuotaAmounts::of_instances(next.spec.size, 1));
    let deleting = matches!(change, Change::Delete);
    let quota = match (deleting, row.quota_released) {
        (true, false) => before.negated(),
        (true, true) => QuotaAmounts::default(),
        (false, _) => after.minus(&before),
    };
    let mut unit = Unit::new().op(desired(decided));
    if (quota.instances, quota.vcpus, quota.memory_mib) != (0, 0, 0) {
        unit.push(store::ComputeUsageAdd {
            project_id: next.project_id,
            instances: quota.instances,
            vcpus: quota.vcpus,
            memory_mib: quota.memory_mib,
        });
    }
    if let Some(host_id) = next.host_id {
        unit.push(store::HostRevision { host_id });
    }
    if matches!(change, Change::DetachNic { .. }) {
        let todo = store::InstanceTodo::RemovePorts;
        unit.push(store::InstanceTodoPut { todo, instance_id: next.id, created_at: now });
    }
    if let Some(ClaimChange { host_id, more, less, .. }) = claim_change {
        if *more != Size::default() {
            unit.push(take_claim(&Placed::of(*host_id, *more)));
        }
        if *less != Size::default() {
            unit.push(release_claim(*host_id, *less));
        }
    }
    store_outcome(&mut unit, context, &Changed { instance: next.clone(), plan: None }, now);
    let data = serde_json::json!({
        "from": old.status.state.as_str(), "to": next.status.state.as_str(), "generation": next.generation, "epoch": next.epoch,
    });
    Activity::accepted("instance", next.id, change.verb(), change.describe(next))
        .in_project(next.project_id)
        .with_data(data)
        .record(&mut unit, context, now);
    (unit, quota)
}

/// The row as the change leaves it.
fn desired(decided: &Decided<'_>) -> store::InstanceDesired {
    let Decided { change, row, next, claim, now } = decided;
    let claim = claim.map_or(row.claim, |change| change.claim);
    store::InstanceDesired {
        id: next.id,
        expected_generation: row.instance.generation,
        expected_state: Some(row.instance.status.state),
        name: next.name.clone(),
        tags: next.tags.clone(),
        spec: next.spec.clone(),
        image_id: (!next.spec.deleted).then_some(next.spec.image_id),
        epoch: next.epoch,
        host_id: next.host_id,
        root_disk_id: next.root_disk_id,
        placement: next.placement.clone(),
        claim_vcpus: claim.vcpus,
        claim_memory_mib: claim.memory_mib,
        claim_disk_gib: claim.disk_gib,
        quota_released: row.quota_released || matches!(change, Change::Delete),
        state: next.status.state,
        step: next.status.step.clone(),
        reason: next.status.reason.clone(),
        deadline_at: next.status.deadline_at,
        at: *now,
    }
}

/// What follows a committed change in memory.
fn after_commit(manager: &Manager, context: &CallContext, decided: &Decided<'_>, resize: Option<ResizeClaim<'_>>) {
    let Decided { change, row, next, claim, .. } = decided;
    if let Some(resize) = resize {
        resize.confirm();
    }
    if let Some(host_id) = next.host_id {
        let mut inventory = manager.inventory();
        inventory.raise_revision(host_id);
        if let Some(ClaimChange { less, .. }) = claim
            && *less != Size::default()
        {
            inventory.release(host_id, *less);
        }
        match next.status.state {
            InstanceState::Building | InstanceState::Rebuilding => inventory.start_begins(host_id, next.id),
            InstanceState::Deleting => inventory.start_ends(host_id, next.id),
            InstanceState::Pending
            | InstanceState::Scheduling
            | InstanceState::Running
            | InstanceState::Paused
            | InstanceState::Stopped
            | InstanceState::Suspended
            | InstanceState::Migrating
            | InstanceState::Recovering
            | InstanceState::Resizing
            | InstanceState::Deleted
            | InstanceState::Error => {}
        }
    }
    tracing::info!(
        instance_id = %next.id, generation = next.generation, epoch = next.epoch, from = row.instance.status.state.as_str(),
        to = next.status.state.as_str(), change = change.verb(), "an instance's desired state changed"
    );
    manager.signal.wake([next.id], Some(context.request_id.as_str().into()));
}
