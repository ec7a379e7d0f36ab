//! What this service does by itself, beside the calls that it answers: all of it is started here, and supervised. A task that ends or panics
//! before the shutdown ends the role, with an error that names the task.
//!
//! | task | does |
//! |---|---|
//! | `report-ingest` | stores what hosts report of their instances |
//! | `instance-reconciler` | brings instances to what their owners want |
//! | `host-liveness` | shows hosts as connected or not |
//! | `preemption` | stops and deletes preempted instances when their notice is over |
//! | `capacity-holds` | ends capacity holds at their deadlines |
//! | `host-recovery` | recovers the instances of lost hosts |
//! | `placement-records` | writes refusals of placement down |
//! | `backups` | finds new backups for protected instances that have none |
//! | `removal-sweep` | repeats what a crash interrupted: disks and ports of instances that are gone |
//! | `leak-check` | looks for what was left behind; off with `leak_check_secs = 0` |
//! | `retention` | deletes answers, tokens and placement records that are past their time |

pub mod invariants;
pub mod placement;
pub mod preemption;
pub mod recovery;
pub mod retention;

use crate::{
    agents::{ingest, liveness},
    manager::Manager,
    reconcile,
};
use service_kit::background::Background;
use std::sync::Arc;

/// Starts all of it.
pub fn start(manager: &Arc<Manager>) -> Background {
    let mut background = Background::default();
    let m = || Arc::clone(manager);
    background.start("report-ingest", ingest::ingest_loop(m()));
    background.start("instance-reconciler", reconcile::instance::reconcile_loop(m()));
    background.start("host-liveness", liveness::liveness_loop(m()));
    background.start("preemption", preemption::preemption_loop(m()));
    background.start("host-recovery", recovery::recovery_loop(m()));
    background.start("capacity-holds", placement::capacity_hold_loop(m()));
    background.start("placement-records", placement::refusal_record_loop(m()));
    background.start("backups", placement::backup_loop(m()));
    background.start("removal-sweep", invariants::removal_sweep_loop(m()));
    if manager.config.leak_check_secs > 0 {
        background.start("leak-check", invariants::leak_check_loop(m()));
    }
    background.start("retention", retention::retention_loop(m()));
    background
}
