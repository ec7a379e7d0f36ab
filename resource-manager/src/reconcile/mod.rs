//! What must follow without anybody's request.
//!
//! Each part compares what is with what should be and takes one idempotent step; none has an input. They run when memory took in a change
//! and on a timer, and a start or a crash in the middle is no special case: what is left to do can still be seen.

mod address;
mod default;
mod external_network;
mod host;
mod port;
mod project;
mod protected;
mod unknown_outcome;
mod uplink;

use crate::Manager;
use domain::{Problem, Timestamp};
use std::{error::Error, sync::Arc, time::Duration};
use store::{CommitError, ReadError, Retention};
use tokio::time::{Instant, MissedTickBehavior, interval};

/// The time between two looks at what memory took in, so that a burst is looked at once.
const PAUSE: Duration = Duration::from_millis(5);
/// What changes rarely is looked at so often.
const SELDOM: Duration = Duration::from_secs(2);
/// Where managers are reached changes more rarely still.
const MANAGERS_EVERY: Duration = Duration::from_secs(10);
const OPERATIONS_EVERY: Duration = Duration::from_secs(600);

#[derive(Debug, thiserror::Error)]
pub(crate) enum StepError {
    #[error("the database can't be read")]
    Read(#[source] ReadError),
    #[error("a step can't be committed")]
    Commit(#[source] CommitError),
    #[error("a step was refused: {0}")]
    Refused(Problem),
}

/// Logs what failed; the next look tries again.
fn note<T: Default>(part: &'static str, result: Result<T, StepError>) -> T {
    result.unwrap_or_else(|error| {
        tracing::warn!(error = &error as &dyn Error, part, "a reconciler's step failed; it is tried again");
        T::default()
    })
}

/// Before anybody is served: what ended while no manager ran, and what the configuration says.
pub async fn begin(manager: &Manager) {
    note("addresses", address::release_orphans(manager).await);
    external_network::ensure(manager).await;
    note("protected addresses", protected::ProtectedManagers::default().step(manager).await);
}

/// Runs until the shutdown.
pub async fn run(manager: Arc<Manager>) {
    let mut ticks = interval(Duration::from_millis(manager.config.reconcile_interval_ms));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut seldom, mut managers, mut operations) = (None, None, None);
    let mut protected_managers = protected::ProtectedManagers::default();
    let mut defaults = default::Defaults::default();
    let mut projects = project::Projects::new(&manager).await;
    let mut abandoned = port::Abandoned::default();
    let mut removed_hosts = host::Removed::default();
    let due = |last: &mut Option<Instant>, every: Duration| {
        let due = last.is_none_or(|at: Instant| at.elapsed() >= every);
        if due {
            *last = Some(Instant::now());
        }
        due
    };
    loop {
        tokio::select! {
            () = manager.shutdown.cancelled() => return,
            _ = ticks.tick() => {}
        }
        note("defaults", defaults.step(&manager).await);
        note("reservations", port::expire(&manager, Timestamp::now()).await);
        note("unknown outcomes", unknown_outcome::step(&manager).await);
        if due(&mut seldom, SELDOM) {
            note("projects", projects.step(&manager).await);
            note("ports", abandoned.step(&manager).await);
            note("hosts", removed_hosts.step(&manager).await);
            note("addresses", address::sweep(&manager, Timestamp::now()).await);
        }
        if due(&mut managers, MANAGERS_EVERY) {
            note("protected addresses", protected_managers.step(&manager).await);
        }
        if due(&mut operations, OPERATIONS_EVERY) {
            let kept_ms = manager.config.operation_keep_hours.saturating_mul(3_600_000);
            let before = Timestamp(Timestamp::now().0.saturating_sub(i64::try_from(kept_ms).unwrap_or(i64::MAX)));
            let expired = manager.store.expire(Retention::ResourceOperations, before).await;
            note("operations", expired.map_err(StepError::Commit));
        }
    }
}

/// What follows from memory alone, as soon as memory took in a change.
pub async fn follow(manager: Arc<Manager>) {
    let every = Duration::from_millis(manager.config.reconcile_interval_ms);
    loop {
        note("uplinks", uplink::step(&manager).await);
        tokio::select! {
            () = manager.shutdown.cancelled() => return,
            () = tokio::time::sleep(PAUSE) => {}
        }
        tokio::select! {
            () = manager.shutdown.cancelled() => return,
            () = manager.changed.notified() => {}
            () = tokio::time::sleep(every) => {}
        }
    }
}
