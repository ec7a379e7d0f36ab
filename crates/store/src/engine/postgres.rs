//! PostgreSQL: one writer connection per process, read committed. The same batches; a lost connection is opened anew.
//!
//! A COMMIT whose answer is lost may or may not have happened, and claims and usage must not be added twice. So each transaction notes
//! its id when it begins, and the server is asked for that id's fate (`pg_xact_status`) when the answer didn't come.

use super::{
    batch::{Session, StandingTerms},
    constraint::by_name,
    error::{Cause, DatabaseError, Failure, POSTGRES_DISK_FULL},
    unit::{KINDS, Kind},
};
use crate::ManagerRole;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, Row, postgres::PgConnectOptions};
use std::{
    future::Future,
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};

const CONNECT: Duration = Duration::from_secs(5);
/// Longer than the server's own limits below: a server that doesn't answer at all is gone.
const ANSWER: Duration = Duration::from_secs(15);

struct Statement {
    sql: Arc<str>,
    ensure: Option<Arc<str>>,
}

/// Each kind's statements, rendered once.
static STATEMENTS: LazyLock<Vec<Statement>> = LazyLock::new(|| {
    let statement = |kind: &Kind| Statement {
        sql: kind.postgres(kind.sql).into(),
        ensure: kind.ensure.map(|text| kind.postgres(text).into()),
    };
    KINDS.iter().map(statement).collect()
});

pub(crate) struct PostgresSession {
    options: PgConnectOptions,
    connection: Option<PgConnection>,
    /// Of the transaction in progress, or of the one whose COMMIT wasn't answered.
    transaction_id: String,
    planned_at: Instant,
}

fn no_answer() -> Cause {
    Arc::new(DatabaseError::NoAnswer(ANSWER.as_secs()))
}

/// How long a plan lives. PostgreSQL plans a prepared statement once, for the table as it is then: planned while `disk` is empty, the
/// confirmation of disks reads all of it in every batch from then on (measured: 34 ms of a 45 ms transaction at 6,000 rows).
const PLAN_LIFE: Duration = Duration::from_secs(1);

/// The writer's session settings. Its statements join a few hundred given rows to tables by their keys: nested loops over indexes are
/// right whatever the statistics of a young table say.
pub(crate) fn writer_options(options: &PgConnectOptions) -> PgConnectOptions {
    options.clone().application_name("iaas-writer").statement_cache_capacity(256).options([
        ("lock_timeout", "5s"),
        ("statement_timeout", "10s"),
        ("idle_in_transaction_session_timeout", "30s"),
        ("jit", "off"),
        ("enable_hashjoin", "off"),
        ("enable_mergejoin", "off"),
        ("enable_seqscan", "off"),
        ("enable_material", "off"),
    ])
}

/// A session that only renews a lease: it never waits behind commits.
pub(crate) fn lease_options(options: &PgConnectOptions) -> PgConnectOptions {
    options.clone().application_name("iaas-lease").options([("lock_timeout", "1s"), ("statement_timeout", "2s")])
}

impl PostgresSession {
    pub(crate) fn new(options: PgConnectOptions) -> Self {
        Self { options, connection: None, transaction_id: String::new(), planned_at: Instant::now() }
    }

    async fn connect(&mut self) -> Result<&mut PgConnection, Failure> {
        if self.connection.is_none() {
            match tokio::time::timeout(CONNECT, self.options.connect()).await {
                Ok(Ok(connection)) => self.connection = Some(connection),
                Ok(Err(error)) => return Err(classify(error)),
                Err(_) => return Err(Failure::Away(no_answer())),
            }
        }
        self.connected()
    }

    fn connected(&mut self) -> Result<&mut PgConnection, Failure> {
        self.connection.as_mut().ok_or_else(|| Failure::Away(Arc::new(DatabaseError::NoConnection)))
    }

    /// Waits for an answer, and forgets the connection when none can come any more.
    fn settle<T>(&mut self, result: Result<sqlx::Result<T>, tokio::time::error::Elapsed>) -> Result<T, Failure> {
        let failure = match result {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => {
                if connection_lost(&error) {
                    self.connection = None;
                }
                classify(error)
            }
            Err(_) => {
                self.connection = None;
                Failure::Away(no_answer())
            }
        };
        Err(failure)
    }

    async fn execute(&mut self, sql: &'static str) -> Result<(), Failure> {
        let result = answer(sqlx::raw_sql(sql).execute(self.connected()?)).await;
        self.settle(result).map(drop)
    }

    async fn run_text(&mut self, sql: Arc<str>, rows: &str) -> Result<u64, Failure> {
        let query = sqlx::query(AssertSqlSafe(sql)).bind(rows);
        let result = answer(query.execute(self.connected()?)).await;
        self.settle(result).map(|done| done.rows_affected())
    }
}

async fn answer<T>(
    work: impl Future<Output = sqlx::Result<T>>,
) -> Result<sqlx::Result<T>, tokio::time::error::Elapsed> {
    tokio::time::timeout(ANSWER, work).await
}

