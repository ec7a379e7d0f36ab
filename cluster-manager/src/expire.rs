//! Forgets the answers of operations that no idempotency key can ask for any more, and tokens that expired as long ago.

use crate::manager::Manager;
use domain::Timestamp;
use std::{sync::Arc, time::Duration};
use store::Retention;

const EVERY: Duration = Duration::from_secs(600);

pub async fn run(manager: Arc<Manager>) {
    let keep_ms = i64::try_from(manager.config.operation_keep_hours.saturating_mul(3_600_000)).unwrap_or(i64::MAX);
    loop {
        let before = Timestamp(Timestamp::now().0.saturating_sub(keep_ms));
        if let Err(error) = manager.store.expire(Retention::ComputeOperations, before).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "old operations can't be forgotten now");
        }
        if let Err(error) = manager.store.expire(Retention::HostTokens, before).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "old host tokens can't be forgotten now");
        }
        tokio::select! {
            () = manager.shutdown.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}
