//! Walks everything that is claimed and looks for what was left behind.
//!
//! The store's report is a walk over pages that must all come back empty. Between two services' commits something can look left behind
//! for a moment, so only what two looks at a page in a row name is a leak: it is logged once, and counted. `iaas_leaks` says how many the last
//! walk found, `iaas_leaks_total` how many there ever were: always 0, or a person must look.
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
use store::{CommitError, DesiredRow, InstanceTodo, InstanceTodoRow, Leak, LeakCursor, ReadError, Unit};

/// Rows of one look for leaks, and the pause behind it.
const PAGE: u32 = 500;
const BETWEEN_PAGES: Duration = Duration::from_millis(200);
/// How long after a first look a leak must still be there.
const APART: Duration = Duration::from_secs(2);
const SWEEP_EVERY: Duration = Duration::from_secs(5);
const SWEEP_MAX: u32 = 1000;
/// Sweeps between two that look for ports of detached NICs.
const NICS_EVERY: u32 = 6;

/// The leaks on a page that two looks, `apart` from each other, both find, and where the next page begins.
async fn find_leaks(
    manager: &Manager,
    cursor: &LeakCursor,
    apart: Duration,
) -> Result<(Vec<Leak>, Option<LeakCursor>), ReadError> {
    let (first, next) = manager.store.leak_page(cursor, PAGE).await?;
    if first.is_empty() {
        return Ok((first, next));
    }
    tokio::time::sleep(apart).await;
    let (again, _) = manager.store.leak_page(cursor, PAGE).await?;
    Ok((again.into_iter().filter(|leak| first.contains(leak)).collect(), next))
}

/// Looks for leaks again and again: a page at a time, with a pause behind each, so that the check costs the same however much there is.
pub async fn leak_check_loop(manager: Arc<Manager>) {
    let between_walks = Duration::from_secs(manager.config.leak_check_secs);
    metrics::counter!("iaas_leaks_total").absolute(0);
    // Of the walk before, and of this one so far.
    let (mut known, mut found) = (BTreeSet::new(), BTreeSet::new());
    let (mut cursor, mut pause) = (LeakCursor::default(), between_walks);
    loop {
        tokio::select! {
            () = manager.lifetime.shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        let (leaks, next) = match find_leaks(&manager, &cursor, APART).await {
            Ok(page) => page,
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the leak check can't read the database now");
                pause = between_walks;
                continue;
            }
        };
        for leak in leaks {
            let leak = format!("{}: {}", leak.kind.as_str(), leak.detail);
            if !known.contains(&leak) && !found.contains(&leak) {
                metrics::counter!("iaas_leaks_total").increment(1);
                tracing::error!(leak, "something was left behind");
            }
            found.insert(leak);
        }
        (cursor, pause) = match next {
            Some(next) => (next, BETWEEN_PAGES),
            None => {
                metrics::gauge!("iaas_leaks").set(found.len() as f64);
                known = std::mem::take(&mut found);
                (LeakCursor::default(), between_walks)
            }
        };
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
