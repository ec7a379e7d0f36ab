//! `router`: ways of networks to the outside.

use super::change::{create_and_show, delete_each, something};
use crate::{
    args::{IfNotExists, Switch},
    context::Context,
    error::CliError,
};
use clap::Subcommand;
use client::model::{RouterChange, RouterCreate};

#[derive(Debug, Subcommand)]
pub enum RouterCommand {
    /// Create a router that connects a network to an external network
    Create {
        name: String,
        /// The network; a network has at most one router
        #[arg(long, value_name = "NAME")]
        network: String,
        /// The external network that it connects to; without it, the only external network, or `public`
        #[arg(long, value_name = "NAME")]
        external_network: Option<String>,
        /// Instances without a floating IP can't reach the external network
        #[arg(long)]
        no_source_nat: bool,
        #[command(flatten)]
        exists: IfNotExists,
    },
    /// List the project's routers
    List {
        /// Only the router of this network
        #[arg(long, value_name = "NAME")]
        network: Option<String>,
    },
    /// Show a router
    Show { router: String },
    /// Change the name of a router, or switch its source NAT
    Set {
        router: String,
        #[arg(long)]
        name: Option<String>,
        /// Whether instances without a floating IP can reach the external network
        #[arg(long, value_enum)]
        source_nat: Option<Switch>,
    },
    /// Delete routers that no floating IP uses
    Delete {
        #[arg(required = true)]
        routers: Vec<String>,
    },
}

pub(super) async fn run(context: Context, command: RouterCommand) -> Result<(), CliError> {
    let client = context.client()?;
    match command {
        RouterCommand::Create { name, network, external_network, no_source_nat, exists } => {
            let source_nat = no_source_nat.then_some(false);
            let request = RouterCreate { name: name.clone(), network, external_network, source_nat };
            create_and_show(&context, client.router_create(&request), exists.if_not_exists, client.router(&name)).await
        }
        RouterCommand::List { network } => {
            let listing = client.routers();
            let listing = network.iter().fold(listing, |listing, network| listing.query("network", network));
            context.out.list(&listing.all().await?)
        }
        RouterCommand::Show { router } => context.out.one(&client.router(&router).await?),
        RouterCommand::Set { router, name, source_nat } => {
            let change = something(RouterChange { name, source_nat: source_nat.map(Switch::on) }, "router set")?;
            context.change_and_show(client.router_change(&router, &change)).await
        }
        RouterCommand::Delete { routers } => {
            delete_each(&context, "router", &routers, |name| client.router_delete(name)).await
        }
    }
}
