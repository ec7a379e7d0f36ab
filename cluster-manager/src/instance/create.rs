//! Creation: reserve the disks and ports, find the places, render the instances, and commit everything in one unit. A refusal leaves nothing.
//!
//! Of several instances all are created or none; or, where that was requested, as many as fit. Then a first search leaves out those that
//! have no place, so that nothing is reserved for them and no quota is taken; for those that lose their place by the commit the
//! reservations are released.
//!
//! A commit may meet what memory doesn't know: another manager's claim, a cordon, a member of a group. [`Search::resolve`] is the one place
//! that says what each refusal of the store means for the create: another attempt, an answer, or an unknown outcome.

use super::{
    claim::take_claim,
    dry_run,
    place::{PlacementFailure, TentativePlacement},
    request::{CreateRequest, Created, InstanceRequest, LeftOut},
    reserve,
    validate::check_image,
};
use crate::{
    manager::Manager,
    outcome::store_outcome,
    placement::{
        Placement,
        capacity_hold::{HoldOwner, PreemptionStarted},
        constraints::{ResolvedConstraints, restore_placed_instances},
    },
    scheduler::{Placed, Request},
};
use domain::{
    ErrorKind, HostId, InstanceId, Problem, Timestamp,
    explain::PlacementRecord,
    instance::{Binding, Instance, InstanceSpec, InstanceState, InstanceStatus, Nic},
    placement::Fill,
    validate,
};
use operation::{Activity, ProjectQuota, commit_problem, quota_refusal, read_problem};
use service_kit::context::CallContext;
use std::{collections::HashSet, time::Duration};
use store::{CommitError, Constraint, Guard, Unit};

/// How often a create whose host was taken by another looks for a new place.
const ATTEMPTS: usize = 5;
/// Claims that may fail are waited for before a create is refused because of them: those of repeated creates do.
const PAUSES_MS: [u64; 6] = [10, 20, 40, 80, 160, 320];

pub async fn create(manager: &Manager, context: &CallContext, mut request: CreateRequest) -> Result<Created, Problem> {
    validate::instance::spec(&request.spec, &request.tags)?;
    let image_id = request.spec.image_id;
    check_image(image_id, manager.clients.image(image_id).await?.as_ref(), request.project_id, request.spec.size)?;
    let left_out = match request.fill {
        Fill::AllOrNothing => LeftOut::default(),
        Fill::AsManyAsFit => leave_out(manager, context, &mut request).await?,
    };
    if context.dry_run {
        return dry_run::create(manager, context, &request, &left_out).await;
    }
    let nics = reserve::reserve(manager, context, &request).await?;
    let failure = match place_and_commit(manager, context, &request, &left_out, &nics).await {
        Ok(created) => return Ok(created),
        Err(failure) => failure,
    };
    if failure.nothing_committed {
        reserve::release(manager, context, &request, &request.instances).await;
    }
    Err(failure.problem)
}

/// Takes those out of the request that have no place at the first search. Refuses when none has.
async fn leave_out(manager: &Manager, context: &CallContext, request: &mut CreateRequest) -> Result<LeftOut, Problem> {
    let constraints = ResolvedConstraints::load(&manager.store, request.project_id, &request.spec).await?;
    let (ids, now) = (request.ids(), Timestamp::now());
    match TentativePlacement::find(&manager.placement, None, &ids, &constraints.request, request.fill, now) {
        Ok((placement, failure)) => {
            let instances = request.instances.split_off(placement.places.len());
            Ok(LeftOut { instances, why: failure.map(|failure| failure.record) })
        }
        Err(failure) if context.dry_run => Err(failure.problem),
        Err(failure) => Err(refuse(manager, request, &LeftOut::default(), &constraints.request, failure).await),
    }
}

struct CreateFailure {
    problem: Problem,
    /// Otherwise it may have been committed, now or by an earlier attempt, and what isn't confirmed is left to expire.
    nothing_committed: bool,
}

fn refused(problem: Problem) -> CreateFailure {
    CreateFailure { problem, nothing_committed: true }
}

/// What a refusal of the store means for the create.
enum Conflict {
    /// Memory was behind the rows: another attempt may find another place.
    Retry,
    /// Nothing was committed, and no attempt would help.
    Refused(Problem),
    /// It may have been committed.
    Unknown(Problem),
}

