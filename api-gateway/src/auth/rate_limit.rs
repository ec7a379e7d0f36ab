//! Requests a second: per user with all their API keys, per project, and per peer where nobody is known yet. System admins have no limit: they are who
//! repairs things.
//!
//! A request of nobody (a route that needs no token, or a token that is wrong) costs a read of the database or a signature all the same, and whoever
//! sends it has no principal to count for. It counts for the network that it comes from ([`PeerNetwork`]), in a bucket of a bounded map.

use crate::auth::{peer::PeerNetwork, recent::Recent};
use domain::{ErrorKind, Problem, ProjectId, UserId};
use governor::{
    DefaultKeyedRateLimiter, Quota, RateLimiter,
    clock::{Clock, DefaultClock},
    middleware::StateInformationMiddleware,
};
use parking_lot::Mutex;
use std::{
    hash::Hash,
    net::IpAddr,
    num::NonZeroU32,
    time::{Duration, Instant},
};

/// Networks of strangers that are remembered.
const NETWORKS_MAX: usize = 20_000;

/// What is left to a caller after a request.
#[derive(Debug, Clone, Copy)]
pub struct RateState {
    pub limit_per_second: u32,
    pub remaining: u32,
}

type Keyed<K> =
    RateLimiter<K, governor::state::keyed::DefaultKeyedStateStore<K>, DefaultClock, StateInformationMiddleware>;

pub struct RateLimits {
    principals: Option<(u32, Keyed<UserId>)>,
    projects: Option<(u32, Keyed<ProjectId>)>,
    strangers: Option<Strangers>,
}

/// Requests of nobody: each network may send as many at once as it may send in a second.
struct Strangers {
    per_second: u32,
    networks: Mutex<Recent<PeerNetwork, Bucket>>,
}

struct Bucket {
    level: f64,
    at: Instant,
}

impl Strangers {
    fn take(&self, peer: IpAddr, now: Instant) -> Result<(), Problem> {
        let rate = f64::from(self.per_second);
        let mut networks = self.networks.lock();
        let bucket = networks.get_or_put(peer.into(), || Bucket { level: 0.0, at: now });
        let passed = now.saturating_duration_since(bucket.at).as_secs_f64();
        bucket.level = passed.mul_add(-rate, bucket.level).max(0.0);
        bucket.at = now;
        if bucket.level + 1.0 > rate {
            let detail = format!("more than {rate} requests a second without a valid token from this address");
            return Err(rate_limited(detail, "api.rate_limit_per_peer", Duration::ZERO));
        }
        bucket.level += 1.0;
        Ok(())
    }
}

fn rate_limited(detail: String, keys: &str, wait: Duration) -> Problem {
    let mut problem = Problem::new(ErrorKind::RateLimited, "rate_limited", detail)
        .with_hint(format!("send fewer requests; an administrator can raise {keys}"));
    problem.retry_after_secs = Some(wait.as_secs().max(1));
    problem
}

fn limiter<K: Hash + Eq + Clone>(per_second: u32) -> Option<(u32, Keyed<K>)> {
    let rate = NonZeroU32::new(per_second)?;
    let limiter: DefaultKeyedRateLimiter<K> = RateLimiter::keyed(Quota::per_second(rate));
    Some((per_second, limiter.with_middleware::<StateInformationMiddleware>()))
}

fn check<K: Hash + Eq + Clone>(
    limits: &Option<(u32, Keyed<K>)>,
    key: &K,
    whose: &str,
) -> Result<Option<RateState>, Problem> {
    let Some((per_second, limiter)) = limits else { return Ok(None) };
    match limiter.check_key(key) {
        Ok(state) => Ok(Some(RateState { limit_per_second: *per_second, remaining: state.remaining_burst_capacity() })),
        Err(until) => {
            let wait = until.wait_time_from(DefaultClock::default().now());
            let detail = format!("more than {per_second} requests a second {whose}");
            Err(rate_limited(detail, "api.rate_limit_per_principal and _per_project", wait))
        }
    }
}

impl RateLimits {
    /// 0: no limit.
    #[must_use]
    pub fn new(per_principal: u32, per_project: u32, per_peer: u32) -> Self {
        let strangers =
            (per_peer > 0).then(|| Strangers { per_second: per_peer, networks: Mutex::new(Recent::new(NETWORKS_MAX)) });
        Self { principals: limiter(per_principal), projects: limiter(per_project), strangers }
    }

    /// A request of nobody.
    pub fn stranger(&self, peer: IpAddr) -> Result<(), Problem> {
        self.strangers.as_ref().map_or(Ok(()), |strangers| strangers.take(peer, Instant::now()))
    }

    pub fn principal(&self, user_id: UserId) -> Result<Option<RateState>, Problem> {
        check(&self.principals, &user_id, "by this user")
    }

    pub fn project(&self, project_id: ProjectId) -> Result<Option<RateState>, Problem> {
        check(&self.projects, &project_id, "to this project")
    }

    /// Forgets who has been quiet.
    pub fn sweep(&self) {
        if let Some((_, limiter)) = &self.principals {
            limiter.retain_recent();
        }
        if let Some((_, limiter)) = &self.projects {
            limiter.retain_recent();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_more_is_refused_with_when_to_return() {
        let limits = RateLimits::new(3, 0, 0);
        let ann = UserId::new();
        for left in [2, 1, 0] {
            assert_eq!(limits.principal(ann).expect("allowed").expect("limited").remaining, left);
        }
        let problem = limits.principal(ann).expect_err("over");
        assert_eq!((problem.code.as_str(), problem.retry_after_secs), ("rate_limited", Some(1)));
        assert!(limits.principal(UserId::new()).is_ok());
        assert!(limits.project(ProjectId::new()).expect("off").is_none());
    }

    #[test]
    fn strangers_are_counted_by_their_network_and_for_a_second() {
        let limits = RateLimits::new(0, 0, 2);
        let strangers = limits.strangers.as_ref().expect("a limit");
        let (now, peer) = (Instant::now(), IpAddr::from([192, 0, 2, 1]));
        let take = |peer: IpAddr, after_ms| strangers.take(peer, now + Duration::from_millis(after_ms)).is_ok();
        assert_eq!([take(peer, 0), take(peer, 0), take(peer, 0)], [true, true, false]);
        assert!(take(IpAddr::from([192, 0, 2, 2]), 0), "another's requests count for the other");
        assert_eq!([take(peer, 500), take(peer, 500)], [true, false], "half of a second gives back one of two");
        assert!(RateLimits::new(0, 0, 0).stranger(peer).is_ok());
    }
}
