//! Walks everything that is claimed and looks for what was left behind.
//!
//! The store's report is a set of queries that must all come back empty. Between two services' commits something can look left behind
//! for a moment, so only what two reports in a row name is a leak: it is logged once, and counted. `iaas_leaks` says how many stand now,
//! `iaas_leaks_total` how many there ever were: always 0, or a person must look.
//!
//! Some things are repaired rather than reported: disks and ports whose instance is proven gone, left by a crash between the deletion of
//! its row and the calls to their owners; and ports of NICs that are proven to be detached, left by a crash before the call about them.

use crate::{manager::Manager, reconcile::plan::detached_ports};
use domain::InstanceId;
use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
    time::Duration,
};
use store::{CommitError, DesiredRow, InstanceTodo, InstanceTodoRow, Leak, ReadError, Unit};

const SWEEP_EVERY: Duration = Duration::from_secs(5);
const SWEEP_MAX: u32 = 1000;
/// Sweeps between two that look for ports of detached NICs.
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

/// Takes up what a crash interrupted: all of it is kept as rows ([`InstanceTodo`]), so nothing has to be searched for.
pub async fn removal_sweep_loop(manager: Arc<Manager>) {
    let mut round: u32 = 0;
    loop {
        note("claims", sweep_claims(&manager).await);
        note("lifted ports", sweep_lifted_ports(&manager).await);
        if round.is_multiple_of(NICS_EVERY) {
            note("detached NICs", sweep_nics(&manager).await);
        }
        round = round.wrapping_add(1);
        tokio::select! {
            () = manager.lifetime.shutdown.cancelled() => return,
            () = tokio::time::sleep(SWEEP_EVERY) => {}
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum SweepError {
    #[error("the database can't be read")]
    Read(#[source] ReadError),
    #[error("what is done can't be noted")]
    Commit(#[source] CommitError),
}

fn note(what: &'static str, swept: Result<(), SweepError>) {
    if let Err(error) = swept {
        tracing::warn!(what, error = &error as &dyn std::error::Error, "a sweep failed; the next one goes on");
    }
}

/// Disks and ports of instances that are gone are removed.
async fn sweep_claims(manager: &Manager) -> Result<(), SweepError> {
    let todo = manager.store.instance_todo_list(InstanceTodo::RemoveClaims, None, SWEEP_MAX).await;
    let todo = todo.map_err(SweepError::Read)?;
    let ids: Vec<InstanceId> = todo.iter().map(|row| row.instance_id).collect();
    if ids.is_empty() {
        return Ok(());
    }
    match manager.clients.remove_claims(&ids, true).await {
        Ok(()) => {
            tracing::debug!(instances = ids.len(), "disks and ports of instances that are gone are removed");
            done(manager, todo.iter()).await
        }
        Err(problem) => {
            tracing::warn!(%problem, "disks and ports of instances that are gone can't be removed yet");
            Ok(())
        }
    }
}

async fn done(manager: &Manager, todo: impl Iterator<Item = &InstanceTodoRow>) -> Result<(), SweepError> {
    let mut unit = Unit::new();
    unit.extend(todo.map(InstanceTodoRow::done));
    manager.store.commit(unit).await.map_err(SweepError::Commit)
}

/// Ports that were brought above what a host holds must be bound again; the resource-manager can't wake the reconciler.
async fn sweep_lifted_ports(manager: &Manager) -> Result<(), SweepError> {
    let ids = manager.store.instance_list_with_lifted_ports(SWEEP_MAX).await.map_err(SweepError::Read)?;
    manager.signal.wake(ids, None);
    Ok(())
}

/// The reconciler knows what to do about ports of NICs that are detached by now; nothing else would wake it.
async fn sweep_nics(manager: &Manager) -> Result<(), SweepError> {
    let mut after = None;
    loop {
        let todo = manager.store.instance_todo_list(InstanceTodo::RemovePorts, after, SWEEP_MAX).await;
        let todo = todo.map_err(SweepError::Read)?;
        let ids: Vec<InstanceId> = todo.iter().map(|row| row.instance_id).collect();
        let rows = manager.store.desired_load_many(&ids).await.map_err(SweepError::Read)?;
        let left = |row: &DesiredRow| !detached_ports(&row.instance.instance, &row.ports).is_empty();
        let left: HashSet<InstanceId> = rows.iter().filter(|row| left(row)).map(|row| row.instance.id).collect();
        done(manager, todo.iter().filter(|row| !left.contains(&row.instance_id))).await?;
        manager.signal.wake(left, None);
        after = ids.last().copied().filter(|_| ids.len() == SWEEP_MAX as usize);
        if after.is_none() {
            return Ok(());
        }
    }
}
