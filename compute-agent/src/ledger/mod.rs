//! The host's truth on disk: what every instance must be here, what has been done about it, and the
//! tombstones of those that are gone.
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
//! - (epoch, generation) never falls ([`agent_kit::accept()`]).
//! - A file that can't be understood is moved to `quarantine/` and reported, never dropped: its instance, if it runs, goes on.
//! - The revision is written after the entries it stands for: after a crash it may be too low (the manager then repeats), never
//!   too high.

pub mod entry;
mod host_file;
mod record;

pub use self::entry::{
    Desired, DesiredImage, Disk, DiskFile, Done, Entry, Halt, HaltCause, Held, Launched, Nic, Running, Tombstone,
};
pub use agent_kit::{Decision, LedgerError, Version};

use agent_kit::{
    Current, HostRecord, Incoming, LedgerDir, Revival, accept,
    durable::{ensure_private_dir, replace_all},
    reserve::Reserve,
    writer::BatchWriter,
};
use domain::{HostId, InstanceId, Timestamp};
use parking_lot::{Mutex, MutexGuard};
use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry as MapEntry},
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::sync::oneshot;
use uuid::Uuid;

/// Tombstones that are kept although no manager needs them any more.
const RELEASED_KEPT: usize = 1000;

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
    /// Tombstones that no manager needs any more, by age.
    released: BTreeSet<(Timestamp, InstanceId)>,
}

/// Files (name, bytes) that are to be durable together; of two with one name, the one handed in later wins.
struct Job {
    files: Vec<(String, Vec<u8>)>,
    /// Files that go. One that comes back after a power failure is only a tombstone more.
    removed: Vec<String>,
    done: oneshot::Sender<Result<(), Arc<io::Error>>>,
}

/// Resolves when the files are durable, or can't be made so.
type Written = oneshot::Receiver<Result<(), Arc<io::Error>>>;

/// Whose ledger lies below `state_dir`, without opening it. None: there is none yet.
pub fn peek_host_id(state_dir: &Path) -> Result<Option<HostId>, LedgerError> {
    host_file::peek(&LedgerDir::below(state_dir)).map(|found| found.map(|(_, record)| record.host_id))
}

#[derive(Debug)]
pub struct Ledger {
    state: Mutex<State>,
    id: Uuid,
    /// It ends before the directory is free for the next agent.
    writer: BatchWriter<Job>,
    dir: LedgerDir,
    reserve: Arc<Reserve>,
}

/// What became of commands that came together.
#[derive(Debug, Default)]
pub struct Accepted {
    pub outcomes: Vec<Outcome>,
    /// New instances for which the disk has no room.
    pub left_out: Vec<(InstanceId, Version)>,
}

impl Ledger {
    /// Opens (at the first start: makes) the ledger below `state_dir` and raises the start number. `host_id`: who this host is, where
    /// that is known from outside; a new ledger takes it over, another host's ledger is refused. Blocking.
    pub fn open(state_dir: &Path, host_id: Option<HostId>) -> Result<(Self, Vec<Quarantined>), LedgerError> {
        let dir = LedgerDir::open(state_dir)?;
        let (entries, quarantined) = read_entries(dir.path())?;
        let (id, found) = host_file::peek(dir.path())?.unzip();
        let id = id.unwrap_or_else(Uuid::new_v4);
        let host = HostRecord::next_start(found, host_id, &dir)?;
        let path = dir.path().to_path_buf();
        let reserve = Arc::new(Reserve::open(&path));
        let files = [(host_file::NAME.to_owned(), host_file::encode(id, host))];
        reserve.write(|| replace_all(&path, &files)).map_err(LedgerError::file("written", &path))?;
        let room = Arc::clone(&reserve);
        let writer = BatchWriter::start(move |batch| write(&path, &room, batch));
        let writer = writer.map_err(LedgerError::file("written", dir.path()))?;
        let slots = entries
            .into_iter()
            .map(|held| {
                let held = Arc::new(held);
                (held.instance_id(), Slot { durable: Some((0, Arc::clone(&held))), newest: (0, held) })
            })
            .collect();
        let state = Mutex::new(State { slots, host, changes: 0, released: BTreeSet::new() });
        Ok((Self { state, id, writer, dir, reserve }, quarantined))
    }

