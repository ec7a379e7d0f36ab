//! How many lines anybody may make the access log grow by: a few a second, and how many more there were.

use parking_lot::Mutex;
use std::time::{Duration, Instant};

/// Lines of one second.
const LINES: u32 = 10;
const WINDOW: Duration = Duration::from_secs(1);

#[derive(Default)]
pub struct LogBudget(Mutex<Option<Spent>>);

struct Spent {
    since: Instant,
    lines: u32,
    unlogged: u64,
}

impl LogBudget {
    /// Whether one more line may be written; then it is how many weren't before it.
    pub fn take(&self) -> Option<u64> {
        self.take_at(Instant::now())
    }

    fn take_at(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock();
        let spent = state.get_or_insert(Spent { since: now, lines: 0, unlogged: 0 });
        if now.saturating_duration_since(spent.since) >= WINDOW {
            (spent.since, spent.lines) = (now, 0);
        }
        if spent.lines >= LINES {
            spent.unlogged += 1;
            return None;
        }
        spent.lines += 1;
        Some(std::mem::take(&mut spent.unlogged))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_a_few_lines_a_second_and_none_is_left_uncounted() {
        let (budget, start) = (LogBudget::default(), Instant::now());
        let (mut lines, mut counted) = (0, 0);
        for i in 0..10_000u32 {
            let at = start + Duration::from_millis(u64::from(i));
            if let Some(unlogged) = budget.take_at(at) {
                lines += 1;
                counted += 1 + unlogged;
            }
        }
        assert_eq!(lines, 100, "ten seconds of flood");
        let last = budget.take_at(start + Duration::from_secs(60)).expect("a line");
        assert_eq!(counted + 1 + last, 10_001);
    }
}
