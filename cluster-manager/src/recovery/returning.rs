//! A lost host comes back: it proves that it holds nothing of what was taken from it, and is admitted again.

use crate::{manager::Manager, reconcile::report::event};
use domain::{
    HostId, InstanceId, Problem, Timestamp,
    host::{Host, HostState},
    instance::{Instance, InstanceState},
};
use operation::{Activity, commit_problem, read_problem};
use proto::{
    convert::parse,
    sync::v1::{DesiredObject, Holding, ObjectKind},
};
use service_kit::{context::CallContext, host_streams::HostStream};
use std::collections::{HashMap, HashSet};
use store::{CommitError, Guard, HostTakenProven, HostTakenRow, InstanceRow, Unit};

/// Instances that are read at once.
const PAGE: usize = 500;

/// The end of what was taken from a host, above whatever version it holds. `gone`: there is no such instance any more, on no host.
#[must_use]
pub fn render_end(taken: &HostTakenRow, held: Option<&Holding>, gone: bool) -> DesiredObject {
    let (epoch, generation) = held.map_or((0, 0), |held| (held.epoch, held.generation));
    DesiredObject {
        kind: ObjectKind::Instance.into(),
        id: taken.instance_id.to_string(),
        epoch: taken.epoch.max(epoch),
        generation: taken.generation.max(generation),
        deleted: true,
        erase_shared: gone,
        ..DesiredObject::default()
    }
}

/// The agent of a lost host said Hello: what it holds of what was taken is to end, and what it doesn't hold is proved. Pure.
fn compare<'a>(
    taken: &'a [HostTakenRow],
    held: &HashMap<InstanceId, &Holding>,
    exists: &HashSet<InstanceId>,
) -> (Vec<(InstanceId, DesiredObject)>, Vec<&'a HostTakenRow>) {
    let (holds, proved): (Vec<_>, Vec<_>) = taken.iter().partition(|row| held.contains_key(&row.instance_id));
    let end =
        |row: &HostTakenRow| render_end(row, held.get(&row.instance_id).copied(), !exists.contains(&row.instance_id));
    (holds.iter().map(|row| (row.instance_id, end(row))).collect(), proved)
}

/// Takes the Hello of a lost host. What was taken and is held gets its end; that comes before anything else that the host gets.
pub async fn host_returned(
    manager: &Manager,
    stream: &HostStream<Manager>,
    host: &Host,
    holdings: &[Holding],
) -> Result<(), Problem> {
    if host.ledger.found.is_some() {
        // It came with another ledger: what it lists proves nothing.
        return Ok(());
    }
    let mut held: HashMap<InstanceId, &Holding> = HashMap::new();
    for holding in holdings {
        held.insert(parse("holding.id", &holding.id)?, holding);
    }
    let taken = manager.store.host_taken_list(host.id).await.map_err(read_problem)?;
    let mut exists = HashSet::new();
    for page in taken.chunks(PAGE) {
        let ids: Vec<InstanceId> = page.iter().map(|row| row.instance_id).collect();
        let rows = manager.store.instance_load_many(&ids).await.map_err(read_problem)?;
        exists.extend(rows.iter().map(|row| row.id));
    }
    let (ends, proved) = compare(&taken, &held, &exists);
    tracing::warn!(
        host_id = %host.id, host = host.name, taken = taken.len(), held = ends.len(),
        "a lost host is back; it is admitted when it has stopped what it no longer owns"
    );
    stream.push(ends);
    prove(manager, host.id, proved.into_iter().cloned().collect()).await
}

/// The host reports these instances gone from it, in these epochs or later ones.
pub async fn reported_gone(manager: &Manager, host_id: HostId, gone: &[(InstanceId, i64)]) -> Result<(), Problem> {
    let ids: Vec<InstanceId> = gone.iter().map(|(id, _)| *id).collect();
    let taken = manager.store.host_taken_of_instances(host_id, &ids).await.map_err(read_problem)?;
    let proved = |row: &HostTakenRow| gone.iter().any(|(id, epoch)| *id == row.instance_id && *epoch >= row.epoch);
    prove(manager, host_id, taken.into_iter().filter(proved).collect()).await
}