impl Session for PostgresSession {
    async fn begin(&mut self, roles: &[ManagerRole]) -> Result<StandingTerms, Failure> {
        self.transaction_id.clear();
        let mut sql = String::from("BEGIN; SELECT CAST(pg_current_xact_id() AS text)");
        if self.planned_at.elapsed() >= PLAN_LIFE {
            self.planned_at = Instant::now();
            sql.insert_str(0, "DISCARD PLANS; ");
        }
        if !roles.is_empty() {
            // In the same round trip. A takeover's update waits for this transaction's end, or this waits for the takeover's; renewals pass.
            let roles: Vec<String> = roles.iter().map(|role| format!("'{}'", role.as_str())).collect();
            let roles = roles.join(", ");
            sql.push_str(&format!("; SELECT role, term FROM manager_lease WHERE role IN ({roles}) FOR KEY SHARE"));
        }
        let query = sqlx::raw_sql(AssertSqlSafe(sql));
        let result = answer(query.fetch_all(self.connect().await?)).await;
        let rows = self.settle(result)?;
        let id = rows.first().map(|row| row.try_get::<String, _>(0)).transpose().map_err(classify)?;
        self.transaction_id = id.unwrap_or_default();
        let standing = rows.iter().skip(1).filter_map(|row| {
            let term = row.try_get::<String, _>("role").and_then(|role| Ok((role, row.try_get::<i64, _>("term")?)));
            term.map(|(role, term)| Some((ManagerRole::parse(&role)?, term))).transpose()
        });
        standing.collect::<sqlx::Result<StandingTerms>>().map_err(classify)
    }

    async fn savepoint(&mut self) -> Result<(), Failure> {
        self.execute("SAVEPOINT part").await
    }

    async fn release(&mut self) -> Result<(), Failure> {
        self.execute("RELEASE SAVEPOINT part").await
    }

    async fn undo_to_savepoint(&mut self) -> Result<(), Failure> {
        self.execute("ROLLBACK TO SAVEPOINT part; RELEASE SAVEPOINT part").await
    }

    async fn run(&mut self, kind: usize, rows: &str) -> Result<u64, Failure> {
        let Statement { sql, ensure } = &STATEMENTS[kind];
        if let Some(ensure) = ensure {
            self.run_text(ensure.clone(), rows).await?;
        }
        self.run_text(sql.clone(), rows).await
    }

    async fn event_ids(&mut self, count: i64) -> Result<i64, Failure> {
        let query = sqlx::query_scalar::<_, i64>("UPDATE event_head SET last_id = last_id + $1 RETURNING last_id");
        let result = answer(query.bind(count).fetch_one(self.connected()?)).await;
        self.settle(result)
    }

    async fn commit(&mut self) -> Result<(), Failure> {
        match self.execute("COMMIT").await {
            // Without a connection now, the answer was lost: it may have committed.
            Err(Failure::Away(cause) | Failure::Internal(cause)) if self.connection.is_none() => {
                Err(Failure::Unknown(cause))
            }
            other => other,
        }
    }

    async fn rollback(&mut self) {
        if self.connection.is_some() && self.execute("ROLLBACK").await.is_err() {
            // The server rolls back what a lost connection began.
            self.connection = None;
        }
    }

    /// Room for deletions is the server's own matter.
    fn takes_new(&mut self) -> bool {
        true
    }

    fn release_reserve(&mut self) -> bool {
        false
    }

    async fn resolve(&mut self) -> Result<bool, Failure> {
        let id = self.transaction_id.clone();
        let query = sqlx::query_scalar::<_, Option<String>>("SELECT pg_xact_status(CAST($1 AS xid8))");
        let result = answer(query.bind(id.clone()).fetch_one(self.connect().await?)).await;
        match self.settle(result)?.as_deref() {
            Some("committed") => Ok(true),
            Some("aborted") => Ok(false),
            // The old connection's process hasn't noticed yet, or is in its fsync.
            Some(_) => Err(Failure::Away(no_answer())),
            None => Err(Failure::Unknown(Arc::new(DatabaseError::FateUnknown(id)))),
        }
    }

    async fn pause(&mut self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    async fn finish(&mut self) {
        if let Some(connection) = self.connection.take() {
            // Nothing is open on it; the server copes with an end without farewell.
            let _ = connection.close().await;
        }
    }
}

/// Whether the server ends the connection with this SQLSTATE, or isn't there to answer.
fn server_away(code: &str) -> bool {
    // 08 connection exception; 57P0x shutdown, crash, starting up; 53300 too many connections; 25006 a standby took our place.
    code.starts_with("08") || code.starts_with("57P") || code == "53300" || code == "25006"
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the driver's errors: what isn't named here is a defect")]
fn connection_lost(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(e) => e.code().is_some_and(|code| server_away(&code)),
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => true,
        _ => false,
    }
}

/// What the writer does about an error.
#[expect(clippy::wildcard_enum_match_arm, reason = "the driver's errors: what isn't named here is a defect")]
pub(crate) fn classify(error: sqlx::Error) -> Failure {
    let cause = |error| Arc::new(DatabaseError::Sqlx(error));
    let sqlx::Error::Database(database) = &error else {
        return match error {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => Failure::Away(cause(error)),
            _ => Failure::Internal(cause(error)),
        };
    };
    let code = database.code().unwrap_or_default().into_owned();
    match code.as_str() {
        "23505" | "23503" | "23514" => match database.constraint().and_then(by_name) {
            Some(constraint) => Failure::Constraint(constraint),
            None => Failure::Internal(cause(error)),
        },
        "40001" | "40P01" => Failure::Conflict(cause(error)),
        // Lock or statement timeout: somebody holds a row, or the server is overloaded.
        "55P03" | "57014" => Failure::Away(cause(error)),
        POSTGRES_DISK_FULL => Failure::Full(cause(error)),
        // Out of memory, I/O error.
        "53200" | "58030" => Failure::Refused(cause(error)),
        code if server_away(code) => Failure::Away(cause(error)),
        _ => Failure::Internal(cause(error)),
    }
}
