//! What a simulated host remembers across a crash of its agent (the ledger), and what runs on it whether or not the agent does. Pure but
//! for the clock that it is handed.

use crate::world::World;
use domain::{HostId, InstanceId, Timestamp, instance::DiskPool};
use proto::{
    agent::v1::{DesiredInstance, InstanceObservation},
    cluster::v1::{self as cluster, InstanceState, OnCrash, Power as DesiredPower},
    sync::v1::{self as pb, desired_object::Object, report::Observation},
};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Power {
    Running,
    Paused,
}

/// An instance that runs here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Machine {
    pub epoch: i64,
    pub power: Power,
    pub started_at: Timestamp,
}

/// One line of the ledger.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub desired: pb::DesiredObject,
    pub tombstone: bool,
    booted_seq: u64,
    built_seq: u64,
    crash_count: u32,
    /// It ended by itself at this `boot_seq`, and `on_crash` says to let it lie.
    lies_since_boot: Option<u64>,
}

impl Entry {
    fn spec(&self) -> cluster::InstanceSpec {
        instance_of(&self.desired).and_then(|instance| instance.spec.clone()).unwrap_or_default()
    }
}

/// Survives crashes of the agent.
#[derive(Debug, Clone)]
pub(crate) struct Ledger {
    /// It tells this ledger from others.
    pub id: String,
    pub start: i64,
    pub revision: i64,
    pub entries: BTreeMap<InstanceId, Entry>,
    pub machines: BTreeMap<InstanceId, Machine>,
    /// What the manager said it needs no tombstone of. The tombstones stay, as the newest do on a real host.
    pub forgotten: BTreeSet<InstanceId>,
    /// The root disks that are here, by their numbers. They lie beside the ledger, and go with it.
    pub disks: BTreeSet<(InstanceId, u64)>,
}

impl Default for Ledger {
    fn default() -> Self {
        Self {
            id: HostId::new().to_string(),
            start: 0,
            revision: 0,
            entries: BTreeMap::new(),
            machines: BTreeMap::new(),
            forgotten: BTreeSet::new(),
            disks: BTreeSet::new(),
        }
    }
}

/// Whether a command is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    New,
    /// Known already: its state is said again.
    Again,
    /// Older than the ledger.
    Refused,
}

impl Ledger {
    /// Writes a command down.
    pub fn take(&mut self, id: InstanceId, desired: pb::DesiredObject) -> Taken {
        let deleted = desired.deleted;
        let new =
            Entry { desired, tombstone: deleted, booted_seq: 0, built_seq: 0, crash_count: 0, lies_since_boot: None };
        let Some(known) = self.entries.get_mut(&id) else {
            self.entries.insert(id, new);
            return Taken::New;
        };
        if known.tombstone && !deleted && new.desired.epoch > known.desired.epoch {
            *known = new;
            return Taken::New;
        }
        let desired = new.desired;
        let (old, new) = ((known.desired.epoch, known.desired.generation), (desired.epoch, desired.generation));
        // What is dead in an epoch stays dead in it.
        if new < old || (known.tombstone && !deleted && desired.epoch <= known.desired.epoch) {
            return Taken::Refused;
        }
        known.tombstone |= deleted;
        known.desired = desired;
        if new == old { Taken::Again } else { Taken::New }
    }

    /// Makes the instance what the ledger says, and tells what it is then. `None`: not in the ledger.
    pub fn settle(&mut self, id: InstanceId, host_id: HostId, world: &World, now: Timestamp) -> Option<pb::Report> {
        let entry = self.entries.get_mut(&id)?;
        let spec = entry.spec();
        let machine = self.machines.get(&id).copied();
        let stop = |machines: &mut BTreeMap<InstanceId, Machine>| {
            if machines.remove(&id).is_some() {
                world.stops(id, host_id);
            }
        };
        let mut observed =
            InstanceObservation { converged: true, crash_count: entry.crash_count, ..InstanceObservation::default() };
        if entry.tombstone {
            stop(&mut self.machines);
            self.disks.retain(|(of, _)| *of != id);
            observed.set_state(InstanceState::Deleted);
            return Some(report_of(&entry.desired, observed));
        }
        if spec.root_seq > entry.built_seq {
            stop(&mut self.machines);
            entry.built_seq = spec.root_seq;
        }
        let desired_power = spec.power();
        let reboots = spec.boot_seq > entry.booted_seq;
        entry.booted_seq = spec.boot_seq;
        if entry.lies_since_boot.is_some_and(|seq| spec.boot_seq > seq) || desired_power == DesiredPower::Off {
            entry.lies_since_boot = None;
        }
        if desired_power == DesiredPower::Off || entry.lies_since_boot.is_some() {
            stop(&mut self.machines);
            observed.set_state(InstanceState::Stopped);
            return Some(report_of(&entry.desired, observed));
        }
        let used = instance_of(&entry.desired).and_then(|i| i.disks.iter().find_map(|disk| disk.used_seq));
        // A disk in the shared pool isn't on this host, and is always there.
        let local = spec.pool != DiskPool::Shared.as_str();
        if local && used.is_some_and(|seq| seq >= spec.root_seq) && !self.disks.contains(&(id, spec.root_seq)) {
            stop(&mut self.machines);
            observed.converged = false;
            observed.reason = "its root disk is gone from its host".to_owned();
            observed.set_state(InstanceState::Error);
            return Some(report_of(&entry.desired, observed));
        }
        self.disks.insert((id, spec.root_seq));
        let power = if desired_power == DesiredPower::Paused { Power::Paused } else { Power::Running };
        let goes_on = self.machines.contains_key(&id) && !reboots;
        let started_at = machine.filter(|_| goes_on).map_or(now, |m| m.started_at);
        if !goes_on {
            stop(&mut self.machines);
            world.starts(id, host_id);
        }
        self.machines.insert(id, Machine { epoch: entry.desired.epoch, power, started_at });
        observed.set_state(if power == Power::Paused { InstanceState::Paused } else { InstanceState::Running });
        observed.started_at = Some(started_at.0);
        observed.guest_up_at = Some(started_at.0);
        observed.root_used_seq = Some(entry.built_seq);
        Some(report_of(&entry.desired, observed))
    }

