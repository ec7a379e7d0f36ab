//! The recovery of lost hosts' instances: lists what a verdict makes necessary, finds places in the order of urgency, and follows each recovery to its end.
//!
//! All of it is rows, and read at the start. What waits for capacity is tried again when capacity appears: the inventory counts the changes after which a refused request
//! may fit. Of requests of one shape only the first is tried after each such change, so that ten thousand that wait cost no more than a few.

use crate::{
    manager::Manager,
    reconcile::report::event,
    recovery::{
        list::list_recoveries,
        plan::{advance, cost, urgency},
        relocate::{Relocated, prepare, progress, relocate},
        returning::resume_on_own_host,
    },
    scheduler::Request,
};
use domain::{
    InstanceId, RecoveryId, Timestamp,
    instance::Instance,
    network::Port,
    recovery::{Recovery, RecoveryPhase},
};
use operation::commit_problem;
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};
use store::{CommitError, Guard, ReadError, Unit};

/// Recoveries that are read at once.
const PAGE: u32 = 1000;
/// Recoveries that are looked for a place at the same time.
const PARALLEL: usize = 32;
/// Recoveries under way that one look follows.
const FOLLOWED: usize = 256;
/// Between two looks at recoveries under way, and at whether capacity has appeared.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// After something failed.
const RETRY: Duration = Duration::from_secs(1);

/// What is open, as the rows have it.
#[derive(Default)]
struct Open {
    waiting: BTreeMap<RecoveryId, Recovery>,
    under_way: BTreeMap<RecoveryId, Recovery>,
    /// The last of those under way that was looked at.
    looked_at: Option<RecoveryId>,
    /// The inventory's count when those that wait were tried last.
    tried_at: Option<u64>,
    /// What those that wait request, as far as it was refused.
    shapes: HashMap<RecoveryId, Request>,
    loaded: bool,
}

/// Recovers until the shutdown.
pub async fn recovery_loop(manager: Arc<Manager>) {
    let mut open = Open::default();
    let mut pause = Duration::ZERO;
    loop {
        let idle = open.loaded && open.waiting.is_empty() && open.under_way.is_empty();
        tokio::select! {
            () = manager.lifetime.shutdown.cancelled() => return,
            () = manager.recoveries.woken() => {
                // A verdict came or went: what is open is read again, and tried again.
                (open.loaded, open.tried_at) = (false, None);
            }
            () = tokio::time::sleep(pause), if !idle => {}
        }
        pause = match open.work(&manager).await {
            Ok(()) => LOOK_EVERY,
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "recoveries can't be read or written now");
                open.loaded = false;
                RETRY
            }
        };
        metrics::gauge!("iaas_recoveries_waiting").set(open.waiting.len() as f64);
        metrics::gauge!("iaas_recoveries_under_way").set(open.under_way.len() as f64);
    }
}

