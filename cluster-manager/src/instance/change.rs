//! Changes of one instance, its deletion among them: read, decide purely ([`super::transition`]), claim what it takes more, and
//! commit with the generation and the state it was decided on in the `WHERE` clause.

use super::{
    attach,
    nic::{Card, parse_card},
    reserve::describe_nic,
    resize::{Growth, Resized, refit, resized},
    transition::{Change, Scene, plan_change},
    validate::check_image,
};
use crate::{
    agents::ingest::release,
    answer::{self, Deed},
    manager::{Manager, read_problem},
    reconcile::plan::resize_generation,
    scheduler::Placed,
};
use domain::{
    ErrorKind, InstanceId, Problem, ProjectId, Timestamp,
    flavor::Size,
    instance::{Instance, InstanceState, Power},
    quota::QuotaAmounts,
    validate,
};
use proto::{
    cluster::v1 as pb,
    convert::{instance_to_pb, on_crash_from_pb, parse, power_from_pb, size_from_pb},
};
use service_kit::context::CallContext;
use store::{CommitError, Constraint, Guard, InstanceRow, Unit};

/// A change that meets a report's write is decided again this often.
const ATTEMPTS: usize = 5;

pub async fn change(
    manager: &Manager,
    context: &CallContext,
    request: pb::ChangeInstanceRequest,
) -> Result<pb::ChangeInstanceResponse, Problem> {
    let target = Target {
        project_id: parse("project_id", &request.project_id)?,
        id: parse("instance_id", &request.instance_id)?,
        expected_generation: request.expected_generation,
    };
    let card = match &request.change {
        Some(pb::change_instance_request::Change::AttachNic(nic)) => Some(parse_card(nic)?),
        Some(_) | None => None,
    };
    let change = parse_change(request.change)?;
    answer::once(manager, context, async {
        let outcome = run(manager, context, &target, &change, card.as_ref()).await;
        if let (Some(card), Err(problem)) = (&card, &outcome) {
            attach::give_back(manager, target.id, card, problem).await;
        }
        let (instance, plan) = outcome?;
        Ok(pb::ChangeInstanceResponse { instance: Some(instance_to_pb(&instance)), plan })
    })
    .await
}

pub async fn delete(
    manager: &Manager,
    context: &CallContext,
    request: pb::DeleteInstanceRequest,
) -> Result<pb::DeleteInstanceResponse, Problem> {
    let target = Target {
        project_id: parse("project_id", &request.project_id)?,
        id: parse("instance_id", &request.instance_id)?,
        expected_generation: request.expected_generation,
    };
    answer::once(manager, context, async {
        let (instance, plan) = run(manager, context, &target, &Change::Delete, None).await?;
        Ok(pb::DeleteInstanceResponse { instance: Some(instance_to_pb(&instance)), plan })
    })
    .await
}

struct Target {
    project_id: ProjectId,
    id: InstanceId,
    /// 0: any.
    expected_generation: i64,
}

fn parse_change(change: Option<pb::change_instance_request::Change>) -> Result<Change, Problem> {
    use pb::change_instance_request::Change as Asked;
    Ok(match change.ok_or_else(|| Problem::invalid("change", "is missing"))? {
        Asked::Describe(describe) => Change::Describe {
            name: describe.name.as_deref().map(|n| parse("name", n)).transpose()?,
            tags: describe.replace_tags.then(|| describe.tags.into_iter().collect()),
            on_crash: describe.on_crash.map(on_crash_from_pb).transpose()?,
        },
        Asked::SetPower(set) => {
            Change::SetPower { power: power_from_pb(set.power)?, stop_timeout_secs: set.stop_timeout_secs }
        }
        Asked::Reboot(reboot) => Change::Reboot { hard: reboot.hard },
        Asked::Resize(resize) => Change::Resize {
            size: size_from_pb(resize.size.ok_or_else(|| Problem::invalid("size", "is missing"))?),
            flavor: resize.flavor,
        },
        // Its address and MAC come with its reservation.
        Asked::AttachNic(nic) => Change::AttachNic { nic: attach::expected(&parse_card(&nic)?) },
        Asked::DetachNic(detach) => Change::DetachNic { port_id: parse("port_id", &detach.port_id)? },
        Asked::Rebuild(rebuild) => Change::Rebuild { image_id: parse("image_id", &rebuild.image_id)? },
    })
}

