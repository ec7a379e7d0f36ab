//! Places for the instances of one request, claimed tentatively until its commit.

use crate::{
    placement::{Placement, PlacementState, capacity_hold::HoldOwner},
    scheduler::{Decision, Fill, Inventory, Placed, Preemption, Request, decide_batch, explain::hint},
};
use domain::{ErrorKind, InstanceId, Problem, Timestamp, explain::PlacementRecord};

/// Tentative claims. Dropped without [`Self::confirm`] they are released.
pub struct TentativePlacement<'a> {
    state: &'a PlacementState,
    pub places: Vec<(InstanceId, Placed, PlacementRecord)>,
    confirmed: bool,
}

/// A refusal, and who would have to be preempted for there to be a place.
pub struct PlacementFailure {
    /// The record as operators may see it.
    pub record: PlacementRecord,
    pub problem: Problem,
    pub preemption: Option<Preemption>,
    /// Only claims whose commit is on its way stand in the way: it is worth another attempt.
    pub may_yet_fit: bool,
}

impl<'a> TentativePlacement<'a> {
    /// One place for each id, or the failure with the record of the one that found none. Where as many as fit were requested: places for
    /// the first of the ids, and why there are no more of them. Capacity held for `owner` is theirs.
    pub fn find(
        state: &'a PlacementState,
        owner: Option<HoldOwner<'_>>,
        ids: &[InstanceId],
        request: &Request,
        fill: Fill,
        now: Timestamp,
    ) -> Result<(Self, Option<PlacementFailure>), PlacementFailure> {
        let mut may_yet_fit = false;
        let mut decide = |inventory: &mut Inventory| {
            let batch = decide_batch(inventory, request, ids, fill, now);
            may_yet_fit = batch.refused.is_some() && batch.placed.is_empty() && inventory.may_yet_fit(request);
            batch
        };
        let batch = {
            let Placement { inventory, holds } = &mut *state.lock();
            match owner {
                Some(owner) => holds.decide(inventory, owner, decide),
                None => decide(inventory),
            }
        };
        let failure = batch.refused.map(|decision| PlacementFailure {
            may_yet_fit,
            ..PlacementFailure::new(decision, batch.found, ids.len())
        });
        let found = Self { state, places: batch.placed, confirmed: false };
        match failure {
            Some(failure) if found.places.is_empty() => {
                metrics::counter!("iaas_placements_refused_total").increment(1);
                Err(failure)
            }
            failure => {
                metrics::counter!("iaas_placements_total").increment(found.places.len() as u64);
                Ok((found, failure))
            }
        }
    }

    /// The commit succeeded.
    pub fn confirm(mut self) {
        self.confirmed = true;
        let mut inventory = self.state.inventory();
        for (_, placed, _) in &self.places {
            inventory.confirm(placed.host_id, placed.claim);
        }
    }
}

impl Drop for TentativePlacement<'_> {
    fn drop(&mut self) {
        if self.confirmed {
            return;
        }
        let mut inventory = self.state.inventory();
        for (id, placed, _) in &self.places {
            inventory.release_placement(*id, placed);
        }
    }
}

impl PlacementFailure {
    fn new(decision: Decision, found: usize, requested: usize) -> Self {
        let Decision { mut record, preemption, .. } = decision;
        if requested > 1 {
            record.summary = format!("{found} of {requested} would fit; for the next, {}", record.summary);
        }
        Self { problem: no_capacity(&record), record, preemption, may_yet_fit: false }
    }
}

/// The answer when there is no place. The gateway takes out what a tenant may not see.
pub fn no_capacity(record: &PlacementRecord) -> Problem {
    let mut problem = Problem::new(ErrorKind::NoCapacity, "no_capacity", record.summary.clone());
    problem.hint = Some(hint(record));
    problem.explain = Some(record.clone());
    problem
}
