//! Names of users are for those who know them: an admin of a project names whom to take in, and learns whether there is such a user. That can't be
//! avoided where people are taken in by name, but it must not become a search. So names that aren't anybody's are counted, and past a few all names
//! are refused for a while, those of users too: otherwise a refusal would tell what it hides.

use crate::auth::recent::Recent;
use domain::{ErrorKind, Problem, UserId};
use parking_lot::Mutex;
use std::time::{Duration, Instant};

/// So many unknown names within `WINDOW` are mistakes; more are a search.
const UNKNOWN_MAX: u32 = 20;
const WINDOW: Duration = Duration::from_secs(600);
/// Searchers that are remembered.
const ENTRIES_MAX: usize = 10_000;

pub struct NameSearches {
    by: Mutex<Recent<UserId, Unknown>>,
}

struct Unknown {
    count: u32,
    since: Instant,
}

impl Default for NameSearches {
    fn default() -> Self {
        Self { by: Mutex::new(Recent::new(ENTRIES_MAX)) }
    }
}

impl NameSearches {
    /// Counts the name as an unknown one before it is looked up, so that many at once can't all pass; [`Self::known`] takes it back.
    pub fn attempt(&self, searcher: UserId) -> Result<(), Problem> {
        self.attempt_at(searcher, Instant::now())
    }

    fn attempt_at(&self, searcher: UserId, now: Instant) -> Result<(), Problem> {
        let mut by = self.by.lock();
        let unknown = by.get_or_put(searcher, || Unknown { count: 0, since: now });
        let passed = now.saturating_duration_since(unknown.since);
        if passed >= WINDOW {
            *unknown = Unknown { count: 0, since: now };
        } else if unknown.count >= UNKNOWN_MAX {
            let secs = (WINDOW - passed).as_secs().max(1);
            let detail = format!("you named too many users that don't exist; wait {secs} seconds");
            let mut problem = Problem::new(ErrorKind::RateLimited, "user_names_throttled", detail)
                .with_hint("ask the users for their exact names; a system administrator sees them all");
            problem.retry_after_secs = Some(secs);
            return Err(problem);
        }
        unknown.count += 1;
        Ok(())
    }

    /// The name that was counted last is somebody's.
    pub fn known(&self, searcher: UserId) {
        if let Some(unknown) = self.by.lock().get(&searcher) {
            unknown.count = unknown.count.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_is_refused_and_mistakes_are_not() {
        let (searches, now, ann) = (NameSearches::default(), Instant::now(), UserId::new());
        for _ in 0..100 {
            searches.attempt_at(ann, now).expect("names of users");
            searches.known(ann);
        }
        for _ in 0..UNKNOWN_MAX {
            searches.attempt_at(ann, now).expect("mistakes");
        }
        let refused = searches.attempt_at(ann, now).expect_err("a search");
        assert_eq!((refused.code.as_str(), refused.retry_after_secs), ("user_names_throttled", Some(WINDOW.as_secs())));
        assert!(searches.attempt_at(UserId::new(), now).is_ok(), "others go on");
        assert!(searches.attempt_at(ann, now + WINDOW).is_ok(), "it ends");
    }
}
