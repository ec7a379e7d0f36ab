//! The hosts in memory: what each can take, what it has taken, and what is being committed. Every change also moves the host in the
//! index, so that a decision never has to look at all of them.

use super::{
    atoms::{Asked, Atoms, Standing, Wish, wishes},
    decide::Refused,
    filter,
    host::{GuestCpu, HostEntry, Policies, RACK_TAG, fits, minus, plus},
    ids::{IdMap, IdSet},
    index::{CellKey, Index, QUEUE_MOST},
    mix::Mix,
    request::Request,
    reserve::Reserve,
    roster::Roster,
};
use domain::{
    HostId, InstanceId,
    flavor::Size,
    host::{Host, HostState},
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    hash::Hash,
    sync::Arc,
};

/// A moment of one host's figures, to refresh it only if nothing happened since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    host_id: HostId,
    changes: u64,
}

#[derive(Debug, Default)]
pub struct Inventory {
    /// By slot. A removed host leaves its slot to the next.
    pub(super) hosts: Vec<Option<HostEntry>>,
    slots: IdMap<HostId, u32>,
    vacant: Vec<u32>,
    /// Instances that aren't known to have started yet, with the slots of their hosts.
    starting: IdSet<(u32, InstanceId)>,
    /// Slots of hosts with claims whose commit is on its way.
    on_way: HashSet<u32>,
    /// Hosts that aren't connected.
    down: u32,
    pub(super) index: Index,
    pub(super) mix: Mix,
    atoms: Atoms,
    zones: Vec<Arc<str>>,
    racks: HashMap<Arc<str>, u32>,
    rack_hosts: Vec<Vec<u32>>,
    pub(super) roster: Roster,
    pub(super) reserve: Reserve,
    /// Equal sets are kept once: a hundred thousand hosts have a handful of feature lists.
    features: HashSet<Arc<BTreeSet<String>>>,
    guest_cpus: HashSet<Arc<GuestCpu>>,
    tags: HashSet<Arc<BTreeMap<String, String>>>,
    /// Refusals by the shape of their request. A full cloud is asked again and again for what it doesn't have; as long as nothing
    /// changed, the answer is looked up instead of computed over all hosts.
    refusals: HashMap<Request, Refused>,
    /// Where groups' members are, while one decision is made.
    pub(super) scratch: Vec<u32>,
    /// Of backups ([`super::roster::Groups::locate_backup`]), which are looked for while `scratch` is in use.
    pub(super) backup_scratch: Vec<u32>,
}

/// Shapes remembered; past it all are forgotten (they are rebuilt by one scan each).
const REFUSALS_KEPT: usize = 256;

