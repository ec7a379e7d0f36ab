//! Probes: how an agent finds out whether an instance still does its work, and when the results count.
//!
//! A single lost packet is no failure, and a single answer of a service that restarts again and again is no recovery. So a verdict changes only after
//! a number of equal results in a row ([`ProbeHistory`]). Only changes of the verdict are reported.

use super::Bounded;
use crate::Violations;
use core::ops::RangeInclusive;
use serde::{Deserialize, Serialize};

pub const PATH_BYTES: usize = 256;
/// More often than the lowest, probes would load the guests; less often than the highest, nobody would wait for their results.
pub const INTERVAL_MS: RangeInclusive<u32> = 50..=60_000;
/// How many equal results in a row it takes to change a verdict.
pub const STREAK: RangeInclusive<u32> = 1..=10;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ProbeKind {
    /// A connection is accepted.
    Tcp { port: u16 },
    /// `GET path` is answered with a status from 200 to 399.
    Http { port: u16, path: String },
    /// An ICMP echo is answered.
    Ping,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    pub kind: ProbeKind,
    pub interval_ms: u32,
    /// An answer that takes longer is a failure. At most the interval, so that probes of one instance don't overlap.
    pub timeout_ms: u32,
    /// So many successes in a row make it up.
    pub rise: u32,
    /// So many failures in a row make it down.
    pub fall: u32,
}

impl Probe {
    /// Twice as often as a person notices, and slow enough that a guest under load isn't taken for dead.
    #[must_use]
    pub fn new(kind: ProbeKind) -> Self {
        Self { kind, interval_ms: 200, timeout_ms: 200, rise: 2, fall: 3 }
    }

    /// The longest time from a failure to the verdict: the instance fails just after an answer, and the last probe that counts waits for all of its timeout.
    #[must_use]
    pub fn detection_ms(&self) -> u64 {
        u64::from(self.interval_ms) * u64::from(self.fall) + u64::from(self.timeout_ms)
    }
}

impl Bounded for Probe {
    fn check(&self, violations: &mut Violations) {
        match &self.kind {
            ProbeKind::Ping => {}
            ProbeKind::Tcp { port } => violations.within("probe/port", *port, &(1..=u16::MAX)),
            ProbeKind::Http { port, path } => {
                violations.within("probe/port", *port, &(1..=u16::MAX));
                violations.at_most_bytes("probe/path", path, PATH_BYTES);
                let plain = path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
                violations.unless(plain, "probe/path", || {
                    "a path begins with `/` and has visible ASCII characters without `#`".to_owned()
                });
            }
        }
        violations.within("probe/interval_ms", self.interval_ms, &INTERVAL_MS);
        let shortest = *INTERVAL_MS.start();
        let timeout = shortest..=self.interval_ms.max(shortest);
        violations.within("probe/timeout_ms", self.timeout_ms, &timeout);
        violations.within("probe/rise", self.rise, &STREAK);
        violations.within("probe/fall", self.fall, &STREAK);
    }
}

string_enum! {
    /// What the results of a probe come to.
    pub enum Verdict {
        /// There were too few results yet.
        Unknown = "unknown",
        Up = "up",
        Down = "down",
    }
}

/// The latest results of one probe of one instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProbeHistory {
    verdict: Verdict,
    /// How many of the latest results are equal.
    streak: u32,
    succeeded: bool,
}

impl Default for ProbeHistory {
    fn default() -> Self {
        Self { verdict: Verdict::Unknown, streak: 0, succeeded: false }
    }
}

impl ProbeHistory {
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// Counts a result. The verdict, if it is another one now.
    pub fn record(&mut self, succeeded: bool, probe: &Probe) -> Option<Verdict> {
        self.streak = if self.streak > 0 && self.succeeded == succeeded { self.streak.saturating_add(1) } else { 1 };
        self.succeeded = succeeded;
        let (needed, verdict) = if succeeded { (probe.rise, Verdict::Up) } else { (probe.fall, Verdict::Down) };
        if self.verdict == verdict || self.streak < needed {
            return None;
        }
        self.verdict = verdict;
        Some(verdict)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validate;
    use proptest::prelude::*;

    fn refused(probe: &Probe) -> Vec<String> {
        let problem = validate::check(|violations| probe.check(violations)).err();
        problem.map(|problem| problem.errors.into_iter().map(|error| error.field).collect()).unwrap_or_default()
    }

    #[test]
    fn what_is_out_of_bounds_is_named() {
        let http = |path: &str| Probe::new(ProbeKind::Http { port: 80, path: path.to_owned() });
        assert!(refused(&Probe::new(ProbeKind::Ping)).is_empty());
        assert!(refused(&http("/health?deep=1")).is_empty());
        for path in ["", "health", "/a b", "/a\r\nHost: x", "/ä", "/a#b", &format!("/{}", "x".repeat(256))] {
            assert_eq!(refused(&http(path)), ["probe/path"], "{path}");
        }
        assert_eq!(refused(&Probe::new(ProbeKind::Tcp { port: 0 })), ["probe/port"]);
        let ping = || Probe::new(ProbeKind::Ping);
        assert_eq!(refused(&Probe { timeout_ms: 201, ..ping() }), ["probe/timeout_ms"]);
        assert_eq!(refused(&Probe { interval_ms: 49, timeout_ms: 50, ..ping() }), ["probe/interval_ms"]);
        assert_eq!(refused(&Probe { rise: 0, fall: 11, ..ping() }), ["probe/rise", "probe/fall"]);
    }

    #[test]
    fn a_failure_is_known_within_eight_tenths_of_a_second_by_default() {
        assert_eq!(Probe::new(ProbeKind::Ping).detection_ms(), 800);
    }

    proptest! {
        /// Against the definition: the verdict is that of the latest run of equal results which is long enough.
        #[test]
        fn a_verdict_changes_after_enough_equal_results_and_never_before(
            results in prop::collection::vec(any::<bool>(), 0..60), rise in 1u32..5, fall in 1u32..5,
        ) {
            let probe = Probe { rise, fall, ..Probe::new(ProbeKind::Ping) };
            let mut history = ProbeHistory::default();
            for at in 0..results.len() {
                let before = history.verdict();
                let changed = history.record(results[at], &probe);
                let (mut expected, mut end) = (Verdict::Unknown, at + 1);
                while end > 0 {
                    let run = results[..end].iter().rev().take_while(|result| **result == results[end - 1]).count();
                    let (needed, verdict) = if results[end - 1] { (rise, Verdict::Up) } else { (fall, Verdict::Down) };
                    if run >= needed as usize {
                        expected = verdict;
                        break;
                    }
                    end -= run;
                }
                prop_assert_eq!(history.verdict(), expected);
                prop_assert_eq!(changed, (before != expected).then_some(expected));
            }
        }
    }
}
