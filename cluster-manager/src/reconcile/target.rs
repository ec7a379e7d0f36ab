//! One instance in a pass of the reconciler: its rows as they are known by now, and what became of it.

use super::{
    plan::{HostView, ReconcileTarget},
    report::event,
    signal::RequestId,
};
use domain::{
    DiskId, InstanceId, Problem, Timestamp,
    instance::{Instance, InstanceDisk, InstanceState},
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
            disks: &self.row.disks,
            ports: &self.row.ports,
            metadata_digest: &self.metadata_digest,
            image_found: self.row.image.is_some(),
            host,
            last_failure: self.last_failure.as_deref(),
        }
    }

    /// The disks that it must have and that have no row.
    pub fn missing_disks(&self) -> Vec<InstanceDisk> {
        let rows = &self.row.disks;
        self.instance().disks().into_iter().filter(|disk| rows.iter().all(|row| row.id != disk.id)).collect()
    }

    /// The disks that had no row were reserved.
    pub fn disks_reserved(&mut self) {
        for InstanceDisk { id, role, size_gib } in self.missing_disks() {
            let instance = &self.row.instance.instance;
            self.row.disks.push(DiskRow {
                id,
                project_id: instance.project_id,
                instance_id: instance.id,
                role: role.to_owned(),
                pool: instance.spec.pool.as_str().to_owned(),
                size_gib,
                host_id: None,
                epoch: 0,
                state: DiskState::Reserved,
                expires_at: None,
                generation: 0,
                created_at: instance.created_at,
            });
        }
    }

    /// The disks were bound to the instance's host and epoch, but for those whose reservation had expired.
    pub fn disks_confirmed(&mut self, expired: &[DiskId]) {
        let (host_id, epoch) = (self.instance().host_id, self.instance().epoch);
        self.row.disks.retain(|disk| !expired.contains(&disk.id));
        for disk in &mut self.row.disks {
            (disk.state, disk.expires_at) = (DiskState::Confirmed, None);
            (disk.host_id, disk.epoch) = (host_id, epoch);
        }
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
        expected_start: fence.start,
        expected_counter: fence.counter,
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
        CommitError::Guard(
            Guard::InstanceGeneration | Guard::InstanceEpoch | Guard::InstanceObserved | Guard::HostVerdict,
        ) => PassOutcome::Again,
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
