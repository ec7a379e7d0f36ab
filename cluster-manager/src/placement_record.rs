//! Placement records are kept for those who ask later: refusals here, decisions by the unit that ends their instance.
//!
//! A refusal costs a look at memory, and a full cloud is asked thousands of times a second for what it doesn't have. Rejected: to commit
//! each before it is answered (a refusal would cost an fsync, and take it from the creates that fit), and to commit each at all (a client
//! that repeats itself would write a table full of one sentence). So refusals wait in memory, and one writer commits all that wait in one
//! unit, then rests. Of the same name only the last waits; of one project so many, so that its storm leaves room for others. What doesn't
//! fit in is dropped, and counted. A manager that is killed loses what waited: at most the last second's.

use crate::manager::Manager;
use domain::{
    InstanceId, Name, PlacementRecordId, ProjectId, Timestamp, explain::PlacementRecord, placement::PlacementOutcome,
};
use parking_lot::{Mutex, MutexGuard};
use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
    time::Duration,
};
use store::{CommitError, PlacementRecordInsert, PlacementRecordKeep, PlacementRecordTrim, ReadError, Unit};
use tokio::sync::Notify;

/// Refusals that may wait.
const WAITING: usize = 1024;
/// Of one project: more than one create may ask for.
const WAITING_PER_PROJECT: usize = 128;
/// Between two commits.
const REST: Duration = Duration::from_millis(250);

#[derive(Debug, Default)]
pub struct Refusals {
    waiting: Mutex<Waiting>,
    more: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    records: HashMap<(ProjectId, Name), PlacementRecordInsert>,
    of_project: HashMap<ProjectId, usize>,
}

impl Waiting {
    /// Whether it is kept.
    fn put(&mut self, record: PlacementRecordInsert) -> bool {
        let full = self.records.len() >= WAITING;
        match self.records.entry((record.project_id, record.instance_name.clone())) {
            Entry::Occupied(mut same) => {
                same.insert(record);
                true
            }
            Entry::Vacant(_) if full => false,
            Entry::Vacant(free) => {
                let of_project = self.of_project.entry(record.project_id).or_default();
                if *of_project >= WAITING_PER_PROJECT {
                    return false;
                }
                *of_project += 1;
                free.insert(record);
                true
            }
        }
    }

    /// In the order in which they were made.
    fn take(&mut self) -> Vec<PlacementRecordInsert> {
        self.of_project.clear();
        let mut taken: Vec<_> = std::mem::take(&mut self.records).into_values().collect();
        taken.sort_unstable_by_key(|record| record.id);
        taken
    }
}

impl Refusals {
    /// A request for the instance was refused for this.
    pub fn note(&self, project_id: ProjectId, (id, name): (InstanceId, &Name), record: &PlacementRecord) {
        let kept = self.waiting().put(PlacementRecordInsert {
            id: PlacementRecordId::new(),
            project_id,
            instance_id: id,
            instance_name: name.clone(),
            outcome: PlacementOutcome::Refused,
            record: Some(record.clone()),
            kept_at: record.at,
        });
        if kept {
            self.more.notify_one();
        } else {
            metrics::counter!("iaas_placement_records_dropped_total").increment(1);
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock()
    }
}

/// For the unit that ends an instance.
#[must_use]
pub fn keep(id: InstanceId, now: Timestamp) -> PlacementRecordKeep {
    PlacementRecordKeep { id: PlacementRecordId::new(), instance_id: id, kept_at: now }
}

/// Writes refusals down until the manager stops, what still waits then included.
pub async fn run(manager: Arc<Manager>) {
    loop {
        tokio::select! {
            () = manager.shutdown.cancelled() => break,
            () = manager.refusals.more.notified() => {}
        }
        flush(&manager).await;
        tokio::select! {
            () = manager.shutdown.cancelled() => break,
            () = tokio::time::sleep(REST) => {}
        }
    }
    flush(&manager).await;
}

async fn flush(manager: &Manager) {
    let records = manager.refusals.waiting().take();
    let count = records.len() as u64;
    let mut unit = Unit::new();
    unit.extend(records);
    if let Err(error) = manager.store.commit(unit).await {
        metrics::counter!("iaas_placement_records_dropped_total").increment(count);
        tracing::warn!(error = &error as &dyn std::error::Error, count, "refusals can't be kept");
    }
}

/// A project keeps its newest.
pub async fn trim(manager: &Manager) -> Result<(), CommitError> {
    let most = manager.config.placement_records_per_project;
    let unread = |error| match error {
        ReadError::Unavailable(cause) => CommitError::Unavailable(cause),
        ReadError::Internal(cause) => CommitError::Internal(cause),
    };
    for project_id in manager.store.placement_record_crowded(most).await.map_err(unread)? {
        while let Some(last) = manager.store.placement_record_excess(project_id, most).await.map_err(unread)? {
            manager.store.commit(Unit::new().op(PlacementRecordTrim { project_id, last })).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(project_id: ProjectId, name: &str) -> PlacementRecordInsert {
        PlacementRecordInsert {
            id: PlacementRecordId::new(),
            project_id,
            instance_id: InstanceId::new(),
            instance_name: name.parse().expect("a name"),
            outcome: PlacementOutcome::Refused,
            record: None,
            kept_at: Timestamp(0),
        }
    }

    #[test]
    fn of_one_name_the_last_waits_and_no_project_fills_the_queue() {
        let mut waiting = Waiting::default();
        let (storm, calm) = (ProjectId::new(), ProjectId::new());
        for _ in 0..10_000 {
            assert!(waiting.put(record(storm, "same")));
        }
        let last = record(storm, "same");
        assert!(waiting.put(last.clone()));
        assert_eq!(waiting.take(), [last]);
        let kept = (0..10_000).filter(|n| waiting.put(record(storm, &format!("n-{n}")))).count();
        assert_eq!(kept, WAITING_PER_PROJECT);
        assert!(waiting.put(record(calm, "web")));
        let taken = waiting.take();
        assert!(taken.is_sorted_by_key(|record| record.id) && taken.len() == WAITING_PER_PROJECT + 1);
        let kept = (0..10_000).filter(|_| waiting.put(record(ProjectId::new(), "web"))).count();
        assert_eq!(kept, WAITING);
        assert!(!waiting.put(record(storm, "n-1")));
        assert_eq!(waiting.take().len(), WAITING);
    }
}
