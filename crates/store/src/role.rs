//! Which process serves a manager's role. There is at most one: what managers decide on is in their memory, and two of a role would undo
//! each other's work.
//!
//! A role is held by a lock that ends with its process, however the process ends: on PostgreSQL an advisory lock of a session of its own,
//! on SQLite a lock on a file beside the database. The row says who holds it, for people; it decides nothing.
//!
//! On PostgreSQL the session may be lost while the process lives. The holder then takes the lock again as soon as the server is back, and
//! is told when another process was faster ([`RoleHold::lost`]). In between the two may serve side by side for about a second: ending that
//! needs a term in every write, which comes with recovery.

use crate::{
    ReadError, Store, Unit,
    engine::{
        Cause, DatabaseError, Location,
        error::Failure,
        postgres::{self, lock_options},
    },
};
use domain::Timestamp;
use serde::{Deserialize, Serialize};
use sqlx::{ConnectOptions, Connection, PgConnection, postgres::PgConnectOptions};
use std::{
    fmt,
    fs::{File, OpenOptions, TryLockError},
    future::Future,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{sync::watch, task::AbortHandle};

/// How often a lock that another process holds is tried.
const TRY_EVERY: Duration = Duration::from_millis(100);
/// How often the holder looks whether its session still stands.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const ANSWER: Duration = Duration::from_secs(5);
/// `iaas` and `role`, beside which each role has its number.
const LOCK: i64 = 0x6961_6173_0000_0000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ManagerRole {
    #[serde(rename = "cluster-manager")]
    Cluster,
    #[serde(rename = "resource-manager")]
    Resource,
    #[serde(rename = "storage-manager")]
    Storage,
}

impl ManagerRole {
    pub const ALL: [Self; 3] = [Self::Cluster, Self::Resource, Self::Storage];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cluster => "cluster-manager",
            Self::Resource => "resource-manager",
            Self::Storage => "storage-manager",
        }
    }

    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == text)
    }

    fn lock_number(self) -> i64 {
        LOCK + match self {
            Self::Cluster => 1,
            Self::Resource => 2,
            Self::Storage => 3,
        }
    }
}

op! {
    /// A process holds the role from now on.
    RoleHolderPut { role: ManagerRole, host: String, pid: u32, started_at: Timestamp }
    on role_holder, Insert by (role): insert
    "WHERE TRUE ON CONFLICT (role) DO UPDATE SET host = excluded.host, pid = excluded.pid, started_at = excluded.started_at"
}

row! {
    /// The process that took a role last.
    #[derive(Eq)]
    pub struct RoleHolder of role_holder {
        pub role: ManagerRole,
        pub host: String,
        pub pid: u32,
        pub started_at: Timestamp,
    }
}

impl fmt::Display for RoleHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} on {}, since {}", self.pid, self.host, self.started_at)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum RoleError {
    #[error(
        "another {} serves this database: {}. There may be one of each role: end that process first, or end this one",
        role.as_str(), holder.as_ref().map_or_else(|| "it didn't say who it is".to_owned(), ToString::to_string)
    )]
    Held { role: ManagerRole, holder: Option<RoleHolder> },
    #[error("the lock file {} can't be used", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the database is not available")]
    Unavailable(#[source] Cause),
}

/// This process has the role until this is dropped.
pub struct RoleHold {
    lost: watch::Receiver<bool>,
    _lock: Lock,
}

enum Lock {
    /// Unlocked when closed.
    File { _file: File, _lost: watch::Sender<bool> },
    /// The task has the session, which ends with it.
    Session(AbortHandle),
}

impl Drop for Lock {
    fn drop(&mut self) {
        match self {
            Self::File { .. } => {}
            Self::Session(task) => task.abort(),
        }
    }
}

impl RoleHold {
    /// Resolves when another process has the role.
    pub fn lost(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut lost = self.lost.clone();
        async move {
            if lost.wait_for(|lost| *lost).await.is_err() {
                // The hold was dropped: it was given up, not lost.
                std::future::pending().await
            }
        }
    }
}

