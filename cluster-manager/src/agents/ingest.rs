//! Stores what agents report: many reports, one read, one commit.
//!
//! All hosts' reports come through one bounded channel into one task. It takes what is there, reads the rows of all those instances in
//! one query, decides purely ([`crate::reconcile::report`]), hands one unit per instance to the store (which makes one transaction of
//! them), and acknowledges after the commit. One task, one batch at a time: so no two decisions on one instance race, and the fence in
//! the `WHERE` clause only ever has to stop what is stale. What can't be stored because the database is away is tried again, and
//! meanwhile the channel fills and reports wait beside their hosts' streams: nothing is lost, since what isn't acknowledged comes again, and
//! nothing grows without bound.

use super::{HostStream, desired::render_tombstone};
use crate::{
    instance::claim::{claims_removed, claims_to_remove, release_claim},
    manager::Manager,
    placement::{constraints::leave_groups, record::keep_decision},
    reconcile::report::{Observation, ReportContext, Stale, Verdict, plan_report},
    recovery::returning,
};
use domain::{
    HostId, InstanceId, Timestamp,
    host::HostState,
    instance::{InstanceState, ReportFence},
};
use proto::{
    convert::{InvalidMessage, parse, state_from_pb},
    sync::v1 as pb,
};
use service_kit::host_streams::{Incoming, ack_of};
use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};
use store::{CommitError, Guard, InstanceRow, Unit};

const BATCH_MAX: usize = 512;
/// A decision on a row that changed meanwhile is made again this often; then the agent's repeat will do.
const ATTEMPTS: u32 = 5;
const RETRY_EVERY: Duration = Duration::from_millis(500);

/// Stores what all hosts report, until the shutdown.
pub async fn ingest_loop(manager: Arc<Manager>) {
    let Some(mut rx) = manager.agents.take_reports() else { return };
    let mut batch = Vec::with_capacity(BATCH_MAX);
    loop {
        tokio::select! {
            () = manager.lifetime.shutdown.cancelled() => return,
            taken = rx.recv_many(&mut batch, BATCH_MAX) => if taken == 0 { return },
        }
        // What a held host reports comes from a ledger that may never count. It is sent again.
        batch.retain(|incoming| manager.host_state(incoming.stream.host_id) != Some(HostState::Held));
        metrics::counter!("iaas_reports_total").increment(batch.len() as u64);
        let began = Instant::now();
        let mut todo = newest(&mut batch);
        let mut attempt = 0;
        while !todo.is_empty() {
            attempt += 1;
            match store_batch(&manager, todo).await {
                Ok(again) if attempt < ATTEMPTS => todo = again,
                Ok(again) => {
                    for work in &again {
                        tracing::warn!(instance_id = %work.observation.instance_id, "a report met a changing row too often");
                    }
                    break;
                }
                Err(again) => {
                    todo = again;
                    attempt = 0;
                    tokio::select! {
                        () = manager.lifetime.shutdown.cancelled() => return,
                        () = tokio::time::sleep(RETRY_EVERY) => {}
                    }
                }
            }
        }
        metrics::histogram!("iaas_report_batch_seconds").record(began.elapsed().as_secs_f64());
    }
}

/// What is to be stored for one instance, and who gets the acknowledgements.
struct Work {
    stream: Arc<HostStream>,
    observation: Observation,
    acks: Vec<pb::ReportAck>,
}

/// Reports say all that is true of an instance, so of several the newest counts, and answers for all.
fn newest(batch: &mut Vec<Incoming<Manager>>) -> Vec<Work> {
    let mut by_instance: HashMap<(HostId, InstanceId), Work> = HashMap::new();
    for Incoming { stream, report } in batch.drain(..) {
        let ack = ack_of(&report);
        let observed = match observation(report) {
            Ok(observed) => observed,
            Err(error) => {
                tracing::warn!(host_id = %stream.host_id, %error, "a report can't be read");
                continue;
            }
        };
        let key = (stream.host_id, observed.instance_id);
        match by_instance.get_mut(&key) {
            None => {
                by_instance.insert(key, Work { stream, observation: observed, acks: vec![ack] });
            }
            Some(work) => {
                work.acks.push(ack);
                let order = |o: &Observation| (o.fence.epoch, o.fence.start, o.fence.counter);
                // The proof of a deletion is never covered by anything.
                let proof = work.observation.state == InstanceState::Deleted
                    && work.observation.fence.epoch == observed.fence.epoch;
                if order(&observed) >= order(&work.observation) && !proof {
                    work.stream = stream;
                    work.observation = observed;
                }
            }
        }
    }
    by_instance.into_values().collect()
}

