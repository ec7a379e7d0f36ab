//! After a verdict: each instance of the host that may go elsewhere gets its recovery.
//!
//! Nothing comes to a lost host any more, so that the list of its instances only shrinks, and reading it once after the verdict finds all. It is done when
//! the verdict says so; whoever is interrupted before begins again, and what has its recovery already is left alone.

use super::{
    plan::{Fate, RTO_SECONDS, disks_outlive, fate},
    verdict::PAGE,
};
use crate::{manager::Manager, reconcile::report::event};
use domain::{Name, RecoveryId, Timestamp, host::Host, instance::InstanceState, recovery::HostVerdict};
use store::{CommitError, Guard, InstanceRow, ReadError, Unit};

const ATTEMPTS: usize = 5;
/// What an instance shows until it has another place.
pub const LOST: &str = "its host was lost; it gets another one";

#[derive(Debug, thiserror::Error)]
pub enum ListError {
    #[error("the host's instances can't be read")]
    Read(#[source] ReadError),
    #[error("recoveries can't be written")]
    Commit(#[source] CommitError),
    #[error("instances kept changing")]
    Contended,
}

/// Makes the recoveries of a verdict.
pub async fn list_recoveries(manager: &Manager, verdict: &HostVerdict) -> Result<(), ListError> {
    let Some(host) = manager.store.host_find(verdict.host_id).await.map_err(ListError::Read)? else { return Ok(()) };
    let ids = manager.store.instance_list_of_host(host.id).await.map_err(ListError::Read)?;
    for page in ids.chunks(PAGE) {
        let mut left = page.to_vec();
        for _ in 0..ATTEMPTS {
            let rows = manager.store.instance_load_many(&left).await.map_err(ListError::Read)?;
            left.clear();
            let lost = rows.iter().filter(|row| row.host_id == Some(host.id) && recovers(row));
            let units: Vec<_> = lost.map(|row| (row.id, unit(manager, &host, verdict, row))).collect();
            let commits = units.into_iter().map(async |(id, unit)| (id, manager.store.commit(unit).await));
            for (id, committed) in futures::future::join_all(commits).await {
                match committed {
                    Ok(()) => {}
                    Err(CommitError::Guard(Guard::InstanceGeneration)) => left.push(id),
                    Err(error) => return Err(ListError::Commit(error)),
                }
            }
            if left.is_empty() {
                break;
            }
        }
        if !left.is_empty() {
            return Err(ListError::Contended);
        }
    }
    let listed = Unit::new().op(store::HostVerdictListed { host_id: host.id });
    match manager.store.commit(listed).await {
        // The host is back already.
        Ok(()) | Err(CommitError::Guard(Guard::HostVerdict)) => Ok(()),
        Err(error) => Err(ListError::Commit(error)),
    }
}

fn recovers(row: &InstanceRow) -> bool {
    match fate(&row.instance, disks_outlive(&row.instance)) {
        Fate::Restarts | Fate::Recreated => true,
        Fate::Waits | Fate::Deleted => false,
    }
}

fn unit(manager: &Manager, host: &Host, verdict: &HostVerdict, row: &InstanceRow) -> Unit {
    let (instance, now) = (&row.instance, Timestamp::now());
    let name: Name = instance.name.clone();
    let mut unit = Unit::new().op(store::RecoveryInsert {
        id: RecoveryId::new(),
        instance_id: instance.id,
        instance_name: name,
        project_id: instance.project_id,
        host_id: host.id,
        host_name: host.name.clone(),
        epoch: instance.epoch,
        policy: instance.spec.on_host_loss,
        rto_seconds: instance.spec.placement.rto_seconds.unwrap_or(RTO_SECONDS),
        lost_at: verdict.lost_at,
        detected_at: verdict.declared_at,
    });
    if instance.status.state == InstanceState::Recovering {
        return unit;
    }
    let data = serde_json::json!({ "from": instance.status.state.as_str(), "to": "recovering" });
    let message = format!("{} is recovering: its host was lost", instance.name);
    unit.push(store::EventInsert(event(instance, "recovering", message, data, now)));
    unit.op(store::InstanceProgress {
        id: instance.id,
        expected_generation: instance.generation,
        expected_start: row.fence.start,
        expected_counter: row.fence.counter,
        state: InstanceState::Recovering,
        step: "waiting for another host".to_owned(),
        reason: LOST.to_owned(),
        deadline_at: manager.config.deadlines.of(InstanceState::Recovering, 0, now),
        at: now,
    })
}
