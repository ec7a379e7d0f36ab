//! Verbs that act on one or many instances.

use super::wait::{self, Wait};
use crate::{
    args::{SizeArgs, WaitState},
    command::change::Failures,
    context::Context,
    error::CliError,
    output::Format,
    progress::Progress,
    size::parse_duration,
};
use clap::{ArgGroup, Args};
use client::{
    Client, Mutation,
    model::{Instance, InstanceResize, InstanceStop},
};
use futures::future::join_all;
use std::time::Duration;

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("which").required(true).args(["instances", "all"]))]
pub struct ActArgs {
    /// By name or id
    #[arg(value_name = "INSTANCE")]
    instances: Vec<String>,
    /// All instances of the project
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    wait: crate::args::WaitArgs,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("which").required(true).args(["instances", "all"]))]
pub struct StopArgs {
    /// By name or id
    #[arg(value_name = "INSTANCE")]
    instances: Vec<String>,
    /// All instances of the project
    #[arg(long)]
    all: bool,
    /// How long the guest may take to shut down before it is powered off
    #[arg(long, value_parser = parse_duration, value_name = "TIME", conflicts_with = "hard")]
    timeout: Option<Duration>,
    /// Power off without asking the guest to shut down
    #[arg(long)]
    hard: bool,
    /// Wait until the instances are stopped, or in another state
    #[arg(long, value_enum, num_args = 0..=1, value_name = "STATE")]
    wait: Option<Option<WaitState>>,
    /// How long to wait
    #[arg(long, value_parser = parse_duration, default_value = "5m", value_name = "TIME")]
    wait_timeout: Duration,
}

#[derive(Debug, Args)]
pub struct RebootArgs {
    #[command(flatten)]
    act: ActArgs,
    /// Reset the instance without asking the guest to shut down
    #[arg(long)]
    hard: bool,
}

#[derive(Debug, Args)]
pub struct ResizeArgs {
    instance: String,
    #[command(flatten)]
    size: SizeArgs,
    #[command(flatten)]
    wait: crate::args::WaitArgs,
}

#[derive(Debug, Args)]
pub struct RebuildArgs {
    instance: String,
    /// The image; without it, the one that the instance was created from
    #[arg(long)]
    image: Option<String>,
    #[command(flatten)]
    wait: crate::args::WaitArgs,
}

/// The instances that a command names, or all.
async fn which(client: &Client, names: Vec<String>, all: bool) -> Result<Vec<String>, CliError> {
    if !all {
        return Ok(names);
    }
    Ok(client.instances().all().await?.into_iter().map(|i| i.name.to_string()).collect())
}

/// Asks for a change of each at once, and waits for all of them; one that fails doesn't keep the others.
async fn act(
    context: &Context,
    client: &Client,
    names: &[String],
    wait: Option<Wait>,
    change: impl Fn(&str) -> Mutation<Instance>,
) -> Result<(), CliError> {
    let mut failures = Failures::default();
    if context.dry_run {
        for name in names {
            if let Err(error) = context.change(change(name)).await {
                failures.add(name, error, names.len());
            }
        }
        return failures.end();
    }
    let progress = Progress::start(context.quiet || wait.is_none());
    let changes = names.iter().map(|name| wait::change(client, &progress, name, change(name), wait));
    let outcomes = join_all(changes).await;
    drop(progress);
    let mut shown = Vec::new();
    for (name, outcome) in names.iter().zip(outcomes) {
        match outcome {
            Ok(now) => shown.extend(now),
            Err(error) => failures.add(name, error, names.len()),
        }
    }
    if !shown.is_empty() || names.is_empty() {
        context.out.list(&shown)?;
    }
    failures.end()
}

pub(super) async fn start(context: &Context, client: &Client, args: ActArgs) -> Result<(), CliError> {
    let names = which(client, args.instances, args.all).await?;
    let wait = Wait::of(args.wait.wait, args.wait.wait_timeout, WaitState::Running);
    act(context, client, &names, wait, |name| client.instance_start(name)).await
}

