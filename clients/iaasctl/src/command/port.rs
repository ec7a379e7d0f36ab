//! `port`: attachment points of networks.

use super::{
    change::{create_and_show, delete_each, something},
    subnet::replaced,
};
use crate::{args::IfNotExists, context::Context, error::CliError, size::parse_rate};
use clap::{Args, Subcommand};
use client::{
    Client,
    model::{PortChange, PortCreate, RateLimit, RateLimitRequest},
};

#[derive(Debug, Subcommand)]
pub enum PortCommand {
    /// Create a port that can be attached to an instance and outlives it
    Create(CreateArgs),
    /// List the project's ports, including those of instances
    List(ListArgs),
    /// Show a port
    Show { port: String },
    /// Show the traffic of a port, and the packets that were dropped, by reason
    Traffic { port: String },
    /// Change a port's name, security groups, allowed addresses or rate limit
    Set(SetArgs),
    /// Delete ports that aren't attached to an instance
    Delete {
        #[arg(required = true)]
        ports: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub struct CreateArgs {
    name: String,
    /// The network that it belongs to
    #[arg(long, value_name = "NAME")]
    network: String,
    /// An address, or a subnet to allocate one from; repeat it for several. Without it, one IPv4 and one IPv6 address, if the network has such subnets
    #[arg(long = "ip", value_name = "ADDRESS|SUBNET")]
    ips: Vec<String>,
    /// The MAC address; without it, one is chosen
    #[arg(long, value_name = "MAC")]
    mac: Option<String>,
    #[command(flatten)]
    groups: GroupArgs,
    /// An additional address range that it may send from; repeat it for several
    #[arg(long = "allow-address", value_name = "CIDR")]
    allowed: Vec<String>,
    #[command(flatten)]
    rate: RateArgs,
    #[command(flatten)]
    exists: IfNotExists,
}

#[derive(Debug, Args)]
pub struct GroupArgs {
    /// A security group; repeat it for several. Without it, a new port is in `default`
    #[arg(long = "security-group", value_name = "NAME")]
    groups: Vec<String>,
    /// No security group: all traffic is dropped
    #[arg(long, conflicts_with = "groups")]
    no_security_group: bool,
}

#[derive(Debug, Args)]
pub struct RateArgs {
    /// The rate at which it may receive (`100M`, `1G`: bits per second; 0: no limit)
    #[arg(long, value_parser = parse_rate, value_name = "RATE")]
    rate_in: Option<u64>,
    /// The rate at which it may send
    #[arg(long, value_parser = parse_rate, value_name = "RATE")]
    rate_out: Option<u64>,
}

#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only those in this network
    #[arg(long, value_name = "NAME")]
    network: Option<String>,
    /// Only of this instance
    #[arg(long, value_name = "NAME")]
    instance: Option<String>,
    /// Only in this security group
    #[arg(long, value_name = "NAME")]
    security_group: Option<String>,
}

#[derive(Debug, Args)]
pub struct SetArgs {
    port: String,
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    groups: GroupArgs,
    /// An additional address range that it may send from; replaces all present ones; repeat it for several
    #[arg(long = "allow-address", value_name = "CIDR")]
    allowed: Vec<String>,
    /// It may send only from its own addresses
    #[arg(long, conflicts_with = "allowed")]
    no_allowed_addresses: bool,
    #[command(flatten)]
    rate: RateArgs,
}

pub(super) async fn run(context: Context, command: PortCommand) -> Result<(), CliError> {
    let client = context.client()?;
    match command {
        PortCommand::Create(args) => {
            let CreateArgs { name, network, ips, mac, groups, allowed, rate, exists } = args;
            let limited = rate.rate_in.is_some() || rate.rate_out.is_some();
            let request = PortCreate {
                name: name.clone(),
                network,
                mac,
                fixed_ips: ips,
                allowed_addresses: allowed,
                security_groups: replaced(groups.groups, groups.no_security_group),
                rate_limit: limited.then(|| rate.over(RateLimit::default())),
            };
            create_and_show(&context, client.port_create(&request), exists.if_not_exists, client.port(&name)).await
        }
        PortCommand::List(args) => {
            let filters =
                [("network", args.network), ("instance", args.instance), ("security_group", args.security_group)];
            let given = filters.into_iter().filter_map(|(name, value)| Some((name, value?)));
            let listing = given.fold(client.ports(), |listing, (name, value)| listing.query(name, value));
            context.out.list(&listing.all().await?)
        }
        PortCommand::Show { port } => context.out.one(&client.port(&port).await?),
        PortCommand::Traffic { port } => context.out.one(&client.port_traffic(&port).await?),
        PortCommand::Set(args) => set(&context, &client, args).await,
        PortCommand::Delete { ports } => delete_each(&context, "port", &ports, |name| client.port_delete(name)).await,
    }
}

impl RateArgs {
    /// What isn't given stays.
    fn over(&self, now: RateLimit) -> RateLimitRequest {
        RateLimitRequest {
            to_instance_bps: self.rate_in.unwrap_or(now.to_instance_bps),
            from_instance_bps: self.rate_out.unwrap_or(now.from_instance_bps),
        }
    }
}

async fn set(context: &Context, client: &Client, args: SetArgs) -> Result<(), CliError> {
    let rate_limit = match (args.rate.rate_in, args.rate.rate_out) {
        (None, None) => None,
        (Some(_), Some(_)) => Some(args.rate.over(RateLimit::default())),
        // The other direction's stays as it is.
        _ => Some(args.rate.over(client.port(&args.port).await?.rate_limit)),
    };
    let change = PortChange {
        name: args.name,
        security_groups: replaced(args.groups.groups, args.groups.no_security_group),
        allowed_addresses: replaced(args.allowed, args.no_allowed_addresses),
        rate_limit,
    };
    let change = something(change, "port set")?;
    context.change_and_show(client.port_change(&args.port, &change)).await
}
