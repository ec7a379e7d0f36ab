//! Decisions with their records, for one instance or for several of one request at once.

use super::{
    choose::choose,
    decision::{Decision, Placed, Refusal},
    explain,
    inventory::Inventory,
    preempt,
    request::Request,
};
use domain::{InstanceId, Timestamp, explain::PlacementRecord, placement::Fill};

/// Decides for one instance. It claims nothing: the caller claims tentatively while it still has the inventory locked. The inventory is
/// mutable only for what it remembers: refusals, orders of buckets, requested labels.
pub fn decide(inventory: &mut Inventory, request: &Request, now: Timestamp) -> Decision {
    if let Some(Refusal { record, preemption }) = inventory.known_refusal(request) {
        let record = PlacementRecord { at: now, ..record.clone() };
        return Decision { placed: None, preemption: preemption.clone(), record };
    }
    if let Some(choice) = choose(inventory, request) {
        let record = explain::placed(inventory, request, &choice, now);
        return Decision { placed: Some(choice.placed), preemption: None, record };
    }
    let preemption = preempt::plan(inventory, request);
    let record = explain::refused(inventory, request, now);
    inventory.remember_refusal(request.clone(), Refusal { record: record.clone(), preemption: preemption.clone() });
    Decision { placed: None, preemption, record }
}

#[derive(Debug)]
pub struct Batch {
    /// The places, claimed tentatively, in the order of the ids; [`Batch::release`] undoes it.
    pub placed: Vec<(InstanceId, Placed, PlacementRecord)>,
    /// How many found a place, whether they keep it or not.
    pub found: usize,
    /// The decision for the first that found none.
    pub refused: Option<Decision>,
}

/// Places one after the other, each with regard to the ones before: their claims, their groups, their starts.
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