async fn run(
    manager: &Manager,
    context: &CallContext,
    target: &Target,
    change: &Change,
    card: Option<&Card>,
) -> Result<(Instance, Option<pb::Plan>), Problem> {
    for _ in 0..ATTEMPTS {
        let row = find(manager, target).await?;
        let now = Timestamp::now();
        let host = row.instance.host_id;
        let (starts, host_away) = (host.map_or(0, |id| manager.starts(id)), host.is_some_and(|id| away(manager, id)));
        let scene = Scene { now, deadlines: &manager.config.deadlines, starts, host_away };
        let Some(mut next) = plan_change(&row.instance, change, scene)? else {
            let plan = context.dry_run.then(|| nothing_to_do(&row.instance));
            return Ok((row.instance, plan));
        };
        check(manager, change, &next).await?;
        if let Some(card) = card {
            attach::reserve(manager, context, card, &mut next).await?;
        }
        if context.dry_run {
            let plan = rehearse(manager, change, &row, &next).await?;
            return Ok((row.instance, Some(plan)));
        }
        match commit(manager, context, change, &row, &next, now).await? {
            Some(next) => return Ok((next, None)),
            // The row changed under the decision.
            None if target.expected_generation == 0 => {}
            None => {
                let found = find(manager, target).await?;
                tracing::debug!(instance_id = %target.id, generation = found.instance.generation, "decided again");
            }
        }
    }
    Err(Problem::new(ErrorKind::StaleGeneration, "conflict", "the instance kept changing meanwhile")
        .with_hint("read it again, and repeat the change if it still makes sense"))
}

async fn find(manager: &Manager, target: &Target) -> Result<InstanceRow, Problem> {
    let rows = manager.store.instance_load_many(&[target.id]).await.map_err(|e| read_problem(&e))?;
    let row = rows
        .into_iter()
        .find(|row| row.instance.project_id == target.project_id)
        .ok_or_else(|| Problem::not_found("instance", target.id))?;
    let (expected, is) = (target.expected_generation, row.instance.generation);
    if expected != 0 && expected != is {
        return Err(Problem::new(
            ErrorKind::PreconditionFailed,
            "stale_generation",
            format!("instance {} is at generation {is}, not {expected}", row.instance.name),
        )
        .with_hint("read it again, and repeat the change if it still makes sense"));
    }
    Ok(row)
}

fn away(manager: &Manager, host_id: domain::HostId) -> bool {
    manager.inventory().find(host_id).is_some_and(|h| !h.up)
}

/// What the change asks beyond the instance's own state.
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
            let image = manager.image(next.spec.image_id).await?;
            // Its image may be gone by now; what it needed of a size is then unknown, and the disk is made already.
            image.map_or(Ok(()), |i| check_image(i.id, Some(&i), next.project_id, *size))
        }
        Change::Rebuild { image_id } => {
            let image = manager.image(*image_id).await?;
            check_image(*image_id, image.as_ref(), next.project_id, next.spec.size)
        }
        Change::Reboot { .. } | Change::AttachNic { .. } | Change::DetachNic { .. } | Change::Delete => Ok(()),
    }
}

