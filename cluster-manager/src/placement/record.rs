//! Placement records are kept for later questions: refusals here, decisions by the unit that ends their instance.
//!
//! A refusal needs memory alone, and a full cloud refuses thousands of requests a second. Rejected: to commit each before it is
//! answered (a refusal would cost an fsync, and take it from the creates that fit), and to commit each at all (a client that repeats
//! itself would write a table full of one sentence). So refusals wait in memory, and one writer commits all that wait in one unit, then
//! pauses. Of the same name only the last waits; a project has a limit, so that its storm leaves space for others. What doesn't fit is
//! dropped, and counted. A manager that is killed loses what waited: at most the last second's.

use domain::{
    InstanceId, Name, PlacementRecordId, ProjectId, Timestamp, explain::PlacementRecord, placement::PlacementOutcome,
};
use parking_lot::Mutex;
use std::collections::{HashMap, hash_map::Entry};
use store::{CommitError, PlacementRecordInsert, PlacementRecordKeep, PlacementRecordTrim, ReadError, Store, Unit};
use tokio::sync::Notify;

/// Refusals that may wait.
const WAITING_MAX: usize = 1024;
/// Refusals of one project that may wait: more than one create may request.
const WAITING_PER_PROJECT_MAX: usize = 128;

/// The refusals that wait to be written.
#[derive(Debug, Default)]
pub struct RefusalRecords {
    waiting: Mutex<Waiting>,
    more: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    records: HashMap<(ProjectId, Name), PlacementRecordInsert>,
    per_project: HashMap<ProjectId, usize>,
}

impl Waiting {
    /// Answers whether the record waits now.
    fn put(&mut self, record: PlacementRecordInsert) -> bool {
        let full = self.records.len() >= WAITING_MAX;
        match self.records.entry((record.project_id, record.instance_name.clone())) {
            Entry::Occupied(mut same) => {
                same.insert(record);
                true
            }
            Entry::Vacant(_) if full => false,
            Entry::Vacant(free) => {
                let of_project = self.per_project.entry(record.project_id).or_default();
                if *of_project >= WAITING_PER_PROJECT_MAX {
                    return false;
                }
                *of_project += 1;
                free.insert(record);
                true
            }
        }
    }

    /// Takes all that wait, in the order in which they were made.
    fn take(&mut self) -> Vec<PlacementRecordInsert> {
        self.per_project.clear();
        let mut taken: Vec<_> = std::mem::take(&mut self.records).into_values().collect();
        taken.sort_unstable_by_key(|record| record.id);
        taken
    }
}

impl RefusalRecords {
    /// Adds the refusal of a request for the instance.
    pub fn add(&self, project_id: ProjectId, (id, name): (InstanceId, &Name), record: &PlacementRecord) {
        let kept = self.waiting.lock().put(PlacementRecordInsert {
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

    /// Waits until there is something to write.
    pub async fn added(&self) {
        self.more.notified().await;
    }

    /// Commits all that wait, in one unit.
    pub async fn flush(&self, store: &Store) {
        let records = self.waiting.lock().take();
        let count = records.len() as u64;
        let mut unit = Unit::new();
        unit.extend(records);
        if let Err(error) = store.commit(unit).await {
            metrics::counter!("iaas_placement_records_dropped_total").increment(count);
            tracing::warn!(error = &error as &dyn std::error::Error, count, "refusals can't be kept");
        }
    }
}

/// Keeps the decision of an instance that ends, as a part of the unit that ends it.
#[must_use]
pub fn keep_decision(id: InstanceId, now: Timestamp) -> PlacementRecordKeep {
    PlacementRecordKeep { id: PlacementRecordId::new(), instance_id: id, kept_at: now }
}

/// Much longer than the time between two trims.
const TRIM_LOOKS_BACK_MS: i64 = 300_000;

/// Deletes all but the newest `per_project` records of each project that got some lately.
pub async fn trim_records(store: &Store, per_project: u32) -> Result<(), CommitError> {
    let unread = |error| match error {
        ReadError::Unavailable(cause) => CommitError::Unavailable(cause),
        ReadError::Internal(cause) => CommitError::Internal(cause),
    };
    let since = Timestamp(Timestamp::now().0.saturating_sub(TRIM_LOOKS_BACK_MS));
    for project_id in store.placement_record_projects(since).await.map_err(unread)? {
        while let Some(last) = store.placement_record_excess(project_id, per_project).await.map_err(unread)? {
            store.commit(Unit::new().op(PlacementRecordTrim { project_id, last })).await?;
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
        assert_eq!(kept, WAITING_PER_PROJECT_MAX);
        assert!(waiting.put(record(calm, "web")));
        let taken = waiting.take();
        assert!(taken.is_sorted_by_key(|record| record.id) && taken.len() == WAITING_PER_PROJECT_MAX + 1);
        let kept = (0..10_000).filter(|_| waiting.put(record(ProjectId::new(), "web"))).count();
        assert_eq!(kept, WAITING_MAX);
        assert!(!waiting.put(record(storm, "n-1")));
        assert_eq!(waiting.take().len(), WAITING_MAX);
    }
}
