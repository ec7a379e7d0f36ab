//! The hosts in memory: what each can take, what it has taken, and what is being committed. Every change also moves the host in the
//! index, so that a decision never has to examine all of them.

mod backups;
mod claims;
mod instances;

pub use claims::Moment;

use super::{
    decision::Refusal,
    demand::Demand,
    host::{GuestCpu, HostEntry, Policies, RACK_TAG},
    ids::{IdMap, IdSet},
    index::{CellKey, Index, QUEUE_MAX},
    labels::{LabelRef, LabelState, Labels, RequestLabels, labels_of},
    members::PlacedInstances,
    request::Request,
    reserve::Reserve,
};
use domain::{
    HostId, InstanceId,
    host::{Host, HostState},
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    hash::Hash,
    sync::Arc,
};

#[derive(Debug, Default)]
pub struct Inventory {
    /// The hosts by slot. A removed host leaves its slot to the next.
    pub(super) hosts: Vec<Option<HostEntry>>,
    slots: IdMap<HostId, u32>,
    vacant: Vec<u32>,
    /// The instances that aren't known to have started yet, with the slots of their hosts.
    starting: IdSet<(u32, InstanceId)>,
    /// The slots of hosts with claims whose commit is on its way.
    committing: HashSet<u32>,
    /// How many hosts aren't connected.
    down: u32,
    pub(super) index: Index,
    demand: Demand,
    labels: Labels,
    zones: Vec<Arc<str>>,
    racks: HashMap<Arc<str>, u32>,
    rack_hosts: Vec<Vec<u32>>,
    pub(super) instances: PlacedInstances,
    reserve: Reserve,
    /// Equal sets are kept once: a hundred thousand hosts have a handful of feature lists.
    features: HashSet<Arc<BTreeSet<String>>>,
    guest_cpus: HashSet<Arc<GuestCpu>>,
    tags: HashSet<Arc<BTreeMap<String, String>>>,
    /// Refusals by the shape of their request. A full cloud gets requests for what it doesn't have again and again; as long as nothing
    /// changed, the answer is looked up instead of computed over all hosts.
    refusals: HashMap<Request, Refusal>,
    /// Counts the changes after which a refused request may fit.
    changes: u64,
    /// Where the members of groups are, while one decision is made.
    pub(super) scratch: Vec<u32>,
    /// The same for backups, which are sought while `scratch` is in use.
    pub(super) backup_scratch: Vec<u32>,
}

/// Refusals remembered; past this many all are dropped (each is rebuilt by one scan).
const REFUSALS_KEPT: usize = 256;

/// The starts in progress per thread.
fn queue(host: &HostEntry) -> u8 {
    (host.starting / host.threads).min(u32::from(QUEUE_MAX)) as u8
}

fn shared<T: Hash + Eq>(set: &mut HashSet<Arc<T>>, value: Arc<T>) -> Arc<T> {
    if let Some(known) = set.get(&value) {
        return known.clone();
    }
    set.insert(value.clone());
    value
}

impl Inventory {
    #[must_use]
    pub fn new(hosts: &[Host]) -> Self {
        let mut inventory = Self::default();
        for host in hosts {
            inventory.put_host(host);
        }
        inventory
    }

    pub fn hosts(&self) -> impl Iterator<Item = &HostEntry> {
        self.hosts.iter().flatten()
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    #[must_use]
    pub fn find(&self, id: HostId) -> Option<&HostEntry> {
        self.at(self.slot_of(id)?)
    }

    #[must_use]
    pub(super) fn slot_of(&self, id: HostId) -> Option<u32> {
        self.slots.get(&id).copied()
    }

    #[must_use]
    pub(super) fn at(&self, slot: u32) -> Option<&HostEntry> {
        self.hosts.get(slot as usize)?.as_ref()
    }

    #[must_use]
    pub(super) fn rack_hosts(&self, rack: u32) -> &[u32] {
        self.rack_hosts.get(rack as usize).map_or(&[], Vec::as_slice)
    }

    #[must_use]
    pub(super) fn zone_at(&self, zone: &str) -> Option<u16> {
        self.zones.iter().position(|z| **z == *zone).and_then(|at| u16::try_from(at).ok())
    }

    /// How many hosts aren't connected.
    #[must_use]
    pub(super) fn down(&self) -> u32 {
        self.down
    }

    /// Changes a host and moves it in the index.
    fn change(&mut self, slot: u32, f: impl FnOnce(&mut HostEntry)) {
        if let Some(host) = self.hosts.get_mut(slot as usize).and_then(Option::as_mut) {
            let was_up = host.up();
            f(host);
            match (was_up, host.up()) {
                (true, false) => self.down += 1,
                (false, true) => self.down -= 1,
                (true, true) | (false, false) => {}
            }
            self.note_change();
            self.reindex(slot);
        }
    }

    /// What was refused may fit now.
    fn note_change(&mut self) {
        self.refusals.clear();
        self.changes += 1;
    }

    /// The number of changes so far after which a refused request may fit.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes
    }

    fn reindex(&mut self, slot: u32) {
        let Some(host) = self.hosts.get(slot as usize).and_then(Option::as_ref) else { return };
        if !host.usable() {
            self.index.take_out(slot, host.id);
            return;
        }
        let HostEntry { zone_at: zone, labels, policies: Policies { dedicated_to, .. }, .. } = *host;
        let key = CellKey { zone, labels, dedicated_to, queue: queue(host) };
        self.index.place(slot, host.id, host.kind, key, host.free(), &self.demand);
    }

