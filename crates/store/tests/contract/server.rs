//! What tests do to a database behind the store's back: hold its locks, look inside, stop the server, cut the wire.

use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, postgres::PgConnectOptions};
use std::{
    path::{Path, PathBuf},
    process::Command,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use store::testing::{POSTGRES_URL, TestDatabase};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

pub fn sqlite(database: &TestDatabase) -> rusqlite::Connection {
    let path = database.config.url.strip_prefix("sqlite://").expect("a SQLite database");
    rusqlite::Connection::open(path).expect("opens")
}

pub async fn postgres(database: &TestDatabase) -> PgConnection {
    let options = PgConnectOptions::from_str(&database.config.url).expect("a URL");
    options.disable_statement_logging().connect().await.expect("connects")
}

pub async fn execute(database: &TestDatabase, sql: &str) {
    if database.on_postgres() {
        let mut connection = postgres(database).await;
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.expect("executes");
        connection.close().await.expect("closes");
    } else {
        sqlite(database).execute_batch(sql).expect("executes");
    }
}

pub async fn scalar(database: &TestDatabase, sql: &str) -> i64 {
    if database.on_postgres() {
        let mut connection = postgres(database).await;
        sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut connection).await.expect("queries")
    } else {
        sqlite(database).query_row(sql, [], |row| row.get(0)).expect("queries")
    }
}

pub async fn texts(database: &TestDatabase, sql: &str) -> Vec<String> {
    let mut connection = postgres(database).await;
    sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(&mut connection).await.expect("queries")
}

/// The plan of a query whatever its parameters, where reading a whole table is the last resort.
pub async fn plan(database: &TestDatabase, sql: &str) -> Vec<String> {
    let mut connection = postgres(database).await;
    let settings = "SET enable_seqscan = off; SET plan_cache_mode = force_generic_plan";
    sqlx::raw_sql(settings).execute(&mut connection).await.expect("set");
    let parameters =
        (1..).take_while(|n| sql.contains(&format!("${n}"))).map(|_| "NULL").collect::<Vec<_>>().join(", ");
    let parameters = if parameters.is_empty() { parameters } else { format!("({parameters})") };
    let prepare = format!("PREPARE explained AS {sql}");
    sqlx::raw_sql(AssertSqlSafe(prepare)).execute(&mut connection).await.unwrap_or_else(|e| panic!("{e}: {sql}"));
    let explain = format!("EXPLAIN (COSTS OFF) EXECUTE explained{parameters}");
    let rows = sqlx::raw_sql(AssertSqlSafe(explain)).fetch_all(&mut connection).await;
    rows.unwrap_or_else(|error| panic!("{error}: {sql}")).iter().map(|row| sqlx::Row::get(row, 0)).collect()
}

/// Another process's transaction that every commit has to wait for.
pub enum Blocker {
    Sqlite(rusqlite::Connection),
    Postgres(PgConnection),
}

impl Blocker {
    pub async fn hold(database: &TestDatabase) -> Self {
        if database.on_postgres() {
            let mut connection = postgres(database).await;
            // Everything a test commits either makes a project, changes one, or takes usage.
            let sql = "BEGIN; LOCK TABLE project, host, idempotency, event_head IN ACCESS EXCLUSIVE MODE";
            sqlx::raw_sql(sql).execute(&mut connection).await.expect("locks");
            Self::Postgres(connection)
        } else {
            let connection = sqlite(database);
            connection.execute_batch("BEGIN IMMEDIATE").expect("locks");
            Self::Sqlite(connection)
        }
    }

    /// A connection that holds nothing yet.
    pub async fn none(database: &TestDatabase) -> Self {
        Self::Postgres(postgres(database).await)
    }

    pub async fn run(&mut self, sql: &str) {
        match self {
            Self::Sqlite(connection) => connection.execute_batch(sql).expect("executes"),
            Self::Postgres(connection) => {
                sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await.expect("executes");
            }
        }
    }

    pub async fn release(self) {
        match self {
            Self::Sqlite(connection) => connection.execute_batch("ROLLBACK").expect("unlocks"),
            Self::Postgres(mut connection) => {
                sqlx::raw_sql("ROLLBACK").execute(&mut connection).await.expect("unlocks");
                connection.close().await.expect("closes");
            }
        }
    }
}

/// A PostgreSQL server of this test's own, which it may stop.
pub struct Server {
    directory: TempDir,
    binaries: PathBuf,
    port: u16,
    as_postgres: bool,
}

