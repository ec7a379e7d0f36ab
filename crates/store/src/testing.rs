//! Databases for tests: a SQLite file in a temporary directory, and a fresh PostgreSQL database where a server is given. Each test gets
//! its own, and it is gone afterwards.

use crate::{Store, StoreConfig};
use parking_lot::Mutex;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, postgres::PgConnectOptions};
use std::{collections::BTreeSet, path::PathBuf, str::FromStr, time::Duration};
use tempfile::TempDir;

/// Names the server; `./deploy/test` sets it.
pub const POSTGRES_URL: &str = "IAAS_TEST_POSTGRES_URL";

/// The texts of all reads that this process has run, for a test of their plans: whether on PostgreSQL, and the text.
static READS: Mutex<BTreeSet<(bool, String)>> = Mutex::new(BTreeSet::new());

pub(crate) fn note_read(on_postgres: bool, sql: &str) {
    READS.lock().insert((on_postgres, sql.to_owned()));
}

/// The texts of the reads so far, on PostgreSQL or on SQLite.
#[must_use]
pub fn reads_so_far(on_postgres: bool) -> Vec<String> {
    READS.lock().iter().filter(|(postgres, _)| *postgres == on_postgres).map(|(_, sql)| sql.clone()).collect()
}

/// A database of its own for one test, deleted when dropped.
pub struct TestDatabase {
    pub config: StoreConfig,
    // Exactly one of them; both delete when dropped.
    _directory: Option<TempDir>,
    postgres: Option<PostgresDatabase>,
}

struct PostgresDatabase {
    server: PgConnectOptions,
    name: String,
}

impl Drop for PostgresDatabase {
    fn drop(&mut self) {
        let (server, name) = (self.server.clone(), self.name.clone());
        // Dropping is not async, and the test's runtime may be busy: a thread and a runtime of its own.
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(run(&server, format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")))
        });
        if let Ok(Err(error)) = dropped.join() {
            eprintln!("the test database could not be dropped: {error}");
        }
    }
}

async fn run(server: &PgConnectOptions, sql: String) -> sqlx::Result<()> {
    let mut connection = server.connect().await?;
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await?;
    connection.close().await
}

impl TestDatabase {
    #[must_use]
    pub fn sqlite() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("iaas.db");
        let config = StoreConfig::new(format!("sqlite://{}", path.display()));
        Self { config, _directory: Some(directory), postgres: None }
    }

    /// `None` (and a line that says so) when no server is given.
    pub async fn postgres() -> Option<Self> {
        let Ok(url) = std::env::var(POSTGRES_URL) else {
            println!("not run: PostgreSQL contract tests: {POSTGRES_URL} is not set (./deploy/test sets it)");
            return None;
        };
        let server = PgConnectOptions::from_str(&url).expect("a PostgreSQL URL").disable_statement_logging();
        let name = format!("iaas_test_{}", domain::OperationId::new().0.simple());
        run(&server, format!("CREATE DATABASE {name}")).await.expect("the server makes a database");
        let database = PostgresDatabase { server: server.clone(), name: name.clone() };
        let url = server.database(&name).to_url_lossy();
        Some(Self { config: StoreConfig::new(url.as_str()), _directory: None, postgres: Some(database) })
    }

    /// One of each.
    pub async fn each() -> Vec<Self> {
        std::iter::once(Self::sqlite()).chain(Self::postgres().await).collect()
    }

    #[must_use]
    pub fn on_postgres(&self) -> bool {
        self.postgres.is_some()
    }

    /// The file of a SQLite database.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        PathBuf::from(self.config.url.strip_prefix("sqlite://").expect("a SQLite database"))
    }

    pub async fn open(&self) -> Store {
        Store::open(&self.config).await.expect("the store opens")
    }

    /// With another timeout than the 35 s that commits have.
    pub async fn open_waiting(&self, commit_wait: Duration) -> Store {
        Store::open_waiting(&self.config, commit_wait).await.expect("the store opens")
    }
}

/// A handle on the store as a manager has it that takes this for its term.
#[must_use]
pub fn of_term(store: &Store, role: crate::ManagerRole, term: i64) -> Store {
    store.under(std::sync::Arc::new(crate::engine::term::Term::new(role, term, None)))
}

/// An open store on a database of its own.
pub struct TestStore {
    pub store: Store,
    pub database: TestDatabase,
}

impl std::ops::Deref for TestStore {
    type Target = Store;
    fn deref(&self) -> &Store {
        &self.store
    }
}

impl TestStore {
    async fn on(database: TestDatabase) -> Self {
        Self { store: database.open().await, database }
    }

    pub async fn sqlite() -> Self {
        Self::on(TestDatabase::sqlite()).await
    }

    /// One on each database there is.
    pub async fn each() -> Vec<Self> {
        let mut stores = Vec::new();
        for database in TestDatabase::each().await {
            stores.push(Self::on(database).await);
        }
        stores
    }
}
