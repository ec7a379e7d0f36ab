//! The steps of the reconciler, done: the same step of many instances is one call to another service, or commits that become one.
//! Each failure says what becomes of the instance in this pass ([`End`]); none is retried here.

use super::{
    claims,
    plan::{DiskStage, DiskView, HostView, Step, Subject, left_cards, plan_step},
    report::event,
    signal::RequestId,
};
use crate::{
    agents::{
        desired::{deliverable, render_desired},
        ingest::release,
    },
    client::storage::{LOCAL_POOL, ROOT},
    manager::Manager,
    placement::{constraints::leave_groups, record::keep_decision},
};
use domain::{
    HostId, InstanceId, Problem, Timestamp,
    flavor::Size,
    instance::{Instance, InstanceState},
    metadata::InstanceMetadata,
};
use proto::agent::v1 as agent;
use std::collections::HashMap;
use store::{CommitError, DesiredRow, DiskRow, DiskState, Guard, Unit};

/// What one pass says of one instance at its end.
pub(super) enum End {
    /// Nothing more to do until it is woken.
    Settled,
    /// Its row changed under the pass: look again at once.
    Again,
    /// Look again later.
    Failed(String),
}

/// One instance in a pass.
pub(super) struct Subjected {
    /// Its ports are kept as they are known by now.
    pub row: DesiredRow,
    request_id: RequestId,
    trouble: Option<String>,
    /// Its root disk as it is known by now.
    pub disk: Option<DiskView>,
    pub metadata_digest: String,
}

impl Subjected {
    pub fn new(row: DesiredRow, request_id: RequestId, trouble: Option<String>) -> Self {
        let root = row.instance.root_disk_id;
        let disk = row.disks.iter().find(|d| Some(d.id) == root).map(view);
        let metadata_digest = InstanceMetadata::from(&row.instance.instance).digest();
        Self { row, request_id, trouble, disk, metadata_digest }
    }

    pub fn id(&self) -> InstanceId {
        self.row.instance.instance.id
    }

    pub fn instance(&self) -> &Instance {
        &self.row.instance.instance
    }

    pub fn set_disk(&mut self, disk: Option<DiskView>) {
        // The delivery is rendered from the rows.
        let instance = &self.row.instance.instance;
        let root = instance.root_disk_id;
        if let (Some(disk), Some(id)) = (&disk, root) {
            self.row.disks.retain(|d| d.id != id);
            self.row.disks.push(DiskRow {
                id,
                project_id: instance.project_id,
                instance_id: instance.id,
                role: ROOT.to_owned(),
                pool: LOCAL_POOL.to_owned(),
                size_gib: disk.size_gib,
                host_id: disk.host_id,
                epoch: disk.epoch,
                state: match disk.state {
                    DiskStage::Reserved => DiskState::Reserved,
                    DiskStage::Confirmed => DiskState::Confirmed,
                    DiskStage::Releasing => DiskState::Releasing,
                },
                expires_at: None,
                generation: disk.generation,
                created_at: instance.created_at,
            });
        }
        self.disk = disk;
    }
}

fn view(disk: &DiskRow) -> DiskView {
    DiskView {
        size_gib: disk.size_gib,
        state: match disk.state {
            DiskState::Reserved => DiskStage::Reserved,
            DiskState::Confirmed => DiskStage::Confirmed,
            DiskState::Releasing => DiskStage::Releasing,
        },
        host_id: disk.host_id,
        epoch: disk.epoch,
        generation: disk.generation,
    }
}

