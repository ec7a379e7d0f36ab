//! `router`: ways of networks to the outside.

use super::{create_and_show, delete_each, something};
use crate::{
    cli::{IfNotExists, Switch},
    context::Context,
    error::CliError,
};
use clap::Subcommand;
use client::model::{RouterChange, RouterCreate};

#[derive(Debug, Subcommand)]
pub enum RouterCommand {
    /// Give a network a way to the outside
    Create {
        name: String,
        /// The network; it has at most one router
        #[arg(long, value_name = "NAME")]
        network: String,
        /// Where it leads; without it, the only external network, or `public`
        #[arg(long, value_name = "NAME")]
        external_network: Option<String>,
        /// Instances without a floating IP don't reach the outside
        #[arg(long)]
        no_source_nat: bool,
        #[command(flatten)]
        exists: IfNotExists,
    },
    /// The project's routers
    List {
        /// Only that of this network
        #[arg(long, value_name = "NAME")]
        network: Option<String>,
    },
    /// Show a router
    Show { router: String },
    /// Rename a router, or switch its source NAT
    Set {
        router: String,
        #[arg(long)]
        name: Option<String>,
        /// Whether instances without a floating IP reach the outside
        #[arg(long, value_enum)]
        source_nat: Option<Switch>,
    },
    /// Delete routers that no floating IP needs
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
