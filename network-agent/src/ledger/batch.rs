//! How changes of the ledger become durable: all that wait at once are one batch of the journal, so that a thousand ports that are
//! acquired together cost a few syncs and not a thousand. Each change sees those before it; none is shown to anybody before it is durable.

use super::journal::{self, Record};
use crate::model::object::Key;
use agent_kit::{HostRecord, durable};
use parking_lot::Mutex;
use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Write},
    path::PathBuf,
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
    file: File,
    bytes: u64,
    live_bytes: u64,
    /// An append failed half-way: the next write replaces the file.
    torn: bool,
}

impl Journal {
    /// Replaces the file by one batch of everything.
    pub fn create(dir: PathBuf, state: &State) -> io::Result<Self> {
        let all: Vec<Record> = state.records.values().cloned().collect();
        let bytes = journal::encode_file(&all, state.host);
        let file = durable::replace(&dir, journal::NAME, &bytes)?;
        Ok(Self { dir, file, bytes: bytes.len() as u64, live_bytes: bytes.len() as u64, torn: false })
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
        if self.torn || crowded {
            let mut records = state.lock().records.clone();
            records.extend(changed.clone());
            *self = Self::create(self.dir.clone(), &State { records, host })?;
        } else {
            let records: Vec<Record> = changed.values().cloned().collect();
            let bytes = journal::encode(&records, host);
            self.torn = true;
            self.file.write_all(&bytes)?;
            self.file.sync_data()?;
            self.torn = false;
            self.bytes += bytes.len() as u64;
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
