//! Percentiles by the nearest-rank method, and rounding for the printed line.

/// Sorts its values once and answers percentiles from them.
pub struct Sample(Vec<f64>);

impl Sample {
    #[must_use]
    pub fn new(mut values: Vec<f64>) -> Self {
        values.retain(|v| v.is_finite());
        values.sort_by(f64::total_cmp);
        Self(values)
    }

    /// The value that `p` percent of all don't exceed. NaN when empty.
    #[must_use]
    pub fn percentile(&self, p: f64) -> f64 {
        if self.0.is_empty() {
            return f64::NAN;
        }
        let rank = (p / 100.0 * self.0.len() as f64).ceil() as usize;
        self.0[rank.clamp(1, self.0.len()) - 1]
    }
}

/// Three decimals are more than these measurements are worth.
#[must_use]
pub fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_rank() {
        let sample = Sample::new((1..=100).map(f64::from).collect());
        assert_eq!(sample.percentile(50.0), 50.0);
        assert_eq!(sample.percentile(99.0), 99.0);
        assert_eq!(sample.percentile(100.0), 100.0);
        assert!(Sample::new(vec![]).percentile(50.0).is_nan());
    }
}
