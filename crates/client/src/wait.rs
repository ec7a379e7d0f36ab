//! Waiting for an instance, with its real step shown meanwhile. The waiting itself is the server's (`?wait=`): it knows which change is
//! waited for, and answers at once when the state is reached. The short looks in between are for the progress line only.

use crate::{
    Client, ClientError,
    http::{ANSWER, Call, segment},
    model::Instance,
};
use domain::instance::InstanceState;
use std::{
    pin::pin,
    time::{Duration, Instant},
};

/// What to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitTarget {
    Running,
    Stopped,
    Paused,
    /// Running, and the guest itself said that it is up.
    Guest,
    Deleted,
}

impl WaitTarget {
    pub const ALL: [Self; 5] = [Self::Running, Self::Stopped, Self::Paused, Self::Guest, Self::Deleted];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Stopped => "stopped",
            Self::Paused => "paused",
            Self::Guest => "guest",
            Self::Deleted => "deleted",
        }
    }

    /// Whether an instance looks so. When a wait ended and it doesn't, it won't by itself: it is in `error`, or was requested to be
    /// otherwise.
    #[must_use]
    pub fn reached(self, instance: &Instance) -> bool {
        match self {
            Self::Running => instance.state == InstanceState::Running,
            Self::Stopped => instance.state == InstanceState::Stopped,
            Self::Paused => instance.state == InstanceState::Paused,
            Self::Guest => instance.state == InstanceState::Running && instance.guest_up_at.is_some(),
            Self::Deleted => instance.state == InstanceState::Deleted,
        }
    }
}

/// Between two looks.
const LOOK: Duration = Duration::from_millis(400);
/// The longest wait that one request may ask for.
pub const WAIT_MAX: Duration = Duration::from_secs(domain::limits::WAIT_SECS_MAX);

impl Client {
    /// Does `work` (a request that waits), and calls `show` meanwhile how the instance looks now and then.
    pub async fn instance_watch<T>(
        &self,
        instance: &str,
        work: impl Future<Output = T>,
        mut show: impl FnMut(&Instance),
    ) -> T {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                () = tokio::time::sleep(LOOK) => {}
            }
            // The look must not hold up the work's end.
            tokio::select! {
                done = &mut work => return done,
                looked = self.instance(instance) => {
                    if let Ok(now) = looked {
                        show(&now);
                    }
                }
            }
        }
    }

    /// Waits until `target` is reached, or never will be by itself (look at the state), or the instance is gone (`None`).
    pub async fn instance_wait(
        &self,
        instance: &str,
        target: WaitTarget,
        timeout: Duration,
        show: impl FnMut(&Instance),
    ) -> Result<Option<Instance>, ClientError> {
        let started = Instant::now();
        let waiting = async {
            loop {
                let left = timeout.saturating_sub(started.elapsed());
                match self.wait_once(instance, target, left.min(WAIT_MAX)).await {
                    // One request can't ask for more than the most.
                    Err(ClientError::Problem(problem)) if problem.code == "wait_timeout" && left > WAIT_MAX => {}
                    other => return other,
                }
            }
        };
        self.instance_watch(instance, waiting, show).await
    }

    async fn wait_once(
        &self,
        instance: &str,
        target: WaitTarget,
        timeout: Duration,
    ) -> Result<Option<Instance>, ClientError> {
        let query = [
            ("wait".to_owned(), target.as_str().to_owned()),
            ("timeout".to_owned(), format!("{}ms", timeout.as_millis())),
        ];
        let path = format!("/v1/instances/{}", segment(instance));
        let call = Call { answer_within: Some(ANSWER + timeout), ..Call::get(path, &query) };
        match self.json(&call).await {
            Err(ClientError::Problem(problem)) if problem.status == 404 && target == WaitTarget::Deleted => Ok(None),
            other => other,
        }
    }
}
