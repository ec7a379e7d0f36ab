//! Which instances are where, as far as later decisions depend on it: members of groups, protected and preemptible instances.
//! Claims are counted apart (an instance being created has its claim before anything else).

use super::{
    decide::Placed,
    host::HostEntry,
    ids::IdMap,
    inventory::Inventory,
    request::{GroupConstraint, Request},
    sets::NIL,
};
use domain::{
    HostId, InstanceId, PlacementGroupId,
    flavor::Size,
    placement::{GroupPolicy, GroupScope, GroupStrength},
};

#[derive(Debug)]
pub(super) struct Member {
    pub slot: u32,
    pub claim: Size,
    pub groups: Box<[PlacementGroupId]>,
    pub preemptible: Option<u8>,
    /// It gives way: what it holds is as good as promised.
    pub leaving: bool,
    pub numa_node: Option<u8>,
    /// Of a protected instance: what it asks of a backup.
    pub protected: Option<Box<Request>>,
    /// Where it would go if its host were lost, and what it would take there; [`NIL`]: nowhere.
    pub backup: u32,
    pub backup_claim: Size,
}

#[derive(Debug, Default)]
pub(super) struct Roster {
    members: IdMap<InstanceId, Member>,
    groups: IdMap<PlacementGroupId, Vec<InstanceId>>,
}

impl Roster {
    pub fn find(&self, id: InstanceId) -> Option<&Member> {
        self.members.get(&id)
    }

    pub fn find_mut(&mut self, id: InstanceId) -> Option<&mut Member> {
        self.members.get_mut(&id)
    }

    pub fn len(&self) -> usize {
        self.members.len()
    }

    pub fn members(&self, group: PlacementGroupId) -> &[InstanceId] {
        self.groups.get(&group).map_or(&[], Vec::as_slice)
    }

    pub fn on_slot(&self, slot: u32) -> Vec<InstanceId> {
        let mut here: Vec<InstanceId> =
            self.members.iter().filter(|(_, m)| m.slot == slot).map(|(id, _)| *id).collect();
        here.sort_unstable();
        here
    }

    /// Protected instances whose backup is this slot, by id.
    pub fn backed_up_by(&self, slot: u32) -> Vec<InstanceId> {
        let mut here: Vec<InstanceId> =
            self.members.iter().filter(|(_, m)| m.backup == slot).map(|(id, _)| *id).collect();
        here.sort_unstable();
        here
    }

    /// Protected instances without a backup, by id.
    pub fn exposed(&self) -> Vec<InstanceId> {
        let exposed = self.members.iter().filter(|(_, m)| m.protected.is_some() && m.backup == NIL);
        let mut exposed: Vec<InstanceId> = exposed.map(|(id, _)| *id).collect();
        exposed.sort_unstable();
        exposed
    }
}

impl Inventory {
    /// An instance is on this host, or is about to be. Says nothing of its claim. Replaces what was known of it.
    pub fn add_instance(&mut self, id: InstanceId, placed: &Placed, request: &Request) {
        self.remove_instance(id);
        let Placed { host_id, claim, numa_node, backup, .. } = *placed;
        let Some(slot) = self.slot_of(host_id) else { return };
        for wish in &request.groups {
            self.roster.groups.entry(wish.group).or_default().push(id);
        }
        let member = Member {
            slot,
            claim,
            groups: request.groups.iter().map(|wish| wish.group).collect(),
            preemptible: request.preemptible,
            leaving: false,
            numa_node,
            protected: request.protected.then(|| Box::new(Request { avoid: Vec::new(), ..request.clone() })),
            backup: NIL,
            backup_claim: Size::default(),
        };
        self.roster.members.insert(id, member);
        let special = request.protected || request.preemptible.is_some();
        if special || numa_node.is_some() {
            self.change(slot, |host| {
                if special {
                    host.special.push(id);
                }
                if let Some(node) = numa_node.and_then(|at| host.numa.get_mut(usize::from(at))) {
                    node.pinned_threads += pinned_threads(claim.vcpus, host.overcommit_permille);
                    node.pinned_mib += claim.memory_mib;
                }
            });
        } else {
            self.clear_refusals();
        }
        if request.protected {
            self.back_up(id, backup.and_then(|host_id| self.slot_of(host_id)));
        }
    }

