//! Creation: reserve the disks and ports, find the places, claim and commit everything in one unit. All or none, and a refusal leaves nothing.

use super::{
    answer::{self, Deed},
    place::{NoPlace, Places},
    reserve::{self, Reservations, describe_nic},
};
use crate::{
    cards::{Card, check_count, parse_card},
    lifecycle::check::{check_image, check_spec, check_tags},
    manager::{Manager, read_problem},
    scheduler::{Placed, decide},
    wishes::Wishes,
};
use domain::{
    DiskId, ErrorKind, HostId, InstanceId, Name, Problem, ProjectId, Timestamp,
    explain::PlacementRecord,
    instance::{Instance, InstanceSpec, InstanceState, InstanceStatus, Nic, Seat},
    limits,
    quota::QuotaAmounts,
};
use proto::{
    cluster::v1 as pb,
    convert::{instance_to_pb, parse, parse_optional, spec_from_pb},
};
use service_kit::context::CallContext;
use std::{
    collections::{BTreeMap, HashSet},
    time::Instant,
};
use store::{CommitError, Constraint, Guard, Unit};

/// Times that a create whose host was taken by another looks for a new place.
const ATTEMPTS: usize = 5;

/// A request whose ids and names are well-formed.
pub(super) struct Wanted {
    pub project_id: ProjectId,
    pub instances: Vec<One>,
    pub spec: InstanceSpec,
    tags: BTreeMap<String, String>,
}

pub(super) struct One {
    pub id: InstanceId,
    pub name: Name,
    pub root_disk_id: Option<DiskId>,
    pub cards: Vec<Card>,
}

pub async fn create(
    manager: &Manager,
    context: &CallContext,
    request: pb::CreateInstancesRequest,
) -> Result<pb::CreateInstancesResponse, Problem> {
    let began = Instant::now();
    let wanted = parse_request(request)?;
    let answer = answer::once(manager, context, attempt(manager, context, &wanted)).await;
    metrics::histogram!("iaas_create_seconds").record(began.elapsed().as_secs_f64());
    answer
}

fn parse_request(request: pb::CreateInstancesRequest) -> Result<Wanted, Problem> {
    let mut spec = spec_from_pb(request.spec.ok_or_else(|| Problem::invalid("spec", "is missing"))?)?;
    (spec.deleted, spec.boot_seq, spec.root_seq) = (false, 0, 0);
    // Filled from what is reserved.
    spec.nics.clear();
    let has_disk = spec.size.disk_gib > 0;
    let mut instances = Vec::with_capacity(request.instances.len());
    for new in &request.instances {
        let root_disk_id = parse_optional("root_disk_id", &new.root_disk_id)?;
        instances.push(One {
            id: parse("id", &new.id)?,
            name: parse("name", &new.name)?,
            root_disk_id: if has_disk { Some(root_disk_id.unwrap_or_else(DiskId::new)) } else { None },
            cards: new.nics.iter().map(parse_card).collect::<Result<_, _>>()?,
        });
    }
    let wanted = Wanted {
        project_id: parse("project_id", &request.project_id)?,
        instances,
        spec,
        tags: request.tags.into_iter().collect(),
    };
    let (count, most) = (wanted.instances.len(), limits::CREATE_COUNT as usize);
    if count == 0 || count > most {
        return Err(Problem::invalid("count", format!("must be 1 to {most}")));
    }
    let mut names = HashSet::new();
    if let Some(twice) = wanted.instances.iter().find(|i| !names.insert(&i.name)) {
        return Err(Problem::invalid("name", format!("`{}` is given twice", twice.name)));
    }
    let mut ports = HashSet::new();
    for one in &wanted.instances {
        check_count(one.cards.len())?;
        if let Some(twice) = one.cards.iter().find(|card| !ports.insert(card.port_id)) {
            return Err(Problem::invalid("nics", format!("port {} is given twice", twice.port_id)));
        }
    }
    Ok(wanted)
}

