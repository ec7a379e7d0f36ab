//! The host's truth on disk: what every network, port, group and floating IP must be here, which ports are acquired by their
//! instances, and the tombstones of what is gone.
//!
//! The problem: the manager may be away for hours, the agent may be killed at any instruction, the host may lose power; the host
//! must still know what it carries and never act on a command that it could forget again. So a command is durable here *before*
//! anything is done about it. Invariants: what is shown is durable; (epoch, generation) never falls ([`agent_kit::accept()`]); the revision is
//! never ahead of the objects it stands for.

mod batch;
mod boot;
#[cfg(test)]
mod full_disk;
mod journal;

pub use self::journal::Record;
pub use agent_kit::{Decision, LedgerError};

use self::batch::{Batch, Change, Journal, State};
use crate::model::object::{Desired, Key, Version};
use agent_kit::{
    Current, HostRecord, Incoming, LedgerDir, Revival, accept,
    reserve::{Reserve, is_full},
    writer::BatchWriter,
};
use domain::{HostId, PortId};
use parking_lot::{Mutex, MutexGuard};
use proto::sync::v1::DesiredObject;
use std::{collections::BTreeMap, fs, io, path::Path, sync::Arc};
use tokio::sync::oneshot;

/// What became of one command.
#[derive(Debug, Clone)]
pub struct Outcome {
    pub desired: Desired,
    pub decision: Decision,
}

/// What became of commands that came together.
#[derive(Debug, Default)]
pub struct Accepted {
    pub outcomes: Vec<Outcome>,
    /// How many new objects the disk had no room for.
    pub left_out: usize,
}

#[derive(Debug)]
pub struct Ledger {
    state: Arc<Mutex<State>>,
    /// It ends before the directory is free for the next agent.
    writer: BatchWriter<Change>,
    dir: LedgerDir,
    loss: Loss,
    reserve: Arc<Reserve>,
}

/// What a ledger was found to lack when it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    Nothing,
    /// Records that can't be read.
    Some,
    /// There was none.
    All,
}

impl Ledger {
    /// Opens (at the first start: makes) the ledger below `state_dir` and raises the start number. `host_id`: who this host is, where
    /// that is known from outside; a new ledger takes it over, another host's ledger is refused. Blocking.
    pub fn open(state_dir: &Path, host_id: Option<HostId>) -> Result<Self, LedgerError> {
        Self::open_in(state_dir, host_id, &boot::current())
    }

    /// In the boot of this id.
    fn open_in(state_dir: &Path, host_id: Option<HostId>, boot_id: &str) -> Result<Self, LedgerError> {
        let dir = LedgerDir::open(state_dir)?;
        let path = dir.path().join(journal::NAME);
        let bytes = match fs::read(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            read => read.map_err(LedgerError::file("read", &path))?,
        };
        let mut records = BTreeMap::new();
        let decoded = journal::decode(&bytes, |record| match Key::parse(record.desired.kind, &record.desired.id) {
            Ok(key) => {
                records.insert(key, record);
            }
            Err(error) => tracing::warn!(%error, "an object of the ledger was not understood"),
        });
        let booted = boot::is_other(dir.path(), boot_id).map_err(LedgerError::file("read", dir.path()))?;
        if booted {
            // The QEMUs that had acquired ports ended with their boot.
            records.values_mut().for_each(|record: &mut Record| record.acquired_epoch = 0);
        }
        let mut host = HostRecord::next_start(decoded.host, host_id, &dir)?;
        let torn = bytes.len() - decoded.closed;
        let loss = match (decoded.host, decoded.damaged + torn) {
            (None, _) => Loss::All,
            (Some(_), 0) => Loss::Nothing,
            // A torn end too: nothing shows whether a crash tore it.
            (Some(_), _) => Loss::Some,
        };
        if decoded.damaged > 0 || torn > 0 {
            // A torn end is what a crash leaves; anything else is damage that a person should be able to look at.
            let aside = dir.path().join(format!("{}.damaged.{}", journal::NAME, domain::Timestamp::now().0));
            match fs::write(&aside, &bytes) {
                // The host must come up all the same.
                Err(error) if is_full(&error) => {
                    let _ = fs::remove_file(&aside);
                    tracing::error!("the disk has no room to keep the damaged ledger");
                }
                kept => kept.map_err(LedgerError::file("kept", &aside))?,
            }
            let kept = aside.display();
            if decoded.damaged > 0 {
                tracing::error!(%kept, damaged_lines = decoded.damaged, "the ledger is damaged: what is lost is asked for again");
            } else {
                tracing::warn!(%kept, lost_bytes = torn, "the ledger's end was incomplete");
            }
        }
        if loss != Loss::Nothing {
            // What it stands for isn't here.
            host.revision = 0;
        }
        let state = State { records, host };
        let written = LedgerError::file("written", &path);
        let reserve = Arc::new(Reserve::open(dir.path()));
        // What has changed in it must not be read again, so a full disk is no reason to continue the file that is there.
        let closed = if decoded.damaged == 0 && !booted { decoded.closed as u64 } else { 0 };
        let journal = Journal::open(dir.path().to_path_buf(), Arc::clone(&reserve), &state, closed);
        let mut journal = journal.map_err(written)?;
        reserve.write(|| boot::note(dir.path(), boot_id)).map_err(LedgerError::file("written", dir.path()))?;
        let state = Arc::new(Mutex::new(state));
        let shared = Arc::clone(&state);
        let writer = BatchWriter::start(move |changes| journal.commit(&shared, changes));
        let writer = writer.map_err(LedgerError::file("written", &path))?;
        Ok(Self { state, writer, dir, loss, reserve })
    }

