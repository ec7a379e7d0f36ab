//! Opening: the database is created where it can be, brought to this binary's schema under an exclusive lock, and refused when it is newer.
//!
//! The runner is our own because both databases must behave alike: one table `schema_version` with each migration's checksum, each migration
//! in a transaction of its own, one lock around the decision (`BEGIN EXCLUSIVE`; an advisory lock), so that any number of processes may start at
//! once.

use crate::{
    Store, StoreConfig,
    engine::{
        COMMIT_WAIT, Cause, Counters, DatabaseError, Inner, Location, QUEUE,
        batch::{Session, Writer},
        error::Failure,
        postgres::{self, PostgresSession},
        read::Pool,
        readers::Readers,
        reserve::Reserve,
        sqlite::{self, SqliteSession},
        term::RoleStates,
    },
};
use domain::Timestamp;
use rusqlite::OptionalExtension;
use sha2::{Digest, Sha256};
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, PgConnection, postgres::PgConnectOptions, sqlite::SqliteConnectOptions,
};
use std::{
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::{mpsc, watch};

/// Both databases run the same text.
pub(crate) struct Migration {
    version: i64,
    pub(crate) sql: &'static str,
}

pub(crate) const MIGRATIONS: &[Migration] =
    &[Migration { version: 1, sql: include_str!("../../../migrations/0001_initial.sql") }];

/// The schema that this binary needs.
pub const SCHEMA_VERSION: i64 = MIGRATIONS[MIGRATIONS.len() - 1].version;

const VERSION_TABLE: &str = "CREATE TABLE IF NOT EXISTS schema_version (
    version    BIGINT PRIMARY KEY NOT NULL,
    checksum   TEXT NOT NULL,
    applied_at BIGINT NOT NULL
)";

/// `iaas` and `schema`, so that no other user of the server's advisory locks is likely to take the same.
const MIGRATION_LOCK: i64 = 0x6961_6173_7363_6865;
/// How long another process may take to migrate, or hold a SQLite file.
const OPEN_WAIT: Duration = Duration::from_secs(30);
/// How long a read waits for a connection or a lock.
pub(crate) const READ_WAIT: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(
        "`{scheme}` is not a database this can use: give sqlite:///absolute/path.db or postgres://user@host/database"
    )]
    Scheme { scheme: String },
    #[error("the database URL is not valid")]
    Url(#[source] Cause),
    #[error("the directory or file {} can't be made", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(
        "the database has schema {found}, this binary knows {known}: it was used by a newer version; start that version, or restore a backup"
    )]
    NewerSchema { found: i64, known: i64 },
    #[error("migration {version} was changed after it had been applied to this database")]
    ChangedMigration { version: i64 },
    #[error("migration {version} failed; nothing of it was applied")]
    Migration {
        version: i64,
        #[source]
        source: Cause,
    },
    #[error("the database is not available")]
    Unavailable(#[source] Cause),
    #[error("the database can't be used")]
    Unusable(#[source] Cause),
}

impl OpenError {
    /// Whether it is for want of room on the disk. To create the log's files fails without a word of it, so that counts too.
    fn disk_full(&self) -> bool {
        match self {
            Self::Unavailable(cause) | Self::Unusable(cause) | Self::Migration { source: cause, .. } => {
                cause.disk_full() || cause.cannot_open()
            }
            Self::Scheme { .. }
            | Self::Url(_)
            | Self::File { .. }
            | Self::NewerSchema { .. }
            | Self::ChangedMigration { .. } => false,
        }
    }
}

impl Store {
    /// Creates (SQLite), migrates and opens. Must run inside a tokio runtime.
    pub async fn open(config: &StoreConfig) -> Result<Self, OpenError> {
        Self::open_waiting(config, COMMIT_WAIT).await
    }

    pub(crate) async fn open_waiting(config: &StoreConfig, commit_wait: Duration) -> Result<Self, OpenError> {
        let url = config.url.as_str();
        if let Some(path) = url.strip_prefix("sqlite://") {
            open_sqlite(Path::new(path), config, commit_wait).await
        } else if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            let options =
                PgConnectOptions::from_str(url).map_err(|e| OpenError::Url(Arc::new(DatabaseError::Sqlx(e))))?;
            open_postgres(options.disable_statement_logging(), config, commit_wait).await
        } else {
            let scheme = url.split(':').next().unwrap_or_default().chars().take(40).collect();
            Err(OpenError::Scheme { scheme })
        }
    }

    /// Starts the writer; `run` puts it where it works.
    fn start<S: Session>(
        (pool, location): (Pool, Location),
        session: S,
        config: &StoreConfig,
        commit_wait: Duration,
        run: impl FnOnce(Writer<S>) -> Result<(), OpenError>,
    ) -> Result<Self, OpenError> {
        let (writer, queue) = mpsc::channel(QUEUE);
        let (events_sender, events) = watch::channel(0);
        let counters = Arc::new(Counters::default());
        run(Writer {
            session,
            queue,
            counters: counters.clone(),
            events: events_sender,
            batch_max: config.batch_max.max(1),
            commit_wait,
            refused_full_at: None,
        })?;
        Ok(Self::from_inner(Inner {
            pool,
            writer,
            counters,
            events,
            commit_wait,
            location,
            role_wait: config.role_wait,
            lease_ttl: config.lease_ttl,
            roles: RoleStates::default(),
        }))
    }
}