    /// These give way, or do no longer.
    pub fn set_being_preempted(&mut self, ids: &[InstanceId], leaving: bool) {
        for id in ids {
            if let Some(member) = self.roster.find_mut(*id) {
                member.leaving = leaving;
            }
        }
        self.clear_refusals();
    }

    /// Who gives way on the host and is still there.
    #[must_use]
    pub fn being_preempted_on(&self, host_id: HostId) -> Vec<InstanceId> {
        let special = self.find(host_id).map_or(&[][..], |host| &host.special);
        special.iter().copied().filter(|id| self.any_being_preempted(std::slice::from_ref(id))).collect()
    }

    /// Whether one of these gives way and is still there.
    #[must_use]
    pub fn any_being_preempted(&self, ids: &[InstanceId]) -> bool {
        ids.iter().any(|id| self.roster.find(*id).is_some_and(|member| member.leaving))
    }

    /// It is gone, or was never committed.
    pub fn remove_instance(&mut self, id: InstanceId) {
        if self.roster.find(id).is_some_and(|m| m.backup != NIL) {
            self.drop_backup(id);
        }
        let Some(member) = self.roster.members.remove(&id) else { return };
        for group in &member.groups {
            if let Some(members) = self.roster.groups.get_mut(group) {
                members.retain(|other| *other != id);
                if members.is_empty() {
                    self.roster.groups.remove(group);
                }
            }
        }
        self.change(member.slot, |host| {
            host.special.retain(|other| *other != id);
            if let Some(node) = member.numa_node.and_then(|at| host.numa.get_mut(usize::from(at))) {
                let threads = pinned_threads(member.claim.vcpus, host.overcommit_permille);
                node.pinned_threads = node.pinned_threads.saturating_sub(threads);
                node.pinned_mib = node.pinned_mib.saturating_sub(member.claim.memory_mib);
            }
        });
    }

    /// Instances known.
    #[must_use]
    pub fn tracked_instances(&self) -> usize {
        self.roster.len()
    }

    /// The host that an attached instance is on.
    #[must_use]
    pub fn host_of(&self, id: InstanceId) -> Option<HostId> {
        Some(self.at(self.roster.find(id)?.slot)?.id)
    }
}

/// Pinned vCPUs claim whole threads, so all the vCPUs that overcommit makes of these.
#[must_use]
pub fn pinned_claim(vcpus: u32, overcommit_permille: u32) -> u32 {
    let claim = u64::from(vcpus) * u64::from(overcommit_permille.max(1000)) / 1000;
    u32::try_from(claim).unwrap_or(u32::MAX)
}

pub(super) fn pinned_threads(claimed_vcpus: u32, overcommit_permille: u32) -> u32 {
    let threads = u64::from(claimed_vcpus) * 1000 / u64::from(overcommit_permille.max(1000));
    u32::try_from(threads).unwrap_or(u32::MAX)
}

/// Where a group's other members are, in one wish's terms: sorted keys of hosts, racks or zones, in the inventory's scratch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Located {
    pub wish: GroupConstraint,
    from: usize,
    to: usize,
}

/// At most this many wishes are looked at together; a request with more is malformed.
pub const WISHES_MOST: usize = 8;

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Groups {
    located: [Option<Located>; WISHES_MOST],
}

/// A rack of its own.
const LONE_RACK: u32 = 1 << 31;

fn key(host: &HostEntry, slot: u32, scope: GroupScope) -> u32 {
    match scope {
        GroupScope::Host => slot,
        GroupScope::Rack => host.rack_at.unwrap_or(LONE_RACK | slot),
        GroupScope::Zone => u32::from(host.zone_at),
    }
}

impl Located {
    pub fn keys<'s>(&self, scratch: &'s [u32]) -> &'s [u32] {
        &scratch[self.from..self.to]
    }

    fn holds(&self, key: u32, scratch: &[u32]) -> bool {
        let keys = self.keys(scratch);
        match self.wish.policy {
            GroupPolicy::Affinity => keys.is_empty() || keys.binary_search(&key).is_ok(),
            GroupPolicy::AntiAffinity => keys.binary_search(&key).is_err(),
        }
    }
}

impl Groups {
    /// As the instances are now. A hard anti-affinity group has the places of its members' backups too: who came there would take away
    /// what a member's restart needs.
    pub fn locate(inventory: &mut Inventory, request: &Request) -> Self {
        let mut scratch = std::mem::take(&mut inventory.scratch);
        let groups = Self::gather(inventory, request, request.recovers, &mut scratch, |wish, member| {
            let apart = wish.policy == GroupPolicy::AntiAffinity && wish.strength == GroupStrength::Hard;
            [member.slot, if apart && request.recovers.is_none() { member.backup } else { NIL }]
        });
        inventory.scratch = scratch;
        groups
    }

