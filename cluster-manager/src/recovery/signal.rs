//! What wakes the recovery loop, and what of recovery is known in memory alone.

use parking_lot::Mutex;
use std::collections::BTreeSet;
use tokio::sync::Notify;

/// What wakes the recovery loop, and what of it others must know.
#[derive(Debug, Default)]
pub struct Recoveries {
    wake: Notify,
    /// Zones in which so many hosts look lost at once that nothing is declared lost by itself.
    halted_zones: Mutex<BTreeSet<String>>,
}

impl Recoveries {
    /// A host was lost or came back, or an instance that is being recovered made progress.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    pub async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Notes whether recovery by itself has stopped in a zone. Answers whether that is news.
    pub fn set_halted(&self, zone: &str, halted: bool) -> bool {
        let mut zones = self.halted_zones.lock();
        let news = if halted { zones.insert(zone.to_owned()) } else { zones.remove(zone) };
        metrics::gauge!("iaas_recovery_halted_zones").set(zones.len() as f64);
        news
    }
}
