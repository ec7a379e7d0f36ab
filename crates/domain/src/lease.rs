//! Host leases: by what a manager may know that nothing fenced runs on a host any more, without asking anyone.
//!
//! **The problem.** A host that is silent may be dead, cut off, slow or paused, and nobody can tell from outside. Its instances may start
//! elsewhere only once they have certainly stopped there. Asking a second machine or switching off the power needs hardware that most don't have.
//!
//! **How.** The host may run fenced instances only while it holds a lease, and a guard on the host ends them when the lease lapses. A lease
//! is valid until a moment that both sides compute on their own: the host counts from when it *sent* the heartbeat that was answered, the
//! manager from when it *answered*, which is later, and adds a margin. No two clocks are compared. Only their speeds must agree, within
//! [`LeaseTiming::margin_ms`] in [`LeaseTiming::duration_ms`].
//!
//! **Invariants.**
//! - A lease that lapsed is never renewed, whatever answers come late ([`HostLease::grant`]). The host gets another one, under a greater
//!   number, after it has reported that everything of the old one has stopped.
//! - A manager that has judged a lease never answers for it again ([`LeaseRecord::judge`]): it stops answering first, and says that the host is lost
//!   afterwards.
//! - A number is durable before it is granted ([`Answer::Admit`]): a host without such a record is never judged, since it may run
//!   instances that nothing ends.
//! - What can't be known counts as later: a manager that has just started, or that was paused, counts from then.
//!
//! A second way to hold a lease (a counter on a shared pool) has its place in [`LeaseTiming`]'s users: a grant is a number and a moment, whoever
//! gives it.
//!
//! All times are nanoseconds of `CLOCK_BOOTTIME`, which counts while a machine sleeps, each of one machine.

use serde::{Deserialize, Serialize};
use std::fmt;

const NANOS_PER_MS: u64 = 1_000_000;

/// A moment of one machine since its boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct BootInstant(pub u64);

impl BootInstant {
    #[must_use]
    pub fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms.saturating_mul(NANOS_PER_MS)))
    }

    /// Zero, if `earlier` is later.
    #[must_use]
    pub fn ms_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0) / NANOS_PER_MS
    }
}

/// Tells one lease of a host from the next. 0 is no lease's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct LeaseNumber(pub u64);

impl LeaseNumber {
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for LeaseNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How long leases are valid. Managers decide it, and hosts are told with each answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LeaseTiming {
    pub heartbeat_ms: u64,
    /// How long a lease is valid after the heartbeat that was answered was sent.
    pub duration_ms: u64,
    /// How much longer a manager waits: for the guard's act, and for clocks of different speeds.
    pub margin_ms: u64,
}

impl Default for LeaseTiming {
    fn default() -> Self {
        Self { heartbeat_ms: 1000, duration_ms: 5000, margin_ms: 1000 }
    }
}

impl LeaseTiming {
    /// After so long without an answer a host is lost.
    #[must_use]
    pub fn verdict_ms(&self) -> u64 {
        self.duration_ms.saturating_add(self.margin_ms)
    }

    /// What is wrong with it: the key, and why.
    #[must_use]
    pub fn objections(&self) -> Vec<(&'static str, &'static str)> {
        let checks = [
            ((100..=60_000).contains(&self.heartbeat_ms), "heartbeat_ms", "must be 100 to 60000"),
            (
                self.duration_ms >= self.heartbeat_ms.saturating_mul(3),
                "duration_ms",
                "must be at least three times heartbeat_ms: one lost heartbeat must end nothing",
            ),
            (self.duration_ms <= 600_000, "duration_ms", "must be at most 600000"),
            (
                self.margin_ms >= 200 && self.margin_ms >= self.duration_ms / 100,
                "margin_ms",
                "must be at least 200, and a hundredth of duration_ms: clocks differ in speed",
            ),
            (self.margin_ms <= 600_000, "margin_ms", "must be at most 600000"),
        ];
        checks.into_iter().filter(|(good, ..)| !good).map(|(_, key, why)| (key, why)).collect()
    }
}

/// What a host says of its lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Standing {
    /// It had none since its boot, or since its guard was started.
    None,
    Held(LeaseNumber),
    Lapsed(LeaseNumber),
}

/// The lease as its host's guard knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HostLease {
    None,
    Held { number: LeaseNumber, valid_until: BootInstant },
    Lapsed { number: LeaseNumber },
}

/// What a manager granted, as the host computes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Grant {
    pub number: LeaseNumber,
    /// When the heartbeat that was answered was sent, and the lease's duration.
    pub valid_until: BootInstant,
}

string_enum! {
    /// Why a grant changes nothing.
    pub enum GrantRefusal {
        /// It was over when it came.
        Late = "late",
        /// It is of a lease that lapsed, or of another one than is held.
        OtherNumber = "other_number",
        /// Something of the lease before still runs.
        NotClear = "not_clear",
    }
}

impl HostLease {
    #[must_use]
    pub fn standing(&self) -> Standing {
        match self {
            Self::None => Standing::None,
            Self::Held { number, .. } => Standing::Held(*number),
            Self::Lapsed { number } => Standing::Lapsed(*number),
        }
    }

    #[must_use]
    pub fn valid_until(&self) -> Option<BootInstant> {
        match self {
            Self::Held { valid_until, .. } => Some(*valid_until),
            Self::None | Self::Lapsed { .. } => None,
        }
    }

    /// Whether what was started under this number may run.
    #[must_use]
    pub fn permits(&self, number: LeaseNumber, now: BootInstant) -> bool {
        matches!(self, Self::Held { number: held, valid_until } if *held == number && now < *valid_until)
    }