    /// As they will be when `primary` is lost, for the backup of an instance there (`own`, where it is known already): members elsewhere
    /// stay, those on `primary` go to their own backups or wait. Hard wishes alone; in the inventory's second scratch.
    pub fn locate_backup(inventory: &mut Inventory, request: &Request, primary: u32, own: Option<InstanceId>) -> Self {
        let mut scratch = std::mem::take(&mut inventory.backup_scratch);
        let groups = Self::gather(inventory, request, own, &mut scratch, |wish, member| {
            let at = match (wish.strength, wish.policy) {
                (GroupStrength::Soft, _) => NIL,
                (GroupStrength::Hard, _) if member.slot != primary => member.slot,
                (GroupStrength::Hard, GroupPolicy::Affinity) => member.backup,
                (GroupStrength::Hard, GroupPolicy::AntiAffinity) => NIL,
            };
            [at, NIL]
        });
        inventory.backup_scratch = scratch;
        groups
    }

    fn gather(
        inventory: &Inventory,
        request: &Request,
        own: Option<InstanceId>,
        scratch: &mut Vec<u32>,
        slots: impl Fn(&GroupConstraint, &Member) -> [u32; 2],
    ) -> Self {
        let mut groups = Self::default();
        scratch.clear();
        for (wish, located) in request.groups.iter().zip(&mut groups.located) {
            let from = scratch.len();
            for id in inventory.roster.members(wish.group).iter().filter(|id| own != Some(**id)) {
                let Some(member) = inventory.roster.find(*id) else { continue };
                for slot in slots(wish, member) {
                    if let Some(host) = inventory.at(slot) {
                        scratch.push(key(host, slot, wish.scope));
                    }
                }
            }
            scratch[from..].sort_unstable();
            // In place: dedup of the tail.
            let mut to = from;
            for at in from..scratch.len() {
                if to == from || scratch[to - 1] != scratch[at] {
                    scratch[to] = scratch[at];
                    to += 1;
                }
            }
            scratch.truncate(to);
            *located = Some(Located { wish: *wish, from, to });
        }
        groups
    }

    pub fn all(&self) -> impl Iterator<Item = &Located> {
        self.located.iter().flatten()
    }

    /// None: a hard wish is not met. Otherwise how many soft ones aren't.
    pub fn violations(&self, host: &HostEntry, slot: u32, scratch: &[u32]) -> Option<u32> {
        let mut soft = 0;
        for located in self.all() {
            if !located.holds(key(host, slot, located.wish.scope), scratch) {
                match located.wish.strength {
                    GroupStrength::Hard => return None,
                    GroupStrength::Soft => soft += 1,
                }
            }
        }
        Some(soft)
    }

    /// Whether a zone can be met at all: only hard wishes by zone are looked at.
    pub fn zone_suits(&self, zone: u16, scratch: &[u32]) -> bool {
        let hard = |l: &&Located| l.wish.scope == GroupScope::Zone && l.wish.strength == GroupStrength::Hard;
        self.all().filter(hard).all(|l| l.holds(u32::from(zone), scratch))
    }

    /// The affinity that leaves few hosts: by host or rack, with members to be near to.
    pub fn near(&self, strength: GroupStrength) -> Option<&Located> {
        let near = |l: &&Located| {
            l.wish.policy == GroupPolicy::Affinity
                && l.wish.strength == strength
                && l.wish.scope != GroupScope::Zone
                && l.from < l.to
        };
        self.all().find(near)
    }

    pub fn soft(&self) -> u32 {
        self.all().filter(|l| l.wish.strength == GroupStrength::Soft).count() as u32
    }

    /// Calls `f` with each host that `near` allows.
    pub fn each_near(near: &Located, inventory: &Inventory, scratch: &[u32], mut f: impl FnMut(u32)) {
        for key in near.keys(scratch) {
            match near.wish.scope {
                GroupScope::Host => f(*key),
                GroupScope::Rack if key & LONE_RACK != 0 => f(key & !LONE_RACK),
                GroupScope::Rack => inventory.rack_hosts(*key).iter().for_each(|slot| f(*slot)),
                GroupScope::Zone => {}
            }
        }
    }
}
