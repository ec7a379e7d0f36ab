//! `instance create`.

use super::{
    NicArgs, PlacementArgs,
    wait::{self, Wait},
};
use crate::{
    args::{IfNotExists, SizeArgs, WaitArgs, WaitState, one_of},
    context::Context,
    error::CliError,
    exit,
    progress::Progress,
    size::parse_tag,
};
use clap::Args;
use client::{
    Client, ClientError, WaitTarget,
    model::{InstanceCreate, NotMade},
};
use domain::{
    instance::{OnCrash, Power},
    limits,
    placement::Fill,
};
use std::{
    path::{Path, PathBuf},
    pin::pin,
    time::Duration,
};

/// Between two looks at many instances.
const LOOK: Duration = Duration::from_millis(500);

#[derive(Debug, Args)]
pub struct CreateArgs {
    name: String,
    /// The image that it starts from, by name or id
    #[arg(long)]
    image: String,
    #[command(flatten)]
    size: SizeArgs,
    /// Create N instances, named NAME-1 to NAME-N: all of them or none, unless --as-many-as-fit is given
    #[arg(long, value_name = "N", conflicts_with = "if_not_exists")]
    count: Option<u32>,
    /// With --count: create those that fit, and report why the others don't
    #[arg(long, requires = "count")]
    as_many_as_fit: bool,
    /// An SSH key to install (`iaasctl key list`); repeat it for several
    #[arg(long = "key", value_name = "NAME")]
    keys: Vec<String>,
    /// A file with a script or a cloud-init document for the first boot
    #[arg(long, value_name = "FILE")]
    user_data: Option<PathBuf>,
    /// A tag of the instance; repeat it for several
    #[arg(long = "tag", value_parser = parse_tag, value_name = "KEY=VALUE")]
    tags: Vec<(String, String)>,
    /// What to do when QEMU exits unexpectedly
    #[arg(long, value_parser = one_of(OnCrash::ALL, OnCrash::as_str))]
    on_crash: Option<OnCrash>,
    /// Only on hosts of this zone
    #[arg(long)]
    zone: Option<String>,
    #[command(flatten)]
    placement: PlacementArgs,
    /// Create the instance without starting it
    #[arg(long)]
    stopped: bool,
    #[command(flatten)]
    nics: NicArgs,
    #[command(flatten)]
    exists: IfNotExists,
    #[command(flatten)]
    wait: WaitArgs,
}

pub(super) async fn run(context: &Context, client: &Client, args: CreateArgs) -> Result<(), CliError> {
    let CreateArgs {
        name,
        image,
        size,
        count,
        as_many_as_fit,
        keys,
        user_data,
        tags,
        on_crash,
        zone,
        placement,
        stopped,
        nics,
        exists,
        wait,
    } = args;
    let mut request = InstanceCreate::new(&name, image);
    if size.flavor.is_none() && (size.vcpus.is_none() || size.memory.is_none()) {
        return Err(CliError::usage("no size was given")
            .with_hint("--flavor NAME (`iaasctl flavor list`), or --vcpus, --memory and --disk"));
    }
    if size.flavor.is_none() {
        request = request.size(size.vcpus.unwrap_or_default(), size.memory.unwrap_or_default(), size.disk.unwrap_or(0));
    }
    request.flavor = size.flavor;
    request.ssh_keys = keys;
    request.tags = tags.into_iter().collect();
    request.on_crash = on_crash;
    request.zone = zone;
    placement.put_into(&mut request);
    request.networks = nics.requests();
    request.power = stopped.then_some(Power::Off);
    request.fill = as_many_as_fit.then_some(Fill::AsManyAsFit);
    if let Some(path) = &user_data {
        request = request.user_data(&read_user_data(path)?);
    }
    let leads_to = if stopped { WaitState::Stopped } else { WaitState::Running };
    let wait = Wait::of(wait.wait, wait.wait_timeout, leads_to);
    if let Some(count) = count {
        return many(context, client, &request, count, wait).await;
    }
    let mutation = client.instance_create(&request);
    if context.dry_run {
        return context.change(mutation).await.map(drop);
    }
    let progress = Progress::start(context.quiet);
    let created = wait::change(client, &progress, &name, mutation, wait).await;
    drop(progress);
    match created {
        Ok(Some(instance)) => context.out.one(&instance),
        Ok(None) => Ok(()),
        Err(CliError::Client(ClientError::Problem(problem)))
            if exists.if_not_exists && problem.code == "name_taken" =>
        {
            context.note("it already exists");
            standing(context, client, &name, wait).await
        }
        Err(error) => Err(error),
    }
}

/// One that exists already is waited for too; but one that isn't meant to run won't.
async fn standing(context: &Context, client: &Client, name: &str, wait: Option<Wait>) -> Result<(), CliError> {
    let instance = client.instance(name).await?;
    let Some(wait) = wait else { return context.out.one(&instance) };
    let runs = matches!(wait.target, WaitTarget::Running | WaitTarget::Guest);
    if runs && instance.power != Power::On {
        return Err(CliError::Failed {
            detail: format!("the instance {name} already exists and is {}; it wasn't started", instance.state.as_str()),
            hint: Some(format!("iaasctl instance start {name} --wait")),
            code: exit::CONFLICT,
        });
    }
    match wait::existing(context, client, &instance.id.to_string(), wait).await? {
        Some(instance) => context.out.one(&instance),
        None => Ok(()),
    }
}

async fn many(
    context: &Context,
    client: &Client,
    request: &InstanceCreate,
    count: u32,
    wait: Option<Wait>,
) -> Result<(), CliError> {
    let mutation = client.instance_create_many(request, count);
    if context.dry_run {
        return context.change(mutation).await.map(drop);
    }
    let Some(wait) = wait else {
        let made = mutation.send().await?;
        say_not_made(context, made.not_made);
        return context.out.list(&made.items);
    };
    let mutation = wait.applied(mutation);
    let progress = Progress::start(context.quiet);
    let listing = client.instances().query("name", format!("{}-*", request.name));
    let mut creating = pin!(mutation.send());
    let made = loop {
        tokio::select! {
            made = &mut creating => break made?,
            () = tokio::time::sleep(LOOK) => {}
        }
        tokio::select! {
            made = &mut creating => break made?,
            looked = listing.all() => if let Ok(now) = looked {
                let there = now.iter().filter(|i| wait.target.reached(i)).count();
                let other = now.iter().find(|i| !wait.target.reached(i)).map(|i| wait::line(i, wait.target));
                progress.say(&format!("{there} of {count} are {}; {}", wait.target.as_str(), other.unwrap_or_default()));
            }
        }
    };
    drop(progress);
    say_not_made(context, made.not_made);
    context.out.list(&made.items)?;
    made.items.into_iter().try_for_each(|instance| wait::check(instance, wait.target).map(drop))
}

fn say_not_made(context: &Context, not_made: Option<NotMade>) {
    let Some(NotMade { names, why, hint, .. }) = not_made else { return };
    context.note(&format!("not created: {} ({why}); {hint}", names.join(", ")));
}

fn read_user_data(path: &Path) -> Result<Vec<u8>, CliError> {
    let bytes =
        std::fs::read(path).map_err(|source| CliError::File { action: "read", path: path.to_owned(), source })?;
    if bytes.len() > limits::USER_DATA_BYTES {
        let (is, most) = (bytes.len(), limits::USER_DATA_BYTES);
        return Err(CliError::usage(format!("the user data has {is} bytes; the limit is {most}"))
            .with_hint("use a short script that downloads the rest"));
    }
    Ok(bytes)
}