async fn open_sqlite(path: &Path, config: &StoreConfig, commit_wait: Duration) -> Result<Store, OpenError> {
    let (owned, reserve_bytes) = (path.to_owned(), config.reserve_bytes);
    let (connection, reserve) = tokio::task::spawn_blocking(move || sqlite_prepare(&owned, reserve_bytes))
        .await
        .map_err(|e| OpenError::Unusable(Arc::new(DatabaseError::Writer(e.into()))))??;
    let options = SqliteConnectOptions::new()
        .filename(path)
        .busy_timeout(READ_WAIT)
        .pragma("query_only", "on")
        .statement_cache_capacity(256)
        .disable_statement_logging();
    let readers = Readers::new(options, config.readers.max(1), READ_WAIT);
    // What is wrong with the file shows now.
    let first = readers.take().await.map_err(|e| OpenError::Unavailable(Arc::new(DatabaseError::Sqlx(e))))?;
    readers.finish(first, Ok(())).await;
    let session = SqliteSession::new(connection, reserve);
    let database = (Pool::Sqlite(readers), Location::Sqlite(path.to_owned()));
    Store::start(database, session, config, commit_wait, |writer| {
        let thread = std::thread::Builder::new().name("store-writer".into());
        let started = thread.spawn(move || futures::executor::block_on(writer.run()));
        started.map(drop).map_err(|e| OpenError::Unusable(Arc::new(DatabaseError::Writer(e))))
    })
}

async fn open_postgres(
    options: PgConnectOptions,
    config: &StoreConfig,
    commit_wait: Duration,
) -> Result<Store, OpenError> {
    postgres_migrate(&options).await?;
    let of_readers = options.clone().application_name("iaas-reader").statement_cache_capacity(256);
    let readers = Readers::new(of_readers, config.readers.max(1), READ_WAIT);
    let session = PostgresSession::new(postgres::writer_options(&options));
    let database = (Pool::Postgres(readers), Location::Postgres(Box::new(options)));
    Store::start(database, session, config, commit_wait, |writer| {
        tokio::spawn(writer.run());
        Ok(())
    })
}

fn checksum(sql: &str) -> String {
    hex::encode(Sha256::digest(sql))
}

/// The next migration to run on a database that says this of itself; an error when it isn't ours to touch.
fn next_migration(applied: &[(i64, String)]) -> Result<Option<&'static Migration>, OpenError> {
    let found = applied.iter().map(|(version, _)| *version).max().unwrap_or(0);
    if found > SCHEMA_VERSION {
        return Err(OpenError::NewerSchema { found, known: SCHEMA_VERSION });
    }
    for migration in MIGRATIONS {
        match applied.iter().find(|(version, _)| *version == migration.version) {
            Some((version, sum)) if *sum != checksum(migration.sql) => {
                return Err(OpenError::ChangedMigration { version: *version });
            }
            Some(_) => {}
            None => return Ok(Some(migration)),
        }
    }
    Ok(None)
}

/// The writer's connection to a migrated database. Another process may hold the file for a while: try again. On a full disk what SQLite needs to open
/// comes from the reserve.
fn sqlite_prepare(path: &Path, reserve_bytes: u64) -> Result<(rusqlite::Connection, Reserve), OpenError> {
    let file_error = |source| OpenError::File { path: path.to_owned(), source };
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(file_error)?;
    }
    // It holds password hashes: its owner's alone. SQLite gives its side files the same mode.
    let mut file = std::fs::OpenOptions::new();
    file.write(true).create(true).truncate(false).mode(0o600).open(path).map_err(file_error)?;
    let started = Instant::now();
    let mut reserve = Reserve::find(path, reserve_bytes);
    loop {
        let attempt = sqlite::connect(path, reserve.log_pages()).map_err(|e| open_error(sqlite::classify(e))).and_then(
            |mut connection| {
                while sqlite_migrate_one(&mut connection)? {}
                Ok(connection)
            },
        );
        match attempt {
            Ok(connection) => {
                if !reserve.whole() {
                    tracing::error!(path = %path.display(), "the disk of the database is full: nothing new is taken until there is room");
                }
                return Ok((connection, reserve));
            }
            Err(error) if error.disk_full() && reserve.release_step() => {}
            Err(OpenError::Unavailable(_)) if started.elapsed() < OPEN_WAIT => {
                #[expect(
                    clippy::disallowed_methods,
                    reason = "on a blocking thread; SQLite has no signal for an unlock"
                )]
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(error) => return Err(error),
        }
    }
}

