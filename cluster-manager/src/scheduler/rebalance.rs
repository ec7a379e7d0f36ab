//! Moves that free hosts, as a plan: which instances would go where, and what it would cost.
//!
//! Hosts with few instances are emptied into the others, the one with fewest first, each whole or not at all: half an emptied host is
//! cost without gain. An empty host is no target, an instance moves once at most, and a host that costs more moves than a freed host is
//! worth stays as it is. Everything is decided by the scheduler itself on a copy of the inventory, so that a move breaks no wish.
//!
//! Rejected: the least number of hosts by an exact solver (bin packing, no bound on its time, and moves everywhere).

use super::{
    decide::{Placed, choose},
    host::Policies,
    inventory::Inventory,
    level::widest_gap,
    request::Request,
};
use domain::{
    HostId, InstanceId,
    capacity::{Move, RebalancePlan},
    flavor::Size,
};
use std::collections::{BTreeMap, HashSet};

/// An instance where it is.
#[derive(Debug, Clone)]
pub struct Resident {
    pub id: InstanceId,
    pub host_id: HostId,
    pub claim: Size,
    /// Of pinned vCPUs.
    pub numa_node: Option<u8>,
    pub request: Request,
    /// In a state in which it could be moved.
    pub movable: bool,
}

#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// In all.
    pub moves: usize,
    /// What a freed host is worth.
    pub moves_per_host: usize,
}

/// `inventory` is a copy that holds what `residents` claim, and knows those of them that decisions must know of.
#[must_use]
pub fn plan_consolidation(mut inventory: Inventory, residents: &[Resident], limits: Limits) -> RebalancePlan {
    let mut by_host: BTreeMap<HostId, Vec<&Resident>> = BTreeMap::new();
    for resident in residents {
        by_host.entry(resident.host_id).or_default().push(resident);
    }
    let mut plan = RebalancePlan { gap_before_permille: widest_gap(&inventory), ..RebalancePlan::default() };
    let empty = inventory.hosts().filter(|host| host.usable() && !by_host.contains_key(&host.id));
    let empty: Vec<HostId> = empty.map(|host| host.id).collect();
    for id in &empty {
        close(&mut inventory, *id, true);
    }
    let mut candidates: Vec<(usize, u64, HostId)> = by_host
        .iter()
        .filter(|(id, here)| {
            // What isn't ours to move would be left: a cordoned host is somebody's business already.
            let ours = inventory.find(**id).is_some_and(|host| host.usable());
            ours && here.iter().all(|r| r.movable) && here.len() <= limits.moves_per_host
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
        close(&mut inventory, *id, false);
    }
    plan.gap_after_permille = widest_gap(&inventory);
    plan
}

/// On a copy alone: nothing new for the host, or again.
fn close(inventory: &mut Inventory, id: HostId, draining: bool) {
    if let Some(policies) = inventory.find(id).map(|host| Policies { draining, ..host.policies.clone() }) {
        inventory.set_policies(id, policies);
    }
}

/// All of the host's instances to others, largest first, or nothing.
fn empty_host(inventory: &mut Inventory, host_id: HostId, here: &[&Resident]) -> Option<Vec<Move>> {
    close(inventory, host_id, true);
    let mut order = here.to_vec();
    order.sort_unstable_by_key(|r| (std::cmp::Reverse((r.claim.memory_mib, r.claim.vcpus)), r.id));
    let mut moved: Vec<(&Resident, Placed)> = Vec::with_capacity(order.len());
    for resident in order {
        inventory.release(host_id, resident.claim);
        inventory.remove_instance(resident.id);
        let Some(choice) = choose(inventory, &resident.request) else {
            hold(inventory, resident, &stay(resident));
            for (resident, placed) in moved.into_iter().rev() {
                inventory.release(placed.host_id, placed.claim);
                inventory.remove_instance(resident.id);
                hold(inventory, resident, &stay(resident));
            }
            close(inventory, host_id, false);
            return None;
        };
        hold(inventory, resident, &choice.placed);
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

/// Where it is.
fn stay(resident: &Resident) -> Placed {
    Placed { numa_node: resident.numa_node, ..Placed::of(resident.host_id, resident.claim) }
}

/// As if it had been committed, and started long ago.
pub(super) fn hold(inventory: &mut Inventory, resident: &Resident, placed: &Placed) {
    inventory.place_tentatively(resident.id, placed, &resident.request);
    inventory.confirm(placed.host_id, placed.claim);
    inventory.start_ends(placed.host_id, resident.id);
}
