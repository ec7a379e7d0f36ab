//! Creation: reserve the disks and ports, find the places, claim and commit everything in one unit. A refusal leaves nothing.
//!
//! Of several, all are made or none; or, where that was asked for, as many as fit. Then a first look leaves out what has no place, so that
//! nothing is reserved for it and no quota asked; what lost its place by the commit gives its reservations back.

use super::{
    dry_run::rehearse,
    nic::{Card, parse_card},
    place::{NoPlace, Places},
    reserve::{self, Reservations},
    validate::check_image,
};
use crate::{
    answer::{self, Deed},
    manager::{Manager, read_problem},
    placement::{
        Placement,
        capacity_hold::{HoldOwner, PreemptionStarted},
        constraints::{PlacementConstraints, restore_placed_instances},
    },
    scheduler::{Fill, Placed, Request},
};
use domain::{
    DiskId, ErrorKind, HostId, InstanceId, Name, Problem, ProjectId, Timestamp,
    explain::PlacementRecord,
    instance::{Binding, Instance, InstanceSpec, InstanceState, InstanceStatus, Nic},
    limits,
    quota::QuotaAmounts,
    validate,
};
use proto::{
    cluster::v1 as pb,
    convert::{instance_to_pb, parse, parse_optional, spec_from_pb},
};
use service_kit::context::CallContext;
use std::{
    collections::{BTreeMap, HashSet},
    time::{Duration, Instant},
};
use store::{CommitError, Constraint, Guard, Unit};

/// Times that a create whose host was taken by another looks for a new place.
const ATTEMPTS: usize = 5;
/// Claims that may fail are waited for before a create is refused because of them: those of repeated creates do.
const PAUSES_MS: [u64; 6] = [10, 20, 40, 80, 160, 320];

/// A request whose ids and names are well-formed.
pub(super) struct Wanted {
    pub project_id: ProjectId,
    pub instances: Vec<One>,
    pub spec: InstanceSpec,
    tags: BTreeMap<String, String>,
    fill: Fill,
    pub left_out: LeftOut,
}

impl Wanted {
    /// Whom capacity may be held for: a request that wants all of its instances.
    fn hold_owner(&self) -> Option<HoldOwner<'_>> {
        let first = self.instances.first().filter(|_| self.fill == Fill::AllOrNothing)?;
        Some(HoldOwner { project_id: self.project_id, name: &first.name })
    }
}

/// Asked for, but without a place at the first look.
#[derive(Default)]
pub(super) struct LeftOut {
    pub instances: Vec<One>,
    pub why: Option<PlacementRecord>,
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
    let answer = answer::once(manager, context, attempt(manager, context, wanted)).await;
    metrics::histogram!("iaas_create_seconds").record(began.elapsed().as_secs_f64());
    answer
}

fn parse_request(request: pb::CreateInstancesRequest) -> Result<Wanted, Problem> {
    let mut spec = spec_from_pb(request.spec.ok_or_else(|| Problem::invalid("spec", "is missing"))?)?;
    (spec.deleted, spec.boot_seq, spec.root_seq) = (false, 0, 0);
    // Filled from what is reserved.
    spec.nics.clear();
    let fill = match pb::Fill::try_from(request.fill) {
        Ok(pb::Fill::AllOrNothing) => Fill::AllOrNothing,
        Ok(pb::Fill::AsManyAsFit) => Fill::AsManyAsFit,
        Err(_) => return Err(Problem::invalid("fill", "is none of all_or_nothing and as_many_as_fit")),
    };
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
        fill,
        left_out: LeftOut::default(),
    };
    let (count, bounds) = (wanted.instances.len(), 1..=limits::CREATE_COUNT as usize);
    validate::check(|v| v.within("count", count, &bounds))?;
    let mut names = HashSet::new();
    if let Some(twice) = wanted.instances.iter().find(|i| !names.insert(&i.name)) {
        return Err(Problem::invalid("name", format!("`{}` is given twice", twice.name)));
    }
    let mut ports = HashSet::new();
    for one in &wanted.instances {
        validate::check(|v| validate::instance::nic_count(v, "nics", one.cards.len()))?;
        if let Some(twice) = one.cards.iter().find(|card| !ports.insert(card.port_id)) {
            return Err(Problem::invalid("nics", format!("port {} is given twice", twice.port_id)));
        }
    }
    Ok(wanted)
}

