//! How a process comes to lead a manager's role, and how it ceases to.
//!
//! **The problem.** A manager decides on what is in its memory, so one process of a role may write at a time. A process may be killed, paused or
//! cut off at any moment, also between its decision and its commit, and its successor must not wait for it to notice.
//!
//! **How.** A row names the leader and its term (`manager_lease`). Every unit of a manager carries its term, and the writer compares it with the row
//! inside the unit's transaction: a unit of a term that is over writes nothing, whatever its sender believes. On PostgreSQL the leader renews
//! the row, on a connection of its own. A standby takes the role when the row hasn't changed for the lease's time and a tenth, by its own clock;
//! no clocks of two machines are compared. A leader that couldn't renew in time, counted from before it sent the renewal, has ceased to lead
//! before that. One that ends on purpose resigns, and is succeeded at once.
//!
//! On SQLite all processes are on one machine: a lock on a file beside the database, which ends with its process, says who leads, and a second
//! process is refused. Each start is a term there too, so that the fence is the same.
//!
//! **Terms** rise by at least one with each takeover, and are never below the time in seconds: those after a restored backup are higher than all that
//! were given before, which agents remember.
//!
//! **Rejected.** An advisory lock: its session may end while its holder lives, and the server doesn't tell the holder's transactions. The term in the
//! `WHERE` of every statement: forgetting one is possible.

use crate::{
    CommitError, Guard, ManagerLease, ManagerLeaseTake, ManagerRole, ManagerStandbyDelete, ManagerStandbyExpire,
    ManagerStandbyPut, ReadError, RoleError, Store, Unit,
    engine::{
        Location, postgres,
        term::{RoleState, Term, boot_time},
    },
};
use domain::Timestamp;
use sqlx::{ConnectOptions, PgConnection, postgres::PgConnectOptions};
use std::{
    fs::{File, OpenOptions, TryLockError},
    future::Future,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{sync::watch, task::JoinHandle};

/// How often a lock or a lease that another process holds is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How often a standby says that it is there.
const STANDBY_EVERY_MS: i64 = 5_000;
/// A standby that was silent for so long is forgotten.
const STANDBY_FORGOTTEN_MS: i64 = 60_000;
/// A lease is renewed so many times while it lasts.
const RENEWALS: u32 = 6;
/// How long a leader that ends tries to say so.
const RESIGN: Duration = Duration::from_secs(1);

/// A process that wants to lead a role.
#[derive(Debug, Clone)]
pub struct Candidate {
    pub role: ManagerRole,
    /// The process is reached at this URL.
    pub address: String,
    id: String,
    host: String,
    pid: u32,
    since: Timestamp,
}

impl Candidate {
    #[must_use]
    pub fn new(role: ManagerRole, address: impl Into<String>) -> Self {
        let id = domain::OperationId::new().to_string();
        let (host, pid) = (hostname(), std::process::id());
        Self { role, address: address.into(), id, host, pid, since: Timestamp::now() }
    }

    /// The unit that begins a term after `last`.
    fn take(&self, last: Option<&ManagerLease>, ttl: Duration) -> (i64, Unit) {
        let now = Timestamp::now();
        let term = last.map_or(0, |lease| lease.term + 1).max(now.0 / 1000);
        let take = ManagerLeaseTake {
            role: self.role,
            term,
            holder: self.id.clone(),
            host: self.host.clone(),
            pid: self.pid,
            address: self.address.clone(),
            renewals: last.map_or(0, |lease| lease.renewals) + 1,
            ttl_ms: u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX),
            led_since: now,
            renewed_at: now,
            resigned: false,
        };
        (term, Unit::new().op(take).op(ManagerStandbyDelete { id: self.id.clone() }))
    }
}

/// This process leads the role until this is dropped, or [`Leadership::ended`].
pub struct Leadership {
    /// What is committed by it is fenced by the term.
    pub store: Store,
    term: Arc<Term>,
    renewal: Option<Renewal>,
    _lock: Option<File>,
}

struct Renewal {
    task: JoinHandle<()>,
    resign: watch::Sender<bool>,
}

impl Drop for Leadership {
    fn drop(&mut self) {
        self.term.end();
        self.store.roles().set(self.term.role, RoleState::Standby { leader: None });
        if let Some(renewal) = &self.renewal {
            renewal.task.abort();
        }
    }
}

impl Leadership {
    #[must_use]
    pub fn term(&self) -> i64 {
        self.term.number
    }

    /// Resolves when this process leads no longer.
    pub fn ended(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut ended = self.term.ended();
        async move {
            // An error: the leadership was dropped, and with it what it was for.
            let _ = ended.wait_for(|ended| *ended).await;
        }
    }