    /// Everything a ledger holds, read without opening it for use (no start number is raised, no lock taken). Files that can't be
    /// understood are left alone and reported. Blocking.
    pub fn peek(state_dir: &Path) -> Result<(Vec<Held>, Vec<Quarantined>), LedgerError> {
        let dir = LedgerDir::below(state_dir);
        if !dir.exists() {
            return Ok((Vec::new(), Vec::new()));
        }
        scan(&dir)
    }

    /// Who this host is, which start of its agent this is, and the revision of the last snapshot or delta that was taken whole.
    #[must_use]
    pub fn host(&self) -> HostRecord {
        self.lock().host
    }

    /// Which ledger this is: one that was made anew is another.
    #[must_use]
    pub fn id(&self) -> Uuid {
        self.id
    }

    #[must_use]
    pub fn host_id(&self) -> HostId {
        self.host().host_id
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

    /// Whether the disk has room for more than what the ledger has: if not, the room that is set apart for it is in use. It is set apart
    /// again as soon as the disk has it.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.reserve.has_room()
    }

    /// Takes what is newer than what is held; durable when it returns. `revision` counts once all of it is. On a full disk nothing new is
    /// taken; what is held can be changed and deleted.
    pub async fn accept(&self, commands: Vec<Desired>, revision: i64) -> Result<Accepted, LedgerError> {
        let mut outcomes = Vec::with_capacity(commands.len());
        let mut left_out = Vec::new();
        let room = self.has_room();
        let mut changed = Vec::new();
        let written = {
            let mut state = self.lock();
            for desired in commands {
                let (instance_id, version) = (desired.instance_id, desired.version);
                let current = state.slots.get(&instance_id).map(|slot| Current {
                    version: slot.newest.1.version(),
                    tombstone: matches!(*slot.newest.1, Held::Tombstone(_)),
                });
                let incoming = Incoming { version, deleted: desired.spec.deleted };
                let decision = accept(current, incoming, Revival::HigherEpoch);
                let new = decision == Decision::Take && !incoming.deleted && current.is_none_or(|held| held.tombstone);
                if new && !room {
                    left_out.push((instance_id, version));
                    continue;
                }
                outcomes.push(Outcome { instance_id, version, decision });
                let held = match decision {
                    Decision::Repeat | Decision::Refuse { .. } => continue,
                    Decision::RaiseTombstone => {
                        Held::Tombstone(Tombstone { instance_id, version, deleted_at: Timestamp::now() })
                    }
                    Decision::Take => Held::Live(match state.slots.get(&instance_id).map(|slot| &*slot.newest.1) {
                        Some(Held::Live(known)) if desired.spec.deleted => {
                            Entry { desired: desired.keeping(&known.desired), done: known.done.clone() }
                        }
                        Some(Held::Live(known)) => Entry { desired, done: known.done.clone() },
                        Some(Held::Tombstone(_)) | None => Entry { desired, done: Done::default() },
                    }),
                };
                changed.push(state.put(held));
            }
            self.submit(&changed)
        };
        self.settle(changed, written).await?;
        if !left_out.is_empty() {
            return Ok(Accepted { outcomes, left_out });
        }
        let record = {
            let mut state = self.lock();
            state.host.revision = revision;
            state.host
        };
        // Not waited for: too low a revision only makes the manager repeat.
        drop(self.submit_files(vec![(host_file::NAME.to_owned(), host_file::encode(self.id, record))]));
        Ok(Accepted { outcomes, left_out })
    }

    /// What to answer where something was left out.
    #[must_use]
    pub fn full(&self) -> LedgerError {
        LedgerError::Full { dir: self.dir.path().to_path_buf() }
    }

    /// Raises the number of this start; durable when it returns.
    pub async fn raise_start(&self, floor: i64) -> Result<(), LedgerError> {
        let record = {
            let mut state = self.lock();
            state.host.start = state.host.start.max(floor);
            state.host
        };
        let written = self.submit_files(vec![(host_file::NAME.to_owned(), host_file::encode(self.id, record))]);
        let result = written.await.map_err(|_| LedgerError::Closed)?;
        result.map_err(|source| LedgerError::Commit { dir: self.dir.path().to_path_buf(), source })
    }