/// Commits. `None`: the row isn't as it was when the change was decided.
async fn commit(
    manager: &Manager,
    context: &CallContext,
    change: &Change,
    row: &InstanceRow,
    next: &Instance,
    now: Timestamp,
) -> Result<Option<Instance>, Problem> {
    let resized = resized(manager, row, next);
    let grown_gib = next.spec.size.disk_gib > row.instance.spec.size.disk_gib;
    let held = match (&resized, next.host_id) {
        (Some(resized), Some(host_id)) => {
            let held = Growth::hold(manager, host_id, row, next.spec.size, resized, now);
            if let Err(Problem { explain: Some(record), .. }) = &held {
                manager.placement.refusals.add(next.project_id, (next.id, &next.name), record);
            }
            Some(held?)
        }
        _ => None,
    };
    if grown_gib && let Some(disk_id) = next.root_disk_id {
        // Quota first, so that its refusal is the answer. If the commit below fails, the reconciler puts the size back.
        let disk = manager.store.disk_find(disk_id).await.map_err(|e| read_problem(&e))?;
        let generation = resize_generation(next.generation, disk.map_or(0, |d| d.generation));
        manager.storage.resize(disk_id, next.id, next.spec.size.disk_gib, generation).await?;
    }
    let (unit, usage) = unit(context, change, row, next, resized.as_ref(), now);
    let shrinks = resized.as_ref().is_some_and(|r| r.less != Size::default());
    let _releasing = next.host_id.filter(|_| shrinks).map(|host_id| manager.releasing(host_id));
    match manager.store.commit(unit).await {
        Ok(()) => {
            after_commit(manager, context, change, row, next, resized.as_ref(), held);
            Ok(Some(next.clone()))
        }
        Err(error) => {
            drop(held);
            if grown_gib {
                manager.signal.wake([next.id], None);
            }
            match error {
                CommitError::Guard(Guard::InstanceGeneration) => {
                    if resized.is_some() {
                        refit(manager, next.id).await;
                    }
                    Ok(None)
                }
                CommitError::Guard(Guard::HostCapacity) => {
                    if let Some(host_id) = next.host_id {
                        manager.refresh_host(host_id).await;
                    }
                    Err(Problem::new(
                        ErrorKind::NoCapacity,
                        "no_capacity",
                        format!("the host of {} has no room for this size, or takes nothing new now", next.name),
                    )
                    .with_hint("choose a smaller size, or create a new instance elsewhere"))
                }
                CommitError::Guard(Guard::ComputeQuota) => {
                    Err(answer::quota_problem(manager, next.project_id, &usage).await)
                }
                CommitError::Constraint(Constraint::InstanceName) => {
                    Err(Problem::already_exists("instance", &next.name))
                }
                CommitError::Guard(_)
                | CommitError::Constraint(_)
                | CommitError::Unavailable(_)
                | CommitError::Internal(_) => Err(answer::commit_problem(&error)),
            }
        }
    }
}

/// The change as one unit, and what it asks of the quota.
fn unit(
    context: &CallContext,
    change: &Change,
    row: &InstanceRow,
    next: &Instance,
    resized: Option<&Resized>,
    now: Timestamp,
) -> (Unit, QuotaAmounts) {
    let old = &row.instance;
    let (before, after) = (QuotaAmounts::of_instances(old.spec.size, 1), QuotaAmounts::of_instances(next.spec.size, 1));
    let deleting = matches!(change, Change::Delete);
    let usage = match (deleting, row.quota_released) {
        (true, false) => before.negated(),
        (true, true) => QuotaAmounts::default(),
        (false, _) => after.minus(&before),
    };
    let claim = resized.map_or(row.claim, |r| r.claim);
    let mut unit = Unit::new().op(store::InstanceDesired {
        id: next.id,
        expected_generation: old.generation,
        expected_state: Some(old.status.state),
        name: next.name.clone(),
        tags: next.tags.clone(),
        spec: next.spec.clone(),
        image_id: next.spec.image_id,
        epoch: next.epoch,
        host_id: next.host_id,
        root_disk_id: next.root_disk_id,
        placement: next.placement.clone(),
        claim_vcpus: claim.vcpus,
        claim_memory_mib: claim.memory_mib,
        claim_disk_gib: claim.disk_gib,
        quota_released: row.quota_released || deleting,
        state: next.status.state,
        step: next.status.step.clone(),
        reason: next.status.reason.clone(),
        deadline_at: next.status.deadline_at,
        at: now,
    });
    if (usage.instances, usage.vcpus, usage.memory_mib) != (0, 0, 0) {
        unit.push(store::ComputeUsageAdd {
            project_id: next.project_id,
            instances: usage.instances,
            vcpus: usage.vcpus,
            memory_mib: usage.memory_mib,
        });
    }
    if let Some(host_id) = next.host_id {
        unit.push(store::HostRevision { host_id });
        if let Some(resized) = resized {
            if resized.more != Size::default() {
                unit.push(super::create::claim(&Placed::of(host_id, resized.more)));
            }
            if resized.less != Size::default() {
                unit.push(release(host_id, resized.less));
            }
        }
    }
    let answer = instance_to_pb(next);
    if deleting {
        answer::remember(&mut unit, context, &pb::DeleteInstanceResponse { instance: Some(answer), plan: None }, now);
    } else {
        answer::remember(&mut unit, context, &pb::ChangeInstanceResponse { instance: Some(answer), plan: None }, now);
    }
    let data = serde_json::json!({
        "from": old.status.state.as_str(), "to": next.status.state.as_str(), "generation": next.generation, "epoch": next.epoch,
    });
    Deed {
        project_id: Some(next.project_id),
        noun: "instance",
        object_id: next.id.to_string(),
        verb: change.verb(),
        message: describe(change, next),
        data,
        now,
        context,
    }
    .record(&mut unit);
    (unit, usage)
}

