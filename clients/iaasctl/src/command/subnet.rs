//! `subnet`: blocks of addresses.

use super::change::{create_and_show, delete_each, something};
use crate::{
    args::{IfNotExists, Switch},
    context::Context,
    error::CliError,
};
use clap::{Args, Subcommand};
use client::model::{HostRouteRequest, SubnetChange, SubnetCreate};

#[derive(Debug, Subcommand)]
pub enum SubnetCommand {
    /// Create a subnet: an address range of a network
    Create(CreateArgs),
    /// List the project's subnets
    List {
        /// Only those in this network
        #[arg(long, value_name = "NAME")]
        network: Option<String>,
    },
    /// Show a subnet
    Show { subnet: String },
    /// Change a subnet's name, resolvers, ranges, routes or DHCP
    Set(SetArgs),
    /// Delete subnets from which no address is in use
    Delete {
        #[arg(required = true)]
        subnets: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub struct CreateArgs {
    name: String,
    /// The network that it belongs to
    #[arg(long, value_name = "NAME")]
    network: String,
    /// The address range: `10.1.0.0/24`, `fd00:1::/64`
    #[arg(long, value_name = "CIDR")]
    cidr: String,
    /// The gateway's address; without it, the first address of the range
    #[arg(long, value_name = "ADDRESS")]
    gateway: Option<String>,
    /// A DNS resolver to announce to guests; repeat it for several. Without it, the network's own
    #[arg(long, value_name = "ADDRESS")]
    dns: Vec<String>,
    /// A range to allocate addresses from; repeat it for several. Without it, the whole subnet
    #[arg(long = "range", alias = "allocation", value_name = "FIRST-LAST")]
    ranges: Vec<String>,
    /// A route to announce to guests; repeat it for several
    #[arg(long = "route", value_parser = parse_route, value_name = "CIDR=ADDRESS")]
    routes: Vec<HostRouteRequest>,
    /// Don't tell guests their addresses by DHCP
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
    /// A DNS resolver; replaces all present ones; repeat it for several
    #[arg(long, value_name = "ADDRESS")]
    dns: Vec<String>,
    /// Use the network's own resolver again
    #[arg(long, conflicts_with = "dns")]
    no_dns: bool,
    /// A range to allocate addresses from; replaces all present ones; repeat it for several
    #[arg(long = "range", alias = "allocation", value_name = "FIRST-LAST")]
    ranges: Vec<String>,
    /// Allocate addresses from the whole subnet again
    #[arg(long, conflicts_with = "ranges")]
    no_ranges: bool,
    /// A route; replaces all present ones; repeat it for several
    #[arg(long = "route", value_parser = parse_route, value_name = "CIDR=ADDRESS")]
    routes: Vec<HostRouteRequest>,
    /// Remove all routes
    #[arg(long, conflicts_with = "routes")]
    no_routes: bool,
    /// Whether DHCP tells guests their addresses
    #[arg(long, value_enum)]
    dhcp: Option<Switch>,
}

fn parse_route(text: &str) -> Result<HostRouteRequest, String> {
    let (destination, next_hop) =
        text.split_once('=').ok_or_else(|| format!("`{text}` is not a route like 10.9.0.0/16=10.1.0.9"))?;
    Ok(HostRouteRequest { destination: destination.to_owned(), next_hop: next_hop.to_owned() })
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
