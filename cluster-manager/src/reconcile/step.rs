//! The steps of the reconciler, done: the same step of many instances is one call to the storage-manager, or commits that become one.
//! Each failure says what becomes of the instance in this pass ([`End`]); none is retried here.

use super::{
    plan::{DiskStage, DiskView, HostView, Step, Subject, plan_step, wanted_disk},
    report::event,
    signal::RequestId,
};
use crate::{
    agents::{
        desired::{deliverable, render_desired},
        ingest::unclaim,
    },
    manager::Manager,
    storage::{Binding, LOCAL_POOL, ROOT},
};
use domain::{
    DiskId, ErrorKind, HostId, InstanceId, Problem, Timestamp,
    flavor::Size,
    instance::{Instance, InstanceState},
    problem::Retry,
};
use proto::{agent::v1 as agent, storage::v1 as storage};
use std::collections::{HashMap, HashSet};
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
    row: DesiredRow,
    request_id: RequestId,
    trouble: Option<String>,
    /// Its root disk as it is known by now.
    disk: Option<DiskView>,
}

impl Subjected {
    pub fn new(row: DesiredRow, request_id: RequestId, trouble: Option<String>) -> Self {
        let root = row.instance.root_disk_id;
        let disk = row.disks.iter().find(|d| Some(d.id) == root).map(view);
        Self { row, request_id, trouble, disk }
    }

    pub fn id(&self) -> InstanceId {
        self.row.instance.instance.id
    }

    fn instance(&self) -> &Instance {
        &self.row.instance.instance
    }

