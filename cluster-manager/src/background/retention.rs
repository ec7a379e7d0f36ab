//! Deletes the answers of operations that no idempotency key can request any more, tokens that expired as long ago, reports of recoveries, and
//! placement records that are older or more than are kept.

use crate::{manager::Manager, placement::record::trim_records};
use domain::Timestamp;
use std::{sync::Arc, time::Duration};
use store::{CommitError, Retention};

const EVERY: Duration = Duration::from_secs(60);

pub async fn retention_loop(manager: Arc<Manager>) {
    loop {
        if let Err(error) = delete_expired(&manager).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "what is past its time can't be deleted now");
        }
        tokio::select! {
            () = manager.lifetime.shutdown.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

async fn delete_expired(manager: &Manager) -> Result<(), CommitError> {
    let now = Timestamp::now();
    let ago = |hours: u64| {
        let ms = i64::try_from(hours.saturating_mul(3_600_000)).unwrap_or(i64::MAX);
        Timestamp(now.0.saturating_sub(ms))
    };
    let operations = ago(manager.config.operation_keep_hours);
    let records = ago(manager.config.placement_records_hours);
    manager.store.expire(Retention::ComputeOperations, operations).await?;
    manager.store.expire(Retention::HostTokens, operations).await?;
    manager.store.expire(Retention::PlacementRecords, records).await?;
    manager.store.expire(Retention::Recoveries, ago(manager.config.recovery_reports_hours)).await?;
    trim_records(&manager.store, manager.config.placement_records_per_project).await
}
