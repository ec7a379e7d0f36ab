//! What every ledger has, whatever its medium: a directory that one agent at a time uses, and the record of whose host it is.

use crate::{durable, reserve};
use domain::HostId;
use serde::{Deserialize, Serialize};
use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// How often a lock is tried that another holds, and the pause in between.
const LOCK_TRIES: u32 = 20;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    #[error("the ledger's {path} can't be {what}")]
    File {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("a change can't be written to the ledger in {dir}")]
    Commit {
        dir: PathBuf,
        #[source]
        source: Arc<io::Error>,
    },
    #[error(
        "{path} is damaged ({detail}): restore it from a backup; if there is none, remove it, and this host registers as a new one"
    )]
    Damaged { path: PathBuf, detail: String },
    #[error("another agent uses the ledger in {dir}: end it first")]
    InUse { dir: PathBuf },
    #[error("the ledger in {dir} is host {held}'s, and this host is {given}")]
    AnotherHost { dir: PathBuf, held: HostId, given: HostId },
    #[error("the disk is full, and {dir} takes nothing but deletions and changes of what it has")]
    Full { dir: PathBuf },
    #[error("the ledger's writer has ended")]
    Closed,
    #[error("{object} is not in the ledger")]
    Unknown { object: String },
}

impl LedgerError {
    /// Whether the disk is full: then nothing is wrong with the ledger, and it passes when there is room again.
    #[must_use]
    pub fn is_full(&self) -> bool {
        match self {
            Self::Full { .. } => true,
            Self::File { source, .. } => reserve::is_full(source),
            Self::Commit { source, .. } => reserve::is_full(source),
            Self::Damaged { .. }
            | Self::InUse { .. }
            | Self::AnotherHost { .. }
            | Self::Closed
            | Self::Unknown { .. } => false,
        }
    }

    /// For `map_err`: `what` could not be done with `path`.
    pub fn file(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_path_buf();
        move |source| Self::File { what, path, source }
    }
}

/// The directory of a ledger, locked for as long as it is open: two agents on one ledger would do everything twice.
#[derive(Debug)]
pub struct LedgerDir {
    path: PathBuf,
    _lock: File,
}

impl LedgerDir {
    /// Where the ledger below a state directory lies.
    #[must_use]
    pub fn below(state_dir: &Path) -> PathBuf {
        state_dir.join("ledger")
    }

    /// Makes the directory where needed, locks it, and removes what a crash left half-written. Blocking.
    pub fn open(state_dir: &Path) -> Result<Self, LedgerError> {
        let path = Self::below(state_dir);
        durable::ensure_private_dir(&path).map_err(LedgerError::file("made", &path))?;
        let lock = File::create(path.join(".lock")).map_err(LedgerError::file("locked", &path))?;
        let mut tries = 0;
        loop {
            match rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                // A program that the agent before was just starting holds the lock too, until its exec.
                Err(rustix::io::Errno::WOULDBLOCK) if tries < LOCK_TRIES => tries += 1,
                Err(rustix::io::Errno::WOULDBLOCK) => return Err(LedgerError::InUse { dir: path }),
                Err(errno) => return Err(LedgerError::file("locked", &path)(errno.into())),
            }
            #[expect(
                clippy::disallowed_methods,
                reason = "opening a ledger blocks, and is called where that is allowed"
            )]
            std::thread::sleep(LOCK_PAUSE);
        }
        durable::sweep_half_written(&path).map_err(LedgerError::file("swept", &path))?;
        Ok(Self { path, _lock: lock })
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Who this host is, how often its agent started, and which revision of its desired state it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRecord {
    pub host_id: HostId,
    /// It is raised durably at each start, so that reports of an earlier life are older than those of this one.
    pub start: i64,
    /// It is of the last snapshot or delta that was taken whole.
    pub revision: i64,
}

impl HostRecord {
    /// The record of the next start; the caller makes it durable. `given`: who this host is, where that is known from outside; a new
    /// ledger takes it over, another host's ledger is refused.
    pub fn next_start(found: Option<Self>, given: Option<HostId>, dir: &LedgerDir) -> Result<Self, LedgerError> {
        if let (Some(Self { host_id: held, .. }), Some(given)) = (found, given)
            && held != given
        {
            return Err(LedgerError::AnotherHost { dir: dir.path.clone(), held, given });
        }
        let known = found.unwrap_or_else(|| Self { host_id: given.unwrap_or_else(HostId::new), start: 0, revision: 0 });
        Ok(Self { start: known.start + 1, ..known })
    }
}
