//! The instances that plans of moves deal with ([`super::consolidate`], [`super::balance`]).

use super::{decision::Placed, inventory::Inventory, request::Request};
use domain::{HostId, InstanceId, flavor::Size};

/// An instance on its host.
#[derive(Debug, Clone)]
pub struct Resident {
    pub id: InstanceId,
    pub host_id: HostId,
    pub claim: Size,
    /// The position of the NUMA node that its vCPUs are pinned to.
    pub numa_node: Option<u8>,
    pub request: Request,
    /// Its state allows a move.
    pub movable: bool,
}

#[derive(Debug, Clone, Copy)]
pub struct MoveLimits {
    /// The most moves of a plan.
    pub moves: usize,
    /// The most moves that a freed host is worth.
    pub moves_per_host: usize,
}

/// Puts the resident into the place as if it had been committed, and had started long ago.
pub(super) fn settle(inventory: &mut Inventory, resident: &Resident, placed: &Placed) {
    inventory.place_tentatively(resident.id, placed, &resident.request);
    inventory.confirm(placed.host_id, placed.claim);
    inventory.start_ends(placed.host_id, resident.id);
}