async fn place_and_commit(
    manager: &Manager,
    context: &CallContext,
    request: &CreateRequest,
    left_out: &LeftOut,
    nics: &[Vec<Nic>],
) -> Result<Created, CreateFailure> {
    let mut search = Search::begin(manager, request).await.map_err(refused)?;
    loop {
        let (placement, failure) = search.find_places(left_out).await.map_err(refused)?;
        let why = failure.map(|failure| failure.record).or_else(|| left_out.why.clone());
        let (created, unit) = render(&search, context, left_out, nics, &placement, why);
        let error = match manager.store.commit(unit).await {
            Ok(()) => {
                placement.confirm();
                after_commit(manager, context, request, left_out, &created).await;
                return Ok(created);
            }
            Err(error) => error,
        };
        let hosts: HashSet<HostId> = placement.places.iter().map(|(_, placed, _)| placed.host_id).collect();
        drop(placement);
        match search.resolve(error, &hosts, created.instances.len()).await {
            Conflict::Retry => {}
            Conflict::Refused(problem) => return Err(refused(problem)),
            Conflict::Unknown(problem) => return Err(CreateFailure { problem, nothing_committed: false }),
        }
    }
}

/// The search for places of one request, over all its attempts.
struct Search<'a> {
    manager: &'a Manager,
    request: &'a CreateRequest,
    ids: Vec<InstanceId>,
    constraints: ResolvedConstraints,
    attempts: usize,
    pauses: std::slice::Iter<'static, u64>,
    /// The hosts that are avoided only because their figures couldn't be read.
    unknown_figures: Vec<HostId>,
}

impl<'a> Search<'a> {
    async fn begin(manager: &'a Manager, request: &'a CreateRequest) -> Result<Self, Problem> {
        let constraints = ResolvedConstraints::load(&manager.store, request.project_id, &request.spec).await?;
        Ok(Self {
            manager,
            request,
            ids: request.ids(),
            constraints,
            attempts: 0,
            pauses: PAUSES_MS.iter(),
            unknown_figures: Vec::new(),
        })
    }

    /// Places for the request, or of as many as fit for the first of it with the failure of the next.
    async fn find_places(
        &mut self,
        left_out: &LeftOut,
    ) -> Result<(TentativePlacement<'a>, Option<PlacementFailure>), Problem> {
        let (manager, request) = (self.manager, self.request);
        while self.attempts < ATTEMPTS {
            let (owner, now) = (request.hold_owner(), Timestamp::now());
            let (placement_request, state) = (&self.constraints.request, &manager.placement);
            let failure = match TentativePlacement::find(state, owner, &self.ids, placement_request, request.fill, now)
            {
                Ok(found) => return Ok(found),
                Err(failure) => failure,
            };
            if self.readmit_unknown_hosts() {
                self.attempts += 1;
            } else if failure.may_yet_fit
                && let Some(pause) = self.pauses.next()
            {
                tokio::time::sleep(Duration::from_millis(*pause)).await;
            } else {
                return Err(refuse(manager, request, left_out, &self.constraints.request, failure).await);
            }
        }
        Err(Problem::new(
            ErrorKind::Unavailable,
            "placement_contended",
            format!("other requests took the chosen place {ATTEMPTS} times in a row"),
        )
        .with_hint("try again"))
    }

    /// Hosts that were avoided only because their figures weren't known may have capacity by now. Answers whether there were any.
    fn readmit_unknown_hosts(&mut self) -> bool {
        let avoid = &mut self.constraints.request.avoid;
        let before = avoid.len();
        avoid.retain(|host_id| !self.unknown_figures.contains(host_id));
        avoid.len() < before
    }

