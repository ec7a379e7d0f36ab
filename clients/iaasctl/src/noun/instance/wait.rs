//! Waiting, with what the host is doing right now on the progress line.

use crate::{
    cli::{WaitArgs, WaitState},
    context::Context,
    error::CliError,
    exit,
    progress::Progress,
};
use client::{Client, WaitTarget, model::Instance};
use std::time::{Duration, Instant};

fn line(instance: &Instance, target: WaitTarget) -> String {
    let doing = [&instance.step, &instance.reason].into_iter().find(|text| !text.is_empty());
    let doing = match doing {
        Some(text) => text.clone(),
        None if target == WaitTarget::Guest && WaitTarget::Running.reached(instance) => {
            "waiting for the guest to say that it is up".to_owned()
        }
        None => String::new(),
    };
    let colon = if doing.is_empty() { "" } else { ": " };
    format!("{}: {}{colon}{doing}", instance.name, instance.state.as_str())
}

/// `None`: it is gone.
pub(super) async fn one(
    context: &Context,
    client: &Client,
    instance: &str,
    target: WaitTarget,
    timeout: Duration,
) -> Result<Option<Instance>, CliError> {
    let progress = Progress::start(context.quiet);
    let result = client.instance_wait(instance, target, timeout, |now| progress.say(&line(now, target))).await?;
    drop(progress);
    match result {
        Some(now) if target.reached(&now) => Ok(Some(now)),
        Some(now) => Err(failed(&now)),
        None if target == WaitTarget::Deleted => Ok(None),
        None => Err(CliError::Failed {
            detail: "the instance was deleted meanwhile".to_owned(),
            hint: None,
            code: exit::NOT_FOUND,
        }),
    }
}

fn failed(instance: &Instance) -> CliError {
    let name = &instance.name;
    let reason = if instance.reason.is_empty() { "no reason was given" } else { instance.reason.as_str() };
    CliError::Failed {
        detail: format!("the instance {name} is in error: {reason}"),
        hint: Some(format!("iaasctl instance timeline {name} says what happened, explain says why")),
        code: exit::FAILURE,
    }
}

/// Waits for each; the time is for all together.
pub(super) async fn many(
    context: &Context,
    client: &Client,
    instances: Vec<Instance>,
    target: WaitTarget,
    timeout: Duration,
) -> Result<Vec<Instance>, CliError> {
    let started = Instant::now();
    let (mut there, total) = (Vec::new(), instances.len());
    let progress = Progress::start(context.quiet);
    for instance in instances {
        let left = timeout.saturating_sub(started.elapsed());
        let done = there.len();
        let id = instance.id.to_string();
        let seen = |now: &Instance| progress.say(&format!("{done}/{total} {}; {}", target.as_str(), line(now, target)));
        match client.instance_wait(&id, target, left, seen).await? {
            Some(now) if target.reached(&now) => there.push(now),
            Some(now) => return Err(failed(&now)),
            None => {}
        }
    }
    Ok(there)
}

pub(super) async fn run(context: &Context, client: &Client, instance: &str, args: WaitArgs) -> Result<(), CliError> {
    let target = args.wait.flatten().unwrap_or(WaitState::Running).target();
    match one(context, client, instance, target, args.wait_timeout).await? {
        Some(now) => context.out.one(&now),
        None => Ok(()),
    }
}