    /// Whether settling the instance might start it.
    pub fn would_start(&self, id: InstanceId) -> bool {
        self.entries.get(&id).is_some_and(|entry| !entry.tombstone) && !self.machines.contains_key(&id)
    }

    /// Ends everything that runs, as the loss of power does.
    pub fn lose_power(&mut self, host_id: HostId, world: &World) {
        for id in std::mem::take(&mut self.machines).into_keys() {
            world.stops(id, host_id);
        }
    }

    /// What the ledger says shall be here, and isn't deleted.
    pub fn living(&self) -> Vec<InstanceId> {
        self.entries.iter().filter(|(_, entry)| !entry.tombstone).map(|(id, _)| *id).collect()
    }

    /// The instance ends by itself. Answers whether there was one.
    pub fn ends_by_itself(&mut self, id: InstanceId, host_id: HostId, world: &World) -> bool {
        if self.machines.remove(&id).is_none() {
            return false;
        }
        world.stops(id, host_id);
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.crash_count += 1;
            if entry.spec().on_crash() == OnCrash::Stop {
                entry.lies_since_boot = Some(entry.booted_seq);
            }
        }
        true
    }

    pub fn holdings(&self) -> Vec<pb::Holding> {
        self.entries
            .iter()
            .map(|(id, entry)| pb::Holding {
                kind: pb::ObjectKind::Instance.into(),
                id: id.to_string(),
                epoch: entry.desired.epoch,
                generation: entry.desired.generation,
                tombstone: entry.tombstone,
                digest: entry.desired.digest,
                root_seq: entry.built_seq,
                boot_seq: entry.booted_seq,
                ..pb::Holding::default()
            })
            .collect()
    }
}

/// What an object must be, if it is an instance.
pub(crate) fn instance_of(desired: &pb::DesiredObject) -> Option<&DesiredInstance> {
    match &desired.object {
        Some(Object::Instance(instance)) => Some(instance),
        _ => None,
    }
}

/// A report on this version of an instance, without a place in the order.
pub(crate) fn report_of(desired: &pb::DesiredObject, observed: InstanceObservation) -> pb::Report {
    pb::Report {
        kind: pb::ObjectKind::Instance.into(),
        id: desired.id.clone(),
        epoch: desired.epoch,
        generation: desired.generation,
        observation: Some(Observation::Instance(observed)),
        ..pb::Report::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn desired(epoch: i64, generation: i64, deleted: bool) -> pb::DesiredObject {
        let mut spec = cluster::InstanceSpec { deleted, ..Default::default() };
        spec.set_power(DesiredPower::On);
        let instance = DesiredInstance { spec: Some(spec), ..Default::default() };
        let object = Some(Object::Instance(Box::new(instance)));
        pb::DesiredObject { epoch, generation, deleted, object, ..Default::default() }
    }

    #[test]
    fn what_is_older_than_the_ledger_is_refused_and_the_dead_stay_dead() {
        let (id, host, world, mut ledger) = (InstanceId::new(), HostId::new(), World::default(), Ledger::default());
        assert_eq!(ledger.take(id, desired(1, 2, false)), Taken::New);
        assert_eq!(ledger.take(id, desired(1, 2, false)), Taken::Again);
        assert_eq!(ledger.take(id, desired(1, 1, false)), Taken::Refused);
        let report = ledger.settle(id, host, &world, Timestamp(5)).expect("known");
        let observed = |report: &pb::Report| {
            let Some(Observation::Instance(observed)) = &report.observation else { panic!("an instance") };
            observed.clone()
        };
        assert_eq!((observed(&report).state(), observed(&report).started_at), (InstanceState::Running, Some(5)));
        ledger.settle(id, host, &world, Timestamp(9));
        assert_eq!(world.starts_so_far(), 1, "what runs goes on");
        assert_eq!(ledger.take(id, desired(1, 3, true)), Taken::New);
        let report = ledger.settle(id, host, &world, Timestamp(9)).expect("known");
        assert_eq!(observed(&report).state(), InstanceState::Deleted);
        assert_eq!(ledger.take(id, desired(1, 4, false)), Taken::Refused);
        assert_eq!(ledger.take(id, desired(2, 4, false)), Taken::New, "a later epoch begins anew");
        assert!(ledger.holdings().iter().all(|held| !held.tombstone));
        assert!(ledger.machines.is_empty());
    }

    #[test]
    fn the_world_sees_a_double_start() {
        let (id, world) = (InstanceId::new(), World::default());
        for host in [HostId::new(), HostId::new()] {
            let mut ledger = Ledger::default();
            ledger.take(id, desired(1, 1, false));
            ledger.settle(id, host, &world, Timestamp(1));
        }
        assert_eq!(world.violations().len(), 1);
    }
}
