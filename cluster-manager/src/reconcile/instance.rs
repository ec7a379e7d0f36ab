//! The reconciler of instances: woken by a signal and by a timer, given nothing but ids.
//!
//! It takes all instances that want to be looked at in one pass: their rows in one read, then rounds of one step each
//! ([`super::plan`]), where the same steps of many instances are one call to the storage-manager or one commit. An instance is in one
//! pass at a time; passes run side by side, so that one that waits for a slow storage-manager holds up nobody else. A step that failed
//! is tried again with backoff, with what it failed of kept for the instance's reason should its deadline pass.

use super::{
    signal::RequestId,
    step::{End, Subjected, round},
};
use crate::manager::Manager;
use domain::{InstanceId, Timestamp};
use service_kit::backoff::Backoff;
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

const PASS_MAX: usize = 512;
const PASSES: usize = 4;
/// Steps of one instance in one pass. More are needed only if it keeps changing; then it is woken anyway.
const ROUNDS: usize = 8;
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_LAST: Duration = Duration::from_secs(10);
/// Instances whose deadline passed that one look takes.
const OVERDUE_MAX: u32 = 1000;

/// An instance whose last step failed.
struct Trouble {
    backoff: Backoff,
    due: Instant,
    /// What it failed of, for the instance's reason.
    text: String,
}

pub async fn run(manager: Arc<Manager>) {
    let mut busy: HashSet<InstanceId> = HashSet::new();
    let mut troubles: HashMap<InstanceId, Trouble> = HashMap::new();
    let mut passes: JoinSet<Vec<(InstanceId, End)>> = JoinSet::new();
    let mut timer = tokio::time::interval(Duration::from_millis(manager.config.reconcile_interval_ms));
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let next_retry = troubles.values().map(|t| t.due).min();
        tokio::select! {
            () = manager.shutdown.cancelled() => break,
            () = manager.signal.woken() => {}
            _ = timer.tick() => overdue(&manager).await,
            () = tokio::time::sleep_until(next_retry.unwrap_or_else(far).into()), if next_retry.is_some() => {}
            Some(ended) = passes.join_next() => finish(&manager, ended, &mut busy, &mut troubles),
        }
        while let Some(ended) = passes.try_join_next() {
            finish(&manager, ended, &mut busy, &mut troubles);
        }
        let now = Instant::now();
        let due: Vec<InstanceId> = troubles.iter().filter(|(_, t)| t.due <= now).map(|(id, _)| *id).collect();
        if !due.is_empty() {
            for id in &due {
                if let Some(trouble) = troubles.get_mut(id) {
                    // Not again until this pass has ended.
                    trouble.due = now + RETRY_LAST * 2;
                }
            }
            manager.signal.wake(due, None);
        }
        while passes.len() < PASSES {
            let taken = manager.signal.take(PASS_MAX, |id| busy.contains(&id));
            if taken.is_empty() {
                break;
            }
            busy.extend(taken.iter().map(|(id, _)| *id));
            let looks = taken
                .into_iter()
                .map(|(id, request_id)| Look { id, request_id, trouble: troubles.get(&id).map(|t| t.text.clone()) })
                .collect();
            let manager = Arc::clone(&manager);
            passes.spawn(async move { pass(&manager, looks).await });
        }
    }
    // What a pass has begun it may end; everything else is found again at the next start.
    while passes.join_next().await.is_some() {}
}

fn far() -> Instant {
    Instant::now() + Duration::from_secs(3600)
}

fn finish(
    manager: &Manager,
    ended: Result<Vec<(InstanceId, End)>, tokio::task::JoinError>,
    busy: &mut HashSet<InstanceId>,
    troubles: &mut HashMap<InstanceId, Trouble>,
) {
    let ended = match ended {
        Ok(ended) => ended,
        Err(error) => {
            tracing::error!(%error, "a reconcile pass died");
            // Which ids it had is lost with it: all are looked at again.
            manager.signal.wake(busy.drain(), None);
            return;
        }
    };
    let mut again = Vec::new();
    for (id, end) in ended {
        busy.remove(&id);
        match end {
            End::Settled => drop(troubles.remove(&id)),
            End::Again => again.push(id),
            End::Failed(text) => {
                metrics::counter!("iaas_reconcile_failures_total").increment(1);
                let trouble = troubles.entry(id).or_insert_with(|| Trouble {
                    backoff: Backoff::new(RETRY_FIRST, RETRY_LAST),
                    due: Instant::now(),
                    text: String::new(),
                });
                trouble.due = Instant::now() + trouble.backoff.next_delay();
                trouble.text = text;
            }
        }
    }
    // Also for those that were woken while they were busy.
    manager.signal.wake(again, None);
}

async fn overdue(manager: &Manager) {
    match manager.store.instance_deadline_passed(Timestamp::now(), OVERDUE_MAX).await {
        Ok(ids) => {
            if !ids.is_empty() {
                manager.signal.wake(ids, None);
            }
        }
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "overdue instances can't be looked for now");
        }
    }
}

struct Look {
    id: InstanceId,
    request_id: RequestId,
    trouble: Option<String>,
}

async fn pass(manager: &Manager, looks: Vec<Look>) -> Vec<(InstanceId, End)> {
    let began = Instant::now();
    let ids: Vec<InstanceId> = looks.iter().map(|l| l.id).collect();
    let rows = match manager.store.desired_load_many(&ids).await {
        Ok(rows) => rows,
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "instances can't be read yet");
            return ids.into_iter().map(|id| (id, End::Failed("the database can't be read".to_owned()))).collect();
        }
    };
    let mut looks: HashMap<InstanceId, Look> = looks.into_iter().map(|l| (l.id, l)).collect();
    let mut ends: Vec<(InstanceId, End)> = Vec::with_capacity(ids.len());
    let mut subjects: Vec<Subjected> = Vec::with_capacity(rows.len());
    for row in rows {
        let Some(look) = looks.remove(&row.instance.instance.id) else { continue };
        subjects.push(Subjected::new(row, look.request_id, look.trouble));
    }
    // No row: it is gone.
    ends.extend(looks.into_keys().map(|id| (id, End::Settled)));
    for _ in 0..ROUNDS {
        if subjects.is_empty() {
            break;
        }
        subjects = round(manager, subjects, &mut ends).await;
    }
    ends.extend(subjects.into_iter().map(|s| (s.id(), End::Again)));
    metrics::histogram!("iaas_reconcile_pass_seconds").record(began.elapsed().as_secs_f64());
    ends
}
