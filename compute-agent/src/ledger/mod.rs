//! The host's truth on disk: what every instance must be here, what has been done about it, and the graves of those that are gone.
//!
//! The problem: the manager may be away for hours, the agent may be killed at any instruction, the host may lose power; the host
//! must still know what it runs and never act on a command that it could forget again. So a command is durable here *before*
//! anything is done about it, and what was done is written after it.
//!
//! An embedded database was rejected: a file per instance can be read, copied and repaired by a person at three in the morning,
//! and damage to one touches no other. A log with compaction was rejected for the same reason; with grouped writes it would save
//! one sync per command.
//!
//! Invariants:
//! - What [`Ledger::held`] shows is durable. Changes build on the newest version, durable or not, in the order of their
//!   submission; a version becomes visible when its file is.
//! - (epoch, generation) never falls ([`mod@accept`]).
//! - A file that can't be understood is moved to `quarantine/` and reported, never dropped: its instance, if it runs, goes on.
//! - The revision is written after the entries it stands for: after a crash it may be too low (the manager then repeats), never
//!   too high.

pub mod accept;
pub mod entry;
mod file;
mod host_file;
mod record;
mod writer;

pub use self::{
    accept::Decision,
    entry::{Desired, DesiredImage, Done, Entry, Halt, HaltCause, Held, Nic, RootDisk, Running, Tombstone, Version},
    file::ensure_private_dir,
};

use self::{
    accept::{Current, Incoming, accept},
    host_file::HostRecord,
    writer::{Writer, Written},
};
use domain::{HostId, InstanceId, Timestamp};
use parking_lot::{Mutex, MutexGuard};
use std::{
    collections::{BTreeMap, btree_map::Entry as MapEntry},
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    #[error("the ledger's {path} can't be read")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the ledger in {dir} can't be written")]
    Write {
        dir: PathBuf,
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
    HostRecord { path: PathBuf, detail: String },
    #[error("another agent uses the ledger in {dir}: end it first")]
    InUse { dir: PathBuf },
    #[error("the ledger in {dir} is host {held}'s, and this host is {given}")]
    AnotherHost { dir: PathBuf, held: HostId, given: HostId },
    #[error("the ledger's writer has ended")]
    Closed,
    #[error("instance {instance_id} is not in the ledger")]
    Unknown { instance_id: InstanceId },
}

/// A file that couldn't be understood and was set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantined {
    pub path: PathBuf,
    pub reason: String,
}

/// What became of one command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    pub instance_id: InstanceId,
    pub version: Version,
    pub decision: Decision,
}

#[derive(Debug)]
struct Slot {
    /// What is on disk, and the number of the change that made it.
    durable: Option<(u64, Arc<Held>)>,
    /// What the next change builds on.
    newest: (u64, Arc<Held>),
}

/// One change on its way to the disk. Callers learn of their writes in any order; the number tells which is the later one.
#[derive(Debug, Clone)]
struct Change {
    number: u64,
    held: Arc<Held>,
}

#[derive(Debug)]
struct State {
    slots: BTreeMap<InstanceId, Slot>,
    host: HostRecord,
    changes: u64,
}

/// Whose ledger lies below `state_dir`, without opening it. None: there is none yet.
pub fn peek_host_id(state_dir: &Path) -> Result<Option<HostId>, LedgerError> {
    host_file::peek(&state_dir.join("ledger")).map(|found| found.map(|record| record.host_id))
}

#[derive(Debug)]
pub struct Ledger {
    dir: PathBuf,
    state: Mutex<State>,
    writer: Writer,
    /// Locked for as long as the ledger is open: two agents on one ledger would start everything twice.
    _lock: fs::File,
}

