//! Requests a second, per user with all their API keys, and per project. System admins have no limit: they are who repairs things.

use domain::{ErrorKind, Problem, ProjectId, UserId};
use governor::{
    DefaultKeyedRateLimiter, Quota, RateLimiter,
    clock::{Clock, DefaultClock},
    middleware::StateInformationMiddleware,
};
use std::{hash::Hash, num::NonZeroU32};

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
            let mut problem = Problem::new(
                ErrorKind::RateLimited,
                "rate_limited",
                format!("more than {per_second} requests a second {whose}"),
            )
            .with_hint("send fewer requests; an administrator can raise api.rate_limit_per_principal and _per_project");
            problem.retry_after_secs = Some(wait.as_secs().max(1));
            Err(problem)
        }
    }
}

impl RateLimits {
    /// 0: no limit.
    #[must_use]
    pub fn new(per_principal: u32, per_project: u32) -> Self {
        Self { principals: limiter(per_principal), projects: limiter(per_project) }
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
        let limits = RateLimits::new(3, 0);
        let ann = UserId::new();
        for left in [2, 1, 0] {
            assert_eq!(limits.principal(ann).expect("allowed").expect("limited").remaining, left);
        }
        let problem = limits.principal(ann).expect_err("over");
        assert_eq!((problem.code.as_str(), problem.retry_after_secs), ("rate_limited", Some(1)));
        assert!(limits.principal(UserId::new()).is_ok());
        assert!(limits.project(ProjectId::new()).expect("off").is_none());
    }
}