fn observation(report: pb::Report) -> Result<Observation, InvalidMessage> {
    let Some(pb::report::Observation::Instance(observed)) = report.observation else {
        return Err(InvalidMessage { field: "report.instance", detail: "is missing".to_owned() });
    };
    Ok(Observation {
        instance_id: parse("report.id", &report.id)?,
        fence: ReportFence {
            epoch: report.epoch,
            generation: report.generation,
            start: report.start,
            counter: report.counter,
        },
        state: state_from_pb(observed.state)?,
        step: observed.step,
        reason: observed.reason,
        converged: observed.converged,
        started_at: observed.started_at.map(Timestamp),
        guest_up_at: observed.guest_up_at.map(Timestamp),
        crash_count: observed.crash_count,
        exec_ms: observed.exec_ms,
        root_used_seq: observed.root_used_seq,
    })
}

/// Stores one batch. `Ok`: what must be decided again, because its row changed meanwhile. `Err`: what could not be stored at all.
async fn store_batch(manager: &Manager, todo: Vec<Work>) -> Result<Vec<Work>, Vec<Work>> {
    let ids: Vec<InstanceId> = todo.iter().map(|w| w.observation.instance_id).collect();
    let rows = match manager.store.instance_load_many(&ids).await {
        Ok(rows) => rows,
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "reports can't be compared with their rows yet");
            return Err(todo);
        }
    };
    let rows: HashMap<InstanceId, InstanceRow> = rows.into_iter().map(|row| (row.instance.id, row)).collect();
    let now = Timestamp::now();
    let mut settled: Vec<Settled> = Vec::new();
    for work in todo {
        let row = rows.get(&work.observation.instance_id);
        let context =
            ReportContext { now, deadlines: &manager.config.deadlines, starts: manager.starts(work.stream.host_id) };
        let verdict = plan_report(work.stream.host_id, row.map(|r| (&r.instance, r.fence)), &work.observation, context);
        let unit = unit_of(&work, row, &verdict, now);
        settled.push(Settled { work, row: row.cloned(), verdict, unit });
    }
    let gone = settled.iter().filter(|s| matches!(s.verdict, Verdict::Gone { .. }));
    let _releasing: Vec<_> = gone.map(|s| manager.releasing(s.work.stream.host_id)).collect();
    let commits = settled.iter_mut().map(|s| {
        let unit = std::mem::take(&mut s.unit);
        async { if unit.is_empty() { Ok(()) } else { manager.store.commit(unit).await } }
    });
    let outcomes = futures::future::join_all(commits).await;

    let mut proofs: HashMap<HostId, Vec<(InstanceId, i64)>> = HashMap::new();
    let (mut again, mut failed, mut gone) = (Vec::new(), Vec::new(), Vec::new());
    for (settled, outcome) in settled.into_iter().zip(outcomes) {
        match outcome {
            Ok(()) => {
                gone.extend(apply(manager, &settled));
                let (host_id, observed) = (settled.work.stream.host_id, &settled.work.observation);
                if observed.state == InstanceState::Deleted && manager.host_state(host_id) == Some(HostState::Lost) {
                    proofs.entry(host_id).or_default().push((observed.instance_id, observed.fence.epoch));
                }
                let forgotten =
                    matches!((&settled.verdict, &settled.row), (Verdict::Gone { .. }, _) | (Verdict::OrphanGone, None));
                let acks = settled.work.acks.into_iter().map(|ack| pb::ReportAck { forgotten, ..ack });
                settled.work.stream.acknowledge(acks);
            }
            Err(CommitError::Guard(Guard::InstanceObserved | Guard::InstanceEpoch)) => {
                match stale(manager, &settled).await {
                    Some(true) => {
                        count_stale(Stale::Generation);
                        settled.work.stream.acknowledge(settled.work.acks);
                    }
                    Some(false) => again.push(settled.work),
                    None => failed.push(settled.work),
                }
            }
            Err(error @ CommitError::Unavailable(_)) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "a report can't be stored yet");
                failed.push(settled.work);
            }
            Err(error) => {
                // A defect: acknowledged all the same, or it would come back for ever.
                let id = settled.work.observation.instance_id;
                tracing::error!(instance_id = %id, error = &error as &dyn std::error::Error, "a report was refused by the store");
                settled.work.stream.acknowledge(settled.work.acks);
            }
        }
    }
    if !gone.is_empty() {
        let ids: Vec<InstanceId> = gone.iter().map(|(id, _)| *id).collect();
        remove_claims(manager, &ids, gone.iter().any(|(_, nics)| *nics), now).await;
    }
    for (host_id, gone) in proofs {
        // What fails here is proved when the host connects again.
        if let Err(problem) = returning::reported_gone(manager, host_id, &gone).await {
            tracing::warn!(%host_id, %problem, "a lost host's proof can't be noted yet");
        }
    }
    if failed.is_empty() {
        return Ok(again);
    }
    failed.append(&mut again);
    Err(failed)
}

/// What fails here the sweep repeats.
async fn remove_claims(manager: &Manager, ids: &[InstanceId], ports: bool, since: Timestamp) {
    match manager.clients.remove_claims(ids, ports).await {
        Ok(()) => claims_removed(manager, ids, since).await,
        Err(problem) => {
            tracing::warn!(%problem, instances = ids.len(), "disks and ports of deleted instances will be removed later");
        }
    }
}