impl Store {
    /// Takes the role for this process. Another process that ends has as long as [`crate::StoreConfig::role_wait`] for it.
    pub async fn role_hold(&self, role: ManagerRole) -> Result<RoleHold, RoleError> {
        let deadline = Instant::now() + self.role_wait();
        let me = RoleHolder { role, host: hostname(), pid: std::process::id(), started_at: Timestamp::now() };
        loop {
            let taken = match self.location() {
                Location::Sqlite(path) => lock_file(path, role)?.map(|file| {
                    let (sender, lost) = watch::channel(false);
                    RoleHold { lost, _lock: Lock::File { _file: file, _lost: sender } }
                }),
                Location::Postgres(options) => {
                    let session =
                        lock_session(options, role).await.map_err(|f| RoleError::Unavailable(f.into_cause()))?;
                    session.map(|session| self.keep_session(session, (**options).clone(), me.clone()))
                }
            };
            if let Some(hold) = taken {
                self.note_holder(&me).await;
                return Ok(hold);
            }
            if Instant::now() >= deadline {
                // Who it is helps, and isn't needed.
                let holder = self.role_holder_find(role).await.ok().flatten();
                return Err(RoleError::Held { role, holder });
            }
            tokio::time::sleep(TRY_EVERY).await;
        }
    }

    /// The process that took the role last, whether or not it still runs.
    pub async fn role_holder_find(&self, role: ManagerRole) -> Result<Option<RoleHolder>, ReadError> {
        self.pool().find("WHERE role = $1", [role.as_str().into()]).await
    }

    /// For people: a full disk keeps nobody from serving.
    async fn note_holder(&self, me: &RoleHolder) {
        let RoleHolder { role, host, pid, started_at } = me.clone();
        if let Err(error) = self.commit(Unit::new().op(RoleHolderPut { role, host, pid, started_at })).await {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(role = role.as_str(), error, "the process that serves a role can't be noted");
        }
    }

    fn keep_session(&self, session: PgConnection, options: PgConnectOptions, me: RoleHolder) -> RoleHold {
        let (sender, lost) = watch::channel(false);
        let store = self.clone();
        let task = tokio::spawn(async move {
            watch_session(&store, session, &options, &me).await;
            sender.send_replace(true);
        });
        RoleHold { lost, _lock: Lock::Session(task.abort_handle()) }
    }
}

fn hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "an unnamed machine".to_owned() } else { name.to_owned() }
}

/// `None`: another process has it.
fn lock_file(database: &Path, role: ManagerRole) -> Result<Option<File>, RoleError> {
    let mut path = database.as_os_str().to_owned();
    path.push(format!(".{}.lock", role.as_str()));
    let path = PathBuf::from(path);
    let opened = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
    let locked = opened.map_err(TryLockError::Error).and_then(|file| file.try_lock().map(|()| file));
    match locked {
        Ok(file) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(source)) => Err(RoleError::File { path, source }),
    }
}

/// `None`: another session has it.
async fn lock_session(options: &PgConnectOptions, role: ManagerRole) -> Result<Option<PgConnection>, Failure> {
    let options = lock_options(options);
    let work = async {
        let mut session = options.connect().await?;
        let query = sqlx::query_scalar::<_, bool>("SELECT pg_try_advisory_lock($1)").bind(role.lock_number());
        if query.fetch_one(&mut session).await? {
            return Ok(Some(session));
        }
        session.close().await?;
        Ok(None)
    };
    let answered = tokio::time::timeout(ANSWER, work).await;
    let no_answer = |_| Failure::Away(Arc::new(DatabaseError::NoAnswer(ANSWER.as_secs())));
    answered.map_err(no_answer)?.map_err(postgres::classify)
}

/// Looks whether the session stands, and takes the lock anew when it doesn't. Ends when another process has it.
async fn watch_session(store: &Store, session: PgConnection, options: &PgConnectOptions, me: &RoleHolder) {
    let mut session = Some(session);
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        if let Some(standing) = &mut session {
            let look = sqlx::query("SELECT 1").execute(standing);
            if matches!(tokio::time::timeout(ANSWER, look).await, Ok(Ok(_))) {
                continue;
            }
            tracing::warn!(role = me.role.as_str(), "the session that holds this role was lost; it is taken again");
            session = None;
        }
        match lock_session(options, me.role).await {
            Ok(Some(again)) => {
                store.note_holder(me).await;
                session = Some(again);
            }
            // The server may not know yet that our own old session is gone: then the row still names us.
            Ok(None) => match store.role_holder_find(me.role).await {
                Ok(Some(holder)) if holder != *me => {
                    tracing::error!(role = me.role.as_str(), %holder, "another process serves this role now");
                    return;
                }
                Ok(_) | Err(_) => {}
            },
            Err(failure) => {
                let error = failure.into_cause();
                tracing::debug!(role = me.role.as_str(), %error, "the database doesn't answer yet");
            }
        }
    }
}
