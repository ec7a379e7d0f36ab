//! What a host holds may be newer than the database, when a backup of that was restored: versions that the rows haven't reached, instances that
//! are gone, or another content under the same version. No command may then be given from the rows as they are: the host would refuse it as
//! old, or take it for what it has.
//!
//! So before a host gets anything, one unit brings its rows above what it holds: what runs there is brought back to what the rows say, under
//! versions that are new to the host, and what the host proves deleted is gone here too. What it holds beyond the rows is an orphan.

use super::{HostStream, desired::content_digest, register::host_event};
use crate::{
    instance::claim::{claims_to_remove, release_claim},
    manager::Manager,
    placement::{constraints::leave_groups, record::keep_decision},
    reconcile::report::event,
};
use domain::{InstanceId, Problem, Timestamp, instance::Instance};
use operation::{commit_problem, contended, read_problem};
use proto::{convert::parse, sync::v1::Holding};
use std::collections::HashMap;
use store::{
    CommitError, ComputeUsageAdd, EventInsert, Guard, HostRevision, InstanceDelete, InstanceLift, InstanceRow, Unit,
};

const ATTEMPTS: usize = 5;
/// What is shown until the host is as the rows say.
const STEP: &str = "brought back to what it was when the database was saved";

/// What a holding says of its row, which is bound to the holding's host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Finding {
    /// The row is as new as the holding, or newer.
    Current,
    /// The row goes above the holding, with what the holding counted.
    Behind(Lift),
    /// The host proves the instance deleted in this epoch or a later one.
    Gone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Lift {
    epoch: i64,
    generation: i64,
    root_seq: u64,
    boot_seq: u64,
}

/// Pure. `digest`: of the row's content.
fn compare(row: &Instance, digest: u64, held: &Holding) -> Finding {
    let (theirs, ours) = ((held.epoch, held.generation), (row.epoch, row.generation));
    if held.tombstone {
        // A deletion that the row knows of is reported as always.
        let known = row.spec.deleted && theirs <= ours;
        return if held.epoch >= row.epoch && !known { Finding::Gone } else { Finding::Current };
    }
    // Two contents of one version: the database was restored, and the number given a second time.
    let differs = theirs == ours && !row.spec.deleted && held.digest != 0 && held.digest != digest;
    if theirs < ours || (theirs == ours && !differs) {
        return Finding::Current;
    }
    Finding::Behind(Lift {
        epoch: row.epoch.max(held.epoch),
        generation: row.generation.max(held.generation) + 1,
        root_seq: row.spec.root_seq.max(held.root_seq),
        boot_seq: row.spec.boot_seq.max(held.boot_seq),
    })
}

/// Brings the rows of this host's instances above what it holds. Decided again when they change meanwhile.
pub async fn lift_rows(manager: &Manager, stream: &HostStream, holdings: &[Holding]) -> Result<(), Problem> {
    let held = holdings.iter().map(|holding| Ok((parse("holding.id", &holding.id)?, holding)));
    let held: HashMap<InstanceId, &Holding> = held.collect::<Result<_, Problem>>()?;
    let ids: Vec<InstanceId> = held.keys().copied().collect();
    for _ in 0..ATTEMPTS {
        let rows = manager.store.instance_load_many(&ids).await.map_err(read_problem)?;
        let found =
            rows.into_iter().filter(|row| row.host_id == Some(stream.host_id)).filter_map(|row| {
                match compare(&row.instance, content_digest(&row.instance), held.get(&row.id)?) {
                    Finding::Current => None,
                    finding @ (Finding::Behind(_) | Finding::Gone) => Some((row, finding)),
                }
            });
        let found: Vec<(InstanceRow, Finding)> = found.collect();
        if found.is_empty() {
            return Ok(());
        }
        let unit = unit(manager, stream, &found).await?;
        let _releasing = manager.releasing(stream.host_id);
        match manager.store.commit(unit).await {
            Ok(()) => {
                after_commit(manager, stream, &found).await;
                return Ok(());
            }
            Err(CommitError::Guard(Guard::InstanceGeneration | Guard::InstanceEpoch)) => {}
            Err(error) => return Err(commit_problem(error)),
        }
    }
    Err(contended("the host's instances"))
}

async fn unit(manager: &Manager, stream: &HostStream, found: &[(InstanceRow, Finding)]) -> Result<Unit, Problem> {
    let now = Timestamp::now();
    let mut unit = Unit::new().op(HostRevision { host_id: stream.host_id });
    let mut lifted = 0;
    for (row, finding) in found {
        match finding {
            Finding::Current => {}
            Finding::Behind(lift) => {
                lifted += 1;
                push_lift(manager, &mut unit, row, *lift, now);
            }
            Finding::Gone => push_removal(&mut unit, row, now),
        }
    }
    if let Some(host) = manager.store.host_find(stream.host_id).await.map_err(read_problem)? {
        let gone = found.len() - lifted;
        let message = format!(
            "the database was older than what host {} holds (a backup was restored?): {lifted} instances are brought back to what it says, \
             {gone} had been deleted",
            host.name
        );
        unit.push(EventInsert(host_event(&host, "ahead_of_database", message)));
    }
    Ok(unit)
}