/// One step for each; answers those that have another before them.
pub(super) async fn round(
    manager: &Manager,
    subjects: Vec<Subjected>,
    ends: &mut Vec<(InstanceId, End)>,
) -> Vec<Subjected> {
    let now = Timestamp::now();
    let (mut reserve, mut cards, mut bind, mut resize, mut release, mut forget, mut show, mut remove) =
        (vec![], vec![], vec![], vec![], vec![], vec![], vec![], vec![]);
    let mut deliver: HashMap<HostId, Vec<(InstanceId, agent::DesiredInstance)>> = HashMap::new();
    for subject in subjects {
        let step = plan(manager, &subject, now);
        count(&step);
        match step {
            Step::Rest => ends.push((subject.id(), End::Settled)),
            Step::ReserveDisk => reserve.push(subject),
            Step::ReservePorts => cards.push(subject),
            Step::Bind { disk, ports } => bind.push((subject, claims::Which { disk, ports })),
            Step::ResizeDisk { size_gib, generation } => resize.push((subject, size_gib, generation)),
            Step::Release { disk, ports } => release.push((subject, claims::Which { disk, ports })),
            Step::ForgetCards { ports } => forget.push((subject, ports)),
            Step::Remove => remove.push(subject),
            Step::Show { state, step, reason, deadline_at } => show.push((subject, state, step, reason, deadline_at)),
            Step::Deliver => {
                let (row, instance, id) = (&subject.row, subject.instance(), subject.id());
                if let Some(host_id) = instance.host_id
                    && deliverable(instance, &row.disks, &row.ports)
                {
                    let request_id = subject.request_id.as_deref().unwrap_or_default();
                    let desired = render_desired(instance, &row.disks, &row.ports, row.image.as_ref(), request_id);
                    tracing::debug!(
                        instance_id = %id, %host_id, request_id, epoch = instance.epoch, generation = instance.generation,
                        "delivered to the host's agent"
                    );
                    deliver.entry(host_id).or_default().push((id, desired));
                }
                ends.push((id, End::Settled));
            }
        }
    }
    for (host_id, instances) in deliver {
        // A host that isn't connected gets a snapshot when it is.
        if let Some(link) = manager.agents.find(host_id) {
            link.deliver(instances);
        }
    }
    let mut next = Vec::new();
    claims::reserve_disks(manager, reserve, &mut next, ends).await;
    claims::reserve_ports(manager, cards, ends).await;
    claims::bind(manager, bind, &mut next, ends).await;
    for (subject, size_gib, generation) in resize {
        claims::resize_disk(manager, subject, size_gib, generation, &mut next, ends).await;
    }
    claims::release(manager, release, &mut next, ends).await;
    claims::forget_cards(manager, forget, &mut next, ends).await;
    show_all(manager, show, now, &mut next, ends).await;
    for subject in remove {
        ends.push((subject.id(), remove_row(manager, &subject, now).await));
    }
    next
}

fn plan(manager: &Manager, subject: &Subjected, now: Timestamp) -> Step {
    let instance = subject.instance();
    // One lock at a time: what `starts` asks takes it again.
    let known = instance.host_id.and_then(|id| manager.inventory().find(id).map(|h| h.up));
    let starts = instance.host_id.map_or(0, |id| manager.starts(id));
    if instance.status.observed_generation != instance.generation
        && !left_cards(instance, &subject.row.ports).is_empty()
    {
        // The host's word that it did all of it is awaited.
        manager.await_cards_out(instance.id);
    }
    // Within the grace of a reconnect, nothing is shown.
    let host = known.map(|connected| HostView { connected, starts });
    let subject = Subject {
        instance,
        disk: subject.disk.as_ref(),
        ports: &subject.row.ports,
        metadata_digest: &subject.metadata_digest,
        image_found: subject.row.image.is_some(),
        host,
        trouble: subject.trouble.as_deref(),
    };
    plan_step(subject, &manager.config.deadlines, now)
}

fn count(step: &Step) {
    let name = match step {
        Step::Rest => "rest",
        Step::ReserveDisk => "reserve_disk",
        Step::ReservePorts => "reserve_ports",
        Step::Bind { .. } => "bind",
        Step::ResizeDisk { .. } => "resize_disk",
        Step::Release { .. } => "release",
        Step::ForgetCards { .. } => "forget_cards",
        Step::Deliver => "deliver",
        Step::Remove => "remove",
        Step::Show { .. } => "show",
    };
    metrics::counter!("iaas_reconcile_steps_total", "step" => name).increment(1);
}

pub(super) fn failed(subject: &Subjected, doing: &str, problem: &Problem) -> (InstanceId, End) {
    let id = subject.id();
    tracing::warn!(instance_id = %id, %problem, doing, "a step failed; it is tried again");
    (id, End::Failed(format!("{doing} failed: {problem}")))
}

