//! Exponential backoff with full jitter (Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015): the n-th delay is
//! uniform between half of and the whole of `min(base * 2^n, max)`.

use std::time::Duration;

#[derive(Debug, Clone)]
pub struct Backoff {
    base: Duration,
    max: Duration,
    tries: u32,
}

impl Backoff {
    #[must_use]
    pub fn new(base: Duration, max: Duration) -> Self {
        Self { base, max, tries: 0 }
    }

    pub fn reset(&mut self) {
        self.tries = 0;
    }

    /// The next delay; each is up to twice the last, never above the maximum.
    pub fn next_delay(&mut self) -> Duration {
        let ceiling = self.base.saturating_mul(1u32.checked_shl(self.tries.min(20)).unwrap_or(u32::MAX)).min(self.max);
        self.tries = self.tries.saturating_add(1);
        let half = ceiling / 2;
        // The random bits of a v4 UUID are enough for jitter.
        let random = uuid::Uuid::new_v4().as_u128() as u32;
        half + half.mul_f64(f64::from(random) / f64::from(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_its_bound_and_starts_over() {
        let (base, max) = (Duration::from_millis(10), Duration::from_millis(100));
        let mut backoff = Backoff::new(base, max);
        let delays: Vec<_> = (0..40).map(|_| backoff.next_delay()).collect();
        assert!(delays[0] <= base && delays.iter().all(|d| *d <= max && *d >= base / 2));
        assert!(delays[39] >= max / 2);
        backoff.reset();
        assert!(backoff.next_delay() <= base);
    }
}
