//! What placement does by itself: it ends holds at their deadlines, writes refusals down, and finds backups for protected instances.

use crate::{manager::Manager, placement::Placement};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

const EXPIRE_EVERY: Duration = Duration::from_millis(500);
/// The pause between two commits of refusals.
const RECORD_PAUSE: Duration = Duration::from_millis(250);
const BACK_UP_EVERY: Duration = Duration::from_secs(10);

/// Ends capacity holds at their deadlines.
pub async fn capacity_hold_loop(manager: Arc<Manager>) {
    loop {
        tokio::select! {
            () = manager.lifetime.shutdown.cancelled() => return,
            () = tokio::time::sleep(EXPIRE_EVERY) => {}
        }
        let Placement { inventory, holds } = &mut *manager.placement.lock();
        holds.expire(inventory, Instant::now());
    }
}

/// Writes refusals down until the manager stops, and what still waits then as well.
pub async fn refusal_record_loop(manager: Arc<Manager>) {
    loop {
        tokio::select! {
            () = manager.lifetime.shutdown.cancelled() => break,
            () = manager.placement.refusals.added() => {}
        }
        manager.placement.refusals.flush(&manager.store).await;
        tokio::select! {
            () = manager.lifetime.shutdown.cancelled() => break,
            () = tokio::time::sleep(RECORD_PAUSE) => {}
        }
    }
    manager.placement.refusals.flush(&manager.store).await;
}

/// Finds new backups for protected instances that have none, as soon as there is capacity. Those that still have none are counted.
pub async fn backup_loop(manager: Arc<Manager>) {
    loop {
        let without_backup = manager.inventory().retry_backups().len();
        metrics::gauge!("iaas_instances_without_backup").set(without_backup as f64);
        tokio::select! {
            () = manager.lifetime.shutdown.cancelled() => return,
            () = tokio::time::sleep(BACK_UP_EVERY) => {}
        }
    }
}
