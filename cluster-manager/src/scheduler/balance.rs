//! Moves that even out load, as a plan: from the most used hosts to the least used ones.
//!
//! A host's load is its dominant share: of its vCPUs or its memory, whichever is used more. Hosts are compared within a zone and among
//! hosts of the same dedication, where instances stay. The most valuable move off the most used host is made, then the hosts are ordered
//! again, until the widest gap is within the tolerance or no move is worth it. A host from which no move is worth it is left as it is.
//!
//! **Worth.** A move narrows the gap between its two hosts by so many shares of a host, and copies a share of a host's memory. It is
//! worth the difference, and is made if that is more than nothing: evening out a tenth of a host's vCPUs isn't worth copying half
//! a host's memory. The busier of the two must be less busy for it, whichever that is afterwards, and the other no less used than the least
//! used host was. So each move improves: loads in descending order only fall, no gap widens, and it ends. An instance moves once at most.
//!
//! The scheduler decides what may go where (`choose_on`, on a copy of the inventory), so that a move breaks no constraint, takes no reserved
//! capacity, and leaves a protected instance with a backup. Pinned instances stay: only their host knows which threads are theirs.
//!
//! Rejected: the least variance by a solver (moves everywhere, no bound on its time); the price of [`super::grid`] (it packs, which is
//! the opposite); swaps of two instances (twice the cost, and live migration needs the capacity for both at once).

use super::{
    choose::choose_on,
    decision::Placed,
    filter,
    host::{HostEntry, fits, minus, plus},
    inventory::Inventory,
    resident::{MoveLimits, Resident, settle},
};
use domain::{
    HostId, InstanceId, ProjectId,
    capacity::{Move, RebalancePlan},
    flavor::Size,
};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// Targets examined for one instance, from the least used: this bounds a plan's time in a large zone whose hosts mostly don't suit.
const TARGETS_MAX: usize = 256;
/// Hosts passed over, since nothing on them can or should move, before a class is left: this bounds the time too.
const PASSED_OVER_MAX: usize = 4096;
/// Targets by which it is judged how much a move could be worth at best.
const JUDGED: usize = 8;

/// Hosts among which load is evened out.
type Class = (u16, Option<ProjectId>);

/// The dominant share in use, in thousandths.
#[must_use]
fn load(used: Size, capacity: Size) -> u64 {
    // A host that shrank under what it holds has more than all of it in use.
    let share =
        |used: u64, capacity: u64| used.saturating_mul(1000).checked_div(capacity).unwrap_or(used.min(1) * 1000);
    share(used.vcpus.into(), capacity.vcpus.into()).max(share(used.memory_mib, capacity.memory_mib))
}

fn taken(host: &HostEntry) -> Size {
    plus(host.used, host.tentative)
}

fn load_of(host: &HostEntry) -> u64 {
    load(taken(host), host.capacity)
}

/// The widest gap between the most and the least used host that are to be alike, in thousandths of a host.
#[must_use]
pub fn widest_gap(inventory: &Inventory) -> u32 {
    let mut range: BTreeMap<Class, (u64, u64)> = BTreeMap::new();
    for host in inventory.hosts().filter(|host| host.usable()) {
        let load = load_of(host);
        let (least, most) = range.entry((host.zone_at, host.policies.dedicated_to)).or_insert((load, load));
        (*least, *most) = (load.min(*least), load.max(*most));
    }
    let widest = range.values().map(|(least, most)| most - least).max().unwrap_or(0);
    u32::try_from(widest).unwrap_or(u32::MAX)
}

/// `inventory` is a copy that holds what `residents` claim, and knows those of them that decisions must know of; it is left as if all
/// had moved. Hosts whose loads differ by no more than `tolerance_permille` count as even.
#[must_use]
pub fn plan_balance(
    inventory: &mut Inventory,
    residents: &[Resident],
    limits: MoveLimits,
    tolerance_permille: u32,
) -> RebalancePlan {
    let mut plan = RebalancePlan { gap_before_permille: widest_gap(inventory), ..RebalancePlan::default() };
    let mut by_host: HashMap<HostId, Vec<&Resident>> = HashMap::new();
    for resident in residents.iter().filter(|r| r.movable && !r.request.pinned) {
        by_host.entry(resident.host_id).or_default().push(resident);
    }
    let mut classes: BTreeMap<Class, BTreeSet<(u64, HostId)>> = BTreeMap::new();
    for host in inventory.hosts().filter(|host| host.usable()) {
        let class = (host.zone_at, host.policies.dedicated_to);
        classes.entry(class).or_default().insert((load_of(host), host.id));
    }
    for hosts in classes.into_values() {
        let mut balancing = Balancing { inventory, by_host: &by_host, hosts, moved: HashSet::new() };
        balancing.plan_moves(&mut plan.moves, limits.moves, u64::from(tolerance_permille));
    }
    plan.gap_after_permille = widest_gap(inventory);
    plan.memory_mib = plan.moves.iter().map(|m| m.memory_mib).sum();
    plan.disk_gib = plan.moves.iter().map(|m| m.disk_gib).sum();
    plan
}