    /// Ends the term so that a successor needn't wait.
    pub async fn resign(mut self) {
        let Some(renewal) = &mut self.renewal else { return };
        renewal.resign.send_replace(true);
        // What remains of it is dropped with this.
        let _ = tokio::time::timeout(RESIGN, &mut renewal.task).await;
    }
}

impl Store {
    /// Whether what this handle commits may still stand, by this process's own clock: always, but for a leader's ([`Leadership::store`]).
    #[must_use]
    pub fn leads(&self) -> bool {
        self.term().is_none_or(|term| term.holds())
    }

    /// The term under which this handle commits; 0 for one that isn't a leader's.
    #[must_use]
    pub fn term_number(&self) -> i64 {
        self.term().map_or(0, |term| term.number)
    }

    /// What this process is in the roles that it has or wants.
    #[must_use]
    pub fn role_states(&self) -> Vec<(ManagerRole, RoleState)> {
        self.roles().all()
    }

    /// Waits until this process leads the role. On SQLite a role that another process has is refused after [`crate::StoreConfig::role_wait`].
    ///
    /// Stops when the future is dropped.
    pub async fn lead(&self, candidate: &Candidate) -> Result<Leadership, RoleError> {
        let role = candidate.role;
        self.roles().set(role, RoleState::Standby { leader: None });
        let leadership = match self.location() {
            Location::Sqlite(path) => self.lead_by_lock(path, candidate).await?,
            Location::Postgres(options) => self.lead_by_lease(options, candidate).await,
        };
        let term = leadership.term();
        self.roles().set(role, RoleState::Leads { term });
        tracing::info!(role = role.as_str(), term, "this process leads the role");
        Ok(leadership)
    }

