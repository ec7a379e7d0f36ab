//! What the manager says: durable first, then marked for the rounds that make it so.

use super::{Host, lock, tracked::TrackedState};
use crate::{
    ledger::{Accepted, Decision, LedgerError, Outcome},
    model::object::{Desired, Key, Version},
    observation::Observation,
};
use domain::NetworkId;
use proto::sync::v1::DesiredObject;
use std::{collections::BTreeSet, time::Instant};

#[derive(Debug)]
pub(super) struct PendingDeletion {
    key: Key,
    version: Version,
    networks: BTreeSet<NetworkId>,
    round: u64,
}

impl Host {
    /// Makes the manager's commands durable and marks the networks that they affect. What can't be understood is reported as an error and not taken.
    pub async fn accept(&self, commands: Vec<DesiredObject>, revision: i64) -> Result<(), LedgerError> {
        let _one = self.accepting.lock().await;
        let now = Instant::now();
        let mut parsed = Vec::with_capacity(commands.len());
        for command in commands {
            match Desired::parse(&command) {
                Ok(desired) => parsed.push((command, desired)),
                Err(error) => {
                    tracing::error!(id = command.id, %error, "a command was not understood");
                    if let Ok(key) = Key::parse(command.kind, &command.id) {
                        let version = Version { epoch: command.epoch, generation: command.generation };
                        self.outbox.post(Observation::failed(key, version, error.to_string()));
                    }
                }
            }
        }
        let Accepted { outcomes, left_out } = self.ledger.accept(parsed, revision).await?;
        let mut affected = BTreeSet::new();
        let mut deletions = Vec::new();
        let mut protected = false;
        {
            let mut tracked = lock(&self.tracked);
            let mut received = lock(&self.received);
            for Outcome { desired, decision } in outcomes {
                match decision {
                    Decision::Take | Decision::RaiseTombstone => {
                        let (key, version, deleted) = (desired.key, desired.version, desired.object.is_none());
                        let networks = self.take(&mut tracked, desired);
                        affected.extend(networks.iter().copied());
                        protected |= matches!(key, Key::Protected(_));
                        if deleted {
                            received.remove(&key);
                            deletions.push(PendingDeletion { key, version, networks, round: 0 });
                        } else if matches!(key, Key::Protected(_)) {
                            // It isn't any network's: that it is here is all there is to say.
                            self.outbox.post(Observation::ready(key, version));
                        } else {
                            received.insert(key, (version, now));
                        }
                    }
                    Decision::Repeat => {
                        if desired.object.is_none() && self.outbox.last(desired.key).is_none() {
                            self.outbox.post(Observation::deleted(desired.key, desired.version));
                        }
                        self.outbox.repeat(desired.key);
                    }
                    Decision::Refuse { held } => {
                        tracing::warn!(key = ?desired.key, version = ?desired.version, ?held, "an older command was refused");
                    }
                }
            }
        }
        if protected {
            self.refresh_protected();
        }
        let round = self.signal.mark(affected);
        lock(&self.pending_deletions)
            .extend(deletions.into_iter().map(|deletion| PendingDeletion { round, ..deletion }));
        self.report_deletions();
        if left_out == 0 { Ok(()) } else { Err(self.ledger.full()) }
    }
    /// Reports the deletions that the kernel has carried out.
    pub(super) fn report_deletions(&self) {
        let done =
            |deletion: &PendingDeletion| deletion.networks.iter().all(|id| self.signal.reached(*id, deletion.round));
        let (carried_out, left): (Vec<PendingDeletion>, Vec<PendingDeletion>) =
            lock(&self.pending_deletions).drain(..).partition(done);
        lock(&self.pending_deletions).extend(left);
        for PendingDeletion { key, version, .. } in carried_out {
            self.outbox.post(Observation::deleted(key, version));
        }
    }

    fn take(&self, tracked: &mut TrackedState, desired: Desired) -> BTreeSet<NetworkId> {
        let Desired { key, version, object } = desired;
        // A port's epoch that rose, and a port that left, is no longer acquired (the ledger has it so).
        if let Key::Port(port_id) = key {
            let acquired = self.ledger.held(key).is_some_and(|(held, _, epoch)| epoch != 0 && epoch == held.epoch);
            if !acquired {
                tracked.set_acquired(port_id, false);
            }
        }
        if object.is_some() {
            tracked.versions().insert(key, version);
        } else {
            tracked.versions().remove(&key);
        }
        tracked.put(key, object)
    }

    /// Microseconds since a version was received, the first time it is requested.
    pub(super) fn program_us_of(&self, key: Key, version: Version) -> Option<i64> {
        let mut received = lock(&self.received);
        let (known, at) = *received.get(&key)?;
        if known != version {
            return None;
        }
        received.remove(&key);
        i64::try_from(at.elapsed().as_micros()).ok()
    }
}
