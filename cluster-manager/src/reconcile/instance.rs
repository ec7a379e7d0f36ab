//! The reconciler of instances: woken by a signal and by a timer, given nothing but ids.
//!
//! It takes all instances that were woken in one pass: their rows in one read, then rounds of one step each ([`super::plan`]), where the
//! same steps of many instances are one call to the storage-manager or one commit. An instance is in one pass at a time; passes run side
//! by side, so that one that waits for a slow storage-manager holds up nobody else. A step that failed is tried again with backoff; what
//! it failed with is kept for the instance's reason, should its deadline pass.

use super::{
    signal::RequestId,
    step::take_round,
    target::{Outcomes, PassOutcome, PassTarget},
};
use crate::manager::Manager;
use domain::{InstanceId, Timestamp};
use service_kit::backoff::Backoff;
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::task::{JoinError, JoinSet};

const PASS_MAX: usize = 512;
const PASSES: usize = 4;
/// Steps of one instance in one pass. More are needed only if it keeps changing; then it is woken anyway.
const ROUNDS: usize = 8;
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_LAST: Duration = Duration::from_secs(10);
/// Instances whose deadline passed that one read takes.
const OVERDUE_MAX: u32 = 1000;

/// The failure of an instance's last step.
struct LastFailure {
    backoff: Backoff,
    due: Instant,
    /// What it failed with, for the instance's reason.
    text: String,
}

#[derive(Default)]
struct Reconciler {
    busy: HashSet<InstanceId>,
    failures: HashMap<InstanceId, LastFailure>,
    passes: JoinSet<Outcomes>,
}

pub async fn reconcile_loop(manager: Arc<Manager>) {
    let mut reconciler = Reconciler::default();
    let mut timer = tokio::time::interval(Duration::from_millis(manager.config.reconcile_interval_ms));
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let next_retry = reconciler.failures.values().map(|f| f.due).min();
        tokio::select! {
            () = manager.lifetime.shutdown.cancelled() => break,
            () = manager.signal.woken() => {}
            _ = timer.tick() => wake_overdue(&manager).await,
            () = tokio::time::sleep_until(next_retry.unwrap_or_else(far).into()), if next_retry.is_some() => {}
            Some(ended) = reconciler.passes.join_next() => reconciler.pass_ended(&manager, ended),
        }
        while let Some(ended) = reconciler.passes.try_join_next() {
            reconciler.pass_ended(&manager, ended);
        }
        reconciler.wake_due_retries(&manager);
        reconciler.start_passes(&manager);
    }
    // What a pass has begun it may end; everything else is found again at the next start.
    while reconciler.passes.join_next().await.is_some() {}
}

fn far() -> Instant {
    Instant::now() + Duration::from_secs(3600)
}

impl Reconciler {
    fn wake_due_retries(&mut self, manager: &Manager) {
        let now = Instant::now();
        let mut due = Vec::new();
        for (id, failure) in &mut self.failures {
            if failure.due <= now {
                // It isn't due again until this pass has ended.
                failure.due = now + RETRY_LAST * 2;
                due.push(*id);
            }
        }
        if !due.is_empty() {
            manager.signal.wake(due, None);
        }
    }

    fn start_passes(&mut self, manager: &Arc<Manager>) {
        while self.passes.len() < PASSES {
            let taken = manager.signal.take(PASS_MAX, |id| self.busy.contains(&id));
            if taken.is_empty() {
                break;
            }
            self.busy.extend(taken.iter().map(|(id, _)| *id));
            let failure = |id| self.failures.get(&id).map(|f| f.text.clone());
            let woken =
                taken.into_iter().map(|(id, request_id)| Woken { id, request_id, last_failure: failure(id) }).collect();
            let manager = Arc::clone(manager);
            self.passes.spawn(async move { run_pass(&manager, woken).await });
        }
    }

    fn pass_ended(&mut self, manager: &Manager, ended: Result<Outcomes, JoinError>) {
        let outcomes = match ended {
            Ok(outcomes) => outcomes,
            Err(error) => {
                tracing::error!(%error, "a reconcile pass died");
                // Which ids it had is lost with it: all that are in a pass are reconciled again.
                manager.signal.wake(self.busy.drain(), None);
                return;
            }
        };
        let mut again = Vec::new();
        for (id, outcome) in outcomes {
            self.busy.remove(&id);
            match outcome {
                PassOutcome::Settled => drop(self.failures.remove(&id)),
                PassOutcome::Again => again.push(id),
                PassOutcome::Failed(text) => {
                    metrics::counter!("iaas_reconcile_failures_total").increment(1);
                    let failure = self.failures.entry(id).or_insert_with(|| LastFailure {
                        backoff: Backoff::new(RETRY_FIRST, RETRY_LAST),
                        due: Instant::now(),
                        text: String::new(),
                    });
                    failure.due = Instant::now() + failure.backoff.next_delay();
                    failure.text = text;
                }
            }
        }
        // This is also for those that were woken while they were busy.
        manager.signal.wake(again, None);
    }
}

async fn wake_overdue(manager: &Manager) {
    match manager.store.instance_deadline_passed(Timestamp::now(), OVERDUE_MAX).await {
        Ok(ids) => {
            if !ids.is_empty() {
                manager.signal.wake(ids, None);
            }
        }
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "overdue instances can't be read now");
        }
    }
}

struct Woken {
    id: InstanceId,
    request_id: RequestId,
    last_failure: Option<String>,
}

async fn run_pass(manager: &Manager, woken: Vec<Woken>) -> Outcomes {
    let began = Instant::now();
    let ids: Vec<InstanceId> = woken.iter().map(|w| w.id).collect();
    let rows = match manager.store.desired_load_many(&ids).await {
        Ok(rows) => rows,
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "instances can't be read yet");
            let failed = |id| (id, PassOutcome::Failed("the database can't be read".to_owned()));
            return ids.into_iter().map(failed).collect();
        }
    };
    let mut woken: HashMap<InstanceId, Woken> = woken.into_iter().map(|w| (w.id, w)).collect();
    let mut outcomes = Outcomes::with_capacity(ids.len());
    let mut targets: Vec<PassTarget> = Vec::with_capacity(rows.len());
    for row in rows {
        let Some(woken) = woken.remove(&row.instance.instance.id) else { continue };
        targets.push(PassTarget::new(row, woken.request_id, woken.last_failure));
    }
    // Those without a row are gone.
    outcomes.extend(woken.into_keys().map(|id| (id, PassOutcome::Settled)));
    for _ in 0..ROUNDS {
        if targets.is_empty() {
            break;
        }
        targets = take_round(manager, targets, &mut outcomes).await;
    }
    outcomes.extend(targets.into_iter().map(|t| (t.id(), PassOutcome::Again)));
    metrics::histogram!("iaas_reconcile_pass_seconds").record(began.elapsed().as_secs_f64());
    outcomes
}
