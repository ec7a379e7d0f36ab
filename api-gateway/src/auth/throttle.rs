//! Wrong passwords are counted per user and address; past a few, attempts wait. A right one forgets the count. Counting per user alone
//! would let anybody lock anybody out, per address alone would lock out an office.

use domain::{ErrorKind, Problem};
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

const ENTRIES_MAX: usize = 10_000;

pub struct Throttle {
    attempts: u32,
    lockout: Duration,
    code: &'static str,
    /// The refusal: "too many wrong passwords for this user from this address".
    what: &'static str,
    hint: &'static str,
    failures: Mutex<HashMap<(String, IpAddr), Failures>>,
}

struct Failures {
    count: u32,
    last: Instant,
}

impl Throttle {
    /// Counts wrong passwords.
    #[must_use]
    pub fn new(attempts: u32, lockout: Duration) -> Self {
        Self {
            attempts,
            lockout,
            code: "login_throttled",
            what: "too many wrong passwords for this user from this address",
            hint: "try again after that time; an administrator can set a new password",
            failures: Mutex::new(HashMap::new()),
        }
    }

    /// Counts hosts that fail to join.
    #[must_use]
    pub fn joins(attempts: u32, lockout: Duration) -> Self {
        Self {
            code: "join_throttled",
            what: "too many hosts failed to join from this address",
            hint: "try again after that time, with a valid token",
            ..Self::new(attempts, lockout)
        }
    }

    /// Counts an attempt before it is made, so that attempts at once can't all pass; [`Self::succeeded`] takes it back.
    pub fn attempt(&self, user: &str, peer: IpAddr) -> Result<(), Problem> {
        let now = Instant::now();
        let mut failures = self.failures.lock();
        if failures.len() >= ENTRIES_MAX {
            failures.retain(|_, f| now.duration_since(f.last) < self.lockout);
            if failures.len() >= ENTRIES_MAX {
                // Somebody tries names by the thousand: forgetting the oldest would help them, refusing all doesn't.
                return Err(self.refusal(self.lockout));
            }
        }
        let name: String = user.chars().take(64).flat_map(char::to_lowercase).collect();
        let entry = failures.entry((name, peer)).or_insert(Failures { count: 0, last: now });
        let since = now.duration_since(entry.last);
        if since >= self.lockout {
            entry.count = 0;
        } else if entry.count >= self.attempts {
            return Err(self.refusal(self.lockout - since));
        }
        entry.count += 1;
        entry.last = now;
        Ok(())
    }

    pub fn succeeded(&self, user: &str, peer: IpAddr) {
        let name: String = user.chars().take(64).flat_map(char::to_lowercase).collect();
        self.failures.lock().remove(&(name, peer));
    }

    fn refusal(&self, wait: Duration) -> Problem {
        let secs = wait.as_secs().max(1);
        let mut problem =
            Problem::new(ErrorKind::RateLimited, self.code, format!("{}; wait {secs} seconds", self.what))
                .with_hint(self.hint);
        problem.retry_after_secs = Some(secs);
        problem
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn a_few_wrong_ones_then_a_wait_for_that_user_and_address_only() {
        let throttle = Throttle::new(3, Duration::from_secs(60));
        let (here, there) = (IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from([10, 0, 0, 1]));
        for _ in 0..3 {
            throttle.attempt("Ann", here).expect("allowed");
        }
        let problem = throttle.attempt("ann", here).expect_err("throttled");
        assert_eq!((problem.kind, problem.code.as_str()), (ErrorKind::RateLimited, "login_throttled"));
        assert!(problem.retry_after_secs.is_some_and(|s| (1..=60).contains(&s)));
        throttle.attempt("ann", there).expect("another address");
        throttle.attempt("bob", here).expect("another user");
    }

    #[test]
    fn a_right_one_forgets() {
        let throttle = Throttle::new(2, Duration::from_secs(60));
        let here = IpAddr::from(Ipv4Addr::LOCALHOST);
        for _ in 0..10 {
            throttle.attempt("ann", here).expect("allowed");
            throttle.succeeded("ann", here);
        }
    }
}