#[derive(Debug, thiserror::Error)]
enum WorkError {
    #[error("they can't be read")]
    Read(#[from] ReadError),
    #[error("a verdict's recoveries can't be made")]
    List(#[from] crate::recovery::list::ListError),
}

impl Open {
    async fn work(&mut self, manager: &Manager) -> Result<(), WorkError> {
        if !self.loaded {
            let verdicts = manager.store.host_verdict_list().await?;
            metrics::gauge!("iaas_hosts_lost").set(verdicts.len() as f64);
            for verdict in verdicts.iter().filter(|verdict| !verdict.listed) {
                list_recoveries(manager, verdict).await?;
            }
            self.load(manager).await?;
        }
        self.place(manager).await;
        self.follow(manager).await?;
        Ok(())
    }

    async fn load(&mut self, manager: &Manager) -> Result<(), ReadError> {
        (self.waiting, self.under_way) = (BTreeMap::new(), BTreeMap::new());
        self.shapes.clear();
        let mut after = None;
        loop {
            let page = manager.store.recovery_open(after, PAGE).await?;
            after = page.last().map(|recovery| recovery.id).filter(|_| page.len() == PAGE as usize);
            for recovery in page {
                self.put(recovery);
            }
            if after.is_none() {
                self.loaded = true;
                return Ok(());
            }
        }
    }

    fn put(&mut self, recovery: Recovery) {
        let id = recovery.id;
        self.waiting.remove(&id);
        self.under_way.remove(&id);
        if recovery.closed_at.is_some() || recovery.phase != RecoveryPhase::Waiting {
            self.shapes.remove(&id);
        }
        if recovery.closed_at.is_some() {
            return;
        }
        match recovery.phase {
            RecoveryPhase::Waiting => drop(self.waiting.insert(id, recovery)),
            RecoveryPhase::Placed
            | RecoveryPhase::Started
            | RecoveryPhase::Reachable
            | RecoveryPhase::Verified
            | RecoveryPhase::Returned
            | RecoveryPhase::Deleted => drop(self.under_way.insert(id, recovery)),
        }
    }

    /// Finds places for those that wait, if any may have one by now.
    async fn place(&mut self, manager: &Manager) {
        let now = manager.inventory().changes();
        if self.waiting.is_empty() || self.tried_at == Some(now) {
            return;
        }
        self.tried_at = Some(now);
        let mut queue: Vec<Recovery> = self.waiting.values().cloned().collect();
        queue.sort_by_key(urgency);
        let mut refused: HashMap<Request, String> = HashMap::new();
        for part in queue.chunks(PARALLEL) {
            let shapes = &self.shapes;
            let worth_it =
                |recovery: &&Recovery| shapes.get(&recovery.id).is_none_or(|shape| !refused.contains_key(shape));
            let worth: Vec<&Recovery> = part.iter().filter(worth_it).collect();
            let prepared = futures::future::join_all(worth.iter().map(|recovery| prepare(manager, recovery))).await;
            let (mut chosen, mut tried) = (Vec::new(), Vec::new());
            // One by one, the most urgent first: each gets the best place that is left.
            for (recovery, candidate) in worth.into_iter().zip(prepared) {
                let found = candidate.and_then(|candidate| {
                    let chosen = candidate.choose(manager, &[], &refused)?;
                    Ok((candidate, chosen))
                });
                match found {
                    Ok((candidate, place)) => chosen.push((recovery, candidate, place)),
                    Err(relocated) => {
                        if let Relocated::NoCapacity { request, reason } = &relocated {
                            refused.insert(Request::clone(request), reason.clone());
                        }
                        tried.push((recovery, relocated));
                    }
                }
            }
            let placed = chosen
                .into_iter()
                .map(async |(recovery, candidate, place)| (recovery, relocate(manager, candidate, place).await));
            tried.extend(futures::future::join_all(placed).await);
            for (recovery, relocated) in tried {
                match relocated {
                    Relocated::Placed(placed) => {
                        record_phase("placed", &placed, placed.placed_at);
                        self.put(placed);
                    }
                    Relocated::NoCapacity { request, reason } => {
                        self.shapes.insert(recovery.id, (*request).clone());
                        refused.insert(*request, reason.clone());
                        self.wait(manager, recovery, reason).await;
                    }
                    Relocated::Over(over) => self.close(manager, recovery, over).await,
                    Relocated::Failed(reason) => {
                        tracing::warn!(instance_id = %recovery.instance_id, reason, "an instance can't be recovered yet; it is tried again");
                        self.tried_at = None;
                    }
                    // A start that ends is a change of the inventory, and a host that returns wakes the loop.
                    Relocated::NotYet => {}
                }
            }
        }
    }

    /// Shows why it waits.
    async fn wait(&mut self, manager: &Manager, recovery: &Recovery, reason: String) {
        if recovery.reason == reason {
            return;
        }
        let next = Recovery { reason, ..recovery.clone() };
        let unit = Unit::new().op(progress(&next, recovery.phase));
        match manager.store.commit(unit).await {
            Ok(()) => self.put(next),
            Err(error) => self.failed(recovery, error),
        }
    }

    async fn close(&mut self, manager: &Manager, recovery: &Recovery, over: Recovery) {
        let mut unit = Unit::new().op(progress(&over, recovery.phase));
        if over.phase == RecoveryPhase::Returned {
            match manager.store.instance_load_many(&[recovery.instance_id]).await {
                Ok(rows) => {
                    let own = rows.iter().find(|row| row.epoch == recovery.epoch && !row.spec.deleted);
                    if let Some(row) = own {
                        unit.extend(resume_on_own_host(manager, row).ops().iter().cloned());
                    }
                }
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "an instance can't be given back yet");
                    self.tried_at = None;
                    return;
                }
            }
        }
        match manager.store.commit(unit).await {
            Ok(()) => {
                if over.phase == RecoveryPhase::Returned {
                    manager.inventory().raise_revision(recovery.host_id);
                    manager.signal.wake([recovery.instance_id], None);
                }
                self.put(over);
            }
            Err(error) => self.failed(recovery, error),
        }
    }

