//! The one thread that writes the journal. It takes all changes that wait at once, so that a thousand ports that are handed over
//! together cost a few syncs and not a thousand. Each change sees those before it; none is shown to anybody before it is durable.

use super::{
    State,
    journal::{self, HostRecord, Record},
};
use crate::model::object::Key;
use parking_lot::Mutex;
use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Write},
    path::PathBuf,
    sync::{Arc, mpsc},
    thread,
};

/// A journal this much longer than what it holds is written anew.
const GARBAGE_FACTOR: u64 = 4;
const GARBAGE_MIN: u64 = 4 * 1024 * 1024;

/// What was written or why it couldn't be; told to each caller.
pub type Told = Box<dyn FnOnce(Result<(), Arc<io::Error>>) + Send>;
pub type Change = Box<dyn FnOnce(&mut Draft<'_>) -> Told + Send>;

/// The ledger as it will be once this batch is durable.
pub struct Draft<'a> {
    state: &'a Mutex<State>,
    changed: BTreeMap<Key, Record>,
    pub host: HostRecord,
}

impl Draft<'_> {
    #[must_use]
    pub fn get(&self, key: Key) -> Option<Record> {
        let held = || self.state.lock().records.get(&key).cloned();
        self.changed.get(&key).cloned().or_else(held)
    }

    pub fn put(&mut self, key: Key, record: Record) {
        self.changed.insert(key, record);
    }
}

/// Hands changes to the thread. Dropping it waits for all that was handed in.
#[derive(Debug)]
pub struct Writer {
    changes: Option<mpsc::Sender<Change>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.changes = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Writer {
    pub fn start(mut journal: Journal, state: Arc<Mutex<State>>) -> io::Result<Self> {
        let (changes, queue) = mpsc::channel::<Change>();
        let thread = thread::Builder::new().name("ledger".into()).spawn(move || {
            while let Ok(first) = queue.recv() {
                let batch: Vec<Change> = std::iter::once(first).chain(queue.try_iter()).collect();
                journal.commit(&state, batch);
            }
        })?;
        Ok(Self { changes: Some(changes), thread: Some(thread) })
    }

    /// Queues a change. One whose thread is gone is dropped, which its caller sees.
    pub fn submit(&self, change: Change) {
        if let Some(changes) = &self.changes {
            let _ = changes.send(change);
        }
    }
}

#[derive(Debug)]
pub struct Journal {
    pub dir: PathBuf,
    pub file: File,
    pub bytes: u64,
    pub live_bytes: u64,
    /// An append failed half-way: the next write replaces the file.
    pub torn: bool,
}

impl Journal {
    fn commit(&mut self, state: &Mutex<State>, batch: Vec<Change>) {
        let host = state.lock().host;
        let mut draft = Draft { state, changed: BTreeMap::new(), host };
        let told: Vec<Told> = batch.into_iter().map(|change| change(&mut draft)).collect();
        let Draft { changed, host: new, .. } = draft;
        let written =
            if changed.is_empty() && host == new { Ok(()) } else { self.write(state, changed, new).map_err(Arc::new) };
        for tell in told {
            tell(written.clone());
        }
    }

    fn write(&mut self, state: &Mutex<State>, changed: BTreeMap<Key, Record>, host: HostRecord) -> io::Result<()> {
        let lock = || state.lock();
        let crowded = self.bytes > GARBAGE_MIN && self.bytes > GARBAGE_FACTOR * self.live_bytes;
        if self.torn || crowded {
            let mut all = lock().records.clone();
            all.extend(changed.clone());
            let bytes = journal::encode(&all.into_values().collect::<Vec<_>>(), host);
            // The handle follows the rename; appending goes on at its end.
            self.file = journal::rewrite(&self.dir, &bytes)?;
            (self.bytes, self.live_bytes, self.torn) = (bytes.len() as u64, bytes.len() as u64, false);
        } else {
            let records: Vec<Record> = changed.values().cloned().collect();
            let bytes = journal::encode(&records, host);
            self.torn = true;
            self.file.write_all(&bytes)?;
            self.file.sync_data()?;
            self.torn = false;
            self.bytes += bytes.len() as u64;
            let fresh = changed.keys().filter(|key| !lock().records.contains_key(*key)).count();
            self.live_bytes += (bytes.len() / records.len().max(1) * fresh) as u64;
        }
        let mut state = lock();
        state.records.extend(changed);
        state.host = host;
        Ok(())
    }
}
