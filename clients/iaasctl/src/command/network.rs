//! `network`: private networks.

use super::change::{create, delete_each, something};
use crate::{args::IfNotExists, context::Context, error::CliError};
use clap::{Args, Subcommand};
use client::{
    Client,
    model::{Network, NetworkChange, NetworkCreate, RouterCreate, SubnetCreate},
};

#[derive(Debug, Subcommand)]
pub enum NetworkCommand {
    /// Create a network, optionally with subnets and a router
    Create(CreateArgs),
    /// List the project's networks
    List,
    /// Show a network with its subnets, router and peerings
    Show { network: String },
    /// Change the name or description of a network
    Set {
        network: String,
        #[arg(long)]
        name: Option<String>,
        #[arg(long)]
        description: Option<String>,
    },
    /// Delete networks without ports, routers and peerings; their subnets are deleted too
    Delete {
        #[arg(required = true)]
        networks: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub struct CreateArgs {
    name: String,
    /// Create a subnet with this range too (`10.1.0.0/24`, `fd00:1::/64`); repeat it for several
    #[arg(long = "subnet", value_name = "CIDR")]
    subnets: Vec<String>,
    /// Create a router to this external network too (`iaasctl external-network list`)
    #[arg(long, value_name = "NAME")]
    external_network: Option<String>,
    #[arg(long, default_value = "", hide_default_value = true)]
    description: String,
    /// The MTU of the guests' interfaces; without it, the largest that the hosts' network allows
    #[arg(long, value_name = "BYTES")]
    mtu: Option<u32>,
    #[command(flatten)]
    exists: IfNotExists,
}

pub(super) async fn run(context: Context, command: NetworkCommand) -> Result<(), CliError> {
    let client = context.client()?;
    match command {
        NetworkCommand::Create(args) => make(&context, &client, args).await,
        NetworkCommand::List => context.out.list(&client.networks().all().await?),
        NetworkCommand::Show { network } => context.out.one(&client.network(&network).await?),
        NetworkCommand::Set { network, name, description } => {
            let change = something(NetworkChange { name, description }, "network set")?;
            context.change_and_show(client.network_change(&network, &change)).await
        }
        NetworkCommand::Delete { networks } => {
            delete_each(&context, "network", &networks, |name| client.network_delete(name)).await
        }
    }
}

async fn make(context: &Context, client: &Client, args: CreateArgs) -> Result<(), CliError> {
    let CreateArgs { name, subnets, external_network, description, mtu, exists } = args;
    let request = NetworkCreate { name: name.clone(), description, mtu };
    let made = create(context, client.network_create(&request), exists.if_not_exists, client.network(&name)).await?;
    let Some(network) = made else { return Ok(()) };
    if let Err(error) = furnish(context, client, &network, &subnets, external_network).await {
        context.note(&format!("the network {name} was created; a part of it failed:"));
        return Err(error);
    }
    context.out.one(&client.network(&network.id.to_string()).await?)
}

/// Its subnets (named as it is; the second `NAME-2`) and its router. What is there stays, so that a repeat finishes.
async fn furnish(
    context: &Context,
    client: &Client,
    network: &Network,
    cidrs: &[String],
    external_network: Option<String>,
) -> Result<(), CliError> {
    let id = network.id.to_string();
    let mut taken: Vec<String> = network.subnets.iter().map(|s| s.name.to_string()).collect();
    for cidr in cidrs.iter().filter(|cidr| !network.subnets.iter().any(|s| s.cidr.to_string() == **cidr)) {
        let numbered = (2..).map(|n| format!("{}-{n}", network.name));
        let name = std::iter::once(network.name.to_string()).chain(numbered).find(|name| !taken.contains(name));
        let name = name.unwrap_or_default();
        let request =
            SubnetCreate { name: name.clone(), network: id.clone(), cidr: cidr.clone(), ..SubnetCreate::default() };
        context.change(client.subnet_create(&request)).await?;
        taken.push(name);
    }
    if external_network.is_some() && network.router.is_none() {
        let request = RouterCreate { name: network.name.to_string(), network: id, external_network, source_nat: None };
        context.change(client.router_create(&request)).await?;
    }
    Ok(())
}