pub(super) async fn pause(context: &Context, client: &Client, args: ActArgs) -> Result<(), CliError> {
    let names = which(client, args.instances, args.all).await?;
    let wait = Wait::of(args.wait.wait, args.wait.wait_timeout, WaitState::Paused);
    act(context, client, &names, wait, |name| client.instance_pause(name)).await
}

pub(super) async fn resume(context: &Context, client: &Client, args: ActArgs) -> Result<(), CliError> {
    let names = which(client, args.instances, args.all).await?;
    let wait = Wait::of(args.wait.wait, args.wait.wait_timeout, WaitState::Running);
    act(context, client, &names, wait, |name| client.instance_resume(name)).await
}

pub(super) async fn reboot(context: &Context, client: &Client, args: RebootArgs) -> Result<(), CliError> {
    let names = which(client, args.act.instances, args.act.all).await?;
    let wait = Wait::of(args.act.wait.wait, args.act.wait.wait_timeout, WaitState::Running);
    let reboot = |name: &str| client.instance_reboot(name, args.hard);
    act(context, client, &names, wait, reboot).await
}

pub(super) async fn stop(context: &Context, client: &Client, args: StopArgs) -> Result<(), CliError> {
    let names = which(client, args.instances, args.all).await?;
    let timeout_secs = args.timeout.map(|t| u32::try_from(t.as_secs()).unwrap_or(u32::MAX));
    let how = InstanceStop { timeout_secs, hard: args.hard };
    let wait = Wait::of(args.wait, args.wait_timeout, WaitState::Stopped);
    act(context, client, &names, wait, |name| client.instance_stop(name, how)).await
}

pub(super) async fn resize(context: &Context, client: &Client, args: ResizeArgs) -> Result<(), CliError> {
    let size = InstanceResize {
        flavor: args.size.flavor,
        vcpus: args.size.vcpus,
        memory_mib: args.size.memory,
        disk_gib: args.size.disk,
    };
    if size == InstanceResize::default() {
        return Err(CliError::usage("no size was given").with_hint("--flavor NAME, or --vcpus, --memory, --disk"));
    }
    let wait = Wait::of(args.wait.wait, args.wait.wait_timeout, WaitState::Stopped);
    let resize = |name: &str| client.instance_resize(name, &size);
    act(context, client, &[args.instance], wait, resize).await
}

pub(super) async fn rebuild(context: &Context, client: &Client, args: RebuildArgs) -> Result<(), CliError> {
    let wait = Wait::of(args.wait.wait, args.wait.wait_timeout, WaitState::Running);
    let rebuild = |name: &str| client.instance_rebuild(name, args.image.as_deref());
    act(context, client, &[args.instance], wait, rebuild).await
}

pub(super) async fn delete(context: &Context, client: &Client, args: ActArgs) -> Result<(), CliError> {
    let names = which(client, args.instances, args.all).await?;
    let wait = Wait::of(args.wait.wait, args.wait.wait_timeout, WaitState::Deleted);
    let mut failures = Failures::default();
    if context.dry_run {
        for name in &names {
            if let Err(error) = context.change(client.instance_delete(name)).await {
                failures.add(name, error, names.len());
            }
        }
        return failures.end();
    }
    let progress = Progress::start(context.quiet || wait.is_none());
    let deletions = names.iter().map(|name| wait::change(client, &progress, name, client.instance_delete(name), wait));
    let outcomes = join_all(deletions).await;
    drop(progress);
    let mut shown = Vec::new();
    for (name, outcome) in names.iter().zip(outcomes) {
        match outcome {
            Ok(None) => context.note(&format!("instance {name} deleted")),
            Ok(Some(instance)) => {
                context.note(&format!("instance {name} is being deleted"));
                shown.push(instance);
            }
            Err(error) => failures.add(name, error, names.len()),
        }
    }
    // Nothing is left to look at but what programs may want.
    if context.out.format != Format::Table {
        context.out.list(&shown)?;
    }
    failures.end()
}