/// Runs one migration under the exclusive lock; false when there was none to run.
fn sqlite_migrate_one(connection: &mut rusqlite::Connection) -> Result<bool, OpenError> {
    let failed = |e| open_error(sqlite::classify(e));
    // A database that is up to date is only read: an old process may be writing to it.
    if next_migration(&sqlite_applied(connection).map_err(failed)?)?.is_none() {
        return Ok(false);
    }
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Exclusive).map_err(failed)?;
    transaction.execute_batch(VERSION_TABLE).map_err(failed)?;
    let Some(migration) = next_migration(&sqlite_applied(&transaction).map_err(failed)?)? else {
        return Ok(false);
    };
    let version = migration.version;
    let migrated = transaction.execute_batch(migration.sql).and_then(|()| {
        let row = (version, checksum(migration.sql), Timestamp::now().0);
        transaction.execute("INSERT INTO schema_version (version, checksum, applied_at) VALUES (?1, ?2, ?3)", row)
    });
    migrated.map_err(|e| OpenError::Migration { version, source: Arc::new(DatabaseError::Sqlite(e)) })?;
    transaction.commit().map_err(failed)?;
    tracing::info!(version, "the database was migrated");
    Ok(true)
}

fn sqlite_applied(connection: &rusqlite::Connection) -> rusqlite::Result<Vec<(i64, String)>> {
    let there =
        connection.query_row("SELECT 1 FROM sqlite_schema WHERE name = 'schema_version'", [], |_| Ok(())).optional()?;
    if there.is_none() {
        return Ok(Vec::new());
    }
    let mut statement = connection.prepare("SELECT version, checksum FROM schema_version")?;
    statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

async fn postgres_migrate(options: &PgConnectOptions) -> Result<(), OpenError> {
    let failed = |e| open_error(postgres::classify(e));
    let connect = tokio::time::timeout(OPEN_WAIT, options.connect());
    let mut connection = match connect.await {
        Ok(connected) => connected.map_err(failed)?,
        Err(_) => {
            let waited = DatabaseError::WaitedTooLong(OPEN_WAIT.as_secs());
            return Err(OpenError::Unavailable(Arc::new(waited)));
        }
    };
    // Held by the session: released however this ends, because the connection is closed.
    sqlx::query("SELECT pg_advisory_lock($1)").bind(MIGRATION_LOCK).execute(&mut connection).await.map_err(failed)?;
    let result = postgres_migrate_locked(&mut connection).await;
    let closed = connection.close().await.map_err(failed);
    result.and(closed)
}

async fn postgres_migrate_locked(connection: &mut PgConnection) -> Result<(), OpenError> {
    let failed = |e| open_error(postgres::classify(e));
    // Looked up first: CREATE TABLE IF NOT EXISTS asks for a right that an up-to-date database's user needn't have.
    let there: bool = sqlx::query_scalar("SELECT to_regclass('schema_version') IS NOT NULL")
        .fetch_one(&mut *connection)
        .await
        .map_err(failed)?;
    if !there {
        sqlx::raw_sql(VERSION_TABLE).execute(&mut *connection).await.map_err(failed)?;
    }
    loop {
        let applied: Vec<(i64, String)> = sqlx::query_as("SELECT version, checksum FROM schema_version")
            .fetch_all(&mut *connection)
            .await
            .map_err(failed)?;
        let Some(migration) = next_migration(&applied)? else { return Ok(()) };
        let version = migration.version;
        let migrated = async {
            let mut transaction = connection.begin().await?;
            sqlx::raw_sql(AssertSqlSafe(migration.sql)).execute(&mut *transaction).await?;
            sqlx::query("INSERT INTO schema_version (version, checksum, applied_at) VALUES ($1, $2, $3)")
                .bind(version)
                .bind(checksum(migration.sql))
                .bind(Timestamp::now().0)
                .execute(&mut *transaction)
                .await?;
            transaction.commit().await
        };
        migrated.await.map_err(|e| OpenError::Migration { version, source: Arc::new(DatabaseError::Sqlx(e)) })?;
        tracing::info!(version, "the database was migrated");
    }
}

fn open_error(failure: Failure) -> OpenError {
    match failure {
        Failure::Away(cause) | Failure::Conflict(cause) | Failure::Unknown(cause) => OpenError::Unavailable(cause),
        Failure::Refused(cause) | Failure::Full(cause) | Failure::Internal(cause) => OpenError::Unusable(cause),
        other @ (Failure::Constraint(_) | Failure::Guard(_)) => OpenError::Unusable(other.into_cause()),
    }
}
