//! The machinery that the aggregates stand on: units and ops as data, the writer that batches them, one session per database, and reads.

// First, because the macros of these two are used by all.
#[macro_use]
pub(crate) mod rows;
#[macro_use]
pub(crate) mod unit;

pub(crate) mod batch;
pub(crate) mod constraint;
pub(crate) mod error;
pub(crate) mod postgres;
pub(crate) mod read;
pub(crate) mod readers;
pub(crate) mod reserve;
pub(crate) mod sqlite;
pub(crate) mod term;

pub use constraint::Constraint;
pub use error::{Cause, CommitError, DatabaseError, Guard, ReadError};

use batch::{Job, Request};
use read::Pool;
use sqlx::postgres::PgConnectOptions;
use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use term::{RoleStates, Term};
use tokio::sync::{mpsc, oneshot, watch};
use unit::{Prepared, Unit};

/// How long a commit waits for a database that is locked or gone.
pub(crate) const COMMIT_WAIT: Duration = Duration::from_secs(35);
/// How long a readiness check waits for the writer.
const PING_WAIT: Duration = Duration::from_secs(2);
/// Units that may wait for the writer; more wait to be let in.
pub(crate) const QUEUE: usize = 8192;

/// What the writer did since the store was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StoreCounters {
    /// Transactions committed.
    pub commits: u64,
    /// Units answered, whatever the answer.
    pub units: u64,
    /// Batches that had a failing unit and were halved.
    pub batch_reruns: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub commits: AtomicU64,
    pub units: AtomicU64,
    pub batch_reruns: AtomicU64,
}

/// A cheap handle on the database: reads from a pool, writes through one queue.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
    /// Of a manager that leads: every unit that is committed by this handle is fenced by it.
    term: Option<Arc<Term>>,
}

pub(crate) struct Inner {
    pub pool: Pool,
    pub writer: mpsc::Sender<Request>,
    pub counters: Arc<Counters>,
    pub events: watch::Receiver<i64>,
    pub commit_wait: Duration,
    pub location: Location,
    pub role_wait: Duration,
    pub lease_ttl: Duration,
    pub roles: RoleStates,
}

/// Where the database is, for locks that aren't the writer's.
pub(crate) enum Location {
    Sqlite(PathBuf),
    Postgres(Box<PgConnectOptions>),
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("counters", &self.counters()).finish_non_exhaustive()
    }
}

impl Store {
    pub(crate) fn from_inner(inner: Inner) -> Self {
        Self { inner: Arc::new(inner), term: None }
    }

    /// A handle whose units are committed under this term, or not at all.
    pub(crate) fn under(&self, term: Arc<Term>) -> Self {
        Self { inner: Arc::clone(&self.inner), term: Some(term) }
    }

    pub(crate) fn term(&self) -> Option<&Arc<Term>> {
        self.term.as_ref()
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.inner.pool
    }

    pub(crate) fn location(&self) -> &Location {
        &self.inner.location
    }

    pub(crate) fn role_wait(&self) -> Duration {
        self.inner.role_wait
    }

    pub(crate) fn lease_ttl(&self) -> Duration {
        self.inner.lease_ttl
    }

    pub(crate) fn roles(&self) -> &RoleStates {
        &self.inner.roles
    }

    /// Applies a unit, whole or not at all. `Ok`: it is durable. While the database is locked or gone this waits, 35 s at most.
    ///
    /// A caller that stops waiting (drops the future) doesn't stop the unit. On a leading manager's handle ([`crate::Leadership::store`])
    /// a unit whose term is over is `Unavailable`, and writes nothing.
    pub async fn commit(&self, unit: Unit) -> Result<(), CommitError> {
        if unit.is_empty() {
            return Ok(());
        }
        if let Some(term) = self.term.as_ref().filter(|term| !term.holds()) {
            return Err(term.not_leader());
        }
        let unit = Prepared::new(&unit).map_err(|e| CommitError::Internal(Arc::new(DatabaseError::Unit(e))))?;
        let deadline = Instant::now() + self.inner.commit_wait;
        let (answer, answered) = oneshot::channel();
        match tokio::time::timeout_at(deadline.into(), self.inner.writer.reserve()).await {
            Ok(Ok(permit)) => permit.send(Request::Commit(Job { unit, deadline, answer, term: self.term.clone() })),
            Ok(Err(_)) => return Err(CommitError::Unavailable(Arc::new(DatabaseError::Closed))),
            Err(_) => {
                let waited = DatabaseError::WaitedTooLong(self.inner.commit_wait.as_secs());
                return Err(CommitError::Unavailable(Arc::new(waited)));
            }
        }
        answered.await.unwrap_or_else(|_| Err(CommitError::Unavailable(Arc::new(DatabaseError::Closed))))
    }

    /// Whether reads and writes work: one query, and one transaction that the writer commits in its turn. Waits 2 s at most.
    pub async fn ping(&self) -> Result<(), ReadError> {
        let work = async {
            self.pool().fetch_one::<read::Count>("SELECT last_id AS n FROM event_head", []).await?;
            let (answer, answered) = oneshot::channel();
            let closed = || ReadError::Unavailable(Arc::new(DatabaseError::Closed));
            self.inner.writer.send(Request::Ping(answer)).await.map_err(|_| closed())?;
            answered.await.map_err(|_| closed())?.map_err(ReadError::Unavailable)
        };
        match tokio::time::timeout(PING_WAIT, work).await {
            Ok(result) => result,
            Err(_) => Err(ReadError::Unavailable(Arc::new(DatabaseError::WaitedTooLong(PING_WAIT.as_secs())))),
        }
    }

    #[must_use]
    pub fn counters(&self) -> StoreCounters {
        let counters = &self.inner.counters;
        StoreCounters {
            commits: counters.commits.load(Ordering::Relaxed),
            units: counters.units.load(Ordering::Relaxed),
            batch_reruns: counters.batch_reruns.load(Ordering::Relaxed),
        }
    }

    /// Shows the counters among the process's metrics.
    pub fn record_counters(&self) {
        let StoreCounters { commits, units, batch_reruns } = self.counters();
        metrics::counter!("iaas_store_commits_total").absolute(commits);
        metrics::counter!("iaas_store_units_total").absolute(units);
        metrics::counter!("iaas_store_batch_reruns_total").absolute(batch_reruns);
    }

    /// The id of the last event that this process committed (0: none yet). A hint to look; other processes' events don't move it.
    #[must_use]
    pub fn event_watch(&self) -> watch::Receiver<i64> {
        self.inner.events.clone()
    }

    /// Commits what is queued, folds SQLite's log back into the file, and closes. Later commits on other handles are `Unavailable`.
    pub async fn close(self) {
        let (answer, answered) = oneshot::channel();
        if self.inner.writer.send(Request::Close(answer)).await.is_ok() {
            // An error means that the writer ended already.
            let _ = answered.await;
        }
        self.pool().close().await;
    }
}