    fn failed(&mut self, recovery: &Recovery, error: CommitError) {
        match error {
            // It is read again: somebody else was faster, or its instance changed.
            CommitError::Guard(Guard::Recovery | Guard::InstanceGeneration) => self.loaded = false,
            error @ (CommitError::Constraint(_)
            | CommitError::Guard(_)
            | CommitError::Unavailable(_)
            | CommitError::Internal(_)) => {
                let problem = commit_problem(error);
                tracing::warn!(instance_id = %recovery.instance_id, %problem, "a recovery's progress can't be stored yet");
            }
        }
        self.tried_at = None;
    }

    /// Follows those that have a place: what has become of them since.
    async fn follow(&mut self, manager: &Manager) -> Result<(), ReadError> {
        let after = self.looked_at.take().filter(|after| self.under_way.keys().any(|id| id > after));
        let behind = self.under_way.values().filter(|recovery| after.is_none_or(|after| recovery.id > after));
        let part: Vec<Recovery> = behind.take(FOLLOWED).cloned().collect();
        let Some(last) = part.last() else { return Ok(()) };
        self.looked_at = Some(last.id);
        let ids: Vec<InstanceId> = part.iter().map(|recovery| recovery.instance_id).collect();
        let rows = manager.store.instance_load_many(&ids).await?;
        let instances: HashMap<InstanceId, Instance> = rows.into_iter().map(|row| (row.id, row.instance)).collect();
        let mut ports: HashMap<InstanceId, Vec<Port>> = HashMap::new();
        for port in manager.store.port_load_many_of_instances(&ids).await? {
            if let Some(owner) = port.owner {
                ports.entry(owner.instance_id).or_default().push(port);
            }
        }
        let now = Timestamp::now();
        let mut steps = Vec::new();
        for recovery in part {
            let instance = instances.get(&recovery.instance_id);
            let ports = ports.get(&recovery.instance_id).map_or(&[][..], Vec::as_slice);
            if let Some(next) = advance(&recovery, instance, ports, now) {
                steps.push((unit(&recovery, &next, instance, now), recovery, next));
            }
        }
        let commits =
            steps.into_iter().map(async |(unit, recovery, next)| (recovery, next, manager.store.commit(unit).await));
        for (recovery, next, committed) in futures::future::join_all(commits).await {
            match committed {
                Ok(()) => {
                    note_phases(&recovery, &next);
                    self.put(next);
                }
                Err(error) => self.failed(&recovery, error),
            }
        }
        Ok(())
    }
}

fn unit(recovery: &Recovery, next: &Recovery, instance: Option<&Instance>, now: Timestamp) -> Unit {
    let mut unit = Unit::new().op(progress(next, recovery.phase));
    let back = next.reachable_at.filter(|_| recovery.reachable_at.is_none());
    if let (Some(at), Some(instance)) = (back, instance) {
        let secs = at.millis_since(next.lost_at) / 1000;
        let cost = cost(next.policy, !instance.disks().is_empty());
        let message = format!("{} is back {secs} s after its host was lost: {cost}", instance.name);
        let ms = |at: Option<Timestamp>| at.map(|at| at.millis_since(next.lost_at));
        let data = serde_json::json!({
            "lost_to_back_ms": ms(Some(at)), "lost_to_placed_ms": ms(next.placed_at), "lost_to_started_ms": ms(next.started_at),
            "policy": next.policy.as_str(), "state": instance.status.state.as_str(),
        });
        unit.push(store::EventInsert(event(instance, "recovered", message, data, now)));
    }
    unit
}

fn record_phase(phase: &'static str, recovery: &Recovery, at: Option<Timestamp>) {
    if let Some(at) = at {
        let seconds = at.millis_since(recovery.lost_at) as f64 / 1000.0;
        metrics::histogram!("iaas_recovery_seconds", "phase" => phase).record(seconds);
    }
}

fn note_phases(before: &Recovery, after: &Recovery) {
    for (phase, before, at) in [
        ("started", before.started_at, after.started_at),
        ("reachable", before.reachable_at, after.reachable_at),
        ("verified", before.verified_at, after.verified_at),
    ] {
        if before.is_none() {
            record_phase(phase, after, at);
        }
    }
    if after.closed_at.is_some() {
        metrics::counter!("iaas_recoveries_total", "phase" => after.phase.as_str()).increment(1);
    }
}
