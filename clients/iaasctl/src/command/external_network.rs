//! `external-network`: the outside.

use super::{
    change::{create_and_show, delete_each, something},
    subnet::replaced,
};
use crate::{args::IfNotExists, context::Context, error::CliError};
use clap::{ArgGroup, Args, Subcommand};
use client::model::{ExternalNetworkChange, ExternalNetworkCreate, ExternalSubnetRequest};

#[derive(Debug, Subcommand)]
pub enum ExternalNetworkCommand {
    /// Create an external network that hosts are connected to (system admins)
    Create(CreateArgs),
    /// List the external networks
    List,
    /// Show an external network
    Show { network: String },
    /// Change the description or the subnets of an external network (system admins)
    Set {
        network: String,
        #[arg(long)]
        description: Option<String>,
        /// A subnet; replaces all present ones; repeat it for several
        #[arg(long = "subnet", value_parser = parse_subnet, value_name = "CIDR[,gateway=…][,range=…]")]
        subnets: Vec<ExternalSubnetRequest>,
    },
    /// Delete external networks that nothing uses (system admins)
    Delete {
        #[arg(required = true)]
        networks: Vec<String>,
    },
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("blocks").required(true).args(["cidr", "subnets"]))]
pub struct CreateArgs {
    /// The name, as in the hosts' configuration (`[network.external]`)
    name: String,
    /// Its only subnet: `203.0.113.0/24`
    #[arg(long, value_name = "CIDR")]
    cidr: Option<String>,
    /// With --cidr: the gateway's address; without it, the first address of the subnet
    #[arg(long, value_name = "ADDRESS", requires = "cidr")]
    gateway: Option<String>,
    /// With --cidr: a range to allocate addresses from; repeat it for several. Without it, the whole subnet
    #[arg(long = "range", alias = "allocation", value_name = "FIRST-LAST", requires = "cidr")]
    ranges: Vec<String>,
    /// One of several subnets: `203.0.113.0/24,gateway=203.0.113.1,range=203.0.113.10-203.0.113.99`; repeat it for each
    #[arg(long = "subnet", value_parser = parse_subnet, value_name = "CIDR[,gateway=…][,range=…]")]
    subnets: Vec<ExternalSubnetRequest>,
    #[arg(long, default_value = "", hide_default_value = true)]
    description: String,
    #[command(flatten)]
    exists: IfNotExists,
}

fn parse_subnet(text: &str) -> Result<ExternalSubnetRequest, String> {
    let mut parts = text.split(',');
    let mut subnet =
        ExternalSubnetRequest { cidr: parts.next().unwrap_or_default().to_owned(), ..ExternalSubnetRequest::default() };
    for part in parts {
        match part.split_once('=') {
            Some(("gateway", address)) => subnet.gateway = Some(address.to_owned()),
            Some(("range", range)) => subnet.allocation.push(range.to_owned()),
            _ => return Err(format!("`{part}` is neither gateway=ADDRESS nor range=FIRST-LAST")),
        }
    }
    Ok(subnet)
}

pub(super) async fn run(context: Context, command: ExternalNetworkCommand) -> Result<(), CliError> {
    let client = context.client()?;
    match command {
        ExternalNetworkCommand::Create(args) => {
            let CreateArgs { name, cidr, gateway, ranges, subnets, description, exists } = args;
            let only = cidr.map(|cidr| ExternalSubnetRequest { cidr, gateway, allocation: ranges });
            let subnets = only.into_iter().chain(subnets).collect();
            let request = ExternalNetworkCreate { name: name.clone(), description, subnets };
            let mutation = client.external_network_create(&request);
            create_and_show(&context, mutation, exists.if_not_exists, client.external_network(&name)).await
        }
        ExternalNetworkCommand::List => context.out.list(&client.external_networks().all().await?),
        ExternalNetworkCommand::Show { network } => context.out.one(&client.external_network(&network).await?),
        ExternalNetworkCommand::Set { network, description, subnets } => {
            let change = ExternalNetworkChange { description, subnets: replaced(subnets, false) };
            let change = something(change, "external-network set")?;
            context.change_and_show(client.external_network_change(&network, &change)).await
        }
        ExternalNetworkCommand::Delete { networks } => {
            delete_each(&context, "external network", &networks, |name| client.external_network_delete(name)).await
        }
    }
}
