//! One instance in a pass of the reconciler: its rows as they are known by now, and what became of it.

use super::{
    plan::{HostView, ReconcileTarget},
    report::event,
    signal::RequestId,
};
use crate::client::storage::{LOCAL_POOL, ROOT};
use domain::{
    InstanceId, Problem, Timestamp,
    instance::{Instance, InstanceState},
    metadata::InstanceMetadata,
};
use store::{CommitError, DesiredRow, DiskRow, DiskState, Guard, Unit};

/// What a pass answers about an instance at its end.
pub enum PassOutcome {
    /// There is nothing more to do until it is woken.
    Settled,
    /// Its row changed under the pass, or it has more steps before it than a pass takes: it is reconciled again at once.
    Again,
    /// It is reconciled again later.
    Failed(String),
}

pub type Outcomes = Vec<(InstanceId, PassOutcome)>;

pub struct PassTarget {
    /// Its disks and ports are kept as they are known by now: deliveries are rendered from them.
    pub row: DesiredRow,
    pub request_id: RequestId,
    /// What its last step failed with, if it did.
    last_failure: Option<String>,
    pub metadata_digest: String,
}

impl PassTarget {
    pub fn new(row: DesiredRow, request_id: RequestId, last_failure: Option<String>) -> Self {
        let metadata_digest = InstanceMetadata::from(&row.instance.instance).digest();
        Self { row, request_id, last_failure, metadata_digest }
    }

    pub fn id(&self) -> InstanceId {
        self.row.instance.instance.id
    }

    pub fn instance(&self) -> &Instance {
        &self.row.instance.instance
    }

    pub fn view(&self, host: Option<HostView>) -> ReconcileTarget<'_> {
        ReconcileTarget {
            instance: self.instance(),
            disk: self.root_disk(),
            ports: &self.row.ports,
            metadata_digest: &self.metadata_digest,
            image_found: self.row.image.is_some(),
            host,
            last_failure: self.last_failure.as_deref(),
        }
    }

    pub fn root_disk(&self) -> Option<&DiskRow> {
        let id = self.instance().root_disk_id?;
        self.row.disks.iter().find(|disk| disk.id == id)
    }

    pub fn change_root_disk(&mut self, change: impl FnOnce(&mut DiskRow)) {
        let id = self.instance().root_disk_id;
        if let Some(disk) = self.row.disks.iter_mut().find(|disk| Some(disk.id) == id) {
            change(disk);
        }
    }

    /// The root disk was reserved.
    pub fn root_disk_reserved(&mut self) {
        let instance = self.instance();
        let Some(id) = instance.root_disk_id else { return };
        let disk = DiskRow {
            id,
            project_id: instance.project_id,
            instance_id: instance.id,
            role: ROOT.to_owned(),
            pool: LOCAL_POOL.to_owned(),
            size_gib: instance.spec.size.disk_gib,
            host_id: None,
            epoch: 0,
            state: DiskState::Reserved,
            expires_at: None,
            generation: 0,
            created_at: instance.created_at,
        };
        self.root_disk_gone();
        self.row.disks.push(disk);
    }

    /// The root disk's reservation expired.
    pub fn root_disk_gone(&mut self) {
        let id = self.instance().root_disk_id;
        self.row.disks.retain(|disk| Some(disk.id) != id);
    }

    /// A step failed; it is tried again.
    pub fn failed(&self, doing: &str, problem: &Problem) -> (InstanceId, PassOutcome) {
        let id = self.id();
        tracing::warn!(instance_id = %id, %problem, doing, "a step failed; it is tried again");
        (id, PassOutcome::Failed(format!("{doing} failed: {problem}")))
    }
}

/// What the row is to show of an instance's progress.
#[derive(Debug, Clone)]
pub struct Progress {
    pub state: InstanceState,
    pub step: String,
    pub reason: String,
    pub deadline_at: Option<Timestamp>,
}

/// The unit that shows an instance's progress, fenced by what it was decided on.
pub fn render_progress(target: &PassTarget, progress: Progress, now: Timestamp) -> Unit {
    let instance = target.instance();
    let Progress { state, step, reason, deadline_at } = progress;
    let mut unit = Unit::new();
    if state != instance.status.state {
        let data = serde_json::json!({ "from": instance.status.state.as_str(), "to": state.as_str() });
        let message = format!("{} is {}: {reason}", instance.name, state.as_str());
        unit.push(store::EventInsert(event(instance, state.as_str(), message, data, now)));
    } else if reason != instance.status.reason {
        let message = format!("{} waits: {reason}", instance.name);
        unit.push(store::EventInsert(event(instance, "waiting", message, serde_json::json!({}), now)));
    }
    let fence = target.row.instance.fence;
    unit.op(store::InstanceProgress {
        id: instance.id,
        expected_generation: instance.generation,
        seen_start: fence.start,
        seen_counter: fence.counter,
        state,
        step,
        reason,
        deadline_at,
        at: now,
    })
}

/// What a refused commit of the reconciler means for its instance.
pub fn commit_outcome(error: &CommitError) -> PassOutcome {
    match error {
        CommitError::Guard(Guard::InstanceGeneration | Guard::InstanceEpoch | Guard::InstanceObserved) => {
            PassOutcome::Again
        }
        CommitError::Unavailable(_) => PassOutcome::Failed("the database doesn't answer".to_owned()),
        CommitError::Guard(_) | CommitError::Constraint(_) | CommitError::Internal(_) => {
            tracing::error!(
                error = error as &dyn std::error::Error,
                "the reconciler's change was refused by the store"
            );
            PassOutcome::Failed("an error on our side, which has been logged".to_owned())
        }
    }
}
