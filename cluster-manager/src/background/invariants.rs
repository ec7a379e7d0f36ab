//! Walks everything that is claimed and looks for what was left behind.
//!
//! The store's report is a set of queries that must all come back empty. Between two services' commits something can look left behind
//! for a moment, so only what two reports in a row name is a leak: it is logged once, and counted. `iaas_leaks` says how many stand now,
//! `iaas_leaks_total` how many there ever were: always 0, or a person must look.
//!
//! Some things are repaired rather than reported: disks and ports whose instance is proven gone, left by a crash between the deletion of
//! its row and the calls to their owners; and ports of NICs that are proven to be detached, left by a crash before the call about them.

use crate::manager::Manager;
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use store::{Leak, ReadError};

const SWEEP_EVERY: Duration = Duration::from_secs(5);
const SWEEP_MAX: u32 = 1000;
/// Sweeps between two that look for ports of detached NICs, which reads every instance that has NICs.
const NICS_EVERY: u32 = 6;

/// What two reports, `apart` from each other, both name.
pub async fn find_leaks(manager: &Manager, apart: Duration) -> Result<Vec<Leak>, ReadError> {
    let first = manager.store.leak_report().await?;
    if first.is_empty() {
        return Ok(first);
    }
    tokio::time::sleep(apart).await;
    let again = manager.store.leak_report().await?;
    Ok(again.into_iter().filter(|leak| first.contains(leak)).collect())
}

/// Looks for leaks again and again.
pub async fn leak_check_loop(manager: Arc<Manager>) {
    let every = manager.config.leak_check_secs;
    metrics::counter!("iaas_leaks_total").absolute(0);
    let mut known: BTreeSet<String> = BTreeSet::new();
    loop {
        tokio::select! {
            () = manager.lifetime.shutdown.cancelled() => return,
            () = tokio::time::sleep(Duration::from_secs(every)) => {}
        }
        let leaks = match find_leaks(&manager, Duration::from_secs(2)).await {
            Ok(leaks) => leaks,
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the leak check can't read the database now");
                continue;
            }
        };
        metrics::gauge!("iaas_leaks").set(leaks.len() as f64);
        let now: BTreeSet<String> = leaks.iter().map(|l| format!("{}: {}", l.kind.as_str(), l.detail)).collect();
        for leak in now.difference(&known) {
            metrics::counter!("iaas_leaks_total").increment(1);
            tracing::error!(leak, "something was left behind");
        }
        known = now;
    }
}

/// Repeats the calls that a crash interrupted.
pub async fn removal_sweep_loop(manager: Arc<Manager>) {
    let mut round: u32 = 0;
    loop {
        sweep_disks(&manager).await;
        sweep_ports(&manager).await;
        if round.is_multiple_of(NICS_EVERY) {
            sweep_nics(&manager).await;
        }
        round = round.wrapping_add(1);
        tokio::select! {
            () = manager.lifetime.shutdown.cancelled() => return,
            () = tokio::time::sleep(SWEEP_EVERY) => {}
        }
    }
}

async fn sweep_disks(manager: &Manager) {
    match manager.store.instance_list_gone_with_disks(SWEEP_MAX).await {
        Ok(ids) if ids.is_empty() => {}
        Ok(ids) => match manager.clients.storage.remove(&ids).await {
            Ok(()) => tracing::info!(instances = ids.len(), "disks of instances that are gone were removed"),
            Err(problem) => tracing::warn!(%problem, "disks of instances that are gone can't be removed yet"),
        },
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "the disk sweep can't read the database now");
        }
    }
}

async fn sweep_ports(manager: &Manager) {
    match manager.store.instance_list_gone_with_ports(SWEEP_MAX).await {
        Ok(ids) if ids.is_empty() => {}
        Ok(ids) => match manager.clients.resource.remove(&ids).await {
            Ok(()) => tracing::info!(instances = ids.len(), "ports of instances that are gone were removed"),
            Err(problem) => tracing::warn!(%problem, "ports of instances that are gone can't be removed yet"),
        },
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "the port sweep can't read the database now");
        }
    }
}

/// The reconciler knows what to do about them; nothing else would wake it.
async fn sweep_nics(manager: &Manager) {
    match manager.store.instance_list_with_left_ports(SWEEP_MAX).await {
        Ok(ids) => manager.signal.wake(ids, None),
        Err(error) => {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the sweep of detached NICs can't read the database now"
            );
        }
    }
}
