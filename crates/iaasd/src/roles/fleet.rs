//! Keeps a listener's list of admitted hosts as the store has it: every second, and at once when a host is asked for that isn't known.

use service_kit::fleet::Fleet;
use std::time::Duration;
use store::Store;
use tokio_util::sync::CancellationToken;

/// A removed host is cut within this.
const LOOK_EVERY: Duration = Duration::from_secs(1);

pub async fn watch(store: Store, fleet: Fleet, shutdown: CancellationToken) -> anyhow::Result<()> {
    let mut warned = false;
    loop {
        match store.host_admission_list().await {
            Ok(rows) => {
                fleet.publish(rows.into_iter().map(|row| (row.host_id, row.key_hash)).collect());
                warned = false;
            }
            // What is known stays: a database that is away must not cut the fleet.
            Err(error) if !std::mem::replace(&mut warned, true) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the admitted hosts can't be read; the last list counts"
                );
            }
            Err(_) => {}
        }
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = fleet.list_requested() => {}
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}
