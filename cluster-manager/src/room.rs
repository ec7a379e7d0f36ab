//! Room that is being made is held for whom it is made.
//!
//! **The problem.** A create that finds no room may make others give way ([`crate::scheduler::preempt`]). That takes as long as their
//! notice, so the create is refused and told to repeat itself. What is freed meanwhile would go to whoever comes first, and those that
//! gave way did it for nobody.
//!
//! **Rejected.** Keeping the request open: its reservations and its caller would wait for minutes. A row for each hold: somebody would
//! have to end them after a crash, to save what a repeat asks for again anyway.
//!
//! **How it is.** The refused create's claims are held in the inventory at once, on top of what still stands there. Free room never goes
//! below zero, so its host has none for others; as those that give way go, what is held comes to fit. A repeat, known by its project and
//! first name, lets go of it and decides anew under one lock of the inventory: it takes that room, or a better place. What others hold
//! of room that isn't there yet is let go of for that moment as well: it must not keep from one what is there already. The rows know
//! nothing of holds: the commit's guard judges such a place like any other, so nothing is overcommitted. A manager that restarts has
//! forgotten them, and a repeat finds what it finds.
//!
//! **Invariants.** Nobody gives way unless all of the request would have a place then. Nobody's room is promised twice: those that give
//! way count as gone, what is held as there. What a project's requests hold, its quota must allow together. A hold ends with the
//! repeat that gets its places, with one for which no room can be made any more, or at its deadline, which repeats don't move.

use crate::{
    manager::Manager,
    scheduler::{Batch, Inventory, Placed, Request, decide},
};
use domain::{InstanceId, Name, ProjectId, Timestamp, quota::QuotaAmounts};
use parking_lot::{Mutex, MutexGuard};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// Requests that room is held for. Past it others give way without a hold.
const HOLDS: usize = 256;
const SWEEP: Duration = Duration::from_millis(500);

/// Whose request it is: its project, and its first instance's name.
#[derive(Debug, Clone, Copy)]
pub struct Holder<'a> {
    pub project_id: ProjectId,
    pub name: &'a Name,
}

#[derive(Debug)]
struct Hold {
    project_id: ProjectId,
    name: Name,
    places: Vec<(InstanceId, Placed)>,
    request: Request,
    asked: QuotaAmounts,
    /// Who gave way on its hosts when it was made: until they are gone, it holds what isn't there yet.
    waits_for: Vec<InstanceId>,
    until: Instant,
}

impl Hold {
    fn is_of(&self, holder: Holder<'_>) -> bool {
        self.project_id == holder.project_id && self.name == *holder.name
    }

    fn take_again(&self, inventory: &mut Inventory) {
        for (id, placed) in &self.places {
            inventory.hold(*id, placed, &self.request);
        }
    }
}

/// Locked before the inventory is.
#[derive(Debug, Default)]
pub struct Rooms(Mutex<Vec<Hold>>);

/// What is being done for a refused request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Making {
    /// That give way from now on.
    pub gives_way: usize,
    pub held: bool,
}