struct Settled {
    work: Work,
    row: Option<InstanceRow>,
    verdict: Verdict,
    unit: Unit,
}

/// Whether the guard failed because the report is old (true) or because the row changed since it was read. None: unknown.
async fn stale(manager: &Manager, settled: &Settled) -> Option<bool> {
    let id = settled.work.observation.instance_id;
    let rows = manager.store.instance_load_many(&[id]).await.ok()?;
    let now = rows.first().map(|r| (r.instance.generation, r.instance.epoch));
    let then = settled.row.as_ref().map(|r| (r.instance.generation, r.instance.epoch));
    Some(now == then)
}

fn unit_of(work: &Work, row: Option<&InstanceRow>, verdict: &Verdict, now: Timestamp) -> Unit {
    let (host_id, id) = (work.stream.host_id, work.observation.instance_id);
    match (verdict, row) {
        (Verdict::Store { fence, status, events }, Some(row)) => {
            let mut unit = Unit::new().op(store::InstanceObserved {
                id,
                epoch: fence.epoch,
                generation: fence.generation,
                expected_generation: row.instance.generation,
                start: fence.start,
                counter: fence.counter,
                state: status.state,
                step: status.step.clone(),
                reason: status.reason.clone(),
                deadline_at: status.deadline_at,
                started_at: status.started_at,
                guest_up_at: status.guest_up_at,
                crash_count: status.crash_count,
                root_used_seq: work.observation.root_used_seq.max(row.instance.binding.root_used_seq),
                at: now,
            });
            unit.extend(events.iter().cloned().map(store::EventInsert));
            unit
        }
        (Verdict::Gone { events }, Some(row)) => {
            let mut unit = Unit::new()
                .op(store::InstanceDelete { id, epoch: row.instance.epoch })
                .op(claims_to_remove(id, now))
                .op(keep_decision(id, now))
                .op(release_claim(host_id, row.claim));
            leave_groups(&row.instance.spec, &mut unit);
            unit.extend(events.iter().cloned().map(store::EventInsert));
            unit
        }
        (Verdict::Orphan { detail }, _) => Unit::new().op(store::OrphanPut {
            host_id,
            instance_id: id,
            epoch: work.observation.fence.epoch,
            detail: detail.clone(),
            last_seen_at: now,
        }),
        (Verdict::OrphanGone, _) => Unit::new().op(store::OrphanDelete { host_id, instance_id: id }),
        (Verdict::Refuse(_) | Verdict::Tombstone | Verdict::Store { .. } | Verdict::Gone { .. }, _) => Unit::new(),
    }
}

/// What follows a stored report in memory. Answers the instance whose disks and ports are to be removed, and whether it had NICs.
fn apply(manager: &Manager, settled: &Settled) -> Option<(InstanceId, bool)> {
    let (id, host_id) = (settled.work.observation.instance_id, settled.work.stream.host_id);
    match &settled.verdict {
        Verdict::Store { status, .. } => {
            if status.state.is_final() {
                manager.inventory().start_ends(host_id, id);
            }
            let all_done = |row: &InstanceRow| row.instance.generation == status.observed_generation;
            if settled.row.as_ref().is_some_and(all_done) && manager.signal.detached(id) {
                manager.signal.wake([id], None);
            }
            if let Some(row) = &settled.row
                && row.instance.status.started_at.is_none()
                && status.state == InstanceState::Running
            {
                let millis = Timestamp::now().millis_since(row.instance.created_at);
                metrics::histogram!("iaas_instance_accepted_to_running_seconds").record(millis as f64 / 1000.0);
            }
            None
        }
        Verdict::Gone { .. } => {
            let row = settled.row.as_ref()?;
            let mut inventory = manager.inventory();
            inventory.release(host_id, row.claim);
            inventory.start_ends(host_id, id);
            inventory.remove_instance(id);
            drop(inventory);
            metrics::counter!("iaas_instances_deleted_total").increment(1);
            manager.signal.detached(id);
            tracing::info!(instance_id = %id, %host_id, epoch = row.instance.epoch, "an instance is gone from its host");
            Some((id, !row.instance.spec.nics.is_empty()))
        }
        Verdict::Tombstone => {
            let row = settled.row.as_ref()?;
            settled.work.stream.push([(id, render_tombstone(&row.instance, settled.work.observation.fence.epoch))]);
            None
        }
        Verdict::Refuse(stale) => {
            count_stale(*stale);
            tracing::debug!(instance_id = %id, %host_id, fence = ?settled.work.observation.fence, stale = stale.as_str(), "a report came too late");
            None
        }
        Verdict::Orphan { detail } => {
            metrics::counter!("iaas_orphan_reports_total").increment(1);
            tracing::warn!(instance_id = %id, %host_id, detail, "a host reports what isn't bound to it");
            None
        }
        Verdict::OrphanGone => None,
    }
}

fn count_stale(stale: Stale) {
    metrics::counter!("iaas_reports_refused_total", "reason" => stale.as_str()).increment(1);
}
