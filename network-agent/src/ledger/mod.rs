//! The host's truth on disk: what every network, port, group and floating IP must be here, which ports are handed to their
//! instances, and the graves of what is gone.
//!
//! The problem: the manager may be away for hours, the agent may be killed at any instruction, the host may lose power; the host
//! must still know what it carries and never act on a command that it could forget again. So a command is durable here *before*
//! anything is done about it. Invariants: what is shown is durable; (epoch, generation) never falls ([`accept()`]); the revision is
//! never ahead of the objects it stands for.

pub mod accept;
mod journal;
mod writer;

pub use self::{accept::Decision, journal::Record};

use self::{
    accept::{Current, Incoming, accept},
    journal::HostRecord,
    writer::{Draft, Journal, Writer},
};
use crate::model::object::{Desired, Key, Version};
use domain::{HostId, PortId};
use parking_lot::{Mutex, MutexGuard};
use proto::network::v1 as pb;
use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::sync::oneshot;

#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    #[error("the ledger in {dir} can't be {what}")]
    File {
        what: &'static str,
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
    #[error("another agent uses the ledger in {dir}: end it first")]
    InUse { dir: PathBuf },
    #[error("the ledger in {dir} is host {held}'s, and this host is {given}")]
    AnotherHost { dir: PathBuf, held: HostId, given: HostId },
    #[error("the ledger's writer was interrupted")]
    Interrupted,
}

/// What became of one command.
#[derive(Debug, Clone)]
pub struct Outcome {
    pub desired: Desired,
    pub decision: Decision,
}

#[derive(Debug)]
struct State {
    records: BTreeMap<Key, Record>,
    host: HostRecord,
}

#[derive(Debug)]
pub struct Ledger {
    dir: PathBuf,
    state: Arc<Mutex<State>>,
    writer: Writer,
    _lock: File,
}

