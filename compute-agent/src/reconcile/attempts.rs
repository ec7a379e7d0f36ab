//! What the task of an instance has attempted. Pure.

use super::step::{StepKind, retry_backoff_ms};
use domain::{PortId, instance::InstanceState};

/// What the task has attempted. A restart of the agent forgets it. Times are milliseconds of a monotonic clock.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Attempts {
    pub last_failure: Option<Failure>,
    /// When the power button of this QEMU was pressed.
    pub powerdown: Option<Requests>,
    /// The agent itself ended this QEMU.
    pub ending: bool,
    /// QEMU was started by this task, and its monitor hasn't answered yet.
    pub fresh: bool,
    /// After a crash the next start isn't made before this time.
    pub start_not_before: u64,
    /// When the guest was last resumed after a disk error.
    pub io_retried: Option<u64>,
    /// The NIC that the guest was asked to release, and when.
    pub unplug: Option<(PortId, Requests)>,
    /// The state that was shown last.
    pub shown: Option<InstanceState>,
    /// The progress of the running fetch, such as "41 %".
    pub fetched: Option<String>,
    /// Why the last QEMU ended, where that is known.
    pub broken: Option<String>,
}

impl Attempts {
    /// Whether a step of this kind has failed at least so often in a row.
    #[must_use]
    pub fn failed(&self, kind: StepKind, times: u32) -> bool {
        self.last_failure.as_ref().is_some_and(|failure| failure.step == kind && failure.count >= times)
    }

    /// Remembers that a step of this kind failed at `now`.
    pub fn note_failure(&mut self, step: StepKind, reason: String, fault: bool, now: u64) -> &Failure {
        let before = self.last_failure.take_if(|failure| failure.step == step);
        let count = before.map_or(1, |failure| failure.count + 1);
        let retry_at = now + retry_backoff_ms(step, count);
        self.last_failure.insert(Failure { step, reason, fault, count, retry_at })
    }
}

/// When the guest was sent a request that it may ignore: the first time and the last time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Requests {
    pub first: u64,
    pub last: u64,
}

impl Requests {
    /// The times after one more request at `now`.
    #[must_use]
    pub fn after(before: Option<Self>, now: u64) -> Self {
        Self { first: before.map_or(now, |before| before.first), last: now }
    }
}

/// A step that failed the last time it was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub step: StepKind,
    pub reason: String,
    /// A fault is shown as `error`; any other failure passes by itself (a service is unreachable for a while).
    pub fault: bool,
    /// How often the step has failed in a row.
    pub count: u32,
    pub retry_at: u64,
}