/// Notes what the host has proved, and admits it if that was all.
async fn prove(manager: &Manager, host_id: HostId, proved: Vec<HostTakenRow>) -> Result<(), Problem> {
    if !proved.is_empty() {
        let mut unit = Unit::new();
        unit.extend(proved.into_iter().map(|HostTakenRow { host_id, instance_id, epoch, .. }| HostTakenProven {
            host_id,
            instance_id,
            epoch,
        }));
        manager.store.commit(unit).await.map_err(commit_problem)?;
    }
    admit(manager, host_id).await
}

/// Ends the verdict, if nothing of what was taken is left to prove.
async fn admit(manager: &Manager, host_id: HostId) -> Result<(), Problem> {
    let Some(host) = manager.store.host_find(host_id).await.map_err(read_problem)? else { return Ok(()) };
    let now = Timestamp::now();
    let message = format!("host {} is back: it has proved that it holds nothing of what was taken from it", host.name);
    let unit = Unit::new().op(store::HostVerdictEnd { host_id }).op(store::HostReturn { id: host_id, at: now }).op(
        store::EventInsert(
            Activity::new("host", host_id, "host.return", "host.returned", message)
                .with_data(serde_json::json!({ "name": host.name }))
                .into_event(&CallContext::system("recovery"), now),
        ),
    );
    match manager.store.commit(unit).await {
        Ok(()) => {}
        Err(CommitError::Guard(Guard::HostVerdict)) => return Ok(()),
        Err(error) => return Err(commit_problem(error)),
    }
    manager.inventory().set_state(host_id, HostState::Disconnected);
    manager.refresh_host(host_id).await;
    tracing::info!(%host_id, host = host.name, "a lost host was admitted again");
    metrics::counter!("iaas_hosts_returned_total").increment(1);
    manager.recoveries.wake();
    // What it holds may go on, in a session that says so.
    if let Some(stream) = manager.agents.find(host_id) {
        manager.agents.disconnect(&stream);
    }
    Ok(())
}

/// The unit that gives an instance back to its own host, which came back before there was another place: a generation that the host must report anew.
#[must_use]
pub fn resume_on_own_host(manager: &Manager, row: &InstanceRow) -> Unit {
    let (instance, now): (&Instance, _) = (&row.instance, Timestamp::now());
    let deadlines = &manager.config.deadlines;
    let message = format!("{} stays on its host, which came back", instance.name);
    let data = serde_json::json!({ "from": instance.status.state.as_str() });
    let mut unit = Unit::new()
        .op(store::InstanceLift {
            id: instance.id,
            expected_generation: instance.generation,
            generation: instance.generation + 1,
            epoch: instance.epoch,
            spec: instance.spec.clone(),
            step: "starting on its own host, which came back".to_owned(),
            deadline_at: deadlines.of(InstanceState::Recovering, 0, now),
            at: now,
        })
        .op(store::EventInsert(event(instance, "host_returned", message, data, now)));
    unit.extend(instance.host_id.map(|host_id| store::HostRevision { host_id }));
    unit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_ended_above_its_version_and_what_is_not_held_is_proved() {
        let host_id = HostId::new();
        let row = |epoch, generation| HostTakenRow { host_id, instance_id: InstanceId::new(), epoch, generation };
        let taken = [row(1, 4), row(1, 9), row(2, 3), row(5, 5)];
        let holding = |epoch, generation, tombstone| Holding { epoch, generation, tombstone, ..Holding::default() };
        let holdings = [holding(1, 6, false), holding(1, 2, false), holding(2, 3, true)];
        let held: HashMap<InstanceId, &Holding> =
            taken.iter().zip(&holdings).map(|(row, holding)| (row.instance_id, holding)).collect();
        let exists = HashSet::from([taken[0].instance_id, taken[2].instance_id]);
        let (ends, proved) = compare(&taken, &held, &exists);
        let erased: Vec<_> = ends.iter().map(|(_, end)| end.erase_shared).collect();
        assert_eq!(erased, [false, true, false], "what runs elsewhere keeps its disks");
        let versions: Vec<_> = ends.iter().map(|(_, end)| (end.epoch, end.generation, end.deleted)).collect();
        assert_eq!(
            versions,
            [(1, 6, true), (1, 9, true), (2, 3, true)],
            "a tombstone that is held is asked for its report"
        );
        assert_eq!(proved, [&taken[3]]);
    }
}