    fn set_disk(&mut self, disk: Option<DiskView>) {
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
    let (mut reserve, mut confirm, mut resize, mut release, mut show, mut remove) =
        (vec![], vec![], vec![], vec![], vec![], vec![]);
    let mut deliver: HashMap<HostId, Vec<(InstanceId, agent::DesiredInstance)>> = HashMap::new();
    for subject in subjects {
        let step = plan(manager, &subject, now);
        count(&step);
        match step {
            Step::Rest => ends.push((subject.id(), End::Settled)),
            Step::ReserveDisk => reserve.push(subject),
            Step::ConfirmDisk => confirm.push(subject),
            Step::ResizeDisk { size_gib, generation } => resize.push((subject, size_gib, generation)),
            Step::ReleaseDisk => release.push(subject),
            Step::Remove => remove.push(subject),
            Step::Show { state, step, reason, deadline_at } => show.push((subject, state, step, reason, deadline_at)),
            Step::Deliver => {
                let (row, instance, id) = (&subject.row, subject.instance(), subject.id());
                if let Some(host_id) = instance.host_id
                    && deliverable(instance, &row.disks)
                {
                    let request_id = subject.request_id.as_deref().unwrap_or_default();
                    let desired = render_desired(instance, &row.disks, row.image.as_ref(), request_id);
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
    reserve_disks(manager, reserve, &mut next, ends).await;
    confirm_disks(manager, confirm, &mut next, ends).await;
    for (subject, size_gib, generation) in resize {
        resize_disk(manager, subject, size_gib, generation, &mut next, ends).await;
    }
    release_disks(manager, release, &mut next, ends).await;
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
    // Within the grace of a reconnect, nothing is shown.
    let host = known.map(|connected| HostView { connected, starts });
    let subject = Subject {
        instance,
        disk: subject.disk.as_ref(),
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
        Step::ConfirmDisk => "confirm_disk",
        Step::ResizeDisk { .. } => "resize_disk",
        Step::ReleaseDisk => "release_disk",
        Step::Deliver => "deliver",
        Step::Remove => "remove",
        Step::Show { .. } => "show",
    };
    metrics::counter!("iaas_reconcile_steps_total", "step" => name).increment(1);
}

fn failed(subject: &Subjected, doing: &str, problem: &Problem) -> (InstanceId, End) {
    let id = subject.id();
    tracing::warn!(instance_id = %id, %problem, doing, "a step failed; it is tried again");
    (id, End::Failed(format!("{doing} failed: {problem}")))
}

async fn reserve_disks(
    manager: &Manager,
    subjects: Vec<Subjected>,
    next: &mut Vec<Subjected>,
    ends: &mut Vec<(InstanceId, End)>,
) {
    let calls = subjects.iter().map(|s| manager.storage.reserve(reservation(s)));
    let outcomes = futures::future::join_all(calls).await;
    for (mut subject, outcome) in subjects.into_iter().zip(outcomes) {
        match outcome {
            Ok(()) => {
                let size_gib = subject.instance().spec.size.disk_gib;
                subject.set_disk(Some(DiskView {
                    size_gib,
                    state: DiskStage::Reserved,
                    host_id: None,
                    epoch: 0,
                    generation: 0,
                }));
                next.push(subject);
            }
            Err(problem) if problem.kind.retry() == Retry::No && problem.kind != ErrorKind::Internal => {
                let shown = show_refusal(manager, &subject, &problem).await;
                ends.push((subject.id(), shown));
            }
            Err(problem) => ends.push(failed(&subject, "reserving its disk", &problem)),
        }
    }
}

/// A refusal by storage (quota) is the instance's error, not a failure of ours.
async fn show_refusal(manager: &Manager, subject: &Subjected, problem: &Problem) -> End {
    let instance = subject.instance();
    let reason = format!("its disk can't be reserved: {problem}");
    if instance.status.state == InstanceState::Error && instance.status.reason == reason {
        return End::Settled;
    }
    let unit = progress(subject, InstanceState::Error, String::new(), reason, None, Timestamp::now());
    match manager.store.commit(unit).await {
        Ok(()) => End::Settled,
        Err(error) => commit_end(&error),
    }
}

fn reservation(subject: &Subjected) -> Vec<storage::DiskReservation> {
    let instance = subject.instance();
    let (Some(disk_id), Some(size_gib)) = (instance.root_disk_id, wanted_disk(instance)) else { return vec![] };
    vec![storage::DiskReservation {
        disk_id: disk_id.to_string(),
        instance_id: instance.id.to_string(),
        project_id: instance.project_id.to_string(),
        role: ROOT.to_owned(),
        pool: LOCAL_POOL.to_owned(),
        size_gib,
    }]
}

async fn confirm_disks(
    manager: &Manager,
    subjects: Vec<Subjected>,
    next: &mut Vec<Subjected>,
    ends: &mut Vec<(InstanceId, End)>,
) {
    let bindings: Vec<Binding> = subjects.iter().filter_map(binding).collect();
    if bindings.is_empty() {
        return;
    }
    match manager.storage.confirm(&bindings).await {
        Ok(expired) => {
            let expired: HashSet<DiskId> = expired.into_iter().collect();
            for mut subject in subjects {
                let instance = subject.instance();
                let (size_gib, generation) =
                    subject.disk.as_ref().map_or((instance.spec.size.disk_gib, 0), |d| (d.size_gib, d.generation));
                let (host_id, epoch) = (instance.host_id, instance.epoch);
                let gone = instance.root_disk_id.is_some_and(|id| expired.contains(&id));
                let confirmed = DiskView { size_gib, state: DiskStage::Confirmed, host_id, epoch, generation };
                subject.set_disk((!gone).then_some(confirmed));
                next.push(subject);
            }
        }
        Err(problem) => ends.extend(subjects.iter().map(|s| failed(s, "confirming its disk", &problem))),
    }
}

fn binding(subject: &Subjected) -> Option<Binding> {
    let instance = subject.instance();
    Some(Binding {
        disk_id: instance.root_disk_id?,
        instance_id: instance.id,
        host_id: instance.host_id?,
        epoch: instance.epoch,
    })
}

async fn resize_disk(
    manager: &Manager,
    mut subject: Subjected,
    size_gib: u64,
    generation: i64,
    next: &mut Vec<Subjected>,
    ends: &mut Vec<(InstanceId, End)>,
) {
    let instance = subject.instance();
    let (Some(disk_id), id) = (instance.root_disk_id, instance.id) else { return };
    match manager.storage.resize(disk_id, id, size_gib, generation).await {
        Ok(()) => {
            let disk = subject.disk.take().map(|d| DiskView { size_gib, generation, ..d });
            subject.set_disk(disk);
            next.push(subject);
        }
        Err(problem) => ends.push(failed(&subject, "resizing its disk", &problem)),
    }
}

async fn release_disks(
    manager: &Manager,
    subjects: Vec<Subjected>,
    next: &mut Vec<Subjected>,
    ends: &mut Vec<(InstanceId, End)>,
) {
    if subjects.is_empty() {
        return;
    }
    let ids: Vec<InstanceId> = subjects.iter().map(Subjected::id).collect();
    match manager.storage.release(&ids).await {
        Ok(()) => {
            for mut subject in subjects {
                let disk = subject.disk.take().map(|d| DiskView { state: DiskStage::Releasing, ..d });
                subject.set_disk(disk);
                next.push(subject);
            }
        }
        Err(problem) => ends.extend(subjects.iter().map(|s| failed(s, "releasing its disk", &problem))),
    }
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

fn progress(
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
        .op(store::EventInsert(event(instance, "deleted", format!("{} is deleted", instance.name), data, now)));
    if let Some(host_id) = instance.host_id
        && subject.row.instance.claim != Size::default()
    {
        unit.push(unclaim(host_id, subject.row.instance.claim));
    }
    match manager.store.commit(unit).await {
        Ok(()) => match manager.storage.forget(&[instance.id]).await {
            Ok(()) => End::Settled,
            // The sweep repeats it.
            Err(problem) => failed(subject, "forgetting its disk", &problem).1,
        },
        Err(error) => commit_end(&error),
    }
}

fn commit_end(error: &CommitError) -> End {
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