impl Server {
    /// `None` (and a line that says why) where PostgreSQL tests don't run.
    pub fn start() -> Option<Self> {
        if std::env::var_os(POSTGRES_URL).is_none() {
            println!("not run: PostgreSQL restart test: {POSTGRES_URL} is not set (./deploy/test sets it)");
            return None;
        }
        let installed = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
        let binaries = installed.filter_map(|e| Some(e.ok()?.path().join("bin"))).find(|b| b.join("initdb").exists());
        let Some(binaries) = binaries else {
            println!("not run: PostgreSQL restart test: there is no initdb in /usr/lib/postgresql/*/bin");
            return None;
        };
        let directory = tempfile::tempdir().expect("a temporary directory");
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = free.local_addr().expect("bound").port();
        drop(free);
        // The server refuses to run as root.
        let as_postgres = std::fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0);
        let server = Self { directory, binaries, port, as_postgres };
        if as_postgres {
            let chown = Command::new("chown").arg("postgres").arg(server.directory.path()).status();
            assert!(chown.expect("chown runs").success());
        }
        let data = server.data();
        server.run("initdb", &["-A", "trust", "-U", "postgres", "-N", "-D", &data]);
        server.up();
        Some(server)
    }

    fn data(&self) -> String {
        self.directory.path().join("data").display().to_string()
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let path = self.binaries.join(program);
        let mut command = if self.as_postgres {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(path);
            command
        } else {
            Command::new(path)
        };
        let log = self.directory.path().join(format!("{program}.out"));
        let out = std::fs::File::create(&log).expect("a log");
        // Its files, not pipes: the server inherits them, and a pipe would never end.
        let error = out.try_clone().expect("a log");
        let done = command.args(arguments).current_dir(Path::new("/")).stdout(out).stderr(error).status();
        let text = || std::fs::read_to_string(&log).unwrap_or_default();
        assert!(done.expect("it runs").success(), "{program}: {}", text());
    }

    pub fn up(&self) {
        let options = format!("-p {} -k {} -c listen_addresses=127.0.0.1", self.port, self.directory.path().display());
        let log = self.directory.path().join("server.log").display().to_string();
        self.run("pg_ctl", &["-D", &self.data(), "-w", "-o", &options, "-l", &log, "start"]);
    }

    /// As a crash does: no farewell, recovery at the next start.
    pub fn down(&self) {
        self.run("pg_ctl", &["-D", &self.data(), "-w", "-m", "immediate", "stop"]);
    }

    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres?sslmode=disable", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let data = self.data();
        if Path::new(&data).join("postmaster.pid").exists() {
            self.run("pg_ctl", &["-D", &data, "-w", "-m", "immediate", "stop"]);
        }
    }
}

/// A wire to a PostgreSQL server that can lose the answer to a COMMIT.
pub struct Wire {
    pub port: u16,
    /// When set, the next COMMIT reaches the server, its answer doesn't come back, and the connection ends.
    pub lose_next_commit: Arc<AtomicBool>,
    accepting: JoinHandle<()>,
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Wire {
    pub async fn to(host: String, port: u16, socket: Option<PathBuf>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let lose_next_commit = Arc::new(AtomicBool::new(false));
        let lose = lose_next_commit.clone();
        let own = listener.local_addr().expect("bound").port();
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (lose, host, socket) = (lose.clone(), host.clone(), socket.clone());
                tokio::spawn(async move {
                    match socket {
                        Some(directory) => {
                            let path = directory.join(format!(".s.PGSQL.{port}"));
                            let server = tokio::net::UnixStream::connect(path).await.expect("the server is there");
                            pass(client, server.into_split(), lose).await;
                        }
                        None => {
                            let server = TcpStream::connect((host, port)).await.expect("the server is there");
                            pass(client, server.into_split(), lose).await;
                        }
                    }
                });
            }
        });
        Self { port: own, lose_next_commit, accepting }
    }
}

/// Passes bytes both ways until one side ends, or the answer to a COMMIT is to be lost.
async fn pass<R, W>(client: TcpStream, (mut from_server, mut to_server): (R, W), lose: Arc<AtomicBool>)
where
    R: tokio::io::AsyncRead + Unpin,
    W: tokio::io::AsyncWrite + Unpin,
{
    let (mut from_client, mut to_client) = client.into_split();
    let (mut requested, mut answered) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        tokio::select! {
            read = from_client.read(&mut requested) => {
                let Ok(n @ 1..) = read else { return };
                if to_server.write_all(&requested[..n]).await.is_err() { return }
                // A simple query: 'Q', length, text, NUL.
                let commit = requested[0] == b'Q' && requested[5..n].starts_with(b"COMMIT");
                if commit && lose.swap(false, Ordering::SeqCst) {
                    // The server has answered: it has committed.
                    let _ = from_server.read(&mut answered).await;
                    return;
                }
            }
            read = from_server.read(&mut answered) => {
                let Ok(n @ 1..) = read else { return };
                if to_client.write_all(&answered[..n]).await.is_err() { return }
            }
        }
    }
}
