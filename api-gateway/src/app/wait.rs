//! `?wait=…&timeout=…`: what all waits share. How one waits for an instance: `instance_wait`.

use crate::{app::App, auth::caller::Caller};
use domain::{ErrorKind, Problem, UserId, limits};
use service_kit::share::{Exhausted, Place};
use std::time::Duration;

/// How long a wait lasts when the request doesn't say.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
/// `60s`, `1500ms`, `2m` or plain seconds.
pub fn parse_timeout(text: Option<&str>) -> Result<Duration, Problem> {
    let Some(text) = text else { return Ok(DEFAULT_TIMEOUT) };
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let millis = match (number.parse::<u64>(), unit) {
        (Ok(n), "ms") => Some(n),
        (Ok(n), "s" | "") => n.checked_mul(1000),
        (Ok(n), "m") => n.checked_mul(60_000),
        _ => None,
    };
    let max = limits::WAIT_SECS_MAX;
    millis.filter(|ms| *ms <= max * 1000).map(Duration::from_millis).ok_or_else(|| {
        Problem::invalid("timeout", format!("a time like 30s, 1500ms or 2m is expected, at most {max} seconds"))
    })
}

/// A place for one more request that waits. It is taken before anything is changed, so that a refusal changes nothing.
pub fn place(app: &App, caller: &Caller) -> Result<Place<UserId>, Problem> {
    app.waits().take(caller.identity.user_id).map_err(|exhausted| {
        let detail = match exhausted {
            Exhausted::Share => "as many of your requests wait as one user's may now",
            Exhausted::Total => "too many requests wait",
        };
        let mut problem = Problem::new(ErrorKind::RateLimited, "too_many_waits", detail)
            .with_hint("leave `wait` out and follow GET /v1/events, or ask an administrator to raise api.max_waits");
        problem.retry_after_secs = Some(5);
        problem
    })
}

/// The refusal when a wait ended before the object was as expected. `what` names the object and what is missing: "instance web is not running".
#[must_use]
pub fn timed_out(what: &str, state: &str, step: &str) -> Problem {
    let doing = if step.is_empty() { String::new() } else { format!(", step: {step}") };
    Problem::new(ErrorKind::DeadlineExceeded, "wait_timeout", format!("{what} yet (state: {state}{doing})"))
        .with_hint("the change goes on: read the object, or wait again with GET and ?wait=")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_people_write() {
        for (text, ms) in [("60s", 60_000), ("1500ms", 1500), ("2m", 120_000), ("5", 5000), ("0s", 0)] {
            assert_eq!(parse_timeout(Some(text)), Ok(Duration::from_millis(ms)), "{text}");
        }
        assert_eq!(parse_timeout(None), Ok(DEFAULT_TIMEOUT));
        for bad in ["", "s", "-1s", "1h", "1.5s", "601s", "99999999999999999999"] {
            assert!(parse_timeout(Some(bad)).is_err(), "{bad}");
        }
    }
}
