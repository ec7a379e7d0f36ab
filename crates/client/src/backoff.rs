//! How long to wait before the next try: doubling, with jitter, inside one budget per call.

use std::time::{Duration, Instant};

const FIRST: Duration = Duration::from_millis(100);
const MOST: Duration = Duration::from_secs(5);

/// The tries of one call.
#[derive(Debug)]
pub(crate) struct Tries {
    started: Instant,
    budget: Duration,
    next: Duration,
}

impl Tries {
    pub(crate) fn new(budget: Duration) -> Self {
        Self { started: Instant::now(), budget, next: FIRST }
    }

    /// The pause before another try, or `None` when the budget has no room for it. `requested` is the server's `Retry-After`.
    pub(crate) fn pause(&mut self, requested: Option<Duration>) -> Option<Duration> {
        let random = f64::from(uuid::Uuid::new_v4().as_u128() as u32) / f64::from(u32::MAX);
        let own = self.next / 2 + (self.next / 2).mul_f64(random);
        self.next = (self.next * 2).min(MOST);
        let pause = requested.map_or(own, |requested| requested.max(own));
        (self.started.elapsed() + pause <= self.budget).then_some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_end_with_the_budget() {
        let mut tries = Tries::new(Duration::from_secs(3600));
        let pauses: Vec<_> = (0..10).map(|_| tries.pause(None).expect("in budget")).collect();
        assert!(pauses[0] <= FIRST && pauses.iter().all(|p| *p <= MOST) && pauses[9] >= MOST / 2);
        assert!(tries.pause(Some(Duration::from_secs(60))).is_some_and(|p| p >= Duration::from_secs(60)));
        assert_eq!(Tries::new(Duration::from_secs(1)).pause(Some(Duration::from_secs(2))), None);
        assert_eq!(Tries::new(Duration::ZERO).pause(None), None);
    }
}
