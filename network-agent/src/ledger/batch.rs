//! How changes of the ledger become durable: all that wait at once are one batch of the journal, so that a thousand ports that are
//! acquired together cost a few syncs and not a thousand. Each change sees those before it; none is shown to anybody before it is durable.

use super::journal::{self, Record};
use crate::model::object::Key;
use agent_kit::{
    HostRecord, durable,
    reserve::{Reserve, is_full},
};
use parking_lot::Mutex;
use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{self, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

/// A journal this much longer than what it holds is written anew.
const GARBAGE_FACTOR: u64 = 4;
const GARBAGE_MIN: u64 = 4 * 1024 * 1024;

/// What is durable.
#[derive(Debug)]
pub struct State {
    pub records: BTreeMap<Key, Record>,
    pub host: HostRecord,
}

/// Gets whether the change's batch was written.
pub type Written = Box<dyn FnOnce(Result<(), Arc<io::Error>>) + Send>;
pub type Change = Box<dyn FnOnce(&mut Batch<'_>) -> Written + Send>;

/// The ledger as it will be once this batch is durable.
pub struct Batch<'a> {
    state: &'a Mutex<State>,
    changed: BTreeMap<Key, Record>,
    pub host: HostRecord,
}

impl Batch<'_> {
    #[must_use]
    pub fn get(&self, key: Key) -> Option<Record> {
        let durable = || self.state.lock().records.get(&key).cloned();
        self.changed.get(&key).cloned().or_else(durable)
    }

    pub fn put(&mut self, key: Key, record: Record) {
        self.changed.insert(key, record);
    }
}

#[derive(Debug)]
pub struct Journal {
    dir: PathBuf,
    reserve: Arc<Reserve>,
    file: File,
    bytes: u64,
    live_bytes: u64,
    /// An append failed half-way, and what it left couldn't be cut off: the next write replaces the file.
    torn: bool,
}

impl Journal {
    /// Replaces the file by one batch of everything. `closed`: how much of the file that is there are whole batches, all of which are in `state`.
    /// When the disk has no room for a second file, that one is continued.
    pub fn open(dir: PathBuf, reserve: Arc<Reserve>, state: &State, closed: u64) -> io::Result<Self> {
        // A second file may need more than all of what is set apart, so that isn't tried while there is another way.
        let created = Self::create(&dir, state);
        match created {
            Ok((file, bytes)) => Ok(Self { dir, reserve, file, bytes, live_bytes: bytes, torn: false }),
            Err(error) if is_full(&error) && closed == 0 => {
                let (file, bytes) = reserve.write(|| Self::create(&dir, state))?;
                Ok(Self { dir, reserve, file, bytes, live_bytes: bytes, torn: false })
            }
            Err(error) if is_full(&error) => {
                tracing::warn!("the disk is full: the ledger is continued as it is");
                let file = OpenOptions::new().write(true).open(dir.join(journal::NAME))?;
                // What is there counts as needed: it is written anew when there is room.
                let mut journal = Self { dir, reserve, file, bytes: closed, live_bytes: closed, torn: false };
                journal.cut()?;
                journal.append(&journal::encode(&[], state.host))?;
                Ok(journal)
            }
            Err(error) => Err(error),
        }
    }

    fn create(dir: &Path, state: &State) -> io::Result<(File, u64)> {
        let all: Vec<Record> = state.records.values().cloned().collect();
        let bytes = journal::encode_file(&all, state.host);
        Ok((durable::replace(dir, journal::NAME, &bytes)?, bytes.len() as u64))
    }

    /// Cuts off what isn't a whole batch.
    fn cut(&mut self) -> io::Result<()> {
        self.file.set_len(self.bytes)?;
        self.file.seek(SeekFrom::Start(self.bytes)).map(drop)
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let reserve = Arc::clone(&self.reserve);
        reserve.write(|| {
            let written = self.file.write_all(bytes).and_then(|()| self.file.sync_data());
            self.torn = written.is_err() && self.cut().is_err();
            if self.torn { Err(io::Error::other("the ledger's end can't be cut off")) } else { written }
        })?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    pub fn commit(&mut self, state: &Mutex<State>, changes: Vec<Change>) {
        let host = state.lock().host;
        let mut batch = Batch { state, changed: BTreeMap::new(), host };
        let waiting: Vec<Written> = changes.into_iter().map(|change| change(&mut batch)).collect();
        let Batch { changed, host: new, .. } = batch;
        let written =
            if changed.is_empty() && host == new { Ok(()) } else { self.write(state, changed, new).map_err(Arc::new) };
        for done in waiting {
            done(written.clone());
        }
    }

    fn write(&mut self, state: &Mutex<State>, changed: BTreeMap<Key, Record>, host: HostRecord) -> io::Result<()> {
        let crowded = self.bytes > GARBAGE_MIN && self.bytes > GARBAGE_FACTOR * self.live_bytes;
        let rewritten = if self.torn || crowded {
            let mut records = state.lock().records.clone();
            records.extend(changed.clone());
            let whole = State { records, host };
            let reserve = Arc::clone(&self.reserve);
            // A crowded file can go on as it is; room that is set apart isn't for tidying.
            let created = if self.torn {
                reserve.write(|| Self::create(&self.dir, &whole))
            } else {
                Self::create(&self.dir, &whole)
            };
            match created {
                Ok((file, bytes)) => {
                    (self.file, self.bytes, self.live_bytes, self.torn) = (file, bytes, bytes, false);
                    true
                }
                Err(error) if is_full(&error) && !self.torn => false,
                Err(error) => return Err(error),
            }
        } else {
            false
        };
        if !rewritten {
            let records: Vec<Record> = changed.values().cloned().collect();
            let bytes = journal::encode(&records, host);
            self.append(&bytes)?;
            let fresh = {
                let state = state.lock();
                changed.keys().filter(|key| !state.records.contains_key(*key)).count()
            };
            self.live_bytes += (bytes.len() / records.len().max(1) * fresh) as u64;
        }
        let mut state = state.lock();
        state.records.extend(changed);
        state.host = host;
        Ok(())
    }
}