/// What follows a committed change in memory.
fn after_commit(
    manager: &Manager,
    context: &CallContext,
    change: &Change,
    row: &InstanceRow,
    next: &Instance,
    resized: Option<&Resized>,
    held: Option<Growth<'_>>,
) {
    if let Some(host_id) = next.host_id {
        if let Some(held) = held {
            held.confirm();
        }
        let mut inventory = manager.inventory();
        inventory.raise_revision(host_id);
        if let Some(resized) = resized
            && resized.less != Size::default()
        {
            inventory.release(host_id, resized.less);
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

fn describe(change: &Change, next: &Instance) -> String {
    let name = &next.name;
    match change {
        Change::Describe { .. } => format!("{name} is described anew"),
        Change::SetPower { power: Power::On, .. } => format!("{name} is to be on"),
        Change::SetPower { power: Power::Off, .. } => format!("{name} is to be off"),
        Change::SetPower { power: Power::Paused, .. } => format!("{name} is to be paused"),
        Change::Reboot { hard: true } => format!("{name} is to be reset"),
        Change::Reboot { hard: false } => format!("{name} is to reboot"),
        Change::Resize { size, .. } => {
            format!("{name} is to have {} vCPUs, {} MiB, {} GiB", size.vcpus, size.memory_mib, size.disk_gib)
        }
        Change::Rebuild { image_id } => format!("{name} is to be made anew from image {image_id}"),
        Change::AttachNic { .. } => match next.spec.nics.last() {
            Some(nic) => format!("{name} is to have another network card, {}", nic.mac),
            None => format!("{name} is to have another network card"),
        },
        Change::DetachNic { port_id } => format!("{name} is to lose the network card of port {port_id}"),
        Change::Delete => format!("{name} is to be deleted"),
    }
}

fn nothing_to_do(instance: &Instance) -> pb::Plan {
    pb::Plan { summary: format!("nothing would change: {} is so already", instance.name), ..pb::Plan::default() }
}

async fn rehearse(manager: &Manager, change: &Change, row: &InstanceRow, next: &Instance) -> Result<pb::Plan, Problem> {
    let old = &row.instance;
    let (limit, used) = answer::quota(manager, next.project_id).await?;
    let (before, after) = (QuotaAmounts::of_instances(old.spec.size, 1), QuotaAmounts::of_instances(next.spec.size, 1));
    let usage = match change {
        Change::Delete => before.negated(),
        Change::Describe { .. }
        | Change::SetPower { .. }
        | Change::Reboot { .. }
        | Change::Resize { .. }
        | Change::Rebuild { .. }
        | Change::AttachNic { .. }
        | Change::DetachNic { .. } => after.minus(&before),
    };
    if let Some(problem) = QuotaAmounts::refusal(&limit, &used, &usage) {
        return Err(problem);
    }
    if next.name != old.name {
        let taken = manager.store.instance_find_by_name(next.project_id, next.name.as_str()).await;
        if taken.map_err(|e| read_problem(&e))?.is_some() {
            return Err(Problem::already_exists("instance", &next.name));
        }
    }
    if let (Some(resized), Some(host_id)) = (resized(manager, row, next), next.host_id) {
        // Held and given back: the check is that of the real thing.
        drop(Growth::hold(manager, host_id, row, next.spec.size, &resized, Timestamp::now())?);
    }
    let left = limit.minus(&used).minus(&usage);
    let mut touches = vec![format!("instance {} ({})", old.name, old.id)];
    if matches!(change, Change::Delete | Change::Rebuild { .. })
        && let Some(disk_id) = old.root_disk_id
    {
        touches.push(format!("disk {disk_id}: its content is lost"));
    }
    if let Change::AttachNic { .. } = change {
        touches.extend(next.spec.nics.last().map(describe_nic));
    }
    Ok(pb::Plan {
        summary: describe(change, next),
        placement_json: String::new(),
        instances_left: left.instances,
        vcpus_left: left.vcpus,
        memory_mib_left: left.memory_mib,
        disk_gib_left: left.disk_gib,
        touches,
    })
}
