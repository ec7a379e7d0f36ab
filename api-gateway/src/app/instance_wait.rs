//! `?wait=` for instances: the answer comes when the instance is as expected, or when it is certain that it won't be.
//!
//! A wait is woken by the instance's events (`app::events`), reads the row (`app::instance_load`: one query for all who were woken),
//! and decides here. Not every change of a row is an event: a reboot ends in the state it began in, and only `observed_generation`
//! says that it is done. So a wait that lacks only this reads again soon by itself.

use crate::{
    app::{App, wait},
    auth::caller::Caller,
    failure::ApiError,
};
use domain::{
    InstanceId, Problem, Timestamp, UserId,
    instance::{Instance, InstanceState, Power},
};
use serde::{Deserialize, Serialize};
use service_kit::share::Place;
use std::time::Duration;
use tokio::time::Instant;

/// How soon the row is read again without an event, in case one is missed.
const REREAD_AFTER: Duration = Duration::from_secs(2);
/// The same, when only the host's report that it has caught up is missing.
const REREAD_SOON: Duration = Duration::from_millis(50);

/// The state that is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitTarget {
    Running,
    Stopped,
    Paused,
    /// Running, and the guest itself said that it is up.
    Guest,
    Deleted,
}

impl WaitTarget {
    /// "instance web is not running": the beginning of a time-out's message.
    fn missing(self, name: &str) -> String {
        match self {
            Self::Running => format!("instance {name} is not running"),
            Self::Stopped => format!("instance {name} is not stopped"),
            Self::Paused => format!("instance {name} is not paused"),
            Self::Guest => format!("the guest of instance {name} hasn't reported that it is up"),
            Self::Deleted => format!("instance {name} is not gone"),
        }
    }

    /// The power that the target needs.
    fn power(self) -> Option<Power> {
        match self {
            Self::Running | Self::Guest => Some(Power::On),
            Self::Stopped => Some(Power::Off),
            Self::Paused => Some(Power::Paused),
            Self::Deleted => None,
        }
    }
}

/// The change that is waited for, by what it answered.
#[derive(Debug, Clone, Copy)]
pub struct After<'a> {
    pub answer: &'a Instance,
    /// The guest starts anew: what it said before doesn't count.
    pub restarts: bool,
}

impl<'a> After<'a> {
    #[must_use]
    pub fn change(answer: &'a Instance) -> Self {
        Self { answer, restarts: false }
    }
}

/// How a wait ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Waited {
    /// The instance is as expected, or will never be (it is in error, or something else was requested meanwhile): its state says which.
    Instance(Box<Instance>),
    Gone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Reached,
    /// It won't reach the target by itself.
    Unreachable,
    /// `soon`: only the host's report is missing.
    NotYet {
        soon: bool,
    },
}

fn verdict(target: WaitTarget, after: Option<After<'_>>, now: &Instance) -> Verdict {
    let status = &now.status;
    if target == WaitTarget::Deleted {
        return Verdict::NotYet { soon: false };
    }
    if now.spec.deleted {
        return Verdict::Unreachable;
    }
    if status.state == InstanceState::Error {
        // A change of an instance in error leaves it there until its host has tried: that error is the old one.
        let old = after.is_some_and(|a| a.answer.status == *status);
        return if old { Verdict::NotYet { soon: false } } else { Verdict::Unreachable };
    }
    if let Some(After { answer, .. }) = after
        && now.generation > answer.generation
        && target.power().is_some_and(|power| power != now.spec.power)
    {
        return Verdict::Unreachable;
    }
    let in_state = match target {
        WaitTarget::Running => status.state == InstanceState::Running,
        WaitTarget::Guest => {
            let since_start = status.started_at.is_none_or(|start| status.guest_up_at >= Some(start));
            let old: Option<Timestamp> = after.filter(|a| a.restarts).and_then(|a| a.answer.status.guest_up_at);
            let fresh = old.is_none() || status.guest_up_at > old;
            status.state == InstanceState::Running && status.guest_up_at.is_some() && since_start && fresh
        }
        WaitTarget::Stopped => status.state == InstanceState::Stopped,
        WaitTarget::Paused => status.state == InstanceState::Paused,
        WaitTarget::Deleted => false,
    };
    let expected = after.map_or(now.generation, |a| a.answer.generation);
    match (in_state, status.observed_generation >= expected) {
        (true, true) => Verdict::Reached,
        (true, false) => Verdict::NotYet { soon: true },
        (false, _) => Verdict::NotYet { soon: false },
    }
}

/// Waits, at most `timeout`; then it is a 504 that says where the instance stands.
pub async fn until(
    app: &App,
    id: InstanceId,
    target: WaitTarget,
    after: Option<After<'_>>,
    timeout: Duration,
) -> Result<Waited, ApiError> {
    let deadline = Instant::now() + timeout;
    // The watch begins before the first read, so that no change falls between the two.
    let mut watch = app.events().watch_object(id.to_string()).await?;
    loop {
        let Some(now) = app.instances().load(id).await? else {
            return match (target, after) {
                (WaitTarget::Deleted, _) => Ok(Waited::Gone),
                (_, Some(after)) => Err(Problem::not_found("instance", &after.answer.name).into()),
                (_, None) => Err(Problem::not_found("instance", id).into()),
            };
        };
        let soon = match verdict(target, after, &now) {
            Verdict::Reached | Verdict::Unreachable => return Ok(Waited::Instance(Box::new(now))),
            Verdict::NotYet { soon } => soon,
        };
        if app.shutdown().is_cancelled() {
            let mut problem = Problem::unavailable("the server is shutting down; the change goes on");
            problem.code = "shutting_down".to_owned();
            return Err(problem.into());
        }
        if Instant::now() >= deadline {
            let missing = target.missing(now.name.as_str());
            return Err(wait::timed_out(&missing, now.status.state.as_str(), &now.status.step).into());
        }
        let reread_at = Instant::now() + if soon { REREAD_SOON } else { REREAD_AFTER };
        tokio::select! {
            () = watch.changed() => {}
            () = tokio::time::sleep_until(deadline.min(reread_at)) => {}
            () = app.shutdown().cancelled() => {}
        }
    }
}