async fn attempt(
    manager: &Manager,
    context: &CallContext,
    wanted: &Wanted,
) -> Result<pb::CreateInstancesResponse, Problem> {
    check_spec(&wanted.spec)?;
    check_tags(&wanted.tags)?;
    let image_id = wanted.spec.image_id;
    check_image(image_id, manager.image(image_id).await?.as_ref(), wanted.project_id, wanted.spec.size)?;
    if context.dry_run {
        return rehearse(manager, context, wanted).await;
    }
    let nics = reserve::reserve(manager, context, wanted).await?;
    match place_and_commit(manager, context, wanted, &nics).await {
        Ok(answer) => Ok(answer),
        Err(Failed { problem, reservations: Reservations::GiveBack }) => {
            reserve::give_back(manager, context, wanted).await;
            Err(problem)
        }
        Err(Failed { problem, reservations: Reservations::LeaveToExpire }) => Err(problem),
    }
}

struct Failed {
    problem: Problem,
    reservations: Reservations,
}

fn for_certain(problem: Problem) -> Failed {
    Failed { problem, reservations: Reservations::GiveBack }
}

async fn place_and_commit(
    manager: &Manager,
    context: &CallContext,
    wanted: &Wanted,
    nics: &[Vec<Nic>],
) -> Result<pb::CreateInstancesResponse, Failed> {
    let ids: Vec<InstanceId> = wanted.instances.iter().map(|i| i.id).collect();
    let mut wishes = Wishes::load(manager, wanted.project_id, &wanted.spec).await.map_err(for_certain)?;
    for _ in 0..ATTEMPTS {
        let now = Timestamp::now();
        let places = match Places::find(manager, &ids, &wishes.request, now) {
            Ok(places) => places,
            Err(refused) => {
                note(manager, wanted, &refused);
                return Err(for_certain(without_place(manager, wanted, refused).await));
            }
        };
        let instances: Vec<(Instance, Placed)> = wanted
            .instances
            .iter()
            .zip(nics)
            .zip(&places.places)
            .map(|((one, nics), (_, placed, record))| {
                (render(manager, wanted, (one, nics), *placed, record.clone(), now), *placed)
            })
            .collect();
        let answer = pb::CreateInstancesResponse {
            instances: instances.iter().map(|(i, _)| instance_to_pb(i)).collect(),
            plan: None,
        };
        let mut unit = unit(context, wanted, &instances, wishes.attached(), &answer, now);
        let at: Vec<(InstanceId, Placed)> = places.places.iter().map(|(id, placed, _)| (*id, *placed)).collect();
        wishes.join(&manager.inventory(), &at, &mut unit);
        let error = match manager.store.commit(unit).await {
            Ok(()) => {
                places.make_firm();
                manager.signal.wake(ids.iter().copied(), Some(context.request_id.as_str().into()));
                return Ok(answer);
            }
            Err(error) => error,
        };
        let hosts: HashSet<HostId> = places.places.iter().map(|(_, p, _)| p.host_id).collect();
        drop(places);
        match error {
            CommitError::Guard(Guard::HostCapacity | Guard::PlacementAnchor)
            | CommitError::Constraint(Constraint::PlacementPlace) => {
                // Memory was behind the rows (another's claim, a cordon, a lost host, another's member of the group). Look again; if memory can't be brought up now
                // because other claims are on their way, look elsewhere.
                metrics::counter!("iaas_placement_conflicts_total").increment(1);
                for host_id in hosts {
                    let refreshed = manager.refresh_host(host_id).await;
                    // A refreshed host's row says nothing of groups.
                    let known = refreshed && matches!(error, CommitError::Guard(Guard::HostCapacity));
                    if !known && !wishes.request.avoid.contains(&host_id) {
                        wishes.request.avoid.push(host_id);
                    }
                }
                if wishes.request.avoid.len() >= manager.inventory().len() {
                    wishes.request.avoid.clear();
                }
            }
            CommitError::Guard(Guard::ComputeQuota) => {
                let asked = asked(wanted);
                return Err(for_certain(answer::quota_problem(manager, wanted.project_id, &asked).await));
            }
            CommitError::Constraint(Constraint::InstanceName) => {
                return Err(for_certain(name_taken(manager, wanted).await));
            }
            CommitError::Constraint(Constraint::ForeignKey("placement_member_group_fk")) => {
                let detail = "a placement group of the request was deleted meanwhile";
                return Err(for_certain(Problem::new(ErrorKind::NotFound, "placement_group_not_found", detail)));
            }
            CommitError::Constraint(Constraint::ForeignKey(_)) => {
                return Err(for_certain(Problem::not_found("project", wanted.project_id)));
            }
            CommitError::Unavailable(_)
            | CommitError::Guard(_)
            | CommitError::Constraint(_)
            | CommitError::Internal(_) => {
                for host_id in hosts {
                    manager.refresh_host(host_id).await;
                }
                let problem = answer::commit_problem(&error);
                return Err(Failed { problem, reservations: Reservations::LeaveToExpire });
            }
        }
    }
    Err(for_certain(
        Problem::new(
            ErrorKind::Unavailable,
            "placement_contended",
            format!("the place was taken by others {ATTEMPTS} times in a row"),
        )
        .with_hint("try again"),
    ))
}

