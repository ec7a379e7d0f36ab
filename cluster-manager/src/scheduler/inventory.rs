//! The hosts in memory: what each can take, what it has taken, and what is being committed.

use domain::{
    HostId, InstanceId,
    flavor::Size,
    host::{Host, HostState, MemoryOverhead},
};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::decide::{RefusalKey, Refused};

/// One host as the scheduler sees it.
#[derive(Debug, Clone)]
pub struct HostEntry {
    pub id: HostId,
    pub name: String,
    pub zone: String,
    pub tags: BTreeMap<String, String>,
    pub cpu_features: BTreeSet<String>,
    pub up: bool,
    pub cordoned: bool,
    pub capacity: Size,
    /// Claims that the database has.
    pub used: Size,
    /// Claims whose commit is on its way.
    pub tentative: Size,
    pub overhead: MemoryOverhead,
    /// Hardware threads (capacity without overcommit), at least 1.
    pub threads: u32,
    /// The desired-state revision that the database has.
    pub revision: i64,
    /// Instances placed here that aren't known to have started yet.
    starting: HashSet<InstanceId>,
    /// Rises with each change of `used` or `tentative`: whoever read the row before may not overwrite what came after.
    changes: u64,
}

impl HostEntry {
    #[must_use]
    pub fn from_host(host: &Host) -> Self {
        Self {
            id: host.id,
            name: host.name.clone(),
            zone: host.zone.clone(),
            tags: host.tags.clone(),
            cpu_features: host.facts.cpu_features.iter().cloned().collect(),
            up: host.state == HostState::Up,
            cordoned: host.cordoned,
            capacity: host.capacity,
            used: host.used,
            tentative: Size::default(),
            overhead: host.overhead,
            threads: host.facts.threads.max(1),
            revision: host.revision,
            starting: HashSet::new(),
            changes: 0,
        }
    }

    /// What is left for new claims; nothing goes below zero when a host shrank under what it holds.
    #[must_use]
    pub fn free(&self) -> Size {
        let taken = plus(self.used, self.tentative);
        Size {
            vcpus: self.capacity.vcpus.saturating_sub(taken.vcpus),
            memory_mib: self.capacity.memory_mib.saturating_sub(taken.memory_mib),
            disk_gib: self.capacity.disk_gib.saturating_sub(taken.disk_gib),
        }
    }

    /// What an instance of `size` takes here: its memory with QEMU's own.
    #[must_use]
    pub fn claim_of(&self, size: Size) -> Size {
        Size { memory_mib: self.overhead.claim_mib(size), ..size }
    }

    #[must_use]
    pub fn starts_in_progress(&self) -> u32 {
        u32::try_from(self.starting.len()).unwrap_or(u32::MAX)
    }
}

/// A moment of one host's figures, to refresh it only if nothing happened since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    host_id: HostId,
    changes: u64,
}

#[derive(Debug, Default)]
pub struct Inventory {
    hosts: BTreeMap<HostId, HostEntry>,
    /// Refusals by the shape of their request. A full cloud is asked again and again for what it doesn't have; as long as nothing
    /// changed, the answer is looked up instead of computed over all hosts.
    refusals: HashMap<RefusalKey, Refused>,
}

/// Shapes remembered; past it all are forgotten (they are rebuilt by one scan each).
const REFUSALS_KEPT: usize = 256;

impl Inventory {
    #[must_use]
    pub fn new(hosts: &[Host]) -> Self {
        Self { hosts: hosts.iter().map(|h| (h.id, HostEntry::from_host(h))).collect(), refusals: HashMap::new() }
    }

    pub fn hosts(&self) -> impl Iterator<Item = &HostEntry> {
        self.hosts.values()
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.hosts.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty()
    }

    #[must_use]
    pub fn find(&self, id: HostId) -> Option<&HostEntry> {
        self.hosts.get(&id)
    }

    fn change(&mut self, id: HostId, f: impl FnOnce(&mut HostEntry)) {
        if let Some(host) = self.hosts.get_mut(&id) {
            f(host);
            self.refusals.clear();
        }
    }

    fn change_figures(&mut self, id: HostId, f: impl FnOnce(&mut HostEntry)) {
        self.change(id, |host| {
            f(host);
            host.changes += 1;
        });
    }