/// A wait as requested, with its place among those who wait.
pub struct Wait {
    pub target: WaitTarget,
    pub timeout: Duration,
    place: Place<UserId>,
}

impl Wait {
    /// Takes the place. Call it before the change that is waited for.
    pub fn admit(app: &App, caller: &Caller, target: WaitTarget, timeout: Duration) -> Result<Self, Problem> {
        Ok(Self { target, timeout, place: wait::place(app, caller)? })
    }
}

/// Waits for each of the instances that a create answered. Those that were deleted meanwhile are left out.
pub async fn for_all(app: &App, created: Vec<Instance>, wait: Wait) -> Result<Vec<Instance>, ApiError> {
    let Wait { target, timeout, place: _place } = wait;
    let each = created.iter().map(|answer| until(app, answer.id, target, Some(After::change(answer)), timeout));
    let waited = futures::future::try_join_all(each).await?;
    let left = |waited| match waited {
        Waited::Instance(now) => Some(*now),
        Waited::Gone => None,
    };
    Ok(waited.into_iter().filter_map(left).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use InstanceState as S;
    use WaitTarget as T;
    use domain::testing;

    fn instance(state: S, generation: i64, observed_generation: i64, power: Power) -> Instance {
        let mut instance = Instance { generation, ..testing::instance(state) };
        (instance.spec.power, instance.status.observed_generation) = (power, observed_generation);
        instance
    }

    fn guest(started: i64, up: Option<i64>) -> Instance {
        let mut observed = instance(S::Running, 1, 1, Power::On);
        observed.status.started_at = Some(Timestamp(started));
        observed.status.guest_up_at = up.map(Timestamp);
        observed
    }

    #[test]
    fn states_are_reached_when_the_host_has_caught_up() {
        let soon = Verdict::NotYet { soon: true };
        let later = Verdict::NotYet { soon: false };
        for (target, state, power) in [
            (T::Running, S::Running, Power::On),
            (T::Stopped, S::Stopped, Power::Off),
            (T::Paused, S::Paused, Power::Paused),
        ] {
            assert_eq!(verdict(target, None, &instance(state, 2, 2, power)), Verdict::Reached, "{target:?}");
            assert_eq!(
                verdict(target, None, &instance(state, 3, 2, power)),
                soon,
                "{target:?}: of an older generation"
            );
            assert_eq!(verdict(target, None, &instance(S::Building, 2, 1, power)), later);
            assert_eq!(verdict(target, None, &instance(S::Error, 2, 1, power)), Verdict::Unreachable);
            let mut deleted = instance(state, 2, 2, power);
            deleted.spec.deleted = true;
            assert_eq!(verdict(target, None, &deleted), Verdict::Unreachable);
            assert_eq!(verdict(T::Deleted, None, &deleted), later);
        }
    }

    #[test]
    fn a_change_is_over_when_its_generation_is() {
        let answer = instance(S::Running, 2, 1, Power::On);
        let rebooted = instance(S::Running, 2, 2, Power::On);
        let renamed_meanwhile = instance(S::Running, 3, 2, Power::On);
        let stopped_meanwhile = instance(S::Running, 3, 1, Power::Off);
        let after = Some(After::change(&answer));
        assert_eq!(verdict(T::Running, after, &answer), Verdict::NotYet { soon: true });
        assert_eq!(verdict(T::Running, after, &rebooted), Verdict::Reached);
        assert_eq!(verdict(T::Running, after, &renamed_meanwhile), Verdict::Reached);
        assert_eq!(verdict(T::Running, after, &stopped_meanwhile), Verdict::Unreachable);
    }

    #[test]
    fn an_error_from_before_the_change_is_not_its_end() {
        let mut answer = instance(S::Error, 2, 1, Power::Off);
        answer.status.reason = "old".to_owned();
        let mut failed_again = answer.clone();
        failed_again.status.reason = "new".to_owned();
        let after = Some(After::change(&answer));
        assert_eq!(verdict(T::Stopped, after, &answer), Verdict::NotYet { soon: false });
        assert_eq!(verdict(T::Stopped, after, &failed_again), Verdict::Unreachable);
    }

    #[test]
    fn a_guest_is_up_when_it_said_so_since_its_start() {
        let later = Verdict::NotYet { soon: false };
        assert_eq!(verdict(T::Guest, None, &guest(10, None)), later);
        assert_eq!(verdict(T::Guest, None, &guest(10, Some(9))), later, "of the start before");
        assert_eq!(verdict(T::Guest, None, &guest(10, Some(11))), Verdict::Reached);
        let answer = guest(10, Some(11));
        let rebooting = Some(After { answer: &answer, restarts: true });
        assert_eq!(verdict(T::Guest, rebooting, &guest(10, Some(11))), later, "said before the reboot");
        assert_eq!(verdict(T::Guest, rebooting, &guest(10, Some(12))), Verdict::Reached);
        assert_eq!(verdict(T::Guest, Some(After::change(&answer)), &answer), Verdict::Reached);
    }
}
