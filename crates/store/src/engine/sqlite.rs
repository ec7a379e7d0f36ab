//! SQLite: one writer thread on rusqlite. sqlx hands each statement to another thread and back, which at this size of statement costs more
//! than the statement; here the thread that merges is the thread that writes.

use super::{
    batch::{Session, StandingTerms},
    constraint::{Constraint, by_name, by_sqlite_text, parents_of},
    error::{DatabaseError, Failure},
    reserve::Reserve,
    unit::{KINDS, Kind},
};
use crate::ManagerRole;
use rusqlite::{Connection, ErrorCode, OptionalExtension, ffi};
use std::{
    path::Path,
    sync::{Arc, LazyLock},
    time::Duration,
};

/// How long one statement waits for another process's lock. The writer itself waits longer, by trying again.
const BUSY: Duration = Duration::from_secs(1);

/// Each kind's statements, rendered once.
static STATEMENTS: LazyLock<Vec<(String, Option<String>)>> = LazyLock::new(|| {
    KINDS.iter().map(|kind| (kind.sqlite(kind.sql), kind.ensure.map(|text| kind.sqlite(text)))).collect()
});

pub(crate) struct SqliteSession {
    connection: Connection,
    reserve: Reserve,
}

/// A connection that writes, and folds its log when that has `log_pages`: durable at each commit, foreign keys enforced.
pub(crate) fn connect(path: &Path, log_pages: u64) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "wal_autocheckpoint", i64::try_from(log_pages).unwrap_or(i64::MAX))?;
    connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
    connection.set_prepared_statement_cache_capacity(256);
    Ok(connection)
}

impl SqliteSession {
    pub(crate) fn new(connection: Connection, reserve: Reserve) -> Self {
        Self { connection, reserve }
    }

    fn execute(&self, sql: &str) -> Result<(), Failure> {
        self.connection.prepare_cached(sql).and_then(|mut s| s.execute([])).map(drop).map_err(classify)
    }

    fn run_now(&self, kind: usize, rows: &str) -> Result<u64, Failure> {
        let (sql, ensure) = &STATEMENTS[kind];
        let execute = |sql: &str| -> Result<usize, Failure> {
            self.connection
                .prepare_cached(sql)
                .and_then(|mut statement| statement.execute([rows]))
                .map_err(|e| self.classify_of(&KINDS[kind], rows, e))
        };
        if let Some(ensure) = ensure {
            execute(ensure)?;
        }
        execute(sql).map(|changed_rows| u64::try_from(changed_rows).unwrap_or(u64::MAX))
    }

    /// SQLite doesn't say which foreign key failed: look which parent is missing, before the rollback.
    fn classify_of(&self, kind: &Kind, rows: &str, error: rusqlite::Error) -> Failure {
        let foreign = matches!(
            &error,
            rusqlite::Error::SqliteFailure(ffi::Error { extended_code: ffi::SQLITE_CONSTRAINT_FOREIGNKEY, .. }, _)
        );
        if !foreign {
            return classify(error);
        }
        for parent in parents_of(kind.table).filter(|p| kind.columns.iter().any(|(name, _)| *name == p.column)) {
            let (column, table) = (parent.column, parent.table);
            let sql = kind.sqlite(&format!(
                "SELECT EXISTS (SELECT 1 FROM {{rows}} WHERE r.{column} IS NOT NULL \
                 AND NOT EXISTS (SELECT 1 FROM {table} AS p WHERE p.id = r.{column}))"
            ));
            match self.connection.query_row(&sql, [rows], |row| row.get::<_, bool>(0)) {
                Ok(true) => return Failure::Constraint(parent.constraint),
                Ok(false) => {}
                Err(e) => return classify(e),
            }
        }
        Failure::Constraint(Constraint::ChildExists)
    }
}

impl Session for SqliteSession {
    async fn begin(&mut self, roles: &[ManagerRole]) -> Result<StandingTerms, Failure> {
        // Immediate: waits for the write lock here, where nothing is lost by trying again.
        self.execute("BEGIN IMMEDIATE")?;
        let mut standing = StandingTerms::new();
        for role in roles {
            let term = self
                .connection
                .prepare_cached("SELECT term FROM manager_lease WHERE role = ?1")
                .and_then(|mut statement| statement.query_row([role.as_str()], |row| row.get(0)).optional());
            standing.extend(term.map_err(classify)?.map(|term| (*role, term)));
        }
        Ok(standing)
    }

    async fn savepoint(&mut self) -> Result<(), Failure> {
        self.execute("SAVEPOINT part")
    }

    async fn release(&mut self) -> Result<(), Failure> {
        self.execute("RELEASE part")
    }

    async fn undo_to_savepoint(&mut self) -> Result<(), Failure> {
        self.execute("ROLLBACK TO part")?;
        self.execute("RELEASE part")
    }

    async fn run(&mut self, kind: usize, rows: &str) -> Result<u64, Failure> {
        self.run_now(kind, rows)
    }

    async fn event_ids(&mut self, count: i64) -> Result<i64, Failure> {
        self.connection
            .prepare_cached("UPDATE event_head SET last_id = last_id + ?1 RETURNING last_id")
            .and_then(|mut statement| statement.query_row([count], |row| row.get(0)))
            .map_err(classify)
    }