    /// Takes over a host's row, after its registration or an operator's change. Where the host is known already, its claims in memory are
    /// kept: they are ahead of the row.
    pub fn put_host(&mut self, host: &Host) {
        let mut entry = HostEntry::from_host(host);
        entry.tags = shared(&mut self.tags, entry.tags);
        entry.cpu_features = shared(&mut self.features, entry.cpu_features);
        entry.guest_cpu = entry.guest_cpu.map(|cpu| shared(&mut self.guest_cpus, cpu));
        let zone = self.zone_at(&entry.zone).unwrap_or_else(|| {
            self.zones.push(entry.zone.clone());
            (self.zones.len() - 1) as u16
        });
        (entry.zone_at, entry.zone) = (zone, self.zones[usize::from(zone)].clone());
        entry.labels = self.labels.of(&entry);
        self.labels.hosts_changed();
        let mut moved = false;
        let slot = match self.slot_of(host.id) {
            Some(slot) => {
                self.leave_rack(slot);
                if let Some(old) = self.hosts[slot as usize].take() {
                    self.down -= u32::from(!old.up());
                    moved = entry.zone_at != old.zone_at;
                    entry.keep_claims_of(old);
                }
                slot
            }
            None => {
                let slot = self.vacant.pop().unwrap_or_else(|| {
                    self.hosts.push(None);
                    (self.hosts.len() - 1) as u32
                });
                self.slots.insert(host.id, slot);
                self.index.add_slot(slot);
                slot
            }
        };
        entry.rack_at = host.tags.get(RACK_TAG).map(|rack| self.join_rack(rack, slot));
        self.down += u32::from(!entry.up());
        self.hosts[slot as usize] = Some(entry);
        self.note_change();
        self.reindex(slot);
        self.check_backups(slot);
        if moved {
            self.check_backups_of(slot);
        }
    }

    /// The host no longer exists. What was known of its instances goes with it.
    pub fn remove_host(&mut self, id: HostId) {
        let Some(slot) = self.slots.remove(&id) else { return };
        self.index.take_out(slot, id);
        self.starting.retain(|(at, _)| *at != slot);
        self.committing.remove(&slot);
        self.leave_rack(slot);
        self.down -= u32::from(self.hosts[slot as usize].take().is_some_and(|h| !h.up()));
        for id in self.instances.select(|instance| instance.slot == slot) {
            self.remove_instance(id);
        }
        self.note_change();
        self.check_backups(slot);
        self.vacant.push(slot);
    }

    fn join_rack(&mut self, rack: &str, slot: u32) -> u32 {
        let at = match self.racks.get(rack) {
            Some(at) => *at,
            None => {
                let at = self.rack_hosts.len() as u32;
                self.racks.insert(rack.into(), at);
                self.rack_hosts.push(Vec::new());
                at
            }
        };
        self.rack_hosts[at as usize].push(slot);
        at
    }

    fn leave_rack(&mut self, slot: u32) {
        if let Some(rack) = self.at(slot).and_then(|h| h.rack_at) {
            self.rack_hosts[rack as usize].retain(|other| *other != slot);
        }
    }

    pub fn set_state(&mut self, id: HostId, state: HostState) {
        let Some(slot) = self.slot_of(id) else { return };
        self.change(slot, |h| h.state = state);
        self.check_backups(slot);
    }

    /// Sets whether the host drains, whom it is dedicated to, and what its operator keeps free.
    pub fn set_policies(&mut self, id: HostId, policies: Policies) {
        let Some(slot) = self.slot_of(id) else { return };
        self.change(slot, |h| h.policies = policies);
        self.check_backups(slot);
    }

    /// The request's labels as bits; labels that no request named before get theirs now.
    pub(super) fn label_bits(&mut self, request: &Request) -> RequestLabels {
        let mut bits = RequestLabels::default();
        for (label, required) in labels_of(request) {
            let state = match self.labels.find(label) {
                LabelState::Unknown => {
                    let added = self.labels.add(label, self.hosts.iter().flatten());
                    if let LabelState::Bit(_) = added {
                        self.relabel_hosts();
                    }
                    added
                }
                known @ (LabelState::Bit(_) | LabelState::Absent) => known,
            };
            match (state, required) {
                (LabelState::Bit(bit), true) => {
                    bits.required |= bit;
                    match label {
                        LabelRef::Tag(..) => bits.tags |= bit,
                        LabelRef::Pool(_) => bits.pools |= bit,
                        LabelRef::Feature(_) => {}
                    }
                }
                (LabelState::Bit(bit), false) => bits.forbidden |= bit,
                (LabelState::Absent, true) => bits.unsatisfiable = true,
                (LabelState::Absent, false) => {}
                (LabelState::Unknown, _) => bits.incomplete = true,
            }
        }
        bits
    }

    fn relabel_hosts(&mut self) {
        for slot in 0..self.hosts.len() as u32 {
            if let Some(host) = self.hosts[slot as usize].as_mut() {
                host.labels = self.labels.of(host);
                self.reindex(slot);
            }
        }
    }

    #[must_use]
    pub(super) fn known_refusal(&self, key: &Request) -> Option<&Refusal> {
        if self.refusals.is_empty() { None } else { self.refusals.get(key) }
    }

    pub(super) fn remember_refusal(&mut self, key: Request, refusal: Refusal) {
        if self.refusals.len() >= REFUSALS_KEPT {
            self.refusals.clear();
        }
        self.refusals.insert(key, refusal);
    }
}