    /// What becomes of the create after a commit that the store refused. `count`: of the instances in it.
    async fn resolve(&mut self, error: CommitError, hosts: &HashSet<HostId>, count: usize) -> Conflict {
        let (manager, request) = (self.manager, self.request);
        match error {
            CommitError::Guard(Guard::HostCapacity) => {
                self.avoid_conflicts(hosts, true).await;
                Conflict::Retry
            }
            // A refreshed host's row says nothing of groups.
            CommitError::Guard(Guard::PlacementAnchor) | CommitError::Constraint(Constraint::PlacementPlace) => {
                self.avoid_conflicts(hosts, false).await;
                Conflict::Retry
            }
            CommitError::Guard(Guard::ComputeQuota) => {
                let quota = request.quota(count);
                Conflict::Refused(quota_refusal(&manager.store, request.project_id, &quota).await)
            }
            CommitError::Constraint(Constraint::InstanceName) => {
                restore_placed_instances(&manager.store, &manager.placement, &self.ids).await;
                Conflict::Refused(name_taken(manager, request).await)
            }
            CommitError::Constraint(Constraint::ForeignKey(store::ForeignKey::PlacementMemberGroup)) => {
                let detail = "a placement group of the request was deleted meanwhile";
                Conflict::Refused(Problem::new(ErrorKind::NotFound, "placement_group_not_found", detail))
            }
            CommitError::Constraint(Constraint::ForeignKey(store::ForeignKey::InstanceImage)) => {
                Conflict::Refused(Problem::not_found("image", request.spec.image_id))
            }
            CommitError::Constraint(Constraint::ForeignKey(_)) => {
                Conflict::Refused(Problem::not_found("project", request.project_id))
            }
            CommitError::Unavailable(_)
            | CommitError::Guard(_)
            | CommitError::Constraint(_)
            | CommitError::Internal(_) => {
                for host_id in hosts {
                    manager.refresh_host(*host_id).await;
                }
                restore_placed_instances(&manager.store, &manager.placement, &self.ids).await;
                Conflict::Unknown(commit_problem(error))
            }
        }
    }

    /// Brings memory up to the rows of the hosts that the store refused. A host whose row doesn't explain the refusal, or can't be taken over
    /// now because other claims are on their way, is avoided. `by_capacity`: its row explains it.
    async fn avoid_conflicts(&mut self, hosts: &HashSet<HostId>, by_capacity: bool) {
        metrics::counter!("iaas_placement_conflicts_total").increment(1);
        self.attempts += 1;
        for host_id in hosts {
            let refreshed = self.manager.refresh_host(*host_id).await;
            if refreshed && by_capacity {
                continue;
            }
            if !self.constraints.request.avoid.contains(host_id) {
                self.constraints.request.avoid.push(*host_id);
            }
            if by_capacity {
                self.unknown_figures.push(*host_id);
            }
        }
        if self.constraints.request.avoid.len() >= self.manager.inventory().len() {
            self.constraints.request.avoid.clear();
        }
    }
}

/// The instances at their places, with the unit that makes them so. `why`: there are no more of them.
fn render(
    search: &Search<'_>,
    context: &CallContext,
    left_out: &LeftOut,
    nics: &[Vec<Nic>],
    placement: &TentativePlacement<'_>,
    why: Option<PlacementRecord>,
) -> (Created, Unit) {
    let (manager, request, now) = (search.manager, search.request, Timestamp::now());
    let placed: Vec<(InstanceId, Placed)> = placement.places.iter().map(|(id, placed, _)| (*id, *placed)).collect();
    let mut unit = Unit::new();
    let quota = request.quota(placed.len());
    unit.push(store::ComputeUsageAdd {
        project_id: request.project_id,
        instances: quota.instances,
        vcpus: quota.vcpus,
        memory_mib: quota.memory_mib,
    });
    let mut instances = Vec::with_capacity(placed.len());
    for ((requested, nics), (_, placed, record)) in request.instances.iter().zip(nics).zip(&placement.places) {
        let instance = render_instance(manager, request, (requested, nics), (*placed, record), now);
        unit.push(take_claim(placed));
        unit.push(insert(&instance, placed, search.constraints.request.tracked()));
        let data = serde_json::json!({ "to": InstanceState::Pending.as_str(), "generation": 1, "epoch": 1 });
        Activity::accepted("instance", instance.id, "create", format!("{} was accepted and placed", instance.name))
            .in_project(request.project_id)
            .with_data(data)
            .record(&mut unit, context, now);
        instances.push(instance);
    }
    let not_created = why.map(|why| request.not_created(left_out, instances.len(), why));
    let created = Created { instances, not_created, plan: None };
    store_outcome(&mut unit, context, &created, now);
    search.constraints.join_groups(&manager.inventory(), &placed, &mut unit);
    (created, unit)
}