    async fn commit(&mut self) -> Result<(), Failure> {
        self.execute("COMMIT")
    }

    async fn rollback(&mut self) {
        if !self.connection.is_autocommit()
            && let Err(error) = self.connection.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "a transaction could not be rolled back");
        }
    }

    fn takes_new(&mut self) -> bool {
        self.reserve.whole()
    }

    fn release_reserve(&mut self) -> bool {
        if !self.reserve.release_step() {
            return false;
        }
        // Folded into the file, the log begins anew in the room that it has: deletions can go on without more of the reserve.
        if let Err(error) = self.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())) {
            tracing::info!(%error, "the log can't be folded into the database yet");
        }
        true
    }

    async fn resolve(&mut self) -> Result<bool, Failure> {
        // The answer of a commit can't be lost inside one process.
        Ok(false)
    }

    async fn pause(&mut self, time: Duration) {
        #[expect(clippy::disallowed_methods, reason = "this thread is the writer's own: no executor runs on it")]
        std::thread::sleep(time);
    }

    async fn finish(&mut self) {
        if let Err(error) = self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())) {
            tracing::warn!(%error, "the log could not be folded into the database; the next start does it");
        }
    }
}

/// What the writer does about an error.
#[expect(clippy::wildcard_enum_match_arm, reason = "the driver's errors: what isn't named here is a defect")]
pub(crate) fn classify(error: rusqlite::Error) -> Failure {
    let cause = |error| Arc::new(DatabaseError::Sqlite(error));
    let rusqlite::Error::SqliteFailure(code, text) = &error else { return Failure::Internal(cause(error)) };
    if code.code == ErrorCode::DiskFull || code.extended_code == ffi::SQLITE_IOERR_SHMSIZE {
        return Failure::Full(cause(error));
    }
    match code.code {
        ErrorCode::ConstraintViolation => {
            match text.as_deref().and_then(|text| constraint_in(code.extended_code, text)) {
                Some(constraint) => Failure::Constraint(constraint),
                None => Failure::Internal(cause(error)),
            }
        }
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed => {
            Failure::Away(cause(error))
        }
        ErrorCode::ReadOnly
        | ErrorCode::SystemIoFailure
        | ErrorCode::CannotOpen
        | ErrorCode::PermissionDenied
        | ErrorCode::OutOfMemory => Failure::Refused(cause(error)),
        _ => Failure::Internal(cause(error)),
    }
}

fn constraint_in(extended_code: i32, text: &str) -> Option<Constraint> {
    let (_, what) = text.split_once(" constraint failed: ")?;
    match extended_code {
        ffi::SQLITE_CONSTRAINT_UNIQUE | ffi::SQLITE_CONSTRAINT_PRIMARYKEY => by_sqlite_text(what),
        ffi::SQLITE_CONSTRAINT_CHECK => by_name(what),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_some_projects_are_read_by_each_projects_index() {
        let connection = Connection::open_in_memory().expect("opens");
        for migration in crate::open::MIGRATIONS {
            connection.execute_batch(migration.sql).expect("migrates");
        }
        let sql = format!("EXPLAIN QUERY PLAN SELECT * FROM event {}", crate::event::AMONG_SQLITE);
        let mut plan = connection.prepare(&sql).expect("prepares");
        let steps = plan.query_map(rusqlite::params!["[]", 0, 500], |row| row.get::<_, String>(3)).expect("explains");
        let steps: Vec<String> = steps.map(|step| step.expect("a step")).collect();
        assert!(
            steps.iter().any(|step| step.contains("event_project (project_id=? AND id>?)")),
            "each project's events are read from the id on: {steps:#?}"
        );
        let scans = |step: &&String| step.starts_with("SCAN ") && !step.starts_with("SCAN p ");
        assert!(!steps.iter().any(|step| scans(&step)), "no table is read whole: {steps:#?}");
    }

    /// Tables whose whole is read on purpose, and by which statement.
    const MAY_SCAN: &[(&str, &str)] = &[];

    #[test]
    fn every_statement_finds_its_rows_by_an_index() {
        let connection = Connection::open_in_memory().expect("opens");
        for migration in crate::open::MIGRATIONS {
            connection.execute_batch(migration.sql).expect("migrates");
        }
        for (kind, (sql, ensure)) in KINDS.iter().zip(STATEMENTS.iter()) {
            for sql in std::iter::once(sql).chain(ensure) {
                let mut plan = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).expect(kind.name);
                let steps = plan.query_map(["[]"], |row| row.get::<_, String>(3)).expect(kind.name);
                for step in steps {
                    let step = step.expect("a step");
                    // Steps read `SCAN jsonb_each VIRTUAL TABLE …`, `SCAN s` (a subquery), `SEARCH host USING …`.
                    let Some(scanned) = step.strip_prefix("SCAN ").and_then(|rest| rest.split(' ').next()) else {
                        continue;
                    };
                    let given =
                        ["jsonb_each", "r", "s", "c", "CONSTANT"].contains(&scanned) || scanned.starts_with('(');
                    assert!(given || MAY_SCAN.contains(&(kind.name, scanned)), "{}: {step}\n{sql}", kind.name);
                }
            }
        }
    }
}
