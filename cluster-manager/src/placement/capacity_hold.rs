//! Capacity that preemption frees is held for the request that caused the preemption.
//!
//! **The problem.** A create that finds no capacity may preempt others ([`crate::scheduler::preempt`]). That takes as long as their
//! notice, so the create is refused and told to repeat itself. What is freed meanwhile would go to whoever comes first, and the instances
//! would have been preempted for nobody.
//!
//! **Rejected.** Keeping the request open: its reservations and its caller would wait for minutes. A row for each hold: somebody would
//! have to end them after a crash, to save what a repeat requests again anyway.
//!
//! **How it is.** The refused create's claims are held in the inventory at once, on top of what still stands there. Free capacity never
//! goes below zero, so its host has none for others; as the preempted instances go, what is held comes to fit. A repeat, known by its
//! project and first name, releases the hold and decides anew under one lock: it takes that capacity, or a better place. What others hold
//! of capacity that isn't free yet is released for that moment as well: it must not keep anybody from what is free already. The rows know
//! nothing of holds: the commit's guard judges such a place like any other, so nothing is overcommitted. A manager that restarts has
//! lost them, and a repeat finds what it finds.
//!
//! **Invariants.** Nobody is preempted unless all of the request would have a place then. No capacity is promised twice: preempted
//! instances count as gone, what is held counts as there. What a project's requests hold, its quota must allow together. A hold ends with
//! the repeat that gets its places, with one for which no capacity can be freed any more, or at its deadline, which repeats don't move.

use crate::scheduler::{Batch, Inventory, Placed, Request, decide};
use domain::{InstanceId, Name, ProjectId, Timestamp, quota::QuotaAmounts};
use std::time::{Duration, Instant};

/// The most requests that capacity is held for. Beyond it, instances are preempted without a hold.
const HOLDS_MAX: usize = 256;

/// The owner of a hold is a request, known by its project and its first instance's name.
#[derive(Debug, Clone, Copy)]
pub struct HoldOwner<'a> {
    pub project_id: ProjectId,
    pub name: &'a Name,
}

#[derive(Debug)]
struct CapacityHold {
    project_id: ProjectId,
    name: Name,
    placements: Vec<(InstanceId, Placed)>,
    request: Request,
    quota: QuotaAmounts,
    /// The instances that were being preempted on its hosts when it was made: until they are gone, it holds what isn't free yet.
    waits_for: Vec<InstanceId>,
    until: Instant,
}

impl CapacityHold {
    fn is_of(&self, owner: HoldOwner<'_>) -> bool {
        self.project_id == owner.project_id && self.name == *owner.name
    }

    fn take(&self, inventory: &mut Inventory) {
        for (id, placed) in &self.placements {
            inventory.place_tentatively(*id, placed, &self.request);
        }
    }

    fn release(&self, inventory: &mut Inventory) {
        release(&self.placements, inventory);
    }
}

/// What was begun for a refused request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreemptionStarted {
    /// The instances to be preempted from now on, in order.
    pub preempted: Vec<InstanceId>,
    /// Whether the capacity is held for the request.
    pub held: bool,
}

#[derive(Debug, Default)]
pub struct CapacityHolds(Vec<CapacityHold>);

impl CapacityHolds {
    /// Decides with the owner's own hold released. If the decision finds no place, the hold goes on.
    pub fn decide(
        &mut self,
        inventory: &mut Inventory,
        owner: HoldOwner<'_>,
        decide: impl FnOnce(&mut Inventory) -> Batch,
    ) -> Batch {
        let Some(own) = self.0.iter().position(|hold| hold.is_of(owner)) else { return decide(inventory) };
        // What others hold of capacity that isn't free yet takes nothing of what is.
        let not_yet_free: Vec<usize> = (0..self.0.len())
            .filter(|at| *at != own && inventory.any_being_preempted(&self.0[*at].waits_for))
            .collect();
        not_yet_free.iter().chain([&own]).for_each(|at| self.0[*at].release(inventory));
        let batch = decide(inventory);
        not_yet_free.iter().for_each(|at| self.0[*at].take(inventory));
        if batch.placed.is_empty() {
            self.0[own].take(inventory);
        } else {
            self.0.swap_remove(own);
        }
        batch
    }

    /// What the project's other requests hold, in terms of its quota.
    #[must_use]
    pub fn quota_of_others(&self, owner: HoldOwner<'_>) -> QuotaAmounts {
        let others = self.0.iter().filter(|hold| hold.project_id == owner.project_id && !hold.is_of(owner));
        others.fold(QuotaAmounts::NONE, |sum, hold| sum.plus(&hold.quota))
    }

    /// Chooses who is preempted so that all of `ids` have a place; with `hold` (the requested quota, and for how long) the capacity is
    /// held. `None`: preemption can't help, and nobody is preempted. The caller puts the preempted instances into the queue.
    pub fn preempt(
        &mut self,
        inventory: &mut Inventory,
        owner: HoldOwner<'_>,
        (ids, request): (&[InstanceId], &Request),
        hold: Option<(QuotaAmounts, Duration)>,
    ) -> Option<PreemptionStarted> {
        let before = self.0.iter().position(|hold| hold.is_of(owner)).map(|at| self.0.swap_remove(at));
        if let Some(before) = &before {
            before.release(inventory);
        }
        // What isn't placed yet can't be preempted for others.
        let placeholder = Request { preemptible: None, ..request.clone() };
        let (mut placements, mut preempted) = (Vec::with_capacity(ids.len()), Vec::new());
        for id in ids {
            let decision = decide(inventory, request, Timestamp::now());
            let placed = match (decision.placed, decision.preemption) {
                (Some(placed), _) => placed,
                (None, Some(preemption)) => {
                    inventory.set_being_preempted(&preemption.preempted, true);
                    preempted.extend(preemption.preempted);
                    Placed::of(preemption.host_id, preemption.claim)
                }
                (None, None) => {
                    release(&placements, inventory);
                    inventory.set_being_preempted(&preempted, false);
                    return None;
                }
            };
            inventory.place_tentatively(*id, &placed, &placeholder);
            placements.push((*id, placed));
        }
        let Some((quota, period)) = hold.filter(|_| self.0.len() < HOLDS_MAX) else {
            release(&placements, inventory);
            return Some(PreemptionStarted { preempted, held: false });
        };
        let waits_for =
            placements.iter().flat_map(|(_, placed)| inventory.being_preempted_on(placed.host_id)).collect();
        let until = before.map_or_else(|| Instant::now() + period, |before| before.until);
        let (project_id, name) = (owner.project_id, owner.name.clone());
        self.0.push(CapacityHold { project_id, name, placements, request: placeholder, quota, waits_for, until });
        Some(PreemptionStarted { preempted, held: true })
    }

    /// Ends the holds whose deadline has passed.
    pub fn expire(&mut self, inventory: &mut Inventory, now: Instant) {
        self.0.retain(|hold| {
            let stands = hold.until > now;
            if !stands {
                hold.release(inventory);
                tracing::info!(name = %hold.name, "the request that capacity was held for was not repeated in time");
            }
            stands
        });
    }
}

fn release(placements: &[(InstanceId, Placed)], inventory: &mut Inventory) {
    for (id, placed) in placements {
        inventory.release_placement(*id, placed);
    }
}
