//! Whether this host may start an instance now.
//!
//! The problem: a host that died and comes back has a ledger which says that everything in it is its own. What its owner lets run elsewhere
//! (`on_host_loss`) may do so by now. Only a manager knows, so that such an instance is started in no life of the agent before a manager has opened a session that doesn't
//! withhold starts. What runs already goes on. An instance that waits for its host runs nowhere else: it starts without a manager, who gets a moment first, since it
//! may have been deleted meanwhile.

use domain::instance::OnHostLoss;
use std::sync::atomic::{AtomicU8, Ordering};

/// How long an instance that waits for its host waits for a manager's word after the agent's start.
pub const ALONE_AFTER_MS: u64 = 3_000;

/// What a manager has said in this life of the agent.
#[derive(Debug, Default)]
pub struct StartsPermit(AtomicU8);

const UNKNOWN: u8 = 0;
const GRANTED: u8 = 1;
const WITHHELD: u8 = 2;

impl StartsPermit {
    /// A session began. Answers whether that is news.
    pub fn set(&self, granted: bool) -> bool {
        let new = if granted { GRANTED } else { WITHHELD };
        self.0.swap(new, Ordering::SeqCst) != new
    }

    /// Whether an instance of this policy may start at `now_ms` of the agent's life.
    #[must_use]
    pub fn permits(&self, policy: OnHostLoss, now_ms: u64) -> Permit {
        match (self.0.load(Ordering::SeqCst), policy) {
            (GRANTED, _) => Permit::Granted,
            (UNKNOWN, OnHostLoss::Wait) if now_ms >= ALONE_AFTER_MS => Permit::Granted,
            (UNKNOWN, OnHostLoss::Wait) => Permit::NotBefore { ms: ALONE_AFTER_MS },
            (UNKNOWN, OnHostLoss::Restart | OnHostLoss::Recreate) | (_, _) => Permit::Withheld,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Permit {
    #[default]
    Granted,
    /// Without a manager's word it may start then.
    NotBefore { ms: u64 },
    /// A manager must say so.
    Withheld,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_run_elsewhere_needs_a_managers_word_and_a_lost_host_starts_nothing() {
        let permit = StartsPermit::default();
        let late = ALONE_AFTER_MS * 1000;
        for policy in OnHostLoss::ALL {
            let alone = permit.permits(policy, late) == Permit::Granted;
            assert_eq!(alone, policy == OnHostLoss::Wait, "{policy:?}");
        }
        assert_eq!(permit.permits(OnHostLoss::Wait, 0), Permit::NotBefore { ms: ALONE_AFTER_MS });
        assert!(permit.set(false) && !permit.set(false));
        assert!(OnHostLoss::ALL.into_iter().all(|policy| permit.permits(policy, late) == Permit::Withheld));
        assert!(permit.set(true));
        assert!(OnHostLoss::ALL.into_iter().all(|policy| permit.permits(policy, 0) == Permit::Granted));
    }
}
