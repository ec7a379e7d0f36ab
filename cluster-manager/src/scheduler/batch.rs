//! Several instances of one request at once.

use super::{
    decide::{Decision, Placed, decide},
    inventory::Inventory,
    request::Request,
};
use domain::{InstanceId, Timestamp, explain::PlacementRecord};

pub use domain::placement::Fill;

#[derive(Debug)]
pub struct Batch {
    /// Claimed tentatively and attached, in the order of the ids; [`Batch::release`] undoes it.
    pub placed: Vec<(InstanceId, Placed, PlacementRecord)>,
    /// How many found a place, whether they keep it or not.
    pub found: usize,
    /// The decision for the first that found none.
    pub refused: Option<Decision>,
}

/// Places one after the other, each seeing the ones before: their room, their groups, their starts.
pub fn decide_batch(
    inventory: &mut Inventory,
    request: &Request,
    ids: &[InstanceId],
    fill: Fill,
    now: Timestamp,
) -> Batch {
    let mut batch = Batch { placed: Vec::with_capacity(ids.len()), found: 0, refused: None };
    for id in ids {
        let decision = decide(inventory, request, now);
        let Some(placed) = decision.placed else {
            if fill == Fill::AllOrNothing {
                batch.release(inventory);
            }
            batch.refused = Some(decision);
            break;
        };
        inventory.place_tentatively(*id, &placed, request);
        batch.placed.push((*id, placed, decision.record));
        batch.found += 1;
    }
    batch
}

impl Batch {
    /// None of it was committed.
    pub fn release(&mut self, inventory: &mut Inventory) {
        for (id, placed, _) in self.placed.drain(..) {
            inventory.release_placement(id, &placed);
        }
    }
}

impl Inventory {
    /// Takes a place until its commit: the claim, the start, and what later decisions must know of the instance.
    pub fn place_tentatively(&mut self, id: InstanceId, placed: &Placed, request: &Request) {
        self.claim_tentatively(placed.host_id, placed.claim);
        self.start_begins(placed.host_id, id);
        if request.tracked() {
            self.add_instance(id, placed, request);
        }
    }

    /// The commit failed.
    pub fn release_placement(&mut self, id: InstanceId, placed: &Placed) {
        self.release_tentative(placed.host_id, placed.claim);
        self.start_ends(placed.host_id, id);
        self.remove_instance(id);
    }
}
