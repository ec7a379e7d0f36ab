//! The calls about instances: parsed into domain types, and answered.

use super::execute_once;
use crate::{
    instance::{
        change, create,
        request::{ChangeTarget, Changed, CreateRequest, Created, InstanceRequest, NotCreated, Plan},
        transition::Change,
    },
    manager::Manager,
    outcome::Outcome,
};
use domain::{DiskId, Problem, explain::PlacementRecord, placement::Fill};
use proto::{
    cluster::v1::{self as pb, change_instance_request::Change as Requested},
    convert::{
        instance_to_pb, nic_request_from_pb, on_crash_from_pb, parse, parse_optional, power_from_pb, size_from_pb,
        spec_from_pb,
    },
};
use service_kit::context::CallContext;
use std::time::Instant;

pub async fn create(
    manager: &Manager,
    context: &CallContext,
    request: pb::CreateInstancesRequest,
) -> Result<pb::CreateInstancesResponse, Problem> {
    let began = Instant::now();
    let request = parse_create(request)?;
    let answer = execute_once(manager, context, create::create(manager, context, request)).await;
    metrics::histogram!("iaas_create_seconds").record(began.elapsed().as_secs_f64());
    answer
}

pub async fn change(
    manager: &Manager,
    context: &CallContext,
    request: pb::ChangeInstanceRequest,
) -> Result<pb::ChangeInstanceResponse, Problem> {
    let target = parse_target(&request.project_id, &request.instance_id, request.expected_generation)?;
    let change = parse_change(request.change)?;
    execute_once(manager, context, change::change(manager, context, target, &change)).await
}

pub async fn delete(
    manager: &Manager,
    context: &CallContext,
    request: pb::DeleteInstanceRequest,
) -> Result<pb::ChangeInstanceResponse, Problem> {
    let target = parse_target(&request.project_id, &request.instance_id, request.expected_generation)?;
    execute_once(manager, context, change::change(manager, context, target, &Change::Delete)).await
}

fn parse_create(request: pb::CreateInstancesRequest) -> Result<CreateRequest, Problem> {
    let mut spec = spec_from_pb(request.spec.ok_or_else(|| Problem::invalid("spec", "is missing"))?)?;
    (spec.deleted, spec.boot_seq, spec.root_seq) = (false, 0, 0);
    spec.nics.clear();
    let fill = match pb::Fill::try_from(request.fill) {
        Ok(pb::Fill::AllOrNothing) => Fill::AllOrNothing,
        Ok(pb::Fill::AsManyAsFit) => Fill::AsManyAsFit,
        Err(_) => return Err(Problem::invalid("fill", "must be all_or_nothing or as_many_as_fit")),
    };
    let has_disk = spec.size.disk_gib > 0;
    let mut instances = Vec::with_capacity(request.instances.len());
    for new in &request.instances {
        let root_disk_id = parse_optional("root_disk_id", &new.root_disk_id)?;
        instances.push(InstanceRequest {
            id: parse("id", &new.id)?,
            name: parse("name", &new.name)?,
            root_disk_id: has_disk.then(|| root_disk_id.unwrap_or_else(DiskId::new)),
            nics: new.nics.iter().map(nic_request_from_pb).collect::<Result<_, _>>()?,
        });
    }
    let project_id = parse("project_id", &request.project_id)?;
    let request = CreateRequest { project_id, instances, spec, tags: request.tags.into_iter().collect(), fill };
    request.check()?;
    Ok(request)
}

fn parse_target(project_id: &str, id: &str, expected_generation: i64) -> Result<ChangeTarget, Problem> {
    Ok(ChangeTarget {
        project_id: parse("project_id", project_id)?,
        id: parse("instance_id", id)?,
        expected_generation: (expected_generation != 0).then_some(expected_generation),
    })
}

fn parse_change(change: Option<Requested>) -> Result<Change, Problem> {
    Ok(match change.ok_or_else(|| Problem::invalid("change", "is missing"))? {
        Requested::Describe(describe) => Change::Describe {
            name: describe.name.as_deref().map(|n| parse("name", n)).transpose()?,
            tags: describe.replace_tags.then(|| describe.tags.into_iter().collect()),
            on_crash: describe.on_crash.map(on_crash_from_pb).transpose()?,
        },
        Requested::SetPower(set) => {
            Change::SetPower { power: power_from_pb(set.power)?, stop_timeout_secs: set.stop_timeout_secs }
        }
        Requested::Reboot(reboot) => Change::Reboot { hard: reboot.hard },
        Requested::Resize(resize) => Change::Resize {
            size: size_from_pb(resize.size.ok_or_else(|| Problem::invalid("size", "is missing"))?),
            flavor: resize.flavor,
        },
        Requested::AttachNic(nic) => Change::AttachNic { request: nic_request_from_pb(&nic)? },
        Requested::DetachNic(detach) => Change::DetachNic { port_id: parse("port_id", &detach.port_id)? },
        Requested::Rebuild(rebuild) => Change::Rebuild { image_id: parse("image_id", &rebuild.image_id)? },
    })
}

impl Outcome for Created {
    type Answer = pb::CreateInstancesResponse;

    fn answer(&self) -> Self::Answer {
        let not_made = |not: &NotCreated| pb::NotMade {
            names: not.names.iter().map(ToString::to_string).collect(),
            placement_json: record_json(&not.why),
        };
        pb::CreateInstancesResponse {
            instances: self.instances.iter().map(instance_to_pb).collect(),
            plan: self.plan.as_ref().map(plan_to_pb),
            not_made: self.not_created.as_ref().map(not_made),
        }
    }
}

impl Outcome for Changed {
    type Answer = pb::ChangeInstanceResponse;

    fn answer(&self) -> Self::Answer {
        let instance = Some(instance_to_pb(&self.instance));
        pb::ChangeInstanceResponse { instance, plan: self.plan.as_ref().map(plan_to_pb) }
    }
}

fn plan_to_pb(plan: &Plan) -> pb::Plan {
    pb::Plan {
        summary: plan.summary.clone(),
        placement_json: plan.placement.as_ref().map(record_json).unwrap_or_default(),
        instances_left: plan.quota_left.instances,
        vcpus_left: plan.quota_left.vcpus,
        memory_mib_left: plan.quota_left.memory_mib,
        disk_gib_left: plan.quota_left.disk_gib,
        touches: plan.affected.clone(),
    }
}

/// A record is plain data with text keys, which is always JSON.
fn record_json(record: &PlacementRecord) -> String {
    serde_json::to_string(record).unwrap_or_default()
}
