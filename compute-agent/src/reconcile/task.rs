//! The loop that keeps one instance as desired.

use super::{
    attempts::Attempts,
    context::Context,
    layout::Paths,
    plan::plan,
    step::{Plan, Shown, Step, StepKind},
    step_error::StepResult,
};
use crate::{
    console::GuestUp,
    ledger::{Entry, Held, Nic, Running, Version},
    link::observation::Observation,
    qemu::process::ProcessHandle,
    qmp::{Event, QmpClient},
};
use domain::{InstanceId, Timestamp, instance::ROOT_DISK};
use std::{
    future::pending,
    os::fd::OwnedFd,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::sync::{Notify, OwnedSemaphorePermit, broadcast, watch};

/// The task observes again after this time without being woken, to notice what causes no event (such as a QEMU that hangs).
const RECHECK_INTERVAL: Duration = Duration::from_secs(20);
/// The wait after a failed write of the ledger.
const LEDGER_RETRY: Duration = Duration::from_secs(1);

pub(super) struct Task {
    pub context: Arc<Context>,
    pub instance_id: InstanceId,
    pub paths: Paths,
    pub attempts: Attempts,
    pub live: Live,
    pub waker: Arc<Notify>,
    /// The version that the attempts are for.
    version: Version,
    /// The permit is held while a start is prepared.
    permit: Option<StartPermit>,
    /// The digest of the config drive's content, for a version.
    pub config_digest: Option<(Version, String)>,
}

/// The connections to the running QEMU, and what is known of it.
#[derive(Default)]
pub(super) struct Live {
    pub handle: Option<ProcessHandle>,
    pub qmp: Option<QmpClient>,
    pub events: Option<broadcast::Receiver<Event>>,
    pub guest_up: Option<watch::Receiver<Option<GuestUp>>>,
    pub guest_up_at: Option<Timestamp>,
    /// Since when QEMU runs without a connection to its monitor.
    pub silent_since: Option<u64>,
    /// A QEMU that runs and isn't in the ledger yet.
    pub unrecorded: Option<Running>,
    /// The taps that are acquired for the next start.
    pub taps: Vec<Tap>,
}

/// A port that is acquired and not yet in a QEMU.
#[derive(Debug, Clone)]
pub(super) struct Tap {
    pub nic: Nic,
    pub fd: Arc<OwnedFd>,
    pub mtu: u32,
}

struct StartPermit {
    context: Arc<Context>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for StartPermit {
    fn drop(&mut self) {
        self.context.starts_in_progress.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Task {
    pub(super) fn new(context: Arc<Context>, instance_id: InstanceId, waker: Arc<Notify>) -> Self {
        let paths = context.paths(instance_id);
        Self {
            context,
            instance_id,
            paths,
            attempts: Attempts::default(),
            live: Live::default(),
            waker,
            version: Version::default(),
            permit: None,
            config_digest: None,
        }
    }
}

/// Runs until the instance has a tombstone (and `retire` agrees that it wasn't given to this host again) or the agent shuts down.
pub(super) async fn reconcile(mut task: Task, retire: impl Fn() -> bool) {
    let shutdown = task.context.shutdown.clone();
    task.adopt();
    while !shutdown.is_cancelled() {
        let held = task.context.ledger.held(task.instance_id);
        let entry = match held.as_deref() {
            Some(Held::Live(entry)) => entry,
            Some(Held::Tombstone(tombstone)) => {
                task.context.post(Observation::deleted(task.instance_id, tombstone.version));
                if retire() {
                    return;
                }
                continue;
            }
            None if retire() => return,
            None => continue,
        };
        if task.live.unrecorded.is_some() {
            task.record_running().await;
            continue;
        }
        if task.version != entry.desired.version {
            // What failed for the old version is tried again at once for the new one.
            task.version = entry.desired.version;
            task.attempts.last_failure = None;
        }
        task.note_guest_up();
        task.record_guest_up(entry).await;
        let observed = task.observe(entry).await;
        let Plan { step, shown, wake_at } = plan(entry, &observed, &task.attempts, task.context.now_ms());
        task.report(entry, &shown);
        if step == Step::Wait {
            task.permit = None;
            task.wait_for_change(wake_at).await;
            continue;
        }
        if step == Step::AcquirePorts {
            // The step may take long, and doesn't use this host's processors.
            task.permit = None;
        }
        if heavy(&step) && !task.take_permit().await {
            continue;
        }
        let outcome = task.act(entry, &step).await;
        task.record_outcome(&step, outcome);
    }
}

/// Whether a host must limit how many instances take this step at the same time.
fn heavy(step: &Step) -> bool {
    match step.kind() {
        StepKind::Prepare | StepKind::GrowDisk | StepKind::Launch => true,
        StepKind::Ledger
        | StepKind::Attach
        | StepKind::FetchImage
        | StepKind::AcquirePorts
        | StepKind::Nics
        | StepKind::Control
        | StepKind::Kill
        | StepKind::Remove => false,
    }
}

impl Task {
    /// Waits for a permit to start; false when there may be something else to do by then.
    async fn take_permit(&mut self) -> bool {
        if self.permit.is_some() {
            return true;
        }
        let permit = tokio::select! {
            biased;
            // The semaphore is never closed.
            permit = Arc::clone(&self.context.starts).acquire_owned() => permit,
            () = self.waker.notified() => return false,
            () = self.context.shutdown.cancelled() => return false,
        };
        if let Ok(permit) = permit {
            self.context.starts_in_progress.fetch_add(1, Ordering::Relaxed);
            self.permit = Some(StartPermit { context: Arc::clone(&self.context), _permit: permit });
        }
        true
    }

    /// Remembers whether a step failed.
    fn record_outcome(&mut self, step: &Step, outcome: StepResult) {
        let kind = step.kind();
        let Err(error) = outcome else {
            self.attempts.last_failure.take_if(|failure| failure.step == kind);
            return;
        };
        let failure = self.attempts.note_failure(kind, error.reason, error.fault, self.context.now_ms());
        if failure.count == 1 {
            tracing::warn!(instance_id = %self.instance_id, epoch = self.version.epoch, generation = self.version.generation,
                ?step, reason = failure.reason, "a step failed and will be repeated");
        }
        self.permit = None;
    }

    pub(super) fn report(&mut self, entry: &Entry, shown: &Shown) {
        if self.attempts.shown != Some(shown.state) {
            tracing::info!(instance_id = %self.instance_id, epoch = entry.desired.version.epoch,
                generation = entry.desired.version.generation, request_id = entry.desired.request_id,
                state = shown.state.as_str(), reason = shown.reason, "instance");
        }
        self.attempts.shown = Some(shown.state);
        let done = &entry.done;
        let up = done.process.is_some();
        self.context.post(Observation {
            instance_id: self.instance_id,
            version: entry.desired.version,
            state: shown.state,
            step: shown.step.clone(),
            reason: shown.reason.clone(),
            converged: shown.converged,
            started_at: done.started_at,
            guest_up_at: self.live.guest_up_at.or(done.guest_up_at).filter(|_| up),
            crash_count: done.crash_count,
            root_used_seq: done.used_disks.iter().find(|disk| disk.role == ROOT_DISK).map(|disk| disk.seq),
            exec_ms: done.process.as_ref().and_then(|running| running.exec_ms),
        });
    }

    /// Notes when the console has shown the guest's up line.
    fn note_guest_up(&mut self) {
        let Some(up) = self.live.guest_up.as_mut() else { return };
        if up.borrow_and_update().is_some() && self.live.guest_up_at.is_none() {
            self.live.guest_up_at = Some(Timestamp::now());
        }
    }

    /// Records when the guest was up before it is reported, so that a restart of the agent doesn't report another time.
    async fn record_guest_up(&mut self, entry: &Entry) {
        let at = self.live.guest_up_at;
        if at.is_none() || entry.done.guest_up_at == at || entry.done.process.is_none() {
            return;
        }
        if let Err(error) = self.context.ledger.record(self.instance_id, |done| done.guest_up_at = at).await {
            tracing::warn!(instance_id = %self.instance_id, %error, "the guest's up line isn't recorded");
        }
    }

    /// Records a QEMU that runs without being in the ledger, before anything else is done about it.
    async fn record_running(&mut self) {
        let Some(running) = self.live.unrecorded.clone() else { return };
        // From now on the taps belong to QEMU alone.
        self.live.taps.clear();
        let recorded = self.context.ledger.record(self.instance_id, |done| {
            done.boot_seq = done.boot_seq.max(running.launched.boot_seq);
            done.root_seq = done.root_seq.max(running.launched.root_seq);
            done.note_disks(&running.launched.disks);
            done.started_at = Some(running.launched.started_at);
            done.guest_up_at = None;
            done.process = Some(running);
        });
        match recorded.await {
            Ok(()) => self.live.unrecorded = None,
            Err(error) => {
                tracing::error!(instance_id = %self.instance_id, %error, "a running QEMU isn't recorded yet");
                tokio::select! {
                    () = tokio::time::sleep(LEDGER_RETRY) => {}
                    () = self.context.shutdown.cancelled() => {}
                }
            }
        }
    }

    /// Waits until something may have changed.
    async fn wait_for_change(&mut self, wake_at: Option<u64>) {
        let timer = match wake_at {
            Some(at) => self.context.instant(at),
            None => tokio::time::Instant::now() + RECHECK_INTERVAL,
        };
        let Live { handle, qmp, events, guest_up, guest_up_at, .. } = &mut self.live;
        let exit = async {
            match handle {
                // After an error there is nothing to wait for either; the timer covers it.
                Some(handle) => match handle.wait_exit().await {
                    Ok(()) => (),
                    Err(_) => pending().await,
                },
                None => pending().await,
            }
        };
        let closed = async {
            match qmp {
                Some(qmp) => qmp.closed().await,
                None => pending().await,
            }
        };
        let up = async {
            match guest_up {
                Some(up) if guest_up_at.is_none() => {
                    let came = up.wait_for(Option::is_some).await.is_ok();
                    if !came {
                        pending().await
                    }
                }
                Some(_) | None => pending().await,
            }
        };
        let shutdown = self.context.shutdown.clone();
        let event = tokio::select! {
            () = self.waker.notified() => None,
            () = exit => None,
            () = closed => None,
            () = up => None,
            event = relevant_event(events) => event,
            () = tokio::time::sleep_until(timer) => None,
            () = shutdown.cancelled() => None,
        };
        if event.is_some_and(|event| event.name == "RESET") {
            self.await_guest_up_again().await;
        }
    }

    /// The guest boots again, so its up line is awaited again.
    pub(super) async fn await_guest_up_again(&mut self) {
        if let Some(hub) = self.context.console(self.instance_id) {
            hub.rearm();
        }
        self.live.guest_up_at = None;
        let offset = self.console_end();
        let recorded = self.context.ledger.record(self.instance_id, |done| {
            done.guest_up_at = None;
            if let Some(running) = &mut done.process {
                running.launched.console_offset = offset;
            }
        });
        if let Err(error) = recorded.await {
            tracing::warn!(instance_id = %self.instance_id, %error, "the guest's reboot isn't recorded");
        }
    }

    /// The offset at which the console's output ends now.
    pub(super) fn console_end(&self) -> u64 {
        self.context.console_log(self.instance_id).extent().map_or(0, |extent| extent.end)
    }
}

/// The next event that matters here. A guest can make QEMU send other events at will.
async fn relevant_event(events: &mut Option<broadcast::Receiver<Event>>) -> Option<Event> {
    let Some(events) = events else { return pending().await };
    loop {
        match events.recv().await {
            Ok(event) => {
                let relevant = [
                    "STOP",
                    "RESUME",
                    "SHUTDOWN",
                    "RESET",
                    "GUEST_PANICKED",
                    "WATCHDOG",
                    "BLOCK_IO_ERROR",
                    "DEVICE_DELETED",
                ];
                if relevant.contains(&event.name.as_str()) {
                    return Some(event);
                }
            }
            // Some events are lost, so something may have changed.
            Err(broadcast::error::RecvError::Lagged(_)) => return None,
            Err(broadcast::error::RecvError::Closed) => return pending().await,
        }
    }
}