    /// Whether the disk has room for more than what the ledger has: if not, the room that is set apart for it is in use. It is set apart
    /// again as soon as the disk has it.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.reserve.has_room()
    }

    /// What to answer where something was left out.
    #[must_use]
    pub fn full(&self) -> LedgerError {
        LedgerError::Full { dir: self.dir.path().to_path_buf() }
    }

    /// What it lacked when it was opened.
    #[must_use]
    pub fn loss(&self) -> Loss {
        self.loss
    }

    /// Who this host is, which start of its agent this is, and the revision of the last snapshot or delta that was taken whole.
    #[must_use]
    pub fn host(&self) -> HostRecord {
        self.lock().host
    }

    #[must_use]
    pub fn host_id(&self) -> HostId {
        self.host().host_id
    }

    #[must_use]
    pub fn all(&self) -> Vec<(Key, Record)> {
        self.lock().records.iter().map(|(key, record)| (*key, record.clone())).collect()
    }

    /// (version, whether it is a tombstone, acquired epoch) of what is held.
    #[must_use]
    pub fn held(&self, key: Key) -> Option<(Version, bool, i64)> {
        let state = self.lock();
        let record = state.records.get(&key)?;
        Some((version_of(&record.desired), record.desired.deleted, record.acquired_epoch))
    }

    /// The manager has no such object for this host any more, and numbers its messages upwards: nothing can bring the object back that is
    /// older than its tombstone, so that goes. The journal loses it when it is written anew; until then a restart finds it again.
    pub fn release_tombstone(&self, key: Key) {
        let mut state = self.lock();
        if state.records.get(&key).is_some_and(|record| record.desired.deleted) {
            state.records.remove(&key);
        }
    }

    /// Takes what is newer than what is held; durable when it returns. Callers send one batch at a time. On a full disk nothing new is taken;
    /// what is held can be changed and deleted.
    pub async fn accept(
        &self,
        commands: Vec<(DesiredObject, Desired)>,
        revision: i64,
    ) -> Result<Accepted, LedgerError> {
        let room = self.has_room();
        metrics::gauge!("iaas_network_disk_full").set(f64::from(u8::from(!room)));
        self.write(move |batch| {
            let (mut outcomes, mut left_out) = (Vec::with_capacity(commands.len()), 0);
            for (message, desired) in commands {
                let held = batch.get(desired.key);
                let current =
                    held.as_ref().map(|r| Current { version: version_of(&r.desired), tombstone: r.desired.deleted });
                let incoming = Incoming { version: desired.version, deleted: desired.object.is_none() };
                let decision = accept(current, incoming, Revival::LaterVersion);
                let new = decision == Decision::Take && !incoming.deleted && current.is_none_or(|held| held.tombstone);
                if new && !room {
                    left_out += 1;
                    continue;
                }
                if matches!(decision, Decision::Take | Decision::RaiseTombstone) {
                    // A higher epoch is another binding: what was acquired before is over.
                    let acquired_epoch = held
                        .filter(|r| !message.deleted && version_of(&r.desired).epoch == desired.version.epoch)
                        .map_or(0, |r| r.acquired_epoch);
                    batch.put(desired.key, Record { desired: keyed(message, desired.key), acquired_epoch });
                }
                outcomes.push(Outcome { desired, decision });
            }
            // The revision stands for all of it.
            if left_out == 0 {
                batch.host.revision = revision;
            }
            Accepted { outcomes, left_out }
        })
        .await
    }

    /// Records that a port is acquired or released; durable when it returns. False when its epoch is another by now.
    pub async fn set_acquired(&self, port_id: PortId, epoch: i64, acquired: bool) -> Result<bool, LedgerError> {
        self.write(move |batch| {
            let key = Key::Port(port_id);
            let Some(record) = batch.get(key) else { return false };
            if record.desired.deleted || version_of(&record.desired).epoch != epoch {
                return false;
            }
            let acquired_epoch = if acquired { epoch } else { 0 };
            if record.acquired_epoch != acquired_epoch {
                batch.put(key, Record { acquired_epoch, ..record });
            }
            true
        })
        .await
    }

    async fn write<R: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Batch<'_>) -> R + Send + 'static,
    ) -> Result<R, LedgerError> {
        let (done, result) = oneshot::channel();
        self.writer.submit(Box::new(move |batch| {
            let outcome = change(batch);
            Box::new(move |written| {
                let _ = done.send(written.map(|()| outcome));
            })
        }));
        let written = result.await.map_err(|_| LedgerError::Closed)?;
        written.map_err(|source| LedgerError::Commit { dir: self.dir.path().to_path_buf(), source })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

fn version_of(desired: &DesiredObject) -> Version {
    Version { epoch: desired.epoch, generation: desired.generation }
}

/// With its kind, which the wire may leave to the object's type.
fn keyed(mut message: DesiredObject, key: Key) -> DesiredObject {
    message.set_kind(key.kind());
    if message.deleted {
        message.object = None;
    }
    message
}

/// Reads what a ledger holds without opening it for use.
pub fn peek(state_dir: &Path) -> io::Result<Vec<Record>> {
    let mut records = BTreeMap::new();
    let bytes = fs::read(LedgerDir::below(state_dir).join(journal::NAME))?;
    journal::decode(&bytes, |record| {
        records.insert((record.desired.kind, record.desired.id.clone()), record);
    });
    Ok(records.into_values().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn no_port_is_acquired_across_a_boot_of_the_host() {
        let dir = tempfile::tempdir().expect("dir");
        let port_id = PortId::new();
        let open = |boot_id: &str| Ledger::open_in(dir.path(), None, boot_id).expect("opened");
        let acquired = |ledger: &Ledger| ledger.held(Key::Port(port_id)).map(|(_, _, epoch)| epoch);
        let ledger = open("first");
        let kind = proto::sync::v1::ObjectKind::Port.into();
        let port = DesiredObject { kind, id: port_id.to_string(), epoch: 3, generation: 1, ..DesiredObject::default() };
        let desired = Desired { key: Key::Port(port_id), version: version_of(&port), object: None };
        ledger.accept(vec![(port, desired)], 1).await.expect("accepted");
        assert!(ledger.set_acquired(port_id, 3, true).await.expect("written"));
        drop(ledger);
        let ledger = open("first");
        assert_eq!(acquired(&ledger), Some(3), "a restart of the agent leaves guests their ports");
        drop(ledger);
        for _ in 0..2 {
            let ledger = open("second");
            assert_eq!(acquired(&ledger), Some(0), "no QEMU outlives its host");
        }
    }

    #[test]
    fn a_new_ledger_takes_the_given_identity_and_an_old_one_refuses_another() {
        let dir = tempfile::tempdir().expect("dir");
        let (one, other) = (HostId::new(), HostId::new());
        assert_eq!(Ledger::open(dir.path(), Some(one)).expect("made").host_id(), one);
        let again = Ledger::open(dir.path(), None).expect("opened");
        assert_eq!((again.host_id(), again.host().start), (one, 2));
        drop(again);
        let refused = Ledger::open(dir.path(), Some(other));
        assert!(
            matches!(&refused, Err(LedgerError::AnotherHost { held, given, .. }) if (*held, *given) == (one, other)),
            "{refused:?}"
        );
        assert_eq!(Ledger::open(dir.path(), Some(one)).expect("opened").host().start, 3, "a refusal counts no start");
    }
}