    /// Notices that time went by. Answers whether the lease lapsed just now.
    pub fn elapse(&mut self, now: BootInstant) -> bool {
        match *self {
            Self::Held { number, valid_until } if now >= valid_until => {
                *self = Self::Lapsed { number };
                true
            }
            Self::Held { .. } | Self::None | Self::Lapsed { .. } => false,
        }
    }

    /// Takes over a grant. `clear`: nothing fenced exists on this host; without that no other number is taken.
    pub fn grant(&mut self, grant: Grant, now: BootInstant, clear: bool) -> Result<(), GrantRefusal> {
        self.elapse(now);
        if grant.valid_until <= now {
            return Err(GrantRefusal::Late);
        }
        let valid_until = match *self {
            Self::Held { number, valid_until } if number == grant.number => valid_until.max(grant.valid_until),
            Self::Held { .. } => return Err(GrantRefusal::OtherNumber),
            Self::Lapsed { number } if grant.number <= number => return Err(GrantRefusal::OtherNumber),
            Self::None | Self::Lapsed { .. } if !clear => return Err(GrantRefusal::NotClear),
            Self::None | Self::Lapsed { .. } => grant.valid_until,
        };
        *self = Self::Held { number: grant.number, valid_until };
        Ok(())
    }
}

/// What a manager does about one heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Answer {
    /// The lease is valid.
    Valid(LeaseNumber),
    /// This number is to be made durable; the next heartbeat is answered then.
    Admit(LeaseNumber),
    Refused(AnswerRefusal),
}

string_enum! {
    /// Why a heartbeat renews nothing.
    pub enum AnswerRefusal {
        /// The host is lost, by a verdict that stands.
        Judged = "judged",
        /// It speaks of a lease that isn't its last.
        OtherNumber = "other_number",
        /// Something of its last lease still runs.
        NotClear = "not_clear",
    }
}

/// One host's lease as a manager knows it, in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LeaseRecord {
    /// The last number that was made durable for it. `None`: it has never had a lease.
    number: Option<LeaseNumber>,
    /// Whether the number was granted and the host hasn't said yet that it has it.
    offered: bool,
    /// When a heartbeat was last answered for it, at the earliest when this manager began.
    answered_at: BootInstant,
    judged: bool,
}

impl LeaseRecord {
    /// What is durable of it, as of a manager that begins now. `judged`: a verdict stands.
    #[must_use]
    pub fn of_row(number: Option<LeaseNumber>, judged: bool, now: BootInstant) -> Self {
        Self { number, offered: false, answered_at: now, judged }
    }

    #[must_use]
    pub fn number(&self) -> Option<LeaseNumber> {
        self.number
    }

    #[must_use]
    pub fn judged(&self) -> bool {
        self.judged
    }

    #[must_use]
    pub fn answered_at(&self) -> BootInstant {
        self.answered_at
    }

    /// Decides about a heartbeat, which was received before `now`. `clear`: nothing fenced exists on the host.
    pub fn answer(&mut self, standing: Standing, clear: bool, now: BootInstant) -> Answer {
        if self.judged {
            return Answer::Refused(AnswerRefusal::Judged);
        }
        let last = self.number.unwrap_or_default();
        match standing {
            Standing::Held(number) if number == last && last != LeaseNumber::default() => {
                self.offered = false;
                self.valid(last, now)
            }
            // Its record is older than the host: the database was restored from a backup.
            Standing::Held(number) if number > last => Answer::Admit(number),
            Standing::Held(_) => Answer::Refused(AnswerRefusal::OtherNumber),
            Standing::None | Standing::Lapsed(_) if !clear => Answer::Refused(AnswerRefusal::NotClear),
            Standing::Lapsed(number) if self.offered && number < last => self.valid(last, now),
            Standing::None if self.offered => self.valid(last, now),
            Standing::Lapsed(number) => Answer::Admit(last.max(number).next()),
            Standing::None => Answer::Admit(last.next()),
        }
    }

    fn valid(&mut self, number: LeaseNumber, now: BootInstant) -> Answer {
        self.answered_at = self.answered_at.max(now);
        Answer::Valid(number)
    }

    /// The number is durable: from now on it may be granted, and the host be judged by it.
    pub fn admitted(&mut self, number: LeaseNumber, now: BootInstant) {
        if self.number < Some(number) {
            *self = Self { number: Some(number), offered: true, answered_at: now, ..*self };
        }
    }

    /// Whether every lease that this host was ever granted has lapsed, however late its last answer arrived. `since`: this manager counts
    /// no silence before (it has just begun to lead, or was paused).
    #[must_use]
    pub fn has_lapsed(&self, timing: &LeaseTiming, since: BootInstant, now: BootInstant) -> bool {
        self.number.is_some() && now > self.answered_at.max(since).plus_ms(timing.verdict_ms())
    }

    /// Stops answering for good, if the host is lost. Answers the number to judge, once.
    pub fn judge(&mut self, timing: &LeaseTiming, since: BootInstant, now: BootInstant) -> Option<LeaseNumber> {
        if self.judged || !self.has_lapsed(timing, since, now) {
            return None;
        }
        self.judged = true;
        self.number
    }

    /// The verdict is over: the host has reported that it holds nothing that was taken from it. It gets another number.
    pub fn readmit(&mut self, now: BootInstant) {
        *self = Self { judged: false, offered: false, answered_at: self.answered_at.max(now), ..*self };
    }
}

/// Whether a manager itself was away: it looks at its clock every `every_ms`, and found that much more time gone. It counts no silence from
/// before, because what it didn't do then looks like what the hosts didn't do.
#[must_use]
pub fn was_paused(looked_at: BootInstant, every_ms: u64, now: BootInstant) -> bool {
    now.ms_since(looked_at) > every_ms.saturating_mul(3).max(500)
}

#[cfg(test)]
#[path = "lease_tests.rs"]
mod tests;