/// All of a request is refused, so whichever of its names is asked about later, this is why.
fn note(manager: &Manager, wanted: &Wanted, refused: &NoPlace) {
    for one in &wanted.instances {
        manager.refusals.note(wanted.project_id, (one.id, &one.name), &refused.record);
    }
}

/// Others give way only to who may have what it asks for.
async fn without_place(manager: &Manager, wanted: &Wanted, refused: NoPlace) -> Problem {
    if refused.preemption.is_none() {
        return refused.problem;
    }
    match answer::quota(manager, wanted.project_id).await {
        Ok((limit, used)) => match QuotaAmounts::refusal(&limit, &used, &asked(wanted)) {
            Some(problem) => problem,
            None => refused.make_room(manager),
        },
        Err(problem) => problem,
    }
}

fn asked(wanted: &Wanted) -> QuotaAmounts {
    let count = u32::try_from(wanted.instances.len()).unwrap_or(u32::MAX);
    QuotaAmounts::of_instances(wanted.spec.size, count)
}

async fn name_taken(manager: &Manager, wanted: &Wanted) -> Problem {
    for one in &wanted.instances {
        match manager.store.instance_find_by_name(wanted.project_id, one.name.as_str()).await {
            Ok(Some(_)) => return Problem::already_exists("instance", &one.name),
            Ok(None) => {}
            Err(error) => return read_problem(&error),
        }
    }
    // Freed between the refusal and the look.
    Problem::already_exists("instance", &wanted.instances[0].name)
}

fn render(
    manager: &Manager,
    wanted: &Wanted,
    (one, nics): (&One, &[Nic]),
    placed: Placed,
    record: PlacementRecord,
    now: Timestamp,
) -> Instance {
    Instance {
        id: one.id,
        project_id: wanted.project_id,
        name: one.name.clone(),
        tags: wanted.tags.clone(),
        generation: 1,
        epoch: 1,
        host_id: Some(placed.host_id),
        root_disk_id: one.root_disk_id,
        spec: InstanceSpec { nics: nics.to_vec(), ..wanted.spec.clone() },
        status: InstanceStatus {
            state: InstanceState::Pending,
            step: "waiting for its host".to_owned(),
            reason: String::new(),
            observed_generation: 0,
            deadline_at: manager.config.deadlines.of(InstanceState::Pending, manager.starts(placed.host_id), now),
            started_at: None,
            guest_up_at: None,
            crash_count: 0,
        },
        placement: Some(record),
        seat: seat(manager, placed),
        created_at: now,
        updated_at: now,
    }
}

