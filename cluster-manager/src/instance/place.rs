//! Places for the instances of one request, held tentatively until its commit.

use crate::{
    manager::Manager,
    placement::{Placement, capacity_hold::HoldOwner},
    scheduler::{Decision, Fill, Inventory, Placed, Request, decide_batch, explain::hint, preempt::Preemption},
};
use domain::{ErrorKind, InstanceId, Problem, Timestamp, explain::PlacementRecord};

/// Tentative claims. Dropped without [`Self::confirm`] they are given back.
pub struct Places<'a> {
    manager: &'a Manager,
    pub places: Vec<(InstanceId, Placed, PlacementRecord)>,
    firm: bool,
}

/// A refusal, and who would have to give way for there to be a place.
pub struct NoPlace {
    /// As operators may see it.
    pub record: PlacementRecord,
    pub problem: Problem,
    pub preemption: Option<Preemption>,
    /// Claims whose commit is on its way are what stands in the way: worth another look.
    pub may_yet_fit: bool,
}

impl<'a> Places<'a> {
    /// One place for each id, or the problem with the record of the one that found none. As many as fit: places for the first of the
    /// ids, and why there are no more of them. Capacity held for `owner` is theirs.
    pub fn find(
        manager: &'a Manager,
        owner: Option<HoldOwner<'_>>,
        ids: &[InstanceId],
        request: &Request,
        fill: Fill,
        now: Timestamp,
    ) -> Result<(Self, Option<NoPlace>), NoPlace> {
        let mut held = Self { manager, places: Vec::with_capacity(ids.len()), firm: false };
        let mut may_yet_fit = false;
        let mut decide = |inventory: &mut Inventory| {
            let batch = decide_batch(inventory, request, ids, fill, now);
            may_yet_fit = batch.refused.is_some() && batch.placed.is_empty() && inventory.may_yet_fit(request);
            batch
        };
        let batch = {
            let Placement { inventory, holds } = &mut *manager.placement.lock();
            match owner {
                Some(owner) => holds.decide(inventory, owner, decide),
                None => decide(inventory),
            }
        };
        let refused =
            batch.refused.map(|decision| NoPlace { may_yet_fit, ..NoPlace::new(decision, batch.found, ids.len()) });
        held.places = batch.placed;
        match refused {
            Some(refused) if held.places.is_empty() => {
                metrics::counter!("iaas_placements_refused_total").increment(1);
                Err(refused)
            }
            refused => {
                metrics::counter!("iaas_placements_total").increment(held.places.len() as u64);
                Ok((held, refused))
            }
        }
    }

    /// The commit succeeded.
    pub fn confirm(mut self) {
        self.firm = true;
        let mut inventory = self.manager.inventory();
        for (_, placed, _) in &self.places {
            inventory.confirm(placed.host_id, placed.claim);
        }
    }
}

impl Drop for Places<'_> {
    fn drop(&mut self) {
        if self.firm {
            return;
        }
        let mut inventory = self.manager.inventory();
        for (id, placed, _) in &self.places {
            inventory.release_placement(*id, placed);
        }
    }
}

impl NoPlace {
    fn new(decision: Decision, found: usize, asked: usize) -> Self {
        let Decision { mut record, preemption, .. } = decision;
        if asked > 1 {
            record.summary = format!("{found} of {asked} would fit; for the next, {}", record.summary);
        }
        Self { problem: no_capacity(&record), record, preemption, may_yet_fit: false }
    }
}

/// The 507. The gateway takes out what a tenant may not see.
pub fn no_capacity(record: &PlacementRecord) -> Problem {
    let mut problem = Problem::new(ErrorKind::NoCapacity, "no_capacity", record.summary.clone());
    problem.hint = Some(hint(record));
    problem.explain = Some(record.clone());
    problem
}
