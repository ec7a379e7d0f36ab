//! Consolidation: moves that free hosts, as a plan that says which instances would go where, and what it would cost.
//!
//! Hosts with few instances are emptied into the others, the one with fewest first, each whole or not at all: half an emptied host is
//! cost without gain. An empty host is no target, an instance moves once at most, and a host that costs more moves than a freed host is
//! worth stays as it is. Everything is decided by the scheduler itself on a copy of the inventory, so that a move breaks no constraint.
//!
//! Rejected: the least number of hosts by an exact solver (bin packing, no bound on its time, and moves everywhere).

use super::{
    balance::widest_gap,
    choose::choose,
    decision::Placed,
    host::Policies,
    inventory::Inventory,
    resident::{MoveLimits, Resident, settle},
};
use domain::{
    HostId,
    capacity::{Move, RebalancePlan},
};
use std::collections::{BTreeMap, HashSet};

/// `inventory` is a copy that holds what `residents` claim, and knows those of them that decisions must know of.
#[must_use]
pub fn plan_consolidation(mut inventory: Inventory, residents: &[Resident], limits: MoveLimits) -> RebalancePlan {
    let mut by_host: BTreeMap<HostId, Vec<&Resident>> = BTreeMap::new();
    for resident in residents {
        by_host.entry(resident.host_id).or_default().push(resident);
    }
    let mut plan = RebalancePlan { gap_before_permille: widest_gap(&inventory), ..RebalancePlan::default() };
    let empty = inventory.hosts().filter(|host| host.usable() && !by_host.contains_key(&host.id));
    let empty: Vec<HostId> = empty.map(|host| host.id).collect();
    for id in &empty {
        set_draining(&mut inventory, *id, true);
    }
    let mut candidates: Vec<(usize, u64, HostId)> = by_host
        .iter()
        .filter(|(id, here)| {
            // Where an operator cordoned or drains the host, its instances aren't ours to move.
            let usable = inventory.find(**id).is_some_and(|host| host.usable());
            usable && here.iter().all(|r| r.movable) && here.len() <= limits.moves_per_host
        })
        .map(|(id, here)| (here.len(), here.iter().map(|r| r.claim.memory_mib).sum(), *id))
        .collect();
    candidates.sort_unstable();
    let mut receivers = HashSet::new();
    for (count, memory_mib, host_id) in candidates {
        if receivers.contains(&host_id) || plan.moves.len() + count > limits.moves {
            continue;
        }
        let Some(moves) = empty_host(&mut inventory, host_id, &by_host[&host_id]) else { continue };
        receivers.extend(moves.iter().map(|m| m.to));
        plan.moves.extend(moves);
        plan.freed.push(host_id);
        plan.memory_mib += memory_mib;
    }
    plan.disk_gib = plan.moves.iter().map(|m| m.disk_gib).sum();
    for id in empty.iter().chain(&plan.freed) {
        set_draining(&mut inventory, *id, false);
    }
    plan.gap_after_permille = widest_gap(&inventory);
    plan
}

/// Lets the host of the copy take nothing new, or take new instances again.
fn set_draining(inventory: &mut Inventory, id: HostId, draining: bool) {
    if let Some(policies) = inventory.find(id).map(|host| Policies { draining, ..host.policies.clone() }) {
        inventory.set_policies(id, policies);
    }
}

/// Moves all of the host's instances to others, largest first, or none.
fn empty_host(inventory: &mut Inventory, host_id: HostId, here: &[&Resident]) -> Option<Vec<Move>> {
    set_draining(inventory, host_id, true);
    let mut order = here.to_vec();
    order.sort_unstable_by_key(|r| (std::cmp::Reverse((r.claim.memory_mib, r.claim.vcpus)), r.id));
    let mut moved: Vec<(&Resident, Placed)> = Vec::with_capacity(order.len());
    for resident in order {
        inventory.release(host_id, resident.claim);
        inventory.remove_instance(resident.id);
        let Some(choice) = choose(inventory, &resident.request) else {
            settle(inventory, resident, &current_place(resident));
            for (resident, placed) in moved.into_iter().rev() {
                inventory.release(placed.host_id, placed.claim);
                inventory.remove_instance(resident.id);
                settle(inventory, resident, &current_place(resident));
            }
            set_draining(inventory, host_id, false);
            return None;
        };
        settle(inventory, resident, &choice.placed);
        moved.push((resident, choice.placed));
    }
    let a_move = |(resident, placed): (&Resident, Placed)| Move {
        instance_id: resident.id,
        from: host_id,
        to: placed.host_id,
        memory_mib: resident.claim.memory_mib,
        disk_gib: resident.claim.disk_gib,
    };
    Some(moved.into_iter().map(a_move).collect())
}

/// The place where the resident is.
fn current_place(resident: &Resident) -> Placed {
    Placed { numa_node: resident.numa_node, ..Placed::of(resident.host_id, resident.claim) }
}
