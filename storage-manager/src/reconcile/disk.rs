//! Reservations that nobody confirmed in time.

use super::SweepError;
use crate::plan;
use domain::Timestamp;
use futures::future::join_all;
use store::{CommitError, DiskExpire, DiskRow, Guard, StorageUsageAdd, Store, Unit};

/// Rows that are read at once.
const BATCH: u32 = 256;

/// Deletes expired reservations and gives their quota back. A unit each, so that one that is confirmed at this moment keeps only itself;
/// the store makes one transaction of them. The number that went.
pub async fn sweep_reservations(store: &Store, now: Timestamp) -> Result<u64, SweepError> {
    let mut swept = 0;
    loop {
        let due = store.disk_expired(now, BATCH).await.map_err(SweepError::Read)?;
        let outcomes = join_all(due.iter().map(|disk| store.commit(expiry(disk, now)))).await;
        let mut gone = 0;
        for (disk, outcome) in due.iter().zip(outcomes) {
            match outcome {
                Ok(()) => {
                    gone += 1;
                    tracing::info!(disk_id = %disk.id, instance_id = %disk.instance_id, "a reservation expired");
                }
                // Confirmed, released or swept by another meanwhile.
                Err(CommitError::Guard(Guard::DiskState)) => {}
                Err(error) => return Err(SweepError::Commit(error)),
            }
        }
        swept += gone;
        if gone == 0 || due.len() < BATCH as usize {
            return Ok(swept);
        }
    }
}

fn expiry(disk: &DiskRow, now: Timestamp) -> Unit {
    let mut unit = Unit::new().op(DiskExpire { id: disk.id, expected_generation: disk.generation, at: now });
    if disk.size_gib > 0 {
        unit.push(StorageUsageAdd::disk(disk.project_id, -plan::gib(disk.size_gib)));
    }
    unit
}
