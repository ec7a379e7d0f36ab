//! What nobody asks for: it is looked at each second, and at once when woken. Each look starts from the rows and the memory of them, so
//! that the first, a later one and one after a restart are the same.

pub(crate) mod reservation;

use crate::{Manager, failure};
use domain::{Problem, Timestamp};
use std::{sync::Arc, time::Duration};
use store::{AddressSweep, Unit};

const EVERY: Duration = Duration::from_secs(1);

/// Until the service stops.
pub(crate) async fn run(manager: Arc<Manager>) {
    loop {
        for (what, done) in [("reservations", reservations(&manager).await), ("addresses", addresses(&manager).await)] {
            if let Err(problem) = done {
                tracing::warn!(%problem, what, "a look is tried again");
            }
        }
        tokio::select! {
            () = manager.shutdown.cancelled() => return,
            () = manager.wake.notified() => {}
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

async fn reservations(manager: &Arc<Manager>) -> Result<(), Problem> {
    while reservation::sweep(manager).await? {}
    Ok(())
}

/// Rows of addresses that rest no longer. Memory frees them by the clock.
async fn addresses(manager: &Manager) -> Result<(), Problem> {
    let before = Timestamp::now();
    if manager.store.address_resting_until(before).await.map_err(failure::of_read)? {
        manager.store.commit(Unit::new().op(AddressSweep { before })).await.map_err(failure::of_commit)?;
    }
    Ok(())
}