type Show = (Subjected, InstanceState, String, String, Option<Timestamp>);

async fn show_all(
    manager: &Manager,
    shows: Vec<Show>,
    now: Timestamp,
    next: &mut Vec<Subjected>,
    ends: &mut Vec<(InstanceId, End)>,
) {
    let commits = shows.iter().map(|(subject, state, step, reason, deadline_at)| {
        let unit = progress(subject, *state, step.clone(), reason.clone(), *deadline_at, now);
        manager.store.commit(unit)
    });
    let outcomes = futures::future::join_all(commits).await;
    for ((mut subject, state, step, reason, deadline_at), outcome) in shows.into_iter().zip(outcomes) {
        match outcome {
            Ok(()) => {
                let instance = &mut subject.row.instance.instance;
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
                // And once more to its host: a message that went astray is what deadlines are for.
                next.push(subject);
            }
            Err(error) => ends.push((subject.id(), commit_end(&error))),
        }
    }
}

pub(super) fn progress(
    subject: &Subjected,
    state: InstanceState,
    step: String,
    reason: String,
    deadline_at: Option<Timestamp>,
    now: Timestamp,
) -> Unit {
    let instance = subject.instance();
    let mut unit = Unit::new();
    if state != instance.status.state {
        let data = serde_json::json!({ "from": instance.status.state.as_str(), "to": state.as_str() });
        let message = format!("{} is {}: {reason}", instance.name, state.as_str());
        unit.push(store::EventInsert(event(instance, state.as_str(), message, data, now)));
    } else if reason != instance.status.reason {
        let message = format!("{} waits: {reason}", instance.name);
        unit.push(store::EventInsert(event(instance, "waiting", message, serde_json::json!({}), now)));
    }
    unit.op(store::InstanceProgress {
        id: instance.id,
        expected_generation: instance.generation,
        seen_start: subject.row.instance.fence.start,
        seen_counter: subject.row.instance.fence.counter,
        state,
        step,
        reason,
        deadline_at,
        at: now,
    })
}

/// No host ever had it: the row goes without proof.
async fn remove_row(manager: &Manager, subject: &Subjected, now: Timestamp) -> End {
    let instance = subject.instance();
    let data = serde_json::json!({ "from": instance.status.state.as_str(), "to": "deleted" });
    let mut unit = Unit::new()
        .op(store::InstanceDelete { id: instance.id, epoch: instance.epoch })
        .op(keep_decision(instance.id, now))
        .op(store::EventInsert(event(instance, "deleted", format!("{} is deleted", instance.name), data, now)));
    leave_groups(&instance.spec, &mut unit);
    let claim = subject.row.instance.claim;
    let claimed_on = instance.host_id.filter(|_| claim != Size::default());
    unit.extend(claimed_on.map(|host_id| release(host_id, claim)));
    let releasing = claimed_on.map(|host_id| manager.releasing(host_id));
    match manager.store.commit(unit).await {
        // The sweep repeats it.
        Ok(()) => {
            {
                let mut inventory = manager.inventory();
                if let Some(host_id) = claimed_on {
                    inventory.release(host_id, claim);
                }
                inventory.remove_instance(instance.id);
            }
            drop(releasing);
            match manager.forget_claims(&[instance.id], !subject.row.ports.is_empty()).await {
                Ok(()) => End::Settled,
                Err(problem) => failed(subject, "forgetting its disk and ports", &problem).1,
            }
        }
        Err(error) => commit_end(&error),
    }
}

pub(super) fn commit_end(error: &CommitError) -> End {
    match error {
        CommitError::Guard(Guard::InstanceGeneration | Guard::InstanceEpoch | Guard::InstanceObserved) => End::Again,
        CommitError::Unavailable(_) => End::Failed("the database doesn't answer".to_owned()),
        CommitError::Guard(_) | CommitError::Constraint(_) | CommitError::Internal(_) => {
            tracing::error!(
                error = error as &dyn std::error::Error,
                "the reconciler's change was refused by the store"
            );
            End::Failed("an error on our side, which has been logged".to_owned())
        }
    }
}
