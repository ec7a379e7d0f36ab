//! What can go wrong with one command, as data.

use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use std::time::Duration;

/// When the agent's process dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CrashPoint {
    /// The command was read, and is forgotten.
    BeforeLedger,
    /// The command is in the ledger, nothing is done.
    AfterLedger,
    /// It is done, and no report was sent.
    AfterDoing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The agent reports that it can't do it now, and tries again by itself.
    Refuse,
    /// The agent does it later.
    Delay(Duration),
    Crash(CrashPoint),
    /// The agent did it, but its reply was lost; a repeat brings it.
    LoseReply,
    /// The agent did it, then the connection broke.
    Disconnect,
    /// The agent sends its report, then an older one.
    StaleReport,
    DuplicateReport,
    /// The report comes after the next one.
    ReorderReports,
}

impl Fault {
    /// One of each, with small delays.
    pub const ALL: [Self; 10] = [
        Self::Refuse,
        Self::Delay(Duration::from_millis(30)),
        Self::Crash(CrashPoint::BeforeLedger),
        Self::Crash(CrashPoint::AfterLedger),
        Self::Crash(CrashPoint::AfterDoing),
        Self::LoseReply,
        Self::Disconnect,
        Self::StaleReport,
        Self::DuplicateReport,
        Self::ReorderReports,
    ];
}

/// Which commands meet which fault. The same seed gives the same faults in the same order of commands.
#[derive(Debug, Clone)]
pub struct FaultPlan {
    seed: u64,
    /// How many of a thousand commands meet a fault.
    permille: u32,
    faults: Vec<Fault>,
    random: StdRng,
}

impl FaultPlan {
    #[must_use]
    pub fn none() -> Self {
        Self::seeded(0, 0, &[])
    }

    #[must_use]
    pub fn seeded(seed: u64, permille: u32, faults: &[Fault]) -> Self {
        Self { seed, permille, faults: faults.to_vec(), random: StdRng::seed_from_u64(seed) }
    }

    /// Every command meets this one.
    #[must_use]
    pub fn always(fault: Fault) -> Self {
        Self::seeded(0, 1000, &[fault])
    }

    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    pub fn draw(&mut self) -> Option<Fault> {
        if self.faults.is_empty() || self.random.random_range(0..1000) >= self.permille {
            return None;
        }
        self.faults.choose(&mut self.random).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_faults() {
        let draws = |seed| {
            let mut plan = FaultPlan::seeded(seed, 300, &Fault::ALL);
            (0..200).map(|_| plan.draw()).collect::<Vec<_>>()
        };
        assert_eq!(draws(7), draws(7));
        assert_ne!(draws(7), draws(8));
        let faults = draws(7).iter().flatten().count();
        assert!((30..=90).contains(&faults), "{faults} of 200 at 30 %");
        assert!((0..50).all(|_| FaultPlan::none().draw().is_none()));
    }
}
