//! What placement keeps in memory around the scheduler's decisions: the inventory and the capacity held for refused requests, the
//! instances being preempted, and the refusals that wait to be written. Nothing here knows the `Manager`: functions take the store, the
//! inventory and the values they need. The loops that drive all this are in `background/`.

pub mod capacity_hold;
pub mod constraints;
pub mod preemption_queue;
pub mod record;

use crate::scheduler::Inventory;
use capacity_hold::CapacityHolds;
use parking_lot::{MappedMutexGuard, Mutex, MutexGuard};
use preemption_queue::PreemptionQueue;
use record::RefusalRecords;

/// The hosts and the capacity held on them. One lock guards both: a decision for a request that capacity is held for changes both.
#[derive(Debug, Default)]
pub struct Placement {
    pub inventory: Inventory,
    pub holds: CapacityHolds,
}

/// All that placement keeps in memory.
#[derive(Debug, Default)]
pub struct PlacementState {
    /// Never held across an await.
    placement: Mutex<Placement>,
    pub preemptions: PreemptionQueue,
    pub refusals: RefusalRecords,
}

impl PlacementState {
    #[must_use]
    pub fn new(inventory: Inventory) -> Self {
        Self { placement: Mutex::new(Placement { inventory, ..Placement::default() }), ..Self::default() }
    }

    pub fn lock(&self) -> MutexGuard<'_, Placement> {
        self.placement.lock()
    }

    /// The lock, for those who need nothing but the hosts.
    pub fn inventory(&self) -> MappedMutexGuard<'_, Inventory> {
        MutexGuard::map(self.placement.lock(), |placement| &mut placement.inventory)
    }
}
