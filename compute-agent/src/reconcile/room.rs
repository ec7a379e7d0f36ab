//! Whether the host's disk has room for a new instance.

use crate::{config::Config, host::facts, ledger::Ledger};
use std::sync::atomic::{AtomicBool, Ordering};

/// With less room than this the disk is full, even where the configuration keeps more for the host.
const LOW_BYTES_MAX: u64 = 1 << 30;

/// Remembers what was said last: a disk around the limit shall not be full and not full in turns.
#[derive(Debug, Default)]
pub struct Room {
    full: AtomicBool,
}

impl Room {
    pub fn full(&self, ledger: &Ledger, config: &Config) -> bool {
        let available = facts::disk_space(&config.state_dir).map_or(u64::MAX, |space| space.available_bytes);
        let low = (config.reserve_disk_gib << 30).min(LOW_BYTES_MAX);
        let before = self.full.load(Ordering::Relaxed);
        let full = !ledger.has_room() || is_full(before, available, low);
        if full != before {
            self.full.store(full, Ordering::Relaxed);
            let path = config.state_dir.display();
            if full {
                tracing::error!(%path, available_mib = available >> 20, "the disk is full: only deletions are taken until there is room again");
            } else {
                tracing::info!(%path, available_mib = available >> 20, "the disk has room again");
            }
        }
        metrics::gauge!("iaas_host_disk_full").set(f64::from(u8::from(full)));
        full
    }
}

/// Pure.
fn is_full(before: bool, available: u64, low: u64) -> bool {
    available < if before { low + low / 4 } else { low }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_around_the_limit_stays_what_it_was() {
        assert!(!is_full(false, 100, 100) && is_full(false, 99, 100));
        assert!(is_full(true, 124, 100) && !is_full(true, 125, 100));
        assert!(!is_full(true, 0, 0), "without a limit only what can't be written counts");
    }
}
