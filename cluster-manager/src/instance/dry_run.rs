//! Dry runs: all checks of the real thing and the plan of what it would do, with nothing taken.

use super::{
    place::{TentativePlacement, no_capacity},
    request::{CreateRequest, Created, LeftOut, Plan},
    reserve::{self, describe_nic},
    resize::{ResizeClaim, claim_change},
    transition::Change,
};
use crate::{manager::Manager, placement::constraints::ResolvedConstraints, scheduler::decide};
use domain::{Name, Problem, ProjectId, Timestamp, instance::Instance, placement::Fill, quota::QuotaAmounts};
use operation::{ProjectQuota, read_problem};
use service_kit::context::CallContext;
use store::InstanceRow;

/// What a create would do.
pub async fn create(
    manager: &Manager,
    context: &CallContext,
    request: &CreateRequest,
    left_out: &LeftOut,
) -> Result<Created, Problem> {
    for instance in &request.instances {
        check_name(manager, request.project_id, &instance.name).await?;
    }
    let count = request.instances.len();
    let left = quota_left(manager, request.project_id, &request.quota(count)).await?;
    let nics = reserve::dry_run(manager, context, request).await?;
    let placement_request = ResolvedConstraints::load(&manager.store, request.project_id, &request.spec).await?.request;
    let now = Timestamp::now();
    // The record is the first one's. The others need the first one's claim to be decided, which is why they are held for a moment.
    let record = if count == 1 {
        let decision = decide(&mut manager.inventory(), &placement_request, now);
        if decision.placed.is_none() {
            return Err(no_capacity(&decision.record));
        }
        decision.record
    } else {
        let found = TentativePlacement::find(
            &manager.placement,
            None,
            &request.ids(),
            &placement_request,
            Fill::AllOrNothing,
            now,
        );
        found.map_err(|failure| failure.problem)?.0.places[0].2.clone()
    };
    let others = left_out.why.as_ref().map_or_else(String::new, |why| format!("; not the others: {}", why.summary));
    let names = request.instances.iter().map(|i| format!("instance {} ({})", i.name, i.id));
    let plan = Plan {
        summary: format!("{count} instance(s) would be created: {}{others}", record.summary),
        placement: Some(record),
        quota_left: left,
        affected: names.chain(nics.iter().map(describe_nic)).collect(),
    };
    let not_created = left_out.why.clone().map(|why| request.not_created(left_out, count, why));
    Ok(Created { instances: vec![], not_created, plan: Some(plan) })
}

/// What a change would do that makes `next` of the row.
pub async fn change(manager: &Manager, change: &Change, row: &InstanceRow, next: &Instance) -> Result<Plan, Problem> {
    let old = &row.instance;
    let (before, after) = (QuotaAmounts::of_instances(old.spec.size, 1), QuotaAmounts::of_instances(next.spec.size, 1));
    let deleting = matches!(change, Change::Delete);
    let quota = if deleting { before.negated() } else { after.minus(&before) };
    let left = quota_left(manager, next.project_id, &quota).await?;
    if next.name != old.name {
        check_name(manager, next.project_id, &next.name).await?;
    }
    if let Some(claim) = claim_change(manager, row, next) {
        // It is claimed and released: the check is that of the real thing.
        drop(ResizeClaim::take(manager, row, next.spec.size_on_host(), &claim, Timestamp::now())?);
    }
    let mut affected = vec![format!("instance {} ({})", old.name, old.id)];
    if deleting || matches!(change, Change::Rebuild { .. }) {
        affected.extend(old.disks().iter().map(|disk| format!("disk {}: its content is lost", disk.id)));
    }
    if let Change::AttachNic { .. } = change {
        affected.extend(next.spec.nics.last().map(describe_nic));
    }
    Ok(Plan { summary: change.describe(next), placement: None, quota_left: left, affected })
}

/// The plan of a change that changes nothing.
pub fn no_change(instance: &Instance) -> Plan {
    Plan { summary: format!("nothing would change: {} is so already", instance.name), ..Plan::default() }
}

async fn check_name(manager: &Manager, project_id: ProjectId, name: &Name) -> Result<(), Problem> {
    let taken = manager.store.instance_find_by_name(project_id, name.as_str()).await.map_err(read_problem)?;
    taken.map_or(Ok(()), |_| Err(Problem::already_exists("instance", name)))
}

/// What is left of the project's quota when this is taken; refuses what it doesn't leave.
async fn quota_left(manager: &Manager, project_id: ProjectId, quota: &QuotaAmounts) -> Result<QuotaAmounts, Problem> {
    let project = ProjectQuota::fetch(&manager.store, project_id).await?;
    project.check(quota)?;
    Ok(project.limit.minus(&project.used).minus(quota))
}
