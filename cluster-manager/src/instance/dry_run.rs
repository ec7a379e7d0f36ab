//! What a create would do: all its checks, nothing taken.

use super::{
    create::{Wanted, asked, not_made},
    place::{Places, no_capacity},
    reserve::{self, describe_nic},
};
use crate::{
    answer,
    manager::{Manager, read_problem},
    placement::constraints::PlacementConstraints,
    scheduler::{Fill, decide},
};
use domain::{InstanceId, Problem, Timestamp, quota::QuotaAmounts};
use proto::cluster::v1 as pb;
use service_kit::context::CallContext;

/// A dry run: all checks, the plan, no change.
pub(super) async fn rehearse(
    manager: &Manager,
    context: &CallContext,
    wanted: &Wanted,
) -> Result<pb::CreateInstancesResponse, Problem> {
    for one in &wanted.instances {
        let taken = manager.store.instance_find_by_name(wanted.project_id, one.name.as_str()).await;
        if taken.map_err(|e| read_problem(&e))?.is_some() {
            return Err(Problem::already_exists("instance", &one.name));
        }
    }
    let (limit, used) = answer::quota(manager, wanted.project_id).await?;
    let asked = asked(wanted, wanted.instances.len());
    if let Some(problem) = QuotaAmounts::refusal(&limit, &used, &asked) {
        return Err(problem);
    }
    let nics = reserve::rehearse(manager, context, wanted).await?;
    let request = PlacementConstraints::load(&manager.store, wanted.project_id, &wanted.spec).await?.request;
    let now = Timestamp::now();
    // The first one's record. The others need the first one's claim to be decided, which is why they are held for a moment.
    let record = match wanted.instances.len() {
        1 => {
            let decision = decide(&mut manager.inventory(), &request, now);
            if decision.placed.is_none() {
                return Err(no_capacity(&decision.record));
            }
            decision.record
        }
        _ => {
            let ids: Vec<InstanceId> = wanted.instances.iter().map(|i| i.id).collect();
            let found = Places::find(manager, None, &ids, &request, Fill::AllOrNothing, now);
            found.map_err(|refused| refused.problem)?.0.places[0].2.clone()
        }
    };
    let left = limit.minus(&used).minus(&asked);
    let others =
        wanted.left_out.why.as_ref().map_or_else(String::new, |why| format!("; not the others: {}", why.summary));
    Ok(pb::CreateInstancesResponse {
        instances: vec![],
        not_made: wanted.left_out.why.as_ref().map(|why| not_made(wanted, wanted.instances.len(), why)),
        plan: Some(pb::Plan {
            summary: format!("{} instance(s) would be created: {}{others}", wanted.instances.len(), record.summary),
            placement_json: serde_json::to_string(&record).unwrap_or_default(),
            instances_left: left.instances,
            vcpus_left: left.vcpus,
            memory_mib_left: left.memory_mib,
            disk_gib_left: left.disk_gib,
            touches: wanted
                .instances
                .iter()
                .map(|i| format!("instance {} ({})", i.name, i.id))
                .chain(nics.iter().map(describe_nic))
                .collect(),
        }),
    })
}