impl Ledger {
    /// Opens (at the first start: makes) the ledger below `state_dir` and raises the start number. `host_id`: who this host is, where
    /// that is known from outside; a new ledger takes it over, another host's ledger is refused. Blocking.
    pub fn open(state_dir: &Path, host_id: Option<HostId>) -> Result<(Self, Vec<Quarantined>), LedgerError> {
        let dir = state_dir.join("ledger");
        let write = |source| LedgerError::Write { dir: dir.clone(), source };
        ensure_private_dir(&dir).map_err(write)?;
        let lock = fs::File::create(dir.join(".lock")).map_err(write)?;
        match rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(LedgerError::InUse { dir }),
            Err(errno) => return Err(write(errno.into())),
        }
        file::sweep_half_written(&dir).map_err(write)?;
        let (entries, quarantined) = read_entries(&dir)?;
        let host = host_file::begin_start(&dir, host_id)?;
        let writer = Writer::start(dir.clone()).map_err(write)?;
        let slots = entries
            .into_iter()
            .map(|held| {
                let held = Arc::new(held);
                (held.instance_id(), Slot { durable: Some((0, Arc::clone(&held))), newest: (0, held) })
            })
            .collect();
        Ok((Self { state: Mutex::new(State { slots, host, changes: 0 }), writer, _lock: lock, dir }, quarantined))
    }

    /// Everything a ledger holds, read without opening it for use (no start number is raised, no lock taken). Files that can't be
    /// understood are left alone and reported. Blocking.
    pub fn peek(state_dir: &Path) -> Result<(Vec<Held>, Vec<Quarantined>), LedgerError> {
        let dir = state_dir.join("ledger");
        if !dir.exists() {
            return Ok((Vec::new(), Vec::new()));
        }
        scan(&dir)
    }

    #[must_use]
    pub fn host_id(&self) -> HostId {
        self.lock().host.host_id
    }

    #[must_use]
    pub fn start(&self) -> i64 {
        self.lock().host.start
    }

    /// Of the last snapshot or delta that was taken whole.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.lock().host.revision
    }

    /// What is durably held of one instance.
    #[must_use]
    pub fn held(&self, instance_id: InstanceId) -> Option<Arc<Held>> {
        self.lock().slots.get(&instance_id)?.durable.as_ref().map(|(_, held)| Arc::clone(held))
    }

    #[must_use]
    pub fn all(&self) -> Vec<Arc<Held>> {
        self.lock().slots.values().filter_map(|slot| slot.durable.as_ref().map(|(_, held)| Arc::clone(held))).collect()
    }

    /// Takes what is newer than what is held; durable when it returns. `revision` counts once all of it is.
    pub async fn accept(&self, commands: Vec<Desired>, revision: i64) -> Result<Vec<Outcome>, LedgerError> {
        let mut outcomes = Vec::with_capacity(commands.len());
        let mut changed = Vec::new();
        let written = {
            let mut state = self.lock();
            for desired in commands {
                let (instance_id, version) = (desired.instance_id, desired.version);
                let current = state.slots.get(&instance_id).map(|slot| Current {
                    version: slot.newest.1.version(),
                    buried: matches!(*slot.newest.1, Held::Buried(_)),
                });
                let decision = accept(current, Incoming { version, deleted: desired.spec.deleted });
                outcomes.push(Outcome { instance_id, version, decision });
                let held = match decision {
                    Decision::Repeat | Decision::Refuse { .. } => continue,
                    Decision::Rebury => Held::Buried(Tombstone { instance_id, version, buried_at: Timestamp::now() }),
                    Decision::Take => {
                        let done = match state.slots.get(&instance_id).map(|slot| &*slot.newest.1) {
                            Some(Held::Live(entry)) => entry.done.clone(),
                            Some(Held::Buried(_)) | None => Done::default(),
                        };
                        Held::Live(Entry { desired, done })
                    }
                };
                changed.push(state.put(held));
            }
            self.submit(&changed)
        };
        self.settle(changed, written).await?;
        let record = {
            let mut state = self.lock();
            state.host.revision = revision;
            state.host
        };
        // Not waited for: too low a revision only makes the manager repeat.
        drop(self.writer.submit(vec![(host_file::NAME.to_owned(), host_file::encode(record))]));
        Ok(outcomes)
    }

    /// Changes what is written of the host's own doings; durable when it returns. A buried instance has none.
    pub async fn record(&self, instance_id: InstanceId, change: impl FnOnce(&mut Done)) -> Result<(), LedgerError> {
        let (changed, written) = {
            let mut state = self.lock();
            let newest = state.slots.get(&instance_id).map(|slot| Arc::clone(&slot.newest.1));
            let Some(Held::Live(entry)) = newest.as_deref() else {
                return Err(LedgerError::Unknown { instance_id });
            };
            let mut entry = entry.clone();
            change(&mut entry.done);
            let changed = vec![state.put(Held::Live(entry))];
            let written = self.submit(&changed);
            (changed, written)
        };
        self.settle(changed, written).await
    }

    /// Replaces a deleted instance by its tombstone; durable when it returns. One that was given to this host anew meanwhile (a
    /// higher epoch) stays.
    pub async fn bury(&self, instance_id: InstanceId, version: Version) -> Result<(), LedgerError> {
        let (changed, written) = {
            let mut state = self.lock();
            let newest = state.slots.get(&instance_id).map(|slot| Arc::clone(&slot.newest.1));
            match newest.as_deref() {
                Some(Held::Live(entry)) if entry.desired.spec.deleted && entry.desired.version == version => {}
                Some(_) | None => return Ok(()),
            }
            let tombstone = Tombstone { instance_id, version, buried_at: Timestamp::now() };
            let changed = vec![state.put(Held::Buried(tombstone))];
            let written = self.submit(&changed);
            (changed, written)
        };
        self.settle(changed, written).await
    }

    fn submit(&self, changed: &[Change]) -> Option<Written> {
        let files: Vec<_> =
            changed.iter().map(|c| (file_name(c.held.instance_id()), record::encode(&c.held))).collect();
        (!files.is_empty()).then(|| self.writer.submit(files))
    }

    /// Waits for the files and makes the versions visible; those that couldn't be written are forgotten, unless a later change
    /// already builds on them (its file then carries them).
    async fn settle(&self, changed: Vec<Change>, written: Option<Written>) -> Result<(), LedgerError> {
        let Some(written) = written else { return Ok(()) };
        let result = written.await.map_err(|_| LedgerError::Closed)?;
        let mut state = self.lock();
        for Change { number, held } in changed {
            let instance_id = held.instance_id();
            let Some(slot) = state.slots.get_mut(&instance_id) else { continue };
            if result.is_ok() {
                if slot.durable.as_ref().is_none_or(|(durable, _)| *durable < number) {
                    slot.durable = Some((number, held));
                }
            } else if slot.newest.0 == number {
                match &slot.durable {
                    Some(durable) => slot.newest = durable.clone(),
                    None => {
                        state.slots.remove(&instance_id);
                    }
                }
            }
        }
        result.map_err(|source| LedgerError::Commit { dir: self.dir.clone(), source })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that runs under the lock panics half-way through a change.
        self.state.lock()
    }
}

