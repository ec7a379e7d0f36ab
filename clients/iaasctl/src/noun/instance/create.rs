//! `instance create`.

use super::{OnCrashName, wait};
use crate::{
    cli::{IfNotExists, SizeArgs, WaitArgs, WaitState},
    context::Context,
    error::CliError,
    exit,
    size::parse_tag,
};
use clap::Args;
use client::{Client, WaitTarget, model::InstanceCreate};
use domain::{instance::Power, limits};
use std::path::{Path, PathBuf};

#[derive(Debug, Args)]
pub struct CreateArgs {
    name: String,
    /// What it starts from, by name or id
    #[arg(long)]
    image: String,
    #[command(flatten)]
    size: SizeArgs,
    /// So many, named NAME-1 to NAME-N: all of them, or none
    #[arg(long, value_name = "N", conflicts_with = "if_not_exists")]
    count: Option<u32>,
    /// An SSH key that it gets (`iaasctl key list`); repeat it for several
    #[arg(long = "key", value_name = "NAME")]
    keys: Vec<String>,
    /// A script or cloud-init document for its first boot
    #[arg(long, value_name = "FILE")]
    user_data: Option<PathBuf>,
    /// Repeat it for several
    #[arg(long = "tag", value_parser = parse_tag, value_name = "KEY=VALUE")]
    tags: Vec<(String, String)>,
    /// What happens when QEMU ends although it should run
    #[arg(long, value_enum)]
    on_crash: Option<OnCrashName>,
    /// Only on hosts of this zone
    #[arg(long)]
    zone: Option<String>,
    /// Make it, but don't start it
    #[arg(long)]
    stopped: bool,
    #[command(flatten)]
    exists: IfNotExists,
    #[command(flatten)]
    wait: WaitArgs,
}

pub(super) async fn run(context: &Context, client: &Client, args: CreateArgs) -> Result<(), CliError> {
    let CreateArgs { name, image, size, count, keys, user_data, tags, on_crash, zone, stopped, exists, wait } = args;
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
    request.on_crash = on_crash.map(OnCrashName::on_crash);
    request.zone = zone;
    request.power = stopped.then_some(Power::Off);
    if let Some(path) = &user_data {
        request = request.user_data(&read_user_data(path)?);
    }
    let leads_to = if stopped { WaitState::Stopped } else { WaitState::Running };
    let target = wait.wait.map(|state| state.unwrap_or(leads_to).target());
    if let Some(count) = count {
        let Some(page) = context.change(client.instance_create_many(&request, count)).await? else { return Ok(()) };
        let instances = match target {
            None => page.items,
            Some(target) => wait::many(context, client, page.items, target, wait.wait_timeout).await?,
        };
        return context.out.list(&instances);
    }
    let mutation = client.instance_create(&request);
    let existing = client.instance(&name);
    let Some(instance) = super::super::create(context, mutation, exists.if_not_exists, existing).await? else {
        return Ok(());
    };
    let runs = matches!(target, Some(WaitTarget::Running | WaitTarget::Guest));
    if runs && instance.power != Power::On {
        return Err(CliError::Failed {
            detail: format!(
                "the instance {name} exists and is {}, and nobody asked to start it",
                instance.state.as_str()
            ),
            hint: Some(format!("iaasctl instance start {name} --wait")),
            code: exit::CONFLICT,
        });
    }
    let Some(target) = target else { return context.out.one(&instance) };
    match wait::one(context, client, &instance.id.to_string(), target, wait.wait_timeout).await? {
        Some(instance) => context.out.one(&instance),
        None => Ok(()),
    }
}

fn read_user_data(path: &Path) -> Result<Vec<u8>, CliError> {
    let bytes =
        std::fs::read(path).map_err(|source| CliError::File { action: "read", path: path.to_owned(), source })?;
    if bytes.len() > limits::USER_DATA_BYTES {
        let (is, most) = (bytes.len(), limits::USER_DATA_BYTES);
        return Err(CliError::usage(format!("the user data has {is} bytes; {most} are the most"))
            .with_hint("let a short script fetch the rest"));
    }
    Ok(bytes)
}