fn push_lift(manager: &Manager, unit: &mut Unit, row: &InstanceRow, lift: Lift, now: Timestamp) {
    let Instance { id, ref spec, ref status, ref name, .. } = row.instance;
    let deadlines = &manager.config.deadlines;
    let waits = deadlines.of(status.state, 0, now);
    let spec = domain::instance::InstanceSpec { root_seq: lift.root_seq, boot_seq: lift.boot_seq, ..spec.clone() };
    unit.push(InstanceLift {
        id,
        expected_generation: row.generation,
        generation: lift.generation,
        epoch: lift.epoch,
        spec,
        step: STEP.to_owned(),
        deadline_at: waits.or_else(|| Some(now.plus_secs(deadlines.building_secs))),
        at: now,
    });
    let message = format!("{name} was changed on its host after the database was saved; it is {STEP}");
    let data = serde_json::json!({ "from_generation": row.generation, "to_generation": lift.generation });
    unit.push(EventInsert(event(&row.instance, "restored", message, data, now)));
}

/// As a deletion that the host proves, of which the row may not know.
fn push_removal(unit: &mut Unit, row: &InstanceRow, now: Timestamp) {
    let instance = &row.instance;
    unit.push(InstanceDelete { id: instance.id, epoch: instance.epoch });
    unit.push(claims_to_remove(instance.id, now));
    unit.push(keep_decision(instance.id, now));
    unit.extend(instance.host_id.map(|host_id| release_claim(host_id, row.claim)));
    leave_groups(&instance.spec, unit);
    if !row.quota_released {
        let used = domain::quota::QuotaAmounts::of_instances(instance.spec.size, 1).negated();
        unit.push(ComputeUsageAdd {
            project_id: instance.project_id,
            instances: used.instances,
            vcpus: used.vcpus,
            memory_mib: used.memory_mib,
        });
    }
    let message = format!("{} had been deleted after the database was saved", instance.name);
    let data = serde_json::json!({ "from": instance.status.state.as_str(), "to": "deleted" });
    unit.push(EventInsert(event(instance, "deleted", message, data, now)));
}

async fn after_commit(manager: &Manager, stream: &HostStream, found: &[(InstanceRow, Finding)]) {
    metrics::counter!("iaas_rows_lifted_total").increment(found.len() as u64);
    let gone: Vec<&InstanceRow> =
        found.iter().filter(|(_, finding)| *finding == Finding::Gone).map(|(row, _)| row).collect();
    tracing::warn!(
        host_id = %stream.host_id, host = stream.host_name, lifted = found.len() - gone.len(), gone = gone.len(),
        "the database was older than what a host holds: its rows were brought above that"
    );
    {
        let mut inventory = manager.inventory();
        inventory.raise_revision(stream.host_id);
        for row in &gone {
            inventory.release(stream.host_id, row.claim);
            inventory.start_ends(stream.host_id, row.id);
            inventory.remove_instance(row.id);
        }
    }
    let ids: Vec<InstanceId> = gone.iter().map(|row| row.id).collect();
    // The sweep for what has no instance repeats it.
    if !ids.is_empty()
        && let Err(problem) = manager.clients.remove_claims(&ids, true).await
    {
        tracing::warn!(%problem, instances = ids.len(), "disks and ports of deleted instances will be removed later");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::testing;

    fn row(epoch: i64, generation: i64, deleted: bool) -> Instance {
        let mut instance = testing::instance(domain::instance::InstanceState::Running);
        (instance.epoch, instance.generation, instance.spec.deleted) = (epoch, generation, deleted);
        (instance.spec.root_seq, instance.spec.boot_seq) = (1, 2);
        instance
    }

    #[test]
    fn a_holding_above_its_row_lifts_it_and_a_tombstone_ends_it() {
        let held = |epoch, generation, tombstone, digest| Holding {
            epoch,
            generation,
            tombstone,
            digest,
            root_seq: 3,
            boot_seq: 1,
            ..Holding::default()
        };
        let lift = |epoch, generation| Finding::Behind(Lift { epoch, generation, root_seq: 3, boot_seq: 2 });
        let (live, deleted) = (row(2, 5, false), row(2, 5, true));
        for (row, held, finding) in [
            (&live, held(2, 4, false, 7), Finding::Current),
            (&live, held(2, 5, false, 7), Finding::Current),
            (&live, held(2, 5, false, 0), Finding::Current),
            (&live, held(2, 5, false, 8), lift(2, 6)),
            (&live, held(2, 8, false, 8), lift(2, 9)),
            (&live, held(3, 1, false, 8), lift(3, 6)),
            (&live, held(1, 9, false, 8), Finding::Current),
            (&deleted, held(2, 5, false, 8), Finding::Current),
            (&deleted, held(2, 7, false, 8), lift(2, 8)),
            (&live, held(2, 4, true, 0), Finding::Gone),
            (&live, held(2, 9, true, 0), Finding::Gone),
            (&live, held(1, 9, true, 0), Finding::Current),
            (&deleted, held(2, 5, true, 0), Finding::Current),
            (&deleted, held(2, 4, true, 0), Finding::Current),
            (&deleted, held(2, 6, true, 0), Finding::Gone),
        ] {
            assert_eq!(compare(row, 7, &held), finding, "{held:?} of {:?}", (row.epoch, row.generation));
        }
    }
}
