//! `subnet`: blocks of addresses.

use super::{create_and_show, delete_each, something};
use crate::{
    cli::{IfNotExists, Switch},
    context::Context,
    error::CliError,
};
use clap::{Args, Subcommand};
use client::model::{HostRoute, SubnetChange, SubnetCreate};

#[derive(Debug, Subcommand)]
pub enum SubnetCommand {
    /// Give a network a block of addresses
    Create(CreateArgs),
    /// The project's subnets
    List {
        /// Only of this network
        #[arg(long, value_name = "NAME")]
        network: Option<String>,
    },
    /// Show a subnet
    Show { subnet: String },
    /// Change what guests are told
    Set(SetArgs),
    /// Delete subnets that nobody has an address of
    Delete {
        #[arg(required = true)]
        subnets: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub struct CreateArgs {
    name: String,
    /// The network it is of
    #[arg(long, value_name = "NAME")]
    network: String,
    /// `10.1.0.0/24`, `fd00:1::/64`
    #[arg(long, value_name = "CIDR")]
    cidr: String,
    /// Without it: the block's first address
    #[arg(long, value_name = "ADDRESS")]
    gateway: Option<String>,
    /// A resolver that guests are told; repeat it for several. Without it: the network's own
    #[arg(long, value_name = "ADDRESS")]
    dns: Vec<String>,
    /// Where addresses are taken from; repeat it for several. Without it: the whole block
    #[arg(long = "range", alias = "allocation", value_name = "FIRST-LAST")]
    ranges: Vec<String>,
    /// A route that guests are told; repeat it for several
    #[arg(long = "route", value_parser = parse_route, value_name = "CIDR=ADDRESS")]
    routes: Vec<HostRoute>,
    /// Don't tell guests their addresses
    #[arg(long)]
    no_dhcp: bool,
    #[command(flatten)]
    exists: IfNotExists,
}

#[derive(Debug, Args)]
pub struct SetArgs {
    subnet: String,
    #[arg(long)]
    name: Option<String>,
    /// Replaces all resolvers; repeat it for several
    #[arg(long, value_name = "ADDRESS")]
    dns: Vec<String>,
    /// The network's own resolver again
    #[arg(long, conflicts_with = "dns")]
    no_dns: bool,
    /// Replaces all ranges; repeat it for several
    #[arg(long = "range", alias = "allocation", value_name = "FIRST-LAST")]
    ranges: Vec<String>,
    /// Take addresses from the whole block again
    #[arg(long, conflicts_with = "ranges")]
    no_ranges: bool,
    /// Replaces all routes; repeat it for several
    #[arg(long = "route", value_parser = parse_route, value_name = "CIDR=ADDRESS")]
    routes: Vec<HostRoute>,
    /// Tell guests no routes
    #[arg(long, conflicts_with = "routes")]
    no_routes: bool,
    /// Whether guests are told their addresses
    #[arg(long, value_enum)]
    dhcp: Option<Switch>,
}

fn parse_route(text: &str) -> Result<HostRoute, String> {
    let (destination, next_hop) =
        text.split_once('=').ok_or_else(|| format!("`{text}` is not a route like 10.9.0.0/16=10.1.0.9"))?;
    Ok(HostRoute { destination: destination.to_owned(), next_hop: next_hop.to_owned() })
}

/// What replaces a list: what was given, nothing when that was asked for, or no change.
pub(super) fn replaced<T>(given: Vec<T>, none: bool) -> Option<Vec<T>> {
    (none || !given.is_empty()).then_some(given)
}

pub(super) async fn run(context: Context, command: SubnetCommand) -> Result<(), CliError> {
    let client = context.client()?;
    match command {
        SubnetCommand::Create(args) => {
            let CreateArgs { name, network, cidr, gateway, dns, ranges, routes, no_dhcp, exists } = args;
            let request = SubnetCreate {
                name: name.clone(),
                network,
                cidr,
                gateway,
                dns,
                allocation: ranges,
                host_routes: routes,
                dhcp: no_dhcp.then_some(false),
            };
            create_and_show(&context, client.subnet_create(&request), exists.if_not_exists, client.subnet(&name)).await
        }
        SubnetCommand::List { network } => {
            let listing = client.subnets();
            let listing = network.iter().fold(listing, |listing, network| listing.query("network", network));
            context.out.list(&listing.all().await?)
        }
        SubnetCommand::Show { subnet } => context.out.one(&client.subnet(&subnet).await?),
        SubnetCommand::Set(args) => {
            let change = SubnetChange {
                name: args.name,
                dns: replaced(args.dns, args.no_dns),
                allocation: replaced(args.ranges, args.no_ranges),
                host_routes: replaced(args.routes, args.no_routes),
                dhcp: args.dhcp.map(Switch::on),
            };
            let change = something(change, "subnet set")?;
            context.change_and_show(client.subnet_change(&args.subnet, &change)).await
        }
        SubnetCommand::Delete { subnets } => {
            delete_each(&context, "subnet", &subnets, |name| client.subnet_delete(name)).await
        }
    }
}