    async fn lead_by_lock(&self, path: &Path, candidate: &Candidate) -> Result<Leadership, RoleError> {
        let role = candidate.role;
        let deadline = Instant::now() + self.role_wait();
        let lock = loop {
            if let Some(lock) = lock_file(path, role)? {
                break lock;
            }
            if Instant::now() >= deadline {
                // Who it is helps, and isn't needed.
                let holder = self.manager_lease_find(role).await.ok().flatten();
                return Err(RoleError::Held { role, holder });
            }
            tokio::time::sleep(LOOK_EVERY).await;
        };
        loop {
            let last = self.manager_lease_find(role).await.map_err(read_failed)?;
            let (number, unit) = candidate.take(last.as_ref(), Duration::ZERO);
            match self.commit(unit).await {
                Ok(()) => {
                    let term = Arc::new(Term::new(role, number, None));
                    let store = self.under(Arc::clone(&term));
                    return Ok(Leadership { store, term, renewal: None, _lock: Some(lock) });
                }
                // A commit whose answer was lost.
                Err(CommitError::Guard(Guard::ManagerLease)) => {}
                Err(CommitError::Unavailable(cause) | CommitError::Internal(cause)) => {
                    return Err(RoleError::Unavailable(cause));
                }
                Err(CommitError::Guard(_) | CommitError::Constraint(_)) => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
    }

    async fn lead_by_lease(&self, options: &PgConnectOptions, candidate: &Candidate) -> Leadership {
        let (role, ttl) = (candidate.role, self.lease_ttl());
        let mut watched: Option<Watched> = None;
        let mut said_at = Timestamp(0);
        loop {
            match self.manager_lease_find(role).await {
                Ok(lease) => {
                    let mine = lease.as_ref().is_none_or(|lease| lease.resigned || lease.holder == candidate.id);
                    let free = mine || watched.as_ref().is_some_and(|watched| watched.lapsed(lease.as_ref()));
                    if free && let Some(term) = self.take_lease(candidate, lease.as_ref(), ttl).await {
                        let renewal = Some(self.keep_lease(options, &term));
                        let store = self.under(Arc::clone(&term));
                        return Leadership { store, term, renewal, _lock: None };
                    }
                    watched = Watched::next(watched, lease);
                }
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::debug!(role = role.as_str(), error, "the database doesn't answer yet");
                }
            }
            let leader = watched.as_ref().map(|watched| watched.address.clone()).filter(|address| !address.is_empty());
            self.roles().set(role, RoleState::Standby { leader });
            self.say_standby(candidate, &mut said_at).await;
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// `None`: it was renewed or taken meanwhile, or the database took longer than the lease lasts.
    async fn take_lease(&self, candidate: &Candidate, last: Option<&ManagerLease>, ttl: Duration) -> Option<Arc<Term>> {
        // Before it is sent: it is not valid for longer than its successor waits.
        let until = boot_time() + ttl;
        let (number, unit) = candidate.take(last, ttl);
        let taken = self.commit(unit).await;
        let term = Term::new(candidate.role, number, Some(until));
        match taken {
            Ok(()) if term.holds() => Some(Arc::new(term)),
            Ok(()) | Err(CommitError::Guard(Guard::ManagerLease)) => None,
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(role = candidate.role.as_str(), error, "the role can't be taken yet");
                None
            }
        }
    }

    /// For people: a standby that can't say that it is there is one all the same.
    async fn say_standby(&self, candidate: &Candidate, said_at: &mut Timestamp) {
        let now = Timestamp::now();
        if now.0.abs_diff(said_at.0) < STANDBY_EVERY_MS.unsigned_abs() {
            return;
        }
        *said_at = now;
        let Candidate { role, address, id, host, pid, since } = candidate.clone();
        let unit = Unit::new()
            .op(ManagerStandbyPut { id, role, host, pid, address, since, renewed_at: now })
            .op(ManagerStandbyExpire { before: Timestamp(now.0 - STANDBY_FORGOTTEN_MS) });
        if let Err(error) = self.commit(unit).await {
            tracing::debug!(role = role.as_str(), error = &error as &dyn std::error::Error, "a standby isn't noted");
        }
    }

    fn keep_lease(&self, options: &PgConnectOptions, term: &Arc<Term>) -> Renewal {
        let (resign, resigned) = watch::channel(false);
        let lease = Lease { options: postgres::lease_options(options), session: None, term: Arc::clone(term) };
        let task = tokio::spawn(keep_renewing(lease, self.lease_ttl(), resigned));
        Renewal { task, resign }
    }
}

fn read_failed(error: ReadError) -> RoleError {
    match error {
        ReadError::Unavailable(cause) | ReadError::Internal(cause) => RoleError::Unavailable(cause),
    }
}

/// A lease of another process, as it was when it was seen to change last.
struct Watched {
    term: i64,
    renewals: i64,
    address: String,
    ttl: Duration,
    since: Duration,
}

impl Watched {
    /// After the lease was read.
    fn next(before: Option<Self>, lease: Option<ManagerLease>) -> Option<Self> {
        let lease = lease?;
        match before {
            Some(before) if (before.term, before.renewals) == (lease.term, lease.renewals) => Some(before),
            Some(_) | None => Some(Self {
                term: lease.term,
                renewals: lease.renewals,
                address: lease.address,
                ttl: Duration::from_millis(lease.ttl_ms),
                since: boot_time(),
            }),
        }
    }

    /// Whether it stayed as it was for so long that its holder has given up, even if its clock is a little slower than this one.
    fn lapsed(&self, lease: Option<&ManagerLease>) -> bool {
        let unchanged = lease.is_some_and(|lease| (lease.term, lease.renewals) == (self.term, self.renewals));
        unchanged && boot_time().saturating_sub(self.since) >= self.ttl + self.ttl / 10
    }
}

/// The lease of this process, and the session on which it is renewed.
struct Lease {
    options: PgConnectOptions,
    session: Option<PgConnection>,
    term: Arc<Term>,
}

impl Lease {
    /// Whether the term stands. Cancelled at any point: the session is opened anew.
    async fn renew(&mut self, resigned: bool) -> sqlx::Result<bool> {
        let mut session = match self.session.take() {
            Some(session) => session,
            None => self.options.connect().await?,
        };
        let renewed = sqlx::query(
            "UPDATE manager_lease SET renewals = renewals + 1, renewed_at = $3, resigned = $4 WHERE role = $1 AND term = $2",
        )
        .bind(self.term.role.as_str())
        .bind(self.term.number)
        .bind(Timestamp::now().0)
        .bind(resigned)
        .execute(&mut session)
        .await?;
        self.session = Some(session);
        Ok(renewed.rows_affected() > 0)
    }
}

/// Ends the term when another began, or when it couldn't be renewed in time.
async fn keep_renewing(mut lease: Lease, ttl: Duration, mut resigned: watch::Receiver<bool>) {
    let (term, role) = (Arc::clone(&lease.term), lease.term.role.as_str());
    let mut ended = term.ended();
    while term.holds() {
        let pause = (ttl / RENEWALS).min(term.left());
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = ended.changed() => break,
            _ = resigned.changed() => {
                term.end();
                if let Err(error) = lease.renew(true).await {
                    tracing::info!(role, %error, "the role's end can't be noted; a successor waits for the lease's end");
                }
                return;
            }
        }
        let until = boot_time() + ttl;
        match tokio::time::timeout(term.left(), lease.renew(false)).await {
            Ok(Ok(true)) if term.extend(until) => {}
            Ok(Ok(true)) | Err(_) => break,
            Ok(Ok(false)) => {
                term.end();
                tracing::error!(role, term = term.number, "another process leads this role now");
                return;
            }
            Ok(Err(error)) => tracing::warn!(role, %error, "the lease of this role can't be renewed; tried again"),
        }
    }
    term.end();
    tracing::error!(
        role,
        term = term.number,
        "this process leads the role no longer: its lease lapsed, or a commit met a successor's"
    );
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