impl State {
    fn put(&mut self, held: Held) -> Change {
        self.changes += 1;
        let change = Change { number: self.changes, held: Arc::new(held) };
        let newest = (change.number, Arc::clone(&change.held));
        match self.slots.entry(change.held.instance_id()) {
            MapEntry::Occupied(mut slot) => slot.get_mut().newest = newest,
            MapEntry::Vacant(slot) => {
                slot.insert(Slot { durable: None, newest });
            }
        }
        change
    }
}

fn file_name(instance_id: InstanceId) -> String {
    format!("{instance_id}.json")
}

/// Reads every entry and moves what can't be understood to `quarantine/`.
fn read_entries(dir: &Path) -> Result<(Vec<Held>, Vec<Quarantined>), LedgerError> {
    let (entries, mut bad) = scan(dir)?;
    let quarantine = dir.join("quarantine");
    for file in &mut bad {
        let write = |source| LedgerError::Write { dir: quarantine.clone(), source };
        ensure_private_dir(&quarantine).map_err(write)?;
        let name = file.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let aside = quarantine.join(format!("{name}.{}", Timestamp::now().0));
        fs::rename(&file.path, &aside).map_err(write)?;
        file.path = aside;
    }
    Ok((entries, bad))
}

fn scan(dir: &Path) -> Result<(Vec<Held>, Vec<Quarantined>), LedgerError> {
    let read = |path: &Path| {
        let path = path.to_path_buf();
        move |source| LedgerError::Read { path, source }
    };
    let (mut entries, mut bad) = (Vec::new(), Vec::new());
    for file in fs::read_dir(dir).map_err(read(dir))? {
        let path = file.map_err(read(dir))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() || name == host_file::NAME || !name.ends_with(".json") {
            continue;
        }
        let bytes = fs::read(&path).map_err(read(&path))?;
        match record::decode(&bytes) {
            Ok(held) if file_name(held.instance_id()) == name => entries.push(held),
            Ok(held) => bad.push(Quarantined { path, reason: format!("it is about {}", held.instance_id()) }),
            Err(e) => {
                let reason = std::iter::successors(Some(&e as &dyn std::error::Error), |e| e.source())
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join(": ");
                bad.push(Quarantined { path, reason });
            }
        }
    }
    Ok((entries, bad))
}

#[cfg(test)]
mod tests;