impl Rooms {
    fn lock(&self) -> MutexGuard<'_, Vec<Hold>> {
        self.0.lock()
    }

    /// Decides with what is held for the request let go of. If that finds no place, it is held on.
    pub fn decide(&self, manager: &Manager, holder: Holder<'_>, decide: impl FnOnce(&mut Inventory) -> Batch) -> Batch {
        let mut holds = self.lock();
        let at = holds.iter().position(|hold| hold.is_of(holder));
        let mut inventory = manager.inventory();
        let Some(at) = at else { return decide(&mut inventory) };
        // What others hold of room that isn't there yet takes nothing of what is.
        let unripe = |(other, hold): &(usize, &Hold)| *other != at && inventory.any_leaves(&hold.waits_for);
        let unripe: Vec<usize> = holds.iter().enumerate().filter(unripe).map(|(other, _)| other).collect();
        unripe.iter().chain([&at]).for_each(|hold| let_go(&holds[*hold].places, &mut inventory));
        let batch = decide(&mut inventory);
        unripe.iter().for_each(|hold| holds[*hold].take_again(&mut inventory));
        if batch.placed.is_empty() {
            holds[at].take_again(&mut inventory);
        } else {
            holds.swap_remove(at);
        }
        batch
    }

    /// What is held for the project's other requests.
    pub fn asked_beside(&self, holder: Holder<'_>) -> QuotaAmounts {
        let holds = self.lock();
        let others = holds.iter().filter(|hold| hold.project_id == holder.project_id && !hold.is_of(holder));
        others.fold(QuotaAmounts::NONE, |sum, hold| sum.plus(&hold.asked))
    }

    /// Makes room for all of `ids`, if that can be; with `hold` (what is asked of the quota) it is held. `None`: it can't be, and nobody
    /// gives way.
    pub fn make(
        &self,
        manager: &Manager,
        holder: Holder<'_>,
        (ids, request): (&[InstanceId], &Request),
        hold: Option<QuotaAmounts>,
    ) -> Option<Making> {
        let mut holds = self.lock();
        let mut inventory = manager.inventory();
        let before = holds.iter().position(|hold| hold.is_of(holder)).map(|at| holds.swap_remove(at));
        if let Some(before) = &before {
            let_go(&before.places, &mut inventory);
        }
        // What isn't there yet can't give way to others.
        let placeholder = Request { preemptible: None, ..request.clone() };
        let (mut places, mut gives_way) = (Vec::with_capacity(ids.len()), Vec::new());
        for id in ids {
            let decision = decide(&mut inventory, request, Timestamp::now());
            let placed = match (decision.placed, decision.preemption) {
                (Some(placed), _) => Some(placed),
                (None, Some(preemption)) => {
                    inventory.set_leaving(&preemption.gives_way, true);
                    gives_way.extend(preemption.gives_way);
                    Some(Placed::of(preemption.host_id, preemption.claim))
                }
                (None, None) => None,
            };
            let Some(placed) = placed else {
                let_go(&places, &mut inventory);
                inventory.set_leaving(&gives_way, false);
                return None;
            };
            inventory.hold(*id, &placed, &placeholder);
            places.push((*id, placed));
        }
        manager.giving_way.ask(&gives_way);
        let making = |held| Some(Making { gives_way: gives_way.len(), held });
        let may = manager.config.preemption_hold_secs > 0 && holds.len() < HOLDS;
        let Some(asked) = hold.filter(|_| may) else {
            let_go(&places, &mut inventory);
            return making(false);
        };
        let waits_for = places.iter().flat_map(|(_, placed)| inventory.leaving_on(placed.host_id)).collect();
        let until = before.map_or_else(|| Instant::now() + manager.config.preemption_hold(), |before| before.until);
        let (project_id, name) = (holder.project_id, holder.name.clone());
        holds.push(Hold { project_id, name, places, request: placeholder, asked, waits_for, until });
        making(true)
    }

    /// Ends what was held until now.
    fn sweep(&self, manager: &Manager, now: Instant) {
        let mut holds = self.lock();
        if holds.iter().all(|hold| hold.until > now) {
            return;
        }
        let mut inventory = manager.inventory();
        holds.retain(|hold| {
            let stands = hold.until > now;
            if !stands {
                let_go(&hold.places, &mut inventory);
                tracing::info!(name = %hold.name, "nobody came for the room that was made");
            }
            stands
        });
    }
}

fn let_go(places: &[(InstanceId, Placed)], inventory: &mut Inventory) {
    for (id, placed) in places {
        inventory.let_go(*id, placed);
    }
}

/// Ends holds at their deadlines.
pub async fn run(manager: Arc<Manager>) {
    loop {
        tokio::select! {
            () = manager.shutdown.cancelled() => return,
            () = tokio::time::sleep(SWEEP) => manager.rooms.sweep(&manager, Instant::now()),
        }
    }
}