/// Starts in progress per thread.
fn queue(host: &HostEntry) -> u8 {
    (host.starting / host.threads).min(u32::from(QUEUE_MOST)) as u8
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

    /// Hosts that aren't connected.
    #[must_use]
    pub(super) fn down(&self) -> u32 {
        self.down
    }

    /// Changes a host and moves it in the index.
    pub(super) fn change(&mut self, slot: u32, f: impl FnOnce(&mut HostEntry)) {
        if let Some(host) = self.hosts.get_mut(slot as usize).and_then(Option::as_mut) {
            let was_up = host.up;
            f(host);
            match (was_up, host.up) {
                (true, false) => self.down += 1,
                (false, true) => self.down -= 1,
                (true, true) | (false, false) => {}
            }
            self.refusals.clear();
            self.reindex(slot);
        }
    }

    fn change_figures(&mut self, id: HostId, f: impl FnOnce(&mut HostEntry)) {
        let Some(slot) = self.slot_of(id) else { return };
        let Some(host) = self.hosts.get_mut(slot as usize).and_then(Option::as_mut) else { return };
        let before = host.free();
        f(host);
        host.changes += 1;
        if host.tentative == Size::default() {
            self.on_way.remove(&slot);
        } else {
            self.on_way.insert(slot);
        }
        self.refusals.clear();
        let free = host.free();
        if free != before {
            self.index.resize(slot, id, free);
        }
    }

    fn reindex(&mut self, slot: u32) {
        let Some(host) = self.hosts.get(slot as usize).and_then(Option::as_ref) else { return };
        if !host.usable() {
            self.index.take_out(slot, host.id);
            return;
        }
        let HostEntry { zone_at: zone, atoms, policies: Policies { dedicated_to, .. }, .. } = *host;
        let key = CellKey { zone, atoms, dedicated_to, queue: queue(host) };
        self.index.place(slot, host.id, host.kind, key, host.free(), &self.mix);
    }

    /// A host as its row says, after its registration or an operator's change. Claims in memory are kept where a host is known
    /// already: they are ahead of the row.
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
        entry.atoms = self.atoms.of(&entry);
        self.atoms.hosts_changed();
        let mut moved = false;
        let slot = match self.slot_of(host.id) {
            Some(slot) => {
                self.leave_rack(slot);
                if let Some(old) = self.hosts[slot as usize].take() {
                    self.down -= u32::from(!old.up);
                    (entry.used, entry.tentative, entry.set_aside) = (old.used, old.tentative, old.set_aside);
                    (entry.starting, entry.special, entry.changes) = (old.starting, old.special, old.changes);
                    entry.releasing = old.releasing;
                    moved = entry.zone_at != old.zone_at;
                    entry.policies.reserved = old.policies.reserved;
                    entry.revision = entry.revision.max(old.revision);
                    for old in old.numa {
                        if let Some(node) = entry.numa.iter_mut().find(|node| node.id == old.id) {
                            (node.pinned_threads, node.pinned_mib) = (old.pinned_threads, old.pinned_mib);
                        }
                    }
                }
                slot
            }
            None => {
                let slot = self.vacant.pop().unwrap_or_else(|| {
                    self.hosts.push(None);
                    (self.hosts.len() - 1) as u32
                });
                self.slots.insert(host.id, slot);
                self.index.put(slot);
                slot
            }
        };
        entry.rack_at = host.tags.get(RACK_TAG).map(|rack| self.join_rack(rack, slot));
        self.down += u32::from(!entry.up);
        self.hosts[slot as usize] = Some(entry);
        self.refusals.clear();
        self.reindex(slot);
        self.check_backups(slot);
        if moved {
            self.check_backups_of(slot);
        }
    }

    /// The host is no more. What was known of its instances goes with it.
    pub fn remove_host(&mut self, id: HostId) {
        let Some(slot) = self.slots.remove(&id) else { return };
        self.index.take_out(slot, id);
        self.starting.retain(|(at, _)| *at != slot);
        self.on_way.remove(&slot);
        self.leave_rack(slot);
        self.down -= u32::from(self.hosts[slot as usize].take().is_some_and(|h| !h.up));
        for instance in self.roster.on_slot(slot) {
            self.remove_instance(instance);
        }
        self.refusals.clear();
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

    pub fn set_up(&mut self, id: HostId, up: bool) {
        let Some(slot) = self.slot_of(id) else { return };
        self.change(slot, |h| h.up = up);
        self.check_backups(slot);
    }

    /// Drain, dedication, reservation.
    pub fn set_policies(&mut self, id: HostId, policies: Policies) {
        let Some(slot) = self.slot_of(id) else { return };
        self.change(slot, |h| h.policies = policies);
        self.check_backups(slot);
    }

    /// A decision's claim, before its commit.
    pub fn claim_tentatively(&mut self, id: HostId, claim: Size) {
        self.change_figures(id, |h| h.tentative = plus(h.tentative, claim));
    }

    /// The commit failed.
    pub fn release_tentative(&mut self, id: HostId, claim: Size) {
        self.change_figures(id, |h| h.tentative = minus(h.tentative, claim));
    }

    /// The commit succeeded; it raised the host's revision by one per claim. What is asked for is learned here: rehearsals and refused
    /// batches claim tentatively as well.
    pub fn confirm(&mut self, id: HostId, claim: Size) {
        if self.mix.learn(claim) {
            self.index.price(&self.mix);
        }
        self.change_figures(id, |h| {
            h.tentative = minus(h.tentative, claim);
            h.used = plus(h.used, claim);
            h.revision += 1;
        });
    }

    /// A commit that releases claims of the host is on its way: until it ended, the row may be ahead of memory, and isn't taken over.
    pub fn release_begins(&mut self, id: HostId) {
        self.change_releasing(id, |n| n + 1);
    }

    pub fn release_ends(&mut self, id: HostId) {
        self.change_releasing(id, |n| n.saturating_sub(1));
    }

    fn change_releasing(&mut self, id: HostId, f: impl FnOnce(u32) -> u32) {
        let slot = self.slot_of(id);
        if let Some(host) = slot.and_then(|slot| self.hosts[slot as usize].as_mut()) {
            host.releasing = f(host.releasing);
        }
    }

    /// The commit that released a claim succeeded; it raised the host's revision by one.
    pub fn release(&mut self, id: HostId, claim: Size) {
        self.change_figures(id, |h| {
            h.used = minus(h.used, claim);
            h.revision += 1;
        });
    }

    pub fn raise_revision(&mut self, id: HostId) {
        if let Some(host) = self.slot_of(id).and_then(|slot| self.hosts[slot as usize].as_mut()) {
            host.revision += 1;
        }
    }

    /// Refused as things are, but a host would have the room were the claims on their way there not committed, as those of a repeated
    /// create will not be.
    #[must_use]
    pub fn may_yet_fit(&self, request: &Request) -> bool {
        self.on_way.iter().filter_map(|slot| self.at(*slot)).any(|host| {
            let claim = filter::claim(host, request);
            filter::closed(host, request).is_none()
                && !fits(&claim, &host.free())
                && fits(&claim, &plus(host.free(), host.tentative))
        })
    }

    /// Before reading the host's row, to hand to [`Self::refresh`].
    #[must_use]
    pub fn moment(&self, id: HostId) -> Option<Moment> {
        self.find(id).map(|h| Moment { host_id: id, changes: h.changes })
    }

    /// Takes over a row's figures, unless a claim or a release is on its way or something changed since `moment`: then the row is the older
    /// one, or says what will be counted yet.
    /// Answers whether it did.
    pub fn refresh(&mut self, moment: Moment, row: &Host) -> bool {
        let Some(slot) = self.slot_of(moment.host_id) else { return false };
        let Some(host) = self.hosts[slot as usize].as_mut() else { return false };
        let older = row.generation < host.generation;
        if older || host.changes != moment.changes || host.tentative != Size::default() || host.releasing > 0 {
            return false;
        }
        host.revision = host.revision.max(row.revision);
        if row.generation > host.generation {
            self.put_host(row);
        }
        let Some(host) = self.hosts[slot as usize].as_ref() else { return false };
        let up = row.state == HostState::Up;
        if (host.used, host.cordoned, host.capacity, host.up) != (row.used, row.cordoned, row.capacity, up)
            || (host.policies.draining, host.policies.dedicated_to) != (row.draining, row.dedicated_to)
        {
            self.change(slot, |host| {
                (host.used, host.cordoned, host.capacity, host.up) = (row.used, row.cordoned, row.capacity, up);
                (host.policies.draining, host.policies.dedicated_to) = (row.draining, row.dedicated_to);
                host.kind = super::grid::KindKey::of(host.capacity, host.overhead);
            });
            self.check_backups(slot);
        }
        true
    }

    /// Starts count towards where the next one goes, and how long a start may take. A set, so that saying it twice counts once.
    pub fn start_begins(&mut self, id: HostId, instance_id: InstanceId) {
        let Some(slot) = self.slot_of(id) else { return };
        if self.starting.insert((slot, instance_id)) {
            self.change_starts(slot, |starts| starts + 1);
        }
    }

    pub fn start_ends(&mut self, id: HostId, instance_id: InstanceId) {
        let Some(slot) = self.slot_of(id) else { return };
        if self.starting.remove(&(slot, instance_id)) {
            self.change_starts(slot, |starts| starts.saturating_sub(1));
        }
    }

    fn change_starts(&mut self, slot: u32, f: impl FnOnce(u32) -> u32) {
        let Some(host) = self.hosts[slot as usize].as_mut() else { return };
        let before = queue(host);
        host.starting = f(host.starting);
        if queue(host) != before {
            self.reindex(slot);
        }
    }

    /// What the request asks of tags and features, as bits; wishes met for the first time get theirs now.
    pub(super) fn ask(&mut self, request: &Request) -> Asked {
        let mut asked = Asked::default();
        for (wish, needed) in wishes(request) {
            let standing = match self.atoms.find(wish) {
                Standing::Unknown => {
                    let learned = self.atoms.learn(wish, self.hosts.iter().flatten());
                    if let Standing::Bit(_) = learned {
                        self.look_again();
                    }
                    learned
                }
                known @ (Standing::Bit(_) | Standing::Absent) => known,
            };
            match (standing, needed) {
                (Standing::Bit(bit), true) => {
                    asked.needs |= bit;
                    if matches!(wish, Wish::Tag(..)) {
                        asked.tags |= bit;
                    }
                }
                (Standing::Bit(bit), false) => asked.forbids |= bit,
                (Standing::Absent, true) => asked.hopeless = true,
                (Standing::Absent, false) => {}
                (Standing::Unknown, _) => asked.rest = true,
            }
        }
        asked
    }

    fn look_again(&mut self) {
        for slot in 0..self.hosts.len() as u32 {
            if let Some(host) = self.hosts[slot as usize].as_mut() {
                host.atoms = self.atoms.of(host);
                self.reindex(slot);
            }
        }
    }

    #[must_use]
    pub(super) fn known_refusal(&self, key: &Request) -> Option<&Refused> {
        if self.refusals.is_empty() { None } else { self.refusals.get(key) }
    }

    pub(super) fn remember_refusal(&mut self, key: Request, refused: Refused) {
        if self.refusals.len() >= REFUSALS_KEPT {
            self.refusals.clear();
        }
        self.refusals.insert(key, refused);
    }

    pub(super) fn clear_refusals(&mut self) {
        self.refusals.clear();
    }
}
