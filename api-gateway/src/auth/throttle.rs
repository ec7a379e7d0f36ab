//! Attempts to log in are counted, and past a few they wait. Three rules, so that neither a guesser nor a flood shuts anybody else out:
//!
//! - Wrong passwords count for a user from one network ([`PeerNetwork`]). Counting per user alone would let anybody lock anybody out.
//! - They count for the network too, whatever names are tried: a bucket that refills with time.
//! - Who logged in from a network lately isn't stopped by what others there do: their own count alone matters.
//!
//! What is remembered is bounded, and the oldest goes first. Many made-up names from one network forget nothing that counts, because the
//! network's own bucket stops them long before.

use crate::auth::{peer::PeerNetwork, recent::Recent};
use domain::{ErrorKind, Problem};
use parking_lot::Mutex;
use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

/// Users of networks, and networks, that are remembered.
const ENTRIES_MAX: usize = 20_000;
/// How long a login speaks for its user and network.
const PROVEN_FOR: Duration = Duration::from_secs(30 * 24 * 3600);

/// How many failures are taken.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// So many of one user from one network are taken before the next ones wait.
    pub per_user: u32,
    /// So many of one network are taken within `lockout`.
    pub per_network: u32,
    pub lockout: Duration,
}

pub struct Throttle {
    limits: Limits,
    code: &'static str,
    /// The refusals: "too many wrong passwords for this user from this address".
    what_user: &'static str,
    what_network: &'static str,
    hint: &'static str,
    counts: Mutex<Counts>,
}

struct Counts {
    users: Recent<(String, PeerNetwork), Failures>,
    networks: Recent<PeerNetwork, Bucket>,
    proven: Recent<(String, PeerNetwork), Instant>,
}

struct Failures {
    count: u32,
    last: Instant,
}

/// Failures of a network, which are forgotten at a steady rate.
struct Bucket {
    level: f64,
    at: Instant,
}

impl Bucket {
    /// The level at `now`.
    fn settle(&mut self, now: Instant, limits: Limits) -> f64 {
        let per_second = f64::from(limits.per_network) / limits.lockout.as_secs_f64();
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.level = passed.mul_add(-per_second, self.level).max(0.0);
        self.at = now;
        self.level
    }
}

/// The user's name as it is counted.
fn counted(user: &str) -> String {
    user.chars().take(64).flat_map(char::to_lowercase).collect()
}