    /// Changes what is written of the host's own doings; durable when it returns. A tombstone has none.
    pub async fn record(&self, instance_id: InstanceId, change: impl FnOnce(&mut Done)) -> Result<(), LedgerError> {
        let (changed, written) = {
            let mut state = self.lock();
            let newest = state.slots.get(&instance_id).map(|slot| Arc::clone(&slot.newest.1));
            let Some(Held::Live(entry)) = newest.as_deref() else {
                return Err(LedgerError::Unknown { object: format!("instance {instance_id}") });
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
    pub async fn set_tombstone(&self, instance_id: InstanceId, version: Version) -> Result<(), LedgerError> {
        let (changed, written) = {
            let mut state = self.lock();
            let newest = state.slots.get(&instance_id).map(|slot| Arc::clone(&slot.newest.1));
            match newest.as_deref() {
                Some(Held::Live(entry)) if entry.desired.spec.deleted && entry.desired.version == version => {}
                Some(_) | None => return Ok(()),
            }
            let tombstone = Tombstone { instance_id, version, deleted_at: Timestamp::now() };
            let changed = vec![state.put(Held::Tombstone(tombstone))];
            let written = self.submit(&changed);
            (changed, written)
        };
        self.settle(changed, written).await
    }

    /// No manager has the instance any more, so nothing can bring it back: its tombstone may go. The newest stay for a while, as the proof
    /// that what they name is gone, should the managers' database be restored from a backup.
    pub fn release_tombstone(&self, instance_id: InstanceId) {
        let removed = {
            let mut state = self.lock();
            let durable = state.slots.get(&instance_id).and_then(|slot| slot.durable.as_ref());
            let Some((_, held)) = durable else { return };
            let Held::Tombstone(tombstone) = &**held else { return };
            let deleted_at = tombstone.deleted_at;
            state.released.insert((deleted_at, instance_id));
            state.take_oldest_released()
        };
        if !removed.is_empty() {
            // Not waited for: it is tidied, not promised.
            drop(self.submit_job(Vec::new(), removed.into_iter().map(file_name).collect()));
        }
    }

    fn submit(&self, changed: &[Change]) -> Option<Written> {
        let files: Vec<_> =
            changed.iter().map(|c| (file_name(c.held.instance_id()), record::encode(&c.held))).collect();
        (!files.is_empty()).then(|| self.submit_files(files))
    }

    fn submit_files(&self, files: Vec<(String, Vec<u8>)>) -> Written {
        self.submit_job(files, Vec::new())
    }

    fn submit_job(&self, files: Vec<(String, Vec<u8>)>, removed: Vec<String>) -> Written {
        let (done, written) = oneshot::channel();
        self.writer.submit(Job { files, removed, done });
        written
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
        result.map_err(|source| LedgerError::Commit { dir: self.dir.path().to_path_buf(), source })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that runs under the lock panics half-way through a change.
        self.state.lock()
    }
}

impl State {
    /// Takes the oldest released tombstones out of the ledger, as long as there are more than are kept.
    fn take_oldest_released(&mut self) -> Vec<InstanceId> {
        let mut taken = Vec::new();
        while self.released.len() > RELEASED_KEPT {
            let Some((_, instance_id)) = self.released.pop_first() else { break };
            // One that was given to this host anew is no tombstone any more.
            if let Some(slot) = self.slots.get(&instance_id)
                && matches!(*slot.newest.1, Held::Tombstone(_))
            {
                self.slots.remove(&instance_id);
                taken.push(instance_id);
            }
        }
        taken
    }

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

fn write(dir: &Path, reserve: &Reserve, batch: Vec<Job>) {
    let (mut files, mut removed) = (BTreeMap::new(), Vec::new());
    let mut waiting = Vec::with_capacity(batch.len());
    for job in batch {
        files.extend(job.files);
        removed.extend(job.removed);
        waiting.push(job.done);
    }
    let files: Vec<_> = files.into_iter().collect();
    let result = reserve.write(|| replace_all(dir, &files)).map_err(Arc::new);
    for name in removed.into_iter().filter(|name| files.iter().all(|(written, _)| written != name)) {
        // What is left over is released again after the next start.
        let _ = fs::remove_file(dir.join(name));
    }
    for done in waiting {
        // Who no longer waits needn't know.
        let _ = done.send(result.clone());
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
        ensure_private_dir(&quarantine).map_err(LedgerError::file("made", &quarantine))?;
        let name = file.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let aside = quarantine.join(format!("{name}.{}", Timestamp::now().0));
        fs::rename(&file.path, &aside).map_err(LedgerError::file("moved", &file.path))?;
        file.path = aside;
    }
    Ok((entries, bad))
}

fn scan(dir: &Path) -> Result<(Vec<Held>, Vec<Quarantined>), LedgerError> {
    let read = |path: &Path| LedgerError::file("read", path);
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
