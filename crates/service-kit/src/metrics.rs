//! Prometheus metrics: one recorder per process, rendered on `/metrics` of whichever HTTP listener a role has.

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use std::sync::OnceLock;

static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();

/// Renders the process's metrics.
#[derive(Clone)]
pub struct MetricsHandle(PrometheusHandle);

impl MetricsHandle {
    #[must_use]
    pub fn render(&self) -> String {
        self.0.render()
    }

    /// Folds histograms; call it every few seconds.
    pub fn run_upkeep(&self) {
        self.0.run_upkeep();
    }
}

/// Seconds. From a memory read to a slow boot.
const SECONDS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

/// Installs the recorder, once per process; later calls return the first one's handle.
#[must_use]
pub fn install() -> MetricsHandle {
    let handle = HANDLE.get_or_init(|| {
        let builder = PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS);
        let recorder = builder.expect("the buckets are not empty").build_recorder();
        let handle = recorder.handle();
        // Fails only when a recorder stands already: then ours renders nothing, and that one is the test harness's.
        let _ = metrics::set_global_recorder(recorder);
        handle
    });
    MetricsHandle(handle.clone())
}