impl Ledger {
    /// Opens (at the first start: makes) the ledger below `state_dir` and raises the start number. `host_id`: who this host is, where
    /// that is known from outside; a new ledger takes it over, another host's ledger is refused. Blocking.
    pub fn open(state_dir: &Path, host_id: Option<HostId>) -> Result<Self, LedgerError> {
        let dir = state_dir.join("ledger");
        let failed = |what| {
            let dir = dir.clone();
            move |source| LedgerError::File { what, dir, source }
        };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(failed("made"))?;
        let lock = File::create(dir.join(".lock")).map_err(failed("locked"))?;
        match rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(LedgerError::InUse { dir }),
            Err(errno) => return Err(failed("locked")(errno.into())),
        }
        let bytes = match fs::read(dir.join(journal::NAME)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            read => read.map_err(failed("read"))?,
        };
        let mut records = BTreeMap::new();
        let (host, good) =
            journal::decode(&bytes, |record| match Key::parse(record.desired.kind, &record.desired.id) {
                Ok(key) => {
                    records.insert(key, record);
                }
                Err(error) => tracing::warn!(%error, "an object of the ledger was not understood"),
            });
        if let (Some(HostRecord { host_id: held, .. }), Some(given)) = (host, host_id)
            && held != given
        {
            return Err(LedgerError::AnotherHost { dir, held, given });
        }
        if good < bytes.len() {
            // A torn end is what a crash leaves; anything else is damage that a person should be able to look at.
            let aside = dir.join(format!("{}.damaged.{}", journal::NAME, domain::Timestamp::now().0));
            fs::write(&aside, &bytes).map_err(failed("kept"))?;
            tracing::warn!(kept = %aside.display(), lost_bytes = bytes.len() - good, "the ledger's end was incomplete");
        }
        let mut host =
            host.unwrap_or_else(|| HostRecord { host_id: host_id.unwrap_or_else(HostId::new), start: 0, revision: 0 });
        host.start += 1;
        let all: Vec<Record> = records.values().cloned().collect();
        let bytes = journal::encode(&all, host);
        let file = journal::rewrite(&dir, &bytes).map_err(failed("written"))?;
        let length = bytes.len() as u64;
        let state = Arc::new(Mutex::new(State { records, host }));
        let journal = Journal { dir: dir.clone(), file, bytes: length, live_bytes: length, torn: false };
        let writer = Writer::start(journal, Arc::clone(&state)).map_err(failed("written"))?;
        Ok(Self { dir, state, writer, _lock: lock })
    }

    #[must_use]
    pub fn host_id(&self) -> HostId {
        self.lock().host.host_id
    }

    #[must_use]
    pub fn start(&self) -> i64 {
        self.lock().host.start
    }

    #[must_use]
    pub fn revision(&self) -> i64 {
        self.lock().host.revision
    }

    #[must_use]
    pub fn all(&self) -> Vec<(Key, Record)> {
        self.lock().records.iter().map(|(key, record)| (*key, record.clone())).collect()
    }

    /// (version, buried, acquired epoch) of what is held.
    #[must_use]
    pub fn held(&self, key: Key) -> Option<(Version, bool, i64)> {
        let state = self.lock();
        let record = state.records.get(&key)?;
        Some((version_of(&record.desired), record.desired.deleted, record.acquired_epoch))
    }

    /// Takes what is newer than what is held; durable when it returns. Callers send one batch at a time.
    pub async fn accept(&self, words: Vec<(pb::Desired, Desired)>, revision: i64) -> Result<Vec<Outcome>, LedgerError> {
        self.write(move |draft| {
            let mut outcomes = Vec::with_capacity(words.len());
            for (message, desired) in words {
                let held = draft.get(desired.key);
                let current =
                    held.as_ref().map(|r| Current { version: version_of(&r.desired), buried: r.desired.deleted });
                let decision =
                    accept(current, Incoming { version: desired.version, deleted: desired.object.is_none() });
                if decision == Decision::Take {
                    // A higher epoch is another handing over: what was acquired before is over.
                    let acquired_epoch = held
                        .filter(|r| !message.deleted && version_of(&r.desired).epoch == desired.version.epoch)
                        .map_or(0, |r| r.acquired_epoch);
                    draft.put(desired.key, Record { desired: keyed(message, desired.key), acquired_epoch });
                }
                outcomes.push(Outcome { desired, decision });
            }
            draft.host.revision = revision;
            outcomes
        })
        .await
    }

    /// Hands a port over (or back: 0); durable when it returns. False when its epoch is another by now.
    pub async fn set_acquired(&self, port_id: PortId, epoch: i64, acquired: bool) -> Result<bool, LedgerError> {
        self.write(move |draft| {
            let key = Key::Port(port_id);
            let Some(record) = draft.get(key) else { return false };
            if record.desired.deleted || version_of(&record.desired).epoch != epoch {
                return false;
            }
            let acquired_epoch = if acquired { epoch } else { 0 };
            if record.acquired_epoch != acquired_epoch {
                draft.put(key, Record { acquired_epoch, ..record });
            }
            true
        })
        .await
    }

    async fn write<R: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Draft<'_>) -> R + Send + 'static,
    ) -> Result<R, LedgerError> {
        let (done, result) = oneshot::channel();
        self.writer.submit(Box::new(move |draft| {
            let outcome = change(draft);
            Box::new(move |written| {
                let _ = done.send(written.map(|()| outcome));
            })
        }));
        let written = result.await.map_err(|_| LedgerError::Interrupted)?;
        written.map_err(|source| LedgerError::Commit { dir: self.dir.clone(), source })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

fn version_of(desired: &pb::Desired) -> Version {
    let version = desired.version.unwrap_or_default();
    Version { epoch: version.epoch, generation: version.generation }
}

/// With its kind said, which the wire may leave to the object's type.
fn keyed(mut message: pb::Desired, key: Key) -> pb::Desired {
    message.set_kind(key.kind());
    if message.deleted {
        message.object = None;
    }
    message
}

/// Reads what a ledger holds without opening it for use.
pub fn peek(state_dir: &Path) -> io::Result<Vec<Record>> {
    let mut records = BTreeMap::new();
    let mut file = OpenOptions::new().read(true).open(state_dir.join("ledger").join(journal::NAME))?;
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut file, &mut bytes)?;
    journal::decode(&bytes, |record| {
        records.insert((record.desired.kind, record.desired.id.clone()), record);
    });
    Ok(records.into_values().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_ledger_takes_the_given_identity_and_an_old_one_refuses_another() {
        let dir = tempfile::tempdir().expect("dir");
        let (one, other) = (HostId::new(), HostId::new());
        assert_eq!(Ledger::open(dir.path(), Some(one)).expect("made").host_id(), one);
        let again = Ledger::open(dir.path(), None).expect("opened");
        assert_eq!((again.host_id(), again.start()), (one, 2));
        drop(again);
        let refused = Ledger::open(dir.path(), Some(other));
        assert!(
            matches!(&refused, Err(LedgerError::AnotherHost { held, given, .. }) if (*held, *given) == (one, other)),
            "{refused:?}"
        );
        assert_eq!(Ledger::open(dir.path(), Some(one)).expect("opened").start(), 3, "a refusal counts no start");
    }
}