impl Throttle {
    /// Counts wrong passwords.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            code: "login_throttled",
            what_user: "too many wrong passwords for this user from this address",
            what_network: "too many failed logins from this address",
            hint: "try again after that time; an administrator can set a new password",
            counts: Mutex::new(Counts {
                users: Recent::new(ENTRIES_MAX),
                networks: Recent::new(ENTRIES_MAX),
                proven: Recent::new(ENTRIES_MAX),
            }),
        }
    }

    /// Counts hosts that fail to join: they have no names, so the address alone counts.
    #[must_use]
    pub fn joins(attempts: u32, lockout: Duration) -> Self {
        let what = "too many hosts failed to join from this address";
        Self {
            code: "join_throttled",
            what_user: what,
            what_network: what,
            hint: "try again after that time, with a valid token",
            ..Self::new(Limits { per_user: attempts, per_network: attempts, lockout })
        }
    }

    /// Counts an attempt before it is made, so that attempts at once can't all pass; [`Self::succeeded`] takes it back.
    pub fn attempt(&self, user: &str, peer: IpAddr) -> Result<(), Problem> {
        self.attempt_at(user, peer, Instant::now())
    }

    fn attempt_at(&self, user: &str, peer: IpAddr, now: Instant) -> Result<(), Problem> {
        let Limits { per_user, per_network, lockout } = self.limits;
        let network = PeerNetwork::from(peer);
        let key = (counted(user), network);
        let mut counts = self.counts.lock();
        let proven = counts.proven.get(&key).is_some_and(|at| now.saturating_duration_since(*at) < PROVEN_FOR);
        let bucket = counts.networks.get_or_put(network, || Bucket { level: 0.0, at: now });
        let over = bucket.settle(now, self.limits) + 1.0 - f64::from(per_network);
        if over > 0.0 && !proven {
            let wait = lockout.mul_f64(over / f64::from(per_network));
            return Err(self.refusal(self.what_network, wait));
        }
        let entry = counts.users.get_or_put(key, || Failures { count: 0, last: now });
        let since = now.saturating_duration_since(entry.last);
        if since >= lockout {
            entry.count = 0;
        } else if entry.count >= per_user {
            return Err(self.refusal(self.what_user, lockout - since));
        }
        entry.count += 1;
        entry.last = now;
        // Proven users may fill it beyond its brim, so that a right password takes back no more than was counted; by how much is bounded.
        let bucket = counts.networks.get_or_put(network, || Bucket { level: 0.0, at: now });
        bucket.level = (bucket.level + 1.0).min(2.0 * f64::from(per_network));
        Ok(())
    }

    pub fn succeeded(&self, user: &str, peer: IpAddr) {
        let network = PeerNetwork::from(peer);
        let key = (counted(user), network);
        let mut counts = self.counts.lock();
        counts.users.remove(&key);
        if let Some(bucket) = counts.networks.get(&network) {
            bucket.level = (bucket.level - 1.0).max(0.0);
        }
        counts.proven.put(key, Instant::now());
    }

    fn refusal(&self, what: &str, wait: Duration) -> Problem {
        let secs = (wait.as_secs_f64().ceil() as u64).max(1);
        let mut problem = Problem::new(ErrorKind::RateLimited, self.code, format!("{what}; wait {secs} seconds"))
            .with_hint(self.hint);
        problem.retry_after_secs = Some(secs);
        problem
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const LOCKOUT: Duration = Duration::from_secs(60);

    fn throttle(per_user: u32, per_network: u32) -> Throttle {
        Throttle::new(Limits { per_user, per_network, lockout: LOCKOUT })
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_few_wrong_ones_then_a_wait_for_that_user_and_address_only() {
        let throttle = throttle(3, 100);
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
        let throttle = throttle(2, 3);
        let here = IpAddr::from(Ipv4Addr::LOCALHOST);
        for _ in 0..10 {
            throttle.attempt("ann", here).expect("allowed");
            throttle.succeeded("ann", here);
        }
    }

    #[test]
    fn made_up_names_stop_only_their_own_network_and_nobody_who_is_known_there() {
        let throttle = throttle(5, 30);
        let (office, flood) = (ip("192.0.2.1"), ip("192.0.2.2"));
        throttle.attempt("ann", flood).expect("allowed");
        throttle.succeeded("ann", flood);
        let refused = (0..50_000).filter(|i| throttle.attempt(&format!("n{i}"), flood).is_err()).count();
        assert!(refused > 49_000, "{refused} of the flood were refused");
        throttle.attempt("bob", office).expect("another network feels nothing");
        throttle.attempt("ann", flood).expect("who logged in from there lately isn't stopped by the others");
        throttle.attempt("bob", flood).expect_err("the network has to wait");
        let counts = throttle.counts.lock();
        assert!(counts.users.len() <= ENTRIES_MAX && counts.networks.len() <= ENTRIES_MAX, "nothing grows");
    }

    #[test]
    fn addresses_of_one_ipv6_network_count_together() {
        let throttle = throttle(5, 30);
        let refused =
            (0..1000u32).filter(|i| throttle.attempt("ann", ip(&format!("2001:db8::{i:x}"))).is_err()).count();
        assert_eq!(refused, 995);
        throttle.attempt("ann", ip("2001:db8:0:1::1")).expect("the next network");
    }

    #[test]
    fn floods_from_many_networks_stop_nobody_else() {
        let throttle = throttle(5, 30);
        for i in 0..50_000u32 {
            let _ = throttle.attempt("ann", ip(&format!("2001:db8:{:x}:{:x}::1", i >> 16, i & 0xffff)));
        }
        throttle.attempt("ann", ip("192.0.2.1")).expect("allowed");
    }

    #[test]
    fn a_network_that_waits_may_try_again() {
        let throttle = throttle(100, 10);
        let (here, now) = (ip("192.0.2.1"), Instant::now());
        for _ in 0..10 {
            throttle.attempt_at("ann", here, now).expect("allowed");
        }
        let problem = throttle.attempt_at("ann", here, now).expect_err("full");
        let wait = Duration::from_secs(problem.retry_after_secs.expect("when to return"));
        throttle.attempt_at("ann", here, now + wait).expect("after the wait that was named");
    }
}