    /// A host as its row says, after its registration or an operator's change. Claims in memory are kept where a host is known
    /// already: they are ahead of the row.
    pub fn put_host(&mut self, host: &Host) {
        let mut entry = HostEntry::from_host(host);
        if let Some(old) = self.hosts.remove(&host.id) {
            entry.used = old.used;
            entry.tentative = old.tentative;
            entry.starting = old.starting;
            entry.changes = old.changes;
            entry.revision = entry.revision.max(old.revision);
        }
        self.hosts.insert(host.id, entry);
        self.refusals.clear();
    }

    pub fn set_up(&mut self, id: HostId, up: bool) {
        self.change(id, |h| h.up = up);
    }

    /// A decision's claim, before its commit.
    pub fn claim_tentatively(&mut self, id: HostId, claim: Size) {
        self.change_figures(id, |h| h.tentative = plus(h.tentative, claim));
    }

    /// The commit failed.
    pub fn give_back(&mut self, id: HostId, claim: Size) {
        self.change_figures(id, |h| h.tentative = minus(h.tentative, claim));
    }

    /// The commit succeeded; it raised the host's revision by one per claim.
    pub fn make_firm(&mut self, id: HostId, claim: Size) {
        self.change_figures(id, |h| {
            h.tentative = minus(h.tentative, claim);
            h.used = plus(h.used, claim);
            h.revision += 1;
        });
    }

    /// The commit that released a claim succeeded; it raised the host's revision by one.
    pub fn unclaim(&mut self, id: HostId, claim: Size) {
        self.change_figures(id, |h| {
            h.used = minus(h.used, claim);
            h.revision += 1;
        });
    }

    pub fn raise_revision(&mut self, id: HostId) {
        if let Some(host) = self.hosts.get_mut(&id) {
            host.revision += 1;
        }
    }

    /// Before reading the host's row, to hand to [`Self::refresh`].
    #[must_use]
    pub fn moment(&self, id: HostId) -> Option<Moment> {
        self.hosts.get(&id).map(|h| Moment { host_id: id, changes: h.changes })
    }

    /// Takes over a row's figures, unless a claim is on its way or something changed since `moment`: then the row is the older one.
    /// Answers whether it did.
    pub fn refresh(&mut self, moment: Moment, row: &Host) -> bool {
        let Some(host) = self.hosts.get_mut(&moment.host_id) else { return false };
        if host.changes != moment.changes || host.tentative != Size::default() {
            return false;
        }
        let up = row.state == HostState::Up;
        let changed = (host.used, host.cordoned, host.capacity, host.up) != (row.used, row.cordoned, row.capacity, up);
        (host.used, host.cordoned, host.capacity, host.up) = (row.used, row.cordoned, row.capacity, up);
        host.revision = host.revision.max(row.revision);
        if changed {
            self.refusals.clear();
        }
        true
    }

    /// Starts count towards where the next one goes, and how long a start may take. A set, so that saying it twice counts once.
    pub fn start_begins(&mut self, id: HostId, instance_id: InstanceId) {
        if let Some(host) = self.hosts.get_mut(&id) {
            host.starting.insert(instance_id);
        }
    }

    pub fn start_ends(&mut self, id: HostId, instance_id: InstanceId) {
        if let Some(host) = self.hosts.get_mut(&id) {
            host.starting.remove(&instance_id);
        }
    }

    #[must_use]
    pub(super) fn known_refusal(&self, key: &RefusalKey) -> Option<&Refused> {
        self.refusals.get(key)
    }

    pub(super) fn remember_refusal(&mut self, key: RefusalKey, refused: Refused) {
        if self.refusals.len() >= REFUSALS_KEPT {
            self.refusals.clear();
        }
        self.refusals.insert(key, refused);
    }
}

#[must_use]
pub fn plus(a: Size, b: Size) -> Size {
    Size {
        vcpus: a.vcpus.saturating_add(b.vcpus),
        memory_mib: a.memory_mib.saturating_add(b.memory_mib),
        disk_gib: a.disk_gib.saturating_add(b.disk_gib),
    }
}

#[must_use]
pub fn minus(a: Size, b: Size) -> Size {
    Size {
        vcpus: a.vcpus.saturating_sub(b.vcpus),
        memory_mib: a.memory_mib.saturating_sub(b.memory_mib),
        disk_gib: a.disk_gib.saturating_sub(b.disk_gib),
    }
}
