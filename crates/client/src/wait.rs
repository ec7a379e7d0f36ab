//! Waiting for an instance, with its real step shown meanwhile. The server's own `?wait=` ends the wait at once when the state is
//! reached; short looks in between are for the progress line only.

use crate::{
    Client, ClientError,
    http::{ANSWER, Call, segment},
    model::Instance,
};
use domain::instance::InstanceState;
use std::time::{Duration, Instant};

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

    /// Whether an instance is there, or never will be (in `error`).
    #[must_use]
    pub fn over(self, instance: &Instance) -> bool {
        self.reached(instance) || instance.state == InstanceState::Error
    }

    #[must_use]
    pub fn reached(self, instance: &Instance) -> bool {
        match self {
            Self::Running => instance.state == InstanceState::Running,
            Self::Stopped => instance.state == InstanceState::Stopped,
            Self::Paused => instance.state == InstanceState::Paused,
            Self::Guest => {
                let since_start = instance.started_at.is_none_or(|start| instance.guest_up_at >= Some(start));
                instance.state == InstanceState::Running && instance.guest_up_at.is_some() && since_start
            }
            Self::Deleted => instance.state == InstanceState::Deleted,
        }
    }
}

/// Between two looks.
const LOOK: Duration = Duration::from_millis(400);
/// The longest wait that one request may ask for (domain::limits::WAIT_SECS_MAX).
const LONGEST: Duration = Duration::from_secs(domain::limits::WAIT_SECS_MAX);

impl Client {
    /// Waits until `target` is reached, or the instance is in `error` (then it is returned too: look at its state), or gone (`None`).
    /// `seen` is told of every look.
    pub async fn instance_wait(
        &self,
        instance: &str,
        target: WaitTarget,
        timeout: Duration,
        mut seen: impl FnMut(&Instance),
    ) -> Result<Option<Instance>, ClientError> {
        let started = Instant::now();
        loop {
            let left = timeout.saturating_sub(started.elapsed());
            let waiting = self.wait_once(instance, target, left.clamp(Duration::from_secs(1), LONGEST));
            tokio::pin!(waiting);
            let last = loop {
                tokio::select! {
                    answer = &mut waiting => break answer,
                    () = tokio::time::sleep(LOOK) => {
                        if let Ok(now) = self.instance(instance).await {
                            seen(&now);
                        }
                    }
                }
            };
            let (state, step) = match last {
                Ok(Some(now)) if target.over(&now) => return Ok(Some(now)),
                Ok(None) => return Ok(None),
                Ok(Some(now)) => (now.state.as_str().to_owned(), now.step),
                Err(ClientError::Problem(problem)) if problem.code == "wait_timeout" => {
                    let now = self.instance(instance).await?;
                    (now.state.as_str().to_owned(), now.step)
                }
                Err(error) => return Err(error),
            };
            if started.elapsed() >= timeout {
                let step = if step.is_empty() { step } else { format!(" ({step})") };
                return Err(ClientError::WaitTimedOut {
                    target: target.as_str(),
                    secs: timeout.as_secs(),
                    state,
                    step,
                });
            }
        }
    }

    async fn wait_once(
        &self,
        instance: &str,
        target: WaitTarget,
        timeout: Duration,
    ) -> Result<Option<Instance>, ClientError> {
        let query = [
            ("wait".to_owned(), target.as_str().to_owned()),
            ("timeout".to_owned(), format!("{}s", timeout.as_secs().max(1))),
        ];
        let path = format!("/v1/instances/{}", segment(instance));
        let call = Call { answer_within: Some(ANSWER + timeout), ..Call::get(path, &query) };
        match self.json(&call).await {
            Err(ClientError::Problem(problem)) if problem.status == 404 && target == WaitTarget::Deleted => Ok(None),
            other => other,
        }
    }
}