async fn attempt(
    manager: &Manager,
    context: &CallContext,
    mut wanted: Wanted,
) -> Result<pb::CreateInstancesResponse, Problem> {
    validate::instance::spec(&wanted.spec, &wanted.tags)?;
    let image_id = wanted.spec.image_id;
    check_image(image_id, manager.image(image_id).await?.as_ref(), wanted.project_id, wanted.spec.size)?;
    if wanted.fill == Fill::AsManyAsFit
        && let Some((request, refused)) = leave_out(manager, &mut wanted).await?
    {
        return Err(if context.dry_run {
            refused.problem
        } else {
            without_place(manager, &wanted, &request, refused).await
        });
    }
    if context.dry_run {
        return rehearse(manager, context, &wanted).await;
    }
    let nics = reserve::reserve(manager, context, &wanted).await?;
    match place_and_commit(manager, context, &wanted, &nics).await {
        Ok(answer) => Ok(answer),
        Err(Failed { problem, reservations: Reservations::GiveBack }) => {
            reserve::give_back(manager, context, &wanted, &wanted.instances).await;
            Err(problem)
        }
        Err(Failed { problem, reservations: Reservations::LeaveToExpire }) => Err(problem),
    }
}

/// The first look of as many as fit. A refusal: none does.
async fn leave_out(manager: &Manager, wanted: &mut Wanted) -> Result<Option<(Request, NoPlace)>, Problem> {
    let ids: Vec<InstanceId> = wanted.instances.iter().map(|i| i.id).collect();
    let constraints = PlacementConstraints::load(&manager.store, wanted.project_id, &wanted.spec).await?;
    let looked = Places::find(manager, None, &ids, &constraints.request, wanted.fill, Timestamp::now());
    let (found, refused) = match looked {
        Ok((places, refused)) => (places.places.len(), refused),
        Err(refused) => return Ok(Some((constraints.request, refused))),
    };
    wanted.left_out.instances = wanted.instances.split_off(found);
    wanted.left_out.why = refused.map(|refused| refused.record);
    Ok(None)
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
    let mut constraints =
        PlacementConstraints::load(&manager.store, wanted.project_id, &wanted.spec).await.map_err(for_certain)?;
    let (mut attempts, mut pauses, mut unsure) = (0, PAUSES_MS.iter(), Vec::new());
    while attempts < ATTEMPTS {
        let now = Timestamp::now();
        let (places, refused) =
            match Places::find(manager, wanted.hold_owner(), &ids, &constraints.request, wanted.fill, now) {
                Ok(found) => found,
                Err(refused) => {
                    // What was avoided only because its figures weren't known may have room by now.
                    let avoided = constraints.request.avoid.len();
                    constraints.request.avoid.retain(|host_id| !unsure.contains(host_id));
                    if constraints.request.avoid.len() < avoided {
                        attempts += 1;
                        continue;
                    }
                    if refused.may_yet_fit
                        && let Some(pause) = pauses.next()
                    {
                        tokio::time::sleep(Duration::from_millis(*pause)).await;
                        continue;
                    }
                    return Err(for_certain(without_place(manager, wanted, &constraints.request, refused).await));
                }
            };
        let made = places.places.len();
        let why = refused.as_ref().map(|refused| &refused.record).or(wanted.left_out.why.as_ref());
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
            not_made: why.map(|why| not_made(wanted, made, why)),
        };
        let mut unit = unit(context, wanted, &instances, constraints.request.tracked(), &answer, now);
        let at: Vec<(InstanceId, Placed)> = places.places.iter().map(|(id, placed, _)| (*id, *placed)).collect();
        constraints.join_groups(&manager.inventory(), &at, &mut unit);
        let error = match manager.store.commit(unit).await {
            Ok(()) => {
                places.confirm();
                manager.signal.wake(ids.iter().copied().take(made), Some(context.request_id.as_str().into()));
                if let Some(why) = why {
                    note(manager, wanted, made, why);
                }
                reserve::give_back(manager, context, wanted, &wanted.instances[made..]).await;
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
                attempts += 1;
                let by_capacity = matches!(error, CommitError::Guard(Guard::HostCapacity));
                for host_id in hosts {
                    let refreshed = manager.refresh_host(host_id).await;
                    // A refreshed host's row says nothing of groups.
                    let known = refreshed && by_capacity;
                    if !known && !constraints.request.avoid.contains(&host_id) {
                        constraints.request.avoid.push(host_id);
                    }
                    if !known && by_capacity {
                        unsure.push(host_id);
                    }
                }
                if constraints.request.avoid.len() >= manager.inventory().len() {
                    constraints.request.avoid.clear();
                }
            }
            CommitError::Guard(Guard::ComputeQuota) => {
                let asked = asked(wanted, made);
                return Err(for_certain(answer::quota_problem(manager, wanted.project_id, &asked).await));
            }
            CommitError::Constraint(Constraint::InstanceName) => {
                restore_placed_instances(&manager.store, &manager.placement, &ids).await;
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
                restore_placed_instances(&manager.store, &manager.placement, &ids).await;
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

/// Those behind the first `made`.
fn rest(wanted: &Wanted, made: usize) -> impl Iterator<Item = &One> {
    wanted.instances.iter().skip(made).chain(&wanted.left_out.instances)
}

pub(super) fn not_made(wanted: &Wanted, made: usize, why: &PlacementRecord) -> pb::NotMade {
    pb::NotMade {
        names: rest(wanted, made).map(|one| one.name.to_string()).collect(),
        placement_json: serde_json::to_string(why).unwrap_or_default(),
    }
}

/// Whichever of the names is asked about later, this is why.
fn note(manager: &Manager, wanted: &Wanted, made: usize, why: &PlacementRecord) {
    for one in rest(wanted, made) {
        manager.placement.refusals.add(wanted.project_id, (one.id, &one.name), why);
    }
}

/// None was made. Others give way only to who may have what it asks for.
async fn without_place(manager: &Manager, wanted: &Wanted, request: &Request, refused: NoPlace) -> Problem {
    note(manager, wanted, 0, &refused.record);
    let NoPlace { mut problem, preemption: Some(_), .. } = refused else { return refused.problem };
    let Some(first) = wanted.instances.first() else { return problem };
    let owner = HoldOwner { project_id: wanted.project_id, name: &first.name };
    // As many as fit wait for nothing: room is made for the first, and theirs is what fits then.
    let (ids, held): (Vec<InstanceId>, bool) = match wanted.fill {
        Fill::AllOrNothing => (wanted.instances.iter().map(|one| one.id).collect(), true),
        Fill::AsManyAsFit => (vec![first.id], false),
    };
    let asked = asked(wanted, ids.len());
    let (limit, used) = match answer::quota(manager, wanted.project_id).await {
        Ok(read) => read,
        Err(unread) => return unread,
    };
    let promised = used.plus(&manager.placement.lock().holds.quota_of_others(owner));
    if let Some(over) = QuotaAmounts::refusal(&limit, &promised, &asked) {
        return over;
    }
    let period = manager.config.preemption_hold().filter(|_| held);
    let started = {
        let Placement { inventory, holds } = &mut *manager.placement.lock();
        holds.preempt(inventory, owner, (&ids, request), period.map(|period| (asked, period)))
    };
    if let Some(PreemptionStarted { preempted, held }) = started {
        manager.placement.preemptions.add(&preempted);
        let secs = manager.config.preemption_notice_secs.max(1);
        let held = if held { " and is held for this request" } else { "" };
        problem.hint = Some(match preempted.len() {
            0 => format!("capacity is still being freed{held}; try again in {secs} s"),
            n => format!(
                "capacity is being freed{held}: {n} preemptible instance(s) will be stopped within {secs} s; try again then"
            ),
        });
        problem.retry_after_secs = Some(secs);
    }
    problem
}

pub(super) fn asked(wanted: &Wanted, count: usize) -> QuotaAmounts {
    QuotaAmounts::of_instances(wanted.spec.size, u32::try_from(count).unwrap_or(u32::MAX))
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
        binding: binding(manager, placed),
        created_at: now,
        updated_at: now,
    }
}

fn binding(manager: &Manager, placed: Placed) -> Binding {
    let inventory = manager.inventory();
    let Some(host) = inventory.find(placed.host_id) else { return Binding::default() };
    let node = placed.numa_node.and_then(|at| host.numa.get(usize::from(at)));
    Binding { cpu_baseline: host.guest_cpu.as_ref().map(|cpu| cpu.id.clone()), numa_node: node.map(|node| node.id) }
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
    let asked = asked(wanted, instances.len());
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
        cpu_baseline: instance.binding.cpu_baseline.clone(),
        numa_node: instance.binding.numa_node,
        created_at: instance.created_at,
    }
}
