//! Virtual IPs: an address over several ports, of which one has it, the holder. Who that is, is decided here.
//!
//! **The problem.** The address must leave a holder that failed within a second, and must not leave one that works: a move ends connections. What is
//! known comes from hosts that may be dead, cut off or late.
//!
//! **Evidence.** Each member is probed from its own host, which is next to it. A host that died says nothing, so the host of another member, the witness, asks
//! the holder's host over the underlay whether it is there. The path between the two hosts may be broken while all else works. So the witness counts only while the
//! holder's host doesn't answer the manager either ([`MemberState::health`]).
//!
//! **Invariants.**
//! - The epoch rises by one with each change of the holder, and with nothing else: at one epoch there is one holder, or none.
//! - A holder that is up keeps the address, unless preemption is on and a member of a strictly higher priority is up.
//! - The address is given only to a member that is up. When nobody is, the holder keeps it: taking it away would help nobody, and the holder may
//!   be alive behind a probe that is wrong.
//! - After a decision was carried out, the same evidence leads to no other one.
//!
//! **Rejected.** A witness that probes the instance itself: every host's router has the same address, so the answer would go to the router of the instance's own
//! host. Votes of all hosts of a network: with two hosts, which is the usual number, there is no majority, and each vote costs a round trip.
//! Proof that the old holder stopped, as instances need it before they start elsewhere: nothing is written to by two here. What an old holder
//! sends is dropped by all hosts that know the newer epoch.

use super::probe::Verdict;
use crate::PortId;
use core::cmp::Reverse;
use serde::{Deserialize, Serialize};

/// What is known of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemberState {
    pub port_id: PortId,
    /// The higher, the sooner it gets the address.
    pub priority: u16,
    /// Its port is handed to an instance on some host.
    pub in_use: bool,
    /// Whether that host answers the manager now.
    pub host_answers: bool,
    /// What that host's probe says, or said last.
    pub own: Verdict,
    /// Whether another host reaches that host; unknown if none was asked.
    pub witness: Verdict,
}

impl MemberState {
    /// All evidence together.
    #[must_use]
    pub fn health(&self) -> Verdict {
        if !self.in_use {
            return Verdict::Down;
        }
        if !self.host_answers && self.witness == Verdict::Down {
            return Verdict::Down;
        }
        // Silence changes nothing of what was known.
        self.own
    }
}

/// Who has the address, and under which number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tenure {
    pub holder: Option<PortId>,
    pub epoch: i64,
}

string_enum! {
    /// Why an address moves.
    pub enum MoveCause {
        /// Nobody had it, and a member is up.
        FirstHolder = "first_holder",
        /// The holder's probe failed.
        ProbeFailed = "probe_failed",
        /// The holder's host answers neither the manager nor another host.
        HostSilent = "host_silent",
        /// The holder's port belongs to no running instance any more.
        NotInUse = "not_in_use",
        /// The holder is no member any more.
        Removed = "removed",
        /// A member of a higher priority is up.
        Preempted = "preempted",
    }
}

string_enum! {
    /// How it is with an address that stays where it is.
    pub enum Standing {
        /// Its holder is up.
        Healthy = "healthy",
        /// It isn't known whether its holder is up.
        Unknown = "unknown",
        /// Its holder is down, and so is every other member: it keeps the address.
        NobodyUp = "nobody_up",
        /// Nobody has it, since no member was up yet.
        NoHolder = "no_holder",
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    Keep(Standing),
    Move { to: Tenure, cause: MoveCause },
}

/// Who shall have the address, of members in any order. `preemption`: a holder gives way to a member of a higher priority that is up.
#[must_use]
pub fn decide(now: Tenure, members: &[MemberState], preemption: bool) -> Decision {
    let up = members.iter().filter(|member| member.health() == Verdict::Up);
    // Of equal priorities the port with the lowest id, so that the same evidence always leads to the same holder.
    let best = up.min_by_key(|member| (Reverse(member.priority), member.port_id));
    let give = |member: Option<&MemberState>, cause| Decision::Move {
        to: Tenure { holder: member.map(|member| member.port_id), epoch: now.epoch + 1 },
        cause,
    };
    let Some(holder_id) = now.holder else {
        return best.map_or(Decision::Keep(Standing::NoHolder), |best| give(Some(best), MoveCause::FirstHolder));
    };
    let Some(holder) = members.iter().find(|member| member.port_id == holder_id) else {
        return give(best, MoveCause::Removed);
    };
    match (holder.health(), best) {
        (Verdict::Up, Some(best)) if preemption && best.priority > holder.priority => {
            give(Some(best), MoveCause::Preempted)
        }
        (Verdict::Up, _) => Decision::Keep(Standing::Healthy),
        (Verdict::Unknown, _) => Decision::Keep(Standing::Unknown),
        (Verdict::Down, None) => Decision::Keep(Standing::NobodyUp),
        (Verdict::Down, Some(best)) => give(Some(best), cause_of(holder)),
    }
}

/// Why a holder is down.
fn cause_of(holder: &MemberState) -> MoveCause {
    if !holder.in_use {
        MoveCause::NotInUse
    } else if holder.own == Verdict::Down {
        MoveCause::ProbeFailed
    } else {
        MoveCause::HostSilent
    }
}

#[cfg(test)]
#[path = "virtual_ip_tests.rs"]
mod tests;