/// What follows a committed create in memory and at the other services.
async fn after_commit(
    manager: &Manager,
    context: &CallContext,
    request: &CreateRequest,
    left_out: &LeftOut,
    created: &Created,
) {
    manager.signal.wake(created.instances.iter().map(|i| i.id), Some(context.request_id.as_str().into()));
    let count = created.instances.len();
    if let Some(not_created) = &created.not_created {
        record_refusal(manager, request, left_out, count, &not_created.why);
    }
    reserve::release(manager, context, request, &request.instances[count..]).await;
}

/// Whichever of the names behind the first `count` somebody asks about later, this is why it has no place.
fn record_refusal(manager: &Manager, request: &CreateRequest, left_out: &LeftOut, count: usize, why: &PlacementRecord) {
    for instance in request.behind(left_out, count) {
        manager.placement.refusals.add(request.project_id, (instance.id, &instance.name), why);
    }
}

/// None of the request is created. Others are preempted only for a request that its quota allows.
async fn refuse(
    manager: &Manager,
    request: &CreateRequest,
    left_out: &LeftOut,
    placement_request: &Request,
    failure: PlacementFailure,
) -> Problem {
    record_refusal(manager, request, left_out, 0, &failure.record);
    let PlacementFailure { mut problem, preemption: Some(_), .. } = failure else { return failure.problem };
    let Some(first) = request.instances.first() else { return problem };
    let owner = HoldOwner { project_id: request.project_id, name: &first.name };
    // As many as fit wait for nothing: capacity is freed for the first, and theirs is what fits then.
    let (ids, held) = match request.fill {
        Fill::AllOrNothing => (request.ids(), true),
        Fill::AsManyAsFit => (vec![first.id], false),
    };
    let quota = request.quota(ids.len());
    let project = match ProjectQuota::fetch(&manager.store, request.project_id).await {
        Ok(project) => project,
        Err(unread) => return unread,
    };
    let promised = project.used.plus(&manager.placement.lock().holds.quota_of_others(owner));
    if let Err(exceeded) = (ProjectQuota { used: promised, ..project }).check(&quota) {
        return exceeded;
    }
    let period = manager.config.preemption_hold().filter(|_| held);
    let started = {
        let Placement { inventory, holds } = &mut *manager.placement.lock();
        holds.preempt(inventory, owner, (&ids, placement_request), period.map(|period| (quota, period)))
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

async fn name_taken(manager: &Manager, request: &CreateRequest) -> Problem {
    for instance in &request.instances {
        match manager.store.instance_find_by_name(request.project_id, instance.name.as_str()).await {
            Ok(Some(_)) => return Problem::already_exists("instance", &instance.name),
            Ok(None) => {}
            Err(error) => return read_problem(error),
        }
    }
    // It was freed between the refusal and this read.
    Problem::already_exists("instance", &request.instances[0].name)
}

fn render_instance(
    manager: &Manager,
    request: &CreateRequest,
    (requested, nics): (&InstanceRequest, &[Nic]),
    (placed, record): (Placed, &PlacementRecord),
    now: Timestamp,
) -> Instance {
    Instance {
        id: requested.id,
        project_id: request.project_id,
        name: requested.name.clone(),
        tags: request.tags.clone(),
        generation: 1,
        epoch: 1,
        host_id: Some(placed.host_id),
        root_disk_id: requested.root_disk_id,
        spec: InstanceSpec { nics: nics.to_vec(), ..request.spec.clone() },
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
        placement: Some(record.clone()),
        binding: binding(manager, placed),
        created_at: now,
        updated_at: now,
    }
}

/// What an instance is given of its host at this place.
pub fn binding(manager: &Manager, placed: Placed) -> Binding {
    let inventory = manager.inventory();
    let Some(host) = inventory.find(placed.host_id) else { return Binding::default() };
    let node = placed.numa_node.and_then(|at| host.numa.get(usize::from(at)));
    let cpu_baseline = host.guest_cpu.as_ref().map(|cpu| cpu.id.clone());
    Binding { cpu_baseline, numa_node: node.map(|node| node.id), root_used_seq: None }
}

/// `tracked`: later decisions depend on the instance, so it is loaded after a start.
fn insert(instance: &Instance, placed: &Placed, tracked: bool) -> store::InstanceInsert {
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
        attached: tracked,
        cpu_baseline: instance.binding.cpu_baseline.clone(),
        numa_node: instance.binding.numa_node,
        created_at: instance.created_at,
    }
}
