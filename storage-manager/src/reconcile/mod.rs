//! Sweeps: what has passed its time goes, with a reason.
//!
//! Level-triggered: a sweep takes no input but the clock, reads what is due, and removes it fenced by what it read. So it may run at any
//! moment, twice, or in several processes at once; whoever changed a thing in between wins, and the sweep looks again next time. It is
//! woken by a signal (something may be due) and by a timer (something may have been missed).

pub mod disk;
pub mod image;
pub mod object;

use crate::{
    Config,
    object::ObjectDir,
    reservation::{ImageReservations, LeftoverError},
};
use domain::Timestamp;
use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};
use store::{CommitError, ReadError, Retention, Store};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// How often all objects are listed and old outcomes are deleted.
const RARELY: Duration = Duration::from_secs(600);

#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    #[error("what is due can't be read")]
    Read(#[source] ReadError),
    #[error("what is due can't be removed")]
    Commit(#[source] CommitError),
    #[error("the object store can't be swept")]
    Object(#[source] crate::object::ObjectError),
}

impl From<LeftoverError> for SweepError {
    fn from(error: LeftoverError) -> Self {
        match error {
            LeftoverError::Read(error) => Self::Read(error),
            LeftoverError::Commit(error) => Self::Commit(error),
        }
    }
}

impl SweepError {
    /// Whether the database is unavailable. The store logs that itself, and the next sweep does the work.
    fn passing(&self) -> bool {
        matches!(self, Self::Read(ReadError::Unavailable(_)) | Self::Commit(CommitError::Unavailable(_)))
    }
}

/// Runs the sweeps.
pub struct Reconciler {
    store: Store,
    objects: ObjectDir,
    reservations: ImageReservations,
    wake: Arc<Notify>,
    period: Duration,
    object_grace: Duration,
    operation_secs: u64,
}

impl Reconciler {
    #[must_use]
    pub fn new(store: Store, objects: ObjectDir, reservations: ImageReservations, config: &Config) -> Self {
        Self {
            store,
            objects,
            reservations,
            wake: Arc::new(Notify::new()),
            period: Duration::from_secs(config.sweep_secs),
            object_grace: Duration::from_secs(config.object_grace_secs),
            operation_secs: config.operation_hours * 3600,
        }
    }

    /// The signal that makes the sweeps run.
    #[must_use]
    pub fn waker(&self) -> Arc<Notify> {
        Arc::clone(&self.wake)
    }

    pub async fn run(self, shutdown: CancellationToken) {
        let mut rare: Option<Instant> = None;
        while !shutdown.is_cancelled() {
            let now = Timestamp::now();
            note("uploads", self.reservations.sweep().await.map_err(SweepError::from));
            note("reservations", disk::sweep_reservations(&self.store, now).await);
            note("queued images", image::sweep_overdue(&self.store, now).await);
            note("deleting images", image::sweep_deleting(&self.store).await);
            if rare.is_none_or(|at| at.elapsed() >= RARELY) {
                rare = Some(Instant::now());
                let cutoff = SystemTime::now() - self.object_grace;
                note("objects", object::sweep_objects(&self.store, &self.objects, cutoff).await);
                note("operations", sweep_operations(&self.store, now, self.operation_secs).await);
            }
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = self.wake.notified() => {}
                () = tokio::time::sleep(self.period) => {}
            }
        }
    }
}

fn note(what: &'static str, swept: Result<u64, SweepError>) {
    match swept {
        Ok(count) => metrics::counter!("iaas_storage_swept_total", "what" => what).increment(count),
        Err(error) if error.passing() => tracing::debug!(what, %error, "a sweep waits for the database"),
        Err(error) => {
            tracing::error!(what, error = service_kit::error_chain(&error), "a sweep failed");
        }
    }
}

/// Deletes outcomes that are past their time.
pub async fn sweep_operations(store: &Store, now: Timestamp, kept_secs: u64) -> Result<u64, SweepError> {
    let before = Timestamp(now.0.saturating_sub(i64::try_from(kept_secs * 1000).unwrap_or(i64::MAX)));
    store.expire(Retention::StorageOperations, before).await.map_err(SweepError::Commit)?;
    Ok(0)
}
