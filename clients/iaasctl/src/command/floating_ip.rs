//! `floating-ip`: addresses of the outside that stand for instances. Each is known by its address.

use super::change::delete_each;
use crate::{context::Context, error::CliError};
use clap::{ArgGroup, Args, Subcommand};
use client::model::{FloatingIpChange, FloatingIpCreate};

#[derive(Debug, Subcommand)]
pub enum FloatingIpCommand {
    /// Allocate a floating IP, and map it to an instance or port if one is given
    Create(CreateArgs),
    /// List the project's floating IPs
    List {
        /// Only those of this instance
        #[arg(long, value_name = "NAME")]
        instance: Option<String>,
    },
    /// Show a floating IP
    Show {
        #[arg(value_name = "ADDRESS")]
        floating_ip: String,
    },
    /// Change the description of a floating IP
    Set {
        #[arg(value_name = "ADDRESS")]
        floating_ip: String,
        #[arg(long)]
        description: String,
    },
    /// Map a floating IP to an instance or a port, replacing its present mapping
    Associate(AssociateArgs),
    /// Remove the mapping of a floating IP; the project keeps the address
    Dissociate {
        #[arg(value_name = "ADDRESS")]
        floating_ip: String,
    },
    /// Release floating IPs
    Delete {
        #[arg(required = true, value_name = "ADDRESS")]
        floating_ips: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub struct CreateArgs {
    /// The external network that the address is taken from; without it, the only external network, or `public`
    #[arg(long, value_name = "NAME")]
    external_network: Option<String>,
    /// Take this address; without it, any free one
    #[arg(long, value_name = "ADDRESS")]
    address: Option<String>,
    /// Map the address to this instance: to its first NIC in a network with a router
    #[arg(long, value_name = "NAME", conflicts_with = "port")]
    instance: Option<String>,
    /// Map the address to this port
    #[arg(long, value_name = "NAME")]
    port: Option<String>,
    /// Which of the port's addresses; without it, the first IPv4 one
    #[arg(long, value_name = "ADDRESS")]
    fixed_ip: Option<String>,
    #[arg(long, default_value = "", hide_default_value = true)]
    description: String,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("whom").required(true).args(["instance", "port"]))]
pub struct AssociateArgs {
    #[arg(value_name = "ADDRESS")]
    floating_ip: String,
    /// An instance: its first NIC in a network with a router
    #[arg(long, value_name = "NAME")]
    instance: Option<String>,
    /// A port
    #[arg(long, value_name = "NAME")]
    port: Option<String>,
    /// Which of the port's addresses; without it, the first IPv4 one
    #[arg(long, value_name = "ADDRESS")]
    fixed_ip: Option<String>,
}

pub(super) async fn run(context: Context, command: FloatingIpCommand) -> Result<(), CliError> {
    let client = context.client()?;
    match command {
        FloatingIpCommand::Create(args) => {
            let CreateArgs { external_network, address, instance, port, fixed_ip, description } = args;
            let request = FloatingIpCreate { external_network, address, description, port, instance, fixed_ip };
            context.change_and_show(client.floating_ip_create(&request)).await
        }
        FloatingIpCommand::List { instance } => {
            let listing = client.floating_ips();
            let listing = instance.iter().fold(listing, |listing, instance| listing.query("instance", instance));
            context.out.list(&listing.all().await?)
        }
        FloatingIpCommand::Show { floating_ip } => context.out.one(&client.floating_ip(&floating_ip).await?),
        FloatingIpCommand::Set { floating_ip, description } => {
            let change = FloatingIpChange { description: Some(description), ..FloatingIpChange::default() };
            context.change_and_show(client.floating_ip_change(&floating_ip, &change)).await
        }
        FloatingIpCommand::Associate(AssociateArgs { floating_ip, instance, port, fixed_ip }) => {
            let port = port.map(Some);
            let change = FloatingIpChange { port, instance, fixed_ip, ..FloatingIpChange::default() };
            context.change_and_show(client.floating_ip_change(&floating_ip, &change)).await
        }
        FloatingIpCommand::Dissociate { floating_ip } => {
            let change = FloatingIpChange { port: Some(None), ..FloatingIpChange::default() };
            context.change_and_show(client.floating_ip_change(&floating_ip, &change)).await
        }
        FloatingIpCommand::Delete { floating_ips } => {
            delete_each(&context, "floating IP", &floating_ips, |address| client.floating_ip_delete(address)).await
        }
    }
}
