//! Makes the host what the ledger says: one task per instance, all of the same kind, which are woken by anything and get no other input.
//!
//! A task loops: observe (`observe`), decide ([`mod@plan`], pure), take one step (`act`), observe again. It is woken by a change of the
//! ledger, the end of the process, an event of QEMU's monitor, the guest's up line and a timer, and doesn't know which of these it
//! was. The first run, a retry, a restart of the agent and a restart of the host are the same code.
//!
//! A queue of commands was rejected: what a command meant when it was sent is not what its instance needs when its turn comes.

mod act;
pub mod attempts;
pub mod context;
mod exit;
pub mod hypervisor;
mod launch;
pub mod layout;
mod nics;
mod observe;
pub mod observed;
mod pins;
pub mod plan;
pub mod plan_nics;
mod prepare;
mod room;
mod start;
pub mod starts;
pub mod step;
mod step_error;
mod task;
pub mod users;

use self::{context::Context, task::Task};
use crate::{
    ledger::{Decision, Held},
    link::observation::Observation,
};
use context::Received;
use domain::InstanceId;
use parking_lot::Mutex;
use service_kit::backoff::Backoff;
use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// The pause before a task that panicked begins again.
const PANIC_PAUSE_FIRST: Duration = Duration::from_secs(1);
const PANIC_PAUSE_LAST: Duration = Duration::from_secs(60);

/// The tasks by instance.
pub struct Reconciler {
    context: Arc<Context>,
    wakers: Arc<Mutex<HashMap<InstanceId, Arc<Notify>>>>,
}

impl Reconciler {
    /// Starts a task for everything alive in the ledger.
    #[must_use]
    pub fn start(context: Arc<Context>) -> Self {
        let reconciler = Self { context, wakers: Arc::default() };
        for held in reconciler.context.ledger.all() {
            if let Held::Live(entry) = &*held {
                reconciler.wake(entry.desired.instance_id);
            }
        }
        reconciler
    }

    /// Acts on what the ledger decided about commands that arrived at `received_at`.
    pub fn changed(&self, outcomes: &[crate::ledger::Outcome], received_at: Instant) {
        for outcome in outcomes {
            let (instance_id, version) = (outcome.instance_id, outcome.version);
            match outcome.decision {
                Decision::Take => {
                    let received = Received { version, at: received_at };
                    self.context.received.lock().insert(instance_id, received);
                    self.wake(instance_id);
                }
                Decision::RaiseTombstone | Decision::Repeat => self.repeat_report(instance_id),
                Decision::Refuse { held } => {
                    tracing::warn!(%instance_id, ?version, ?held, "refused a command that is older than what this host holds already");
                    self.repeat_report(instance_id);
                }
            }
        }
    }

    /// The manager repeated a command, so its report is repeated too.
    fn repeat_report(&self, instance_id: InstanceId) {
        match self.context.ledger.held(instance_id).as_deref() {
            Some(Held::Tombstone(tombstone)) => {
                self.context.post(Observation::deleted(instance_id, tombstone.version));
                self.context.outbox.repeat(instance_id);
            }
            Some(Held::Live(_)) | None => self.context.outbox.repeat(instance_id),
        }
    }

    /// Wakes the tasks of all instances.
    pub fn wake_all(&self) {
        for waker in self.wakers.lock().values() {
            waker.notify_one();
        }
    }

    /// Wakes the instance's task, which is started when there is none.
    fn wake(&self, instance_id: InstanceId) {
        let mut wakers = self.wakers.lock();
        if let Some(waker) = wakers.get(&instance_id) {
            return waker.notify_one();
        }
        let waker = Arc::new(Notify::new());
        wakers.insert(instance_id, Arc::clone(&waker));
        let (context, wakers) = (Arc::clone(&self.context), Arc::clone(&self.wakers));
        let begin = move || {
            let task = Task::new(Arc::clone(&context), instance_id, Arc::clone(&waker));
            let (context, wakers) = (Arc::clone(&context), Arc::clone(&wakers));
            task::reconcile(task, move || {
                // This holds the lock that `wake` takes, so an instance that is given to the host again in the meantime finds either this
                // task or none.
                let mut wakers = wakers.lock();
                let gone = !matches!(context.ledger.held(instance_id).as_deref(), Some(Held::Live(_)));
                if gone {
                    wakers.remove(&instance_id);
                    context.received.lock().remove(&instance_id);
                }
                gone
            })
        };
        self.context.tasks.spawn(begin_again_after_panics(
            instance_id,
            self.context.shutdown.clone(),
            Backoff::new(PANIC_PAUSE_FIRST, PANIC_PAUSE_LAST),
            begin,
        ));
    }
}

/// Runs the instance's task until it ends by itself. One that panics is begun again after a pause: it knows nothing but the id, so the
/// next one observes and goes on, and what panics again and again takes no other instance with it.
async fn begin_again_after_panics<F: Future<Output = ()> + Send + 'static>(
    instance_id: InstanceId,
    shutdown: CancellationToken,
    mut backoff: Backoff,
    begin: impl Fn() -> F,
) {
    while let Err(error) = tokio::spawn(begin()).await {
        metrics::counter!("iaas_instance_task_panics_total").increment(1);
        tracing::error!(%instance_id, %error, "the task that keeps an instance as desired died; another begins");
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(backoff.next_delay()) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[tokio::test]
    async fn a_task_that_panics_is_begun_again_until_it_ends_or_the_agent_does() {
        let begun = Arc::new(AtomicU32::new(0));
        let task = |panics: u32| {
            let begun = Arc::clone(&begun);
            move || {
                let count = begun.fetch_add(1, Ordering::Relaxed) + 1;
                async move { assert!(count > panics, "a defect") }
            }
        };
        let soon = || Backoff::new(Duration::from_millis(1), Duration::from_millis(1));
        begin_again_after_panics(InstanceId::new(), CancellationToken::new(), soon(), task(3)).await;
        assert_eq!(begun.load(Ordering::Relaxed), 4);
        begun.store(0, Ordering::Relaxed);
        let shutdown = CancellationToken::new();
        shutdown.cancel();
        begin_again_after_panics(InstanceId::new(), shutdown, soon(), task(u32::MAX)).await;
        assert_eq!(begun.load(Ordering::Relaxed), 1, "nothing begins when the agent ends");
    }
}