/// One class of hosts.
struct Balancing<'a> {
    inventory: &'a mut Inventory,
    by_host: &'a HashMap<HostId, Vec<&'a Resident>>,
    /// The hosts by load.
    hosts: BTreeSet<(u64, HostId)>,
    moved: HashSet<InstanceId>,
}

/// The most valuable move comes first, then the cheapest.
type Rank = (std::cmp::Reverse<u64>, u64, InstanceId);

impl Balancing<'_> {
    fn plan_moves(&mut self, moves: &mut Vec<Move>, moves_max: usize, tolerance: u64) {
        // The hosts are examined from the most used down; one that has nothing to give is passed over.
        let (mut below, mut passed_over) = (None, 0);
        while moves.len() < moves_max && passed_over < PASSED_OVER_MAX {
            let from = match below {
                None => self.hosts.last(),
                Some(below) => self.hosts.range(..below).next_back(),
            };
            let (Some(from), Some((least, _))) = (from.copied(), self.hosts.first().copied()) else { return };
            if from.0 - least <= tolerance {
                return;
            }
            match self.relieve(from, tolerance) {
                Some(made) => moves.push(made),
                None => (below, passed_over) = (Some(from), passed_over + 1),
            }
        }
    }

    /// The most valuable move off this host.
    fn relieve(&mut self, from: (u64, HostId), tolerance: u64) -> Option<Move> {
        let source = self.inventory.find(from.1)?;
        let here = self.by_host.get(&from.1)?;
        let mut candidates: Vec<(Rank, &Resident)> = here
            .iter()
            .filter(|resident| !self.moved.contains(&resident.id))
            .filter_map(|resident| {
                let (least, _) = *self.hosts.first()?;
                let targets = self.hosts.iter().take(JUDGED).filter(|target| target.0 < from.0);
                let worth = targets
                    .filter_map(|(load, id)| worth(source, self.inventory.find(*id)?, resident, from.0 - load, least))
                    .max()?;
                Some(((std::cmp::Reverse(worth), resident.claim.memory_mib, resident.id), *resident))
            })
            .collect();
        candidates.sort_unstable_by_key(|(rank, _)| *rank);
        candidates.into_iter().find_map(|(_, resident)| self.relocate(resident, from, tolerance))
    }

    fn relocate(&mut self, resident: &Resident, from: (u64, HostId), tolerance: u64) -> Option<Move> {
        let (source, (least, _)) = (self.inventory.find(from.1)?, *self.hosts.first()?);
        let targets: Vec<HostId> = self
            .hosts
            .iter()
            .take(TARGETS_MAX)
            .take_while(|(load, _)| from.0.saturating_sub(*load) > tolerance)
            .filter(|(load, id)| {
                self.inventory.find(*id).is_some_and(|target| {
                    fits(&filter::claim(target, &resident.request), &target.free_for_recovery())
                        && filter::closed(target, &resident.request).is_none()
                        && worth(source, target, resident, from.0 - load, least).is_some()
                })
            })
            .map(|(_, id)| *id)
            .collect();
        if targets.is_empty() {
            return None;
        }
        let back = self.inventory.backup_of(resident.id);
        self.inventory.release(from.1, resident.claim);
        self.inventory.remove_instance(resident.id);
        let now = choose_on(self.inventory, &resident.request, from.1).map_or(u32::MAX, |c| c.score.violations);
        let choice = targets.into_iter().find_map(|target| {
            choose_on(self.inventory, &resident.request, target).filter(|choice| choice.score.violations <= now)
        });
        let Some(choice) = choice else {
            let placed = Placed { backup: back, ..Placed::of(from.1, resident.claim) };
            settle(self.inventory, resident, &placed);
            return None;
        };
        let to = choice.placed.host_id;
        self.hosts.remove(&from);
        self.hosts.remove(&(self.inventory.find(to).map_or(0, load_of), to));
        settle(self.inventory, resident, &choice.placed);
        for id in [from.1, to] {
            self.hosts.extend(self.inventory.find(id).map(|host| (load_of(host), id)));
        }
        self.moved.insert(resident.id);
        let Size { memory_mib, disk_gib, .. } = resident.claim;
        Some(Move { instance_id: resident.id, from: from.1, to, memory_mib, disk_gib })
    }
}

/// How much more the move evens out than it copies, in thousandths of a host; none: it isn't worth it.
fn worth(source: &HostEntry, target: &HostEntry, resident: &Resident, gap: u64, least: u64) -> Option<u64> {
    let after_source = load(minus(taken(source), resident.claim), source.capacity);
    let after_target = load(plus(taken(target), filter::claim(target, &resident.request)), target.capacity);
    if after_source.max(after_target) >= load_of(source) || after_source < least {
        return None;
    }
    let narrowed = gap.checked_sub(after_source.abs_diff(after_target))?;
    let copied = load(Size { vcpus: 0, ..resident.claim }, source.capacity);
    narrowed.checked_sub(copied).filter(|worth| *worth > 0)
}
