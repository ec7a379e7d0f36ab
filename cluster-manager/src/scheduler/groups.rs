//! Where the members of placement groups are, and what that means for the hosts of a request.

use super::{
    bucket_trees::NIL,
    host::HostEntry,
    inventory::Inventory,
    members::PlacedInstance,
    request::{GroupConstraint, Request},
};
use domain::{
    InstanceId,
    host::HostState,
    placement::{GroupPolicy, GroupScope, GroupStrength},
};

/// Where a group's other members are, in the terms of one constraint: sorted keys of hosts, racks or zones, in the inventory's scratch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Located {
    pub constraint: GroupConstraint,
    from: usize,
    to: usize,
}

/// At most this many constraints are examined together; a request with more is malformed.
pub const GROUPS_MAX: usize = 8;

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Groups {
    located: [Option<Located>; GROUPS_MAX],
}

/// Marks the key of a host that is a rack of its own.
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
        match self.constraint.policy {
            GroupPolicy::Affinity => keys.is_empty() || keys.binary_search(&key).is_ok(),
            GroupPolicy::AntiAffinity => keys.binary_search(&key).is_err(),
        }
    }
}

impl Groups {
    /// Locates the members where they are now. A hard anti-affinity group has the places of its members' backups too: an instance that came
    /// there would take away what a member's restart needs.
    pub fn locate(inventory: &mut Inventory, request: &Request) -> Self {
        let mut scratch = std::mem::take(&mut inventory.scratch);
        let groups = Self::gather(inventory, request, request.recovers, &mut scratch, |constraint, member| {
            let apart = constraint.policy == GroupPolicy::AntiAffinity && constraint.strength == GroupStrength::Hard;
            let recovers = request.recovers.is_some();
            // To one that recovers, those that were lost as well are nowhere: they follow it, or wait.
            let lost = recovers && inventory.at(member.slot).is_some_and(|host| host.state == HostState::Lost);
            [if lost { NIL } else { member.slot }, if apart && !recovers { member.backup } else { NIL }]
        });
        inventory.scratch = scratch;
        groups
    }

    /// Locates the members where they will be when `primary` is lost, for the backup of an instance there (`own`, where it is known already):
    /// members elsewhere stay, those on `primary` go to their own backups or wait. Only hard constraints count; the keys are in the
    /// inventory's second scratch.
    pub fn locate_backup(inventory: &mut Inventory, request: &Request, primary: u32, own: Option<InstanceId>) -> Self {
        let mut scratch = std::mem::take(&mut inventory.backup_scratch);
        let groups = Self::gather(inventory, request, own, &mut scratch, |constraint, member| {
            let at = match (constraint.strength, constraint.policy) {
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
        slots: impl Fn(&GroupConstraint, &PlacedInstance) -> [u32; 2],
    ) -> Self {
        let mut groups = Self::default();
        scratch.clear();
        for (constraint, located) in request.groups.iter().zip(&mut groups.located) {
            let from = scratch.len();
            for id in inventory.instances.members(constraint.group).iter().filter(|id| own != Some(**id)) {
                let Some(member) = inventory.instances.find(*id) else { continue };
                for slot in slots(constraint, member) {
                    if let Some(host) = inventory.at(slot) {
                        scratch.push(key(host, slot, constraint.scope));
                    }
                }
            }
            scratch[from..].sort_unstable();
            // The tail is deduplicated in place.
            let mut to = from;
            for at in from..scratch.len() {
                if to == from || scratch[to - 1] != scratch[at] {
                    scratch[to] = scratch[at];
                    to += 1;
                }
            }
            scratch.truncate(to);
            *located = Some(Located { constraint: *constraint, from, to });
        }
        groups
    }

    pub fn all(&self) -> impl Iterator<Item = &Located> {
        self.located.iter().flatten()
    }

    /// How many soft constraints the host doesn't meet; none: it doesn't meet a hard one.
    pub fn violations(&self, host: &HostEntry, slot: u32, scratch: &[u32]) -> Option<u32> {
        let mut soft = 0;
        for located in self.all() {
            if !located.holds(key(host, slot, located.constraint.scope), scratch) {
                match located.constraint.strength {
                    GroupStrength::Hard => return None,
                    GroupStrength::Soft => soft += 1,
                }
            }
        }
        Some(soft)
    }

    /// Whether a hard constraint rules the host out.
    pub fn rule_out(&self, inventory: &Inventory, host: &HostEntry) -> bool {
        inventory.slot_of(host.id).is_some_and(|slot| self.violations(host, slot, &inventory.scratch).is_none())
    }

    /// Whether the zone meets the hard constraints by zone.
    pub fn zone_suits(&self, zone: u16, scratch: &[u32]) -> bool {
        let hard =
            |l: &&Located| l.constraint.scope == GroupScope::Zone && l.constraint.strength == GroupStrength::Hard;
        self.all().filter(hard).all(|l| l.holds(u32::from(zone), scratch))
    }

    /// The affinity that leaves few hosts: it is by host or rack, and there are members to be near to.
    pub fn near(&self, strength: GroupStrength) -> Option<&Located> {
        let near = |l: &&Located| {
            l.constraint.policy == GroupPolicy::Affinity
                && l.constraint.strength == strength
                && l.constraint.scope != GroupScope::Zone
                && l.from < l.to
        };
        self.all().find(near)
    }

    pub fn soft(&self) -> u32 {
        self.all().filter(|l| l.constraint.strength == GroupStrength::Soft).count() as u32
    }

    /// Calls `f` with the slot of each host that `near` allows.
    pub fn each_near(near: &Located, inventory: &Inventory, scratch: &[u32], mut f: impl FnMut(u32)) {
        for key in near.keys(scratch) {
            match near.constraint.scope {
                GroupScope::Host => f(*key),
                GroupScope::Rack if key & LONE_RACK != 0 => f(key & !LONE_RACK),
                GroupScope::Rack => inventory.rack_hosts(*key).iter().for_each(|slot| f(*slot)),
                GroupScope::Zone => {}
            }
        }
    }
}
