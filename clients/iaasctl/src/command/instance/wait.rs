//! Waiting, with what the host is doing right now on the progress line.

use crate::{
    args::{WaitArgs, WaitState},
    context::Context,
    error::CliError,
    exit,
    progress::Progress,
};
use client::{Client, ClientError, Mutation, WAIT_MAX, WaitTarget, model::Instance};
use serde::de::DeserializeOwned;
use std::time::{Duration, Instant};

/// A wait that was asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wait {
    pub(super) target: WaitTarget,
    pub(super) timeout: Duration,
}

impl Wait {
    /// `leads_to`: what `--wait` without a state means.
    pub(super) fn of(state: Option<Option<WaitState>>, timeout: Duration, leads_to: WaitState) -> Option<Self> {
        state.map(|state| Self { target: state.unwrap_or(leads_to).target(), timeout })
    }

    /// The mutation that waits by itself.
    pub(super) fn applied<T: DeserializeOwned>(self, mutation: Mutation<T>) -> Mutation<T> {
        mutation.wait(self.target.as_str(), self.timeout.min(WAIT_MAX))
    }
}

/// What to show while an instance is waited for.
pub(super) fn line(instance: &Instance, target: WaitTarget) -> String {
    let doing = [&instance.step, &instance.reason].into_iter().find(|text| !text.is_empty());
    let doing = match doing {
        Some(text) => text.clone(),
        None if target == WaitTarget::Guest && WaitTarget::Running.reached(instance) => {
            "waiting for the guest to report that it is up".to_owned()
        }
        None => String::new(),
    };
    let colon = if doing.is_empty() { "" } else { ": " };
    format!("{}: {}{colon}{doing}", instance.name, instance.state.as_str())
}

/// An instance that was waited for must be as requested.
pub(super) fn check(instance: Instance, target: WaitTarget) -> Result<Instance, CliError> {
    use domain::instance::InstanceState;
    if target.reached(&instance) {
        return Ok(instance);
    }
    let name = &instance.name;
    let hint =
        Some(format!("`iaasctl instance timeline {name}` shows what happened, `iaasctl instance explain {name}` why"));
    if instance.state == InstanceState::Error {
        let reason = if instance.reason.is_empty() { "no reason is known" } else { instance.reason.as_str() };
        let detail = format!("the instance {name} is in the state error: {reason}");
        return Err(CliError::Failed { detail, hint, code: exit::FAILURE });
    }
    let (state, power) = (instance.state.as_str(), serde_json::to_value(instance.power).unwrap_or_default());
    let detail = format!(
        "the instance {name} is {state} and will not become {} by itself (its power is {})",
        target.as_str(),
        power.as_str().unwrap_or_default()
    );
    Err(CliError::Failed { detail, hint, code: exit::CONFLICT })
}

/// Makes a change of one instance, and waits for its end. `None`: it is gone.
pub(super) async fn change<T>(
    client: &Client,
    progress: &Progress,
    instance: &str,
    mutation: Mutation<T>,
    wait: Option<Wait>,
) -> Result<Option<Instance>, CliError>
where
    T: DeserializeOwned + Into<Option<Instance>>,
{
    let Some(wait) = wait else { return Ok(mutation.send().await?.into()) };
    let started = Instant::now();
    let mutation = wait.applied(mutation);
    let show = |now: &Instance| progress.say(&line(now, wait.target));
    let done = match client.instance_watch(instance, mutation.send(), show).await {
        Ok(done) => done.into(),
        // It was made; it only takes longer than one request may.
        Err(ClientError::Problem(problem)) if problem.code == "wait_timeout" && wait.timeout > WAIT_MAX => {
            let left = wait.timeout.saturating_sub(started.elapsed());
            client.instance_wait(instance, wait.target, left, show).await?
        }
        Err(error) => return Err(error.into()),
    };
    match done {
        Some(now) => check(now, wait.target).map(Some),
        None => Ok(None),
    }
}

pub(super) async fn run(context: &Context, client: &Client, instance: &str, args: WaitArgs) -> Result<(), CliError> {
    let target = args.wait.flatten().unwrap_or(WaitState::Running).target();
    match existing(context, client, instance, Wait { target, timeout: args.wait_timeout }).await? {
        Some(now) => context.out.one(&now),
        None => Ok(()),
    }
}

/// Waits for an instance that is there already. `None`: it is gone, as requested.
pub(super) async fn existing(
    context: &Context,
    client: &Client,
    instance: &str,
    wait: Wait,
) -> Result<Option<Instance>, CliError> {
    let progress = Progress::start(context.quiet);
    let show = |now: &Instance| progress.say(&line(now, wait.target));
    match client.instance_wait(instance, wait.target, wait.timeout, show).await? {
        Some(now) => check(now, wait.target).map(Some),
        None => Ok(None),
    }
}