fn seat(manager: &Manager, placed: Placed) -> Seat {
    let inventory = manager.inventory();
    let cpu = inventory.find(placed.host_id).and_then(|host| host.guest_cpu.as_deref());
    Seat { cpu_baseline: cpu.map(|cpu| cpu.id.clone()) }
}

fn unit(
    context: &CallContext,
    wanted: &Wanted,
    instances: &[(Instance, Placed)],
    attached: bool,
    answer: &pb::CreateInstancesResponse,
    now: Timestamp,
) -> Unit {
    let mut unit = Unit::new();
    let asked = asked(wanted);
    unit.push(store::ComputeUsageAdd {
        project_id: wanted.project_id,
        instances: asked.instances,
        vcpus: asked.vcpus,
        memory_mib: asked.memory_mib,
    });
    for (instance, placed) in instances {
        unit.push(claim(placed));
        unit.push(insert(instance, placed, attached));
        let data = serde_json::json!({ "to": InstanceState::Pending.as_str(), "generation": 1, "epoch": 1 });
        Deed {
            project_id: Some(wanted.project_id),
            noun: "instance",
            object_id: instance.id.to_string(),
            verb: "create",
            message: format!("{} was accepted and placed", instance.name),
            data,
            now,
            context,
        }
        .record(&mut unit);
    }
    answer::remember(&mut unit, context, answer, now);
    unit
}

pub fn claim(placed: &Placed) -> store::HostClaim {
    store::HostClaim {
        host_id: placed.host_id,
        generation: placed.generation,
        vcpus: placed.claim.vcpus,
        memory_mib: placed.claim.memory_mib,
        disk_gib: placed.claim.disk_gib,
    }
}

fn insert(instance: &Instance, placed: &Placed, attached: bool) -> store::InstanceInsert {
    let Instance { id, project_id, name, tags, generation, epoch, host_id, root_disk_id, spec, status, .. } =
        instance.clone();
    store::InstanceInsert {
        id,
        project_id,
        name,
        tags,
        generation,
        epoch,
        host_id,
        root_disk_id,
        image_id: spec.image_id,
        spec,
        placement: instance.placement.clone(),
        claim_vcpus: placed.claim.vcpus,
        claim_memory_mib: placed.claim.memory_mib,
        claim_disk_gib: placed.claim.disk_gib,
        state: status.state,
        step: status.step,
        reason: status.reason,
        deadline_at: status.deadline_at,
        attached,
        cpu_baseline: instance.seat.cpu_baseline.clone(),
        created_at: instance.created_at,
    }
}

/// A dry run: all checks, the plan, no change.
async fn rehearse(
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
    let asked = asked(wanted);
    if let Some(problem) = QuotaAmounts::refusal(&limit, &used, &asked) {
        return Err(problem);
    }
    let nics = reserve::rehearse(manager, context, wanted).await?;
    let request = Wishes::load(manager, wanted.project_id, &wanted.spec).await?.request;
    let now = Timestamp::now();
    // The first one's record. The others need the first one's claim to be decided, which is why they are held for a moment.
    let record = match wanted.instances.len() {
        1 => {
            let decision = decide(&mut manager.inventory(), &request, now);
            if decision.placed.is_none() {
                return Err(super::place::no_capacity(&decision.record));
            }
            decision.record
        }
        _ => {
            let ids: Vec<InstanceId> = wanted.instances.iter().map(|i| i.id).collect();
            Places::find(manager, &ids, &request, now).map_err(|refused| refused.problem)?.places[0].2.clone()
        }
    };
    let left = limit.minus(&used).minus(&asked);
    Ok(pb::CreateInstancesResponse {
        instances: vec![],
        plan: Some(pb::Plan {
            summary: format!("{} instance(s) would be created: {}", wanted.instances.len(), record.summary),
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
