//! NICs: requested with a new instance, added, removed.

use super::wait::{self, Wait};
use crate::{
    args::{WaitArgs, WaitState},
    context::Context,
    error::CliError,
    progress::Progress,
};
use clap::{ArgGroup, Args, Subcommand};
use client::{
    Client, Mutation,
    model::{Instance, NicRequest},
};

#[derive(Debug, Args)]
pub struct NicArgs {
    /// Add a NIC in this network; repeat it for several. Without --network, --port and --no-network: one in the network `default`, if it exists
    #[arg(long = "network", value_parser = parse_network, value_name = "NAME[,ip=…][,security-group=…]")]
    networks: Vec<NicRequest>,
    /// Add a NIC with this port, after those given with --network; repeat it for several
    #[arg(long = "port", value_name = "NAME")]
    ports: Vec<String>,
    /// Create the instance without any NIC
    #[arg(long, conflicts_with_all = ["networks", "ports"])]
    no_network: bool,
}

impl NicArgs {
    /// `None`: nothing was said.
    pub(super) fn requests(self) -> Option<Vec<NicRequest>> {
        let ports = self.ports.into_iter().map(|port| NicRequest { port: Some(port), ..NicRequest::default() });
        let nics: Vec<NicRequest> = self.networks.into_iter().chain(ports).collect();
        (self.no_network || !nics.is_empty()).then_some(nics)
    }
}

/// `blue,ip=10.0.0.5,security-group=web`; `ip` and `security-group` may come several times.
fn parse_network(text: &str) -> Result<NicRequest, String> {
    let mut parts = text.split(',');
    let network = parts.next().filter(|name| !name.is_empty() && !name.contains('='));
    let network = network.ok_or_else(|| format!("`{text}` doesn't begin with a network's name"))?;
    let mut nic = NicRequest { network: Some(network.to_owned()), ..NicRequest::default() };
    for part in parts {
        match part.split_once('=') {
            Some(("ip", address)) => nic.fixed_ips.push(address.to_owned()),
            Some(("security-group", group)) => nic.security_groups.get_or_insert_default().push(group.to_owned()),
            _ => return Err(format!("`{part}` is neither ip=ADDRESS nor security-group=NAME")),
        }
    }
    Ok(nic)
}

#[derive(Debug, Subcommand)]
pub enum NicCommand {
    /// Attach another NIC to an instance, also while it runs
    Add(AddArgs),
    /// Detach a NIC from an instance, also while it runs; a port that was created separately keeps its addresses
    Remove(RemoveArgs),
    /// List the NICs of an instance, in the order in which the guest sees them
    List { instance: String },
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("nic").required(true).args(["network", "port"]))]
pub struct AddArgs {
    instance: String,
    /// Create a new port in this network
    #[arg(long, value_parser = parse_network, value_name = "NAME[,ip=…][,security-group=…]")]
    network: Option<NicRequest>,
    /// A port that isn't attached to an instance
    #[arg(long, value_name = "NAME")]
    port: Option<String>,
    #[command(flatten)]
    wait: WaitArgs,
}

#[derive(Debug, Args)]
pub struct RemoveArgs {
    instance: String,
    /// The NIC's port, by name or id (`iaasctl instance nic list`); not needed if the instance has one NIC
    #[arg(long, value_name = "NAME")]
    port: Option<String>,
    #[command(flatten)]
    wait: WaitArgs,
}

async fn change(
    context: &Context,
    client: &Client,
    instance: &str,
    mutation: Mutation<Instance>,
    wait: WaitArgs,
) -> Result<(), CliError> {
    if context.dry_run {
        return context.change(mutation).await.map(drop);
    }
    let wait = Wait::of(wait.wait, wait.wait_timeout, WaitState::Running);
    let progress = Progress::start(context.quiet || wait.is_none());
    let changed = wait::change(client, &progress, instance, mutation, wait).await;
    drop(progress);
    match changed? {
        Some(now) => context.out.one(&now),
        None => Ok(()),
    }
}

pub(super) async fn run(context: &Context, client: &Client, command: NicCommand) -> Result<(), CliError> {
    match command {
        NicCommand::Add(args) => add(context, client, args).await,
        NicCommand::Remove(args) => remove(context, client, args).await,
        NicCommand::List { instance } => context.out.list(&client.instance(&instance).await?.nics),
    }
}

pub(super) async fn add(context: &Context, client: &Client, args: AddArgs) -> Result<(), CliError> {
    let nic = args.network.unwrap_or(NicRequest { port: args.port, ..NicRequest::default() });
    let mutation = client.instance_attach(&args.instance, &nic);
    change(context, client, &args.instance, mutation, args.wait).await
}

pub(super) async fn remove(context: &Context, client: &Client, args: RemoveArgs) -> Result<(), CliError> {
    let port = match args.port {
        Some(port) => port,
        None => only_nic(&client.instance(&args.instance).await?)?,
    };
    let mutation = client.instance_detach(&args.instance, &port);
    change(context, client, &args.instance, mutation, args.wait).await
}

fn only_nic(instance: &Instance) -> Result<String, CliError> {
    let name = &instance.name;
    match instance.nics.as_slice() {
        [only] => Ok(only.port_id.to_string()),
        [] => Err(CliError::usage(format!("the instance {name} has no NIC"))),
        several => {
            Err(CliError::usage(format!("the instance {name} has {} NICs: choose one with --port", several.len()))
                .with_hint(format!("`iaasctl instance nic list {name}` shows their ports")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nics_are_read() {
        let nic = parse_network("blue,ip=10.0.0.5,ip=fd00::5,security-group=web").expect("a NIC");
        assert_eq!(
            (nic.network.as_deref(), nic.fixed_ips.as_slice()),
            (Some("blue"), &["10.0.0.5".to_owned(), "fd00::5".to_owned()][..])
        );
        assert_eq!(nic.security_groups, Some(vec!["web".to_owned()]));
        assert_eq!(parse_network("blue").expect("a NIC").security_groups, None);
        for bad in ["", "ip=10.0.0.5", "blue,10.0.0.5", "blue,mac=02:00:00:00:00:01"] {
            assert!(parse_network(bad).is_err(), "{bad}");
        }
        let none = NicArgs { networks: vec![], ports: vec![], no_network: true };
        assert_eq!(none.requests(), Some(vec![]));
        let silent = NicArgs { networks: vec![], ports: vec![], no_network: false };
        assert_eq!(silent.requests(), None);
    }
}
