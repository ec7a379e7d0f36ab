//! `peering`: networks that talk to each other.

use super::change::{create_and_show, delete_each};
use crate::{args::IfNotExists, context::Context, error::CliError};
use clap::Subcommand;
use client::model::PeeringCreate;

#[derive(Debug, Subcommand)]
pub enum PeeringCommand {
    /// Connect two networks so that their instances reach each other
    Create {
        name: String,
        network: String,
        /// The other network; the address ranges of the two must not overlap
        peer: String,
        #[command(flatten)]
        exists: IfNotExists,
    },
    /// List the project's peerings
    List {
        /// Only those of this network
        #[arg(long, value_name = "NAME")]
        network: Option<String>,
    },
    /// Show a peering
    Show { peering: String },
    /// Delete peerings
    Delete {
        #[arg(required = true)]
        peerings: Vec<String>,
    },
}

pub(super) async fn run(context: Context, command: PeeringCommand) -> Result<(), CliError> {
    let client = context.client()?;
    match command {
        PeeringCommand::Create { name, network, peer, exists } => {
            let request = PeeringCreate { name: name.clone(), network, peer_network: peer };
            create_and_show(&context, client.peering_create(&request), exists.if_not_exists, client.peering(&name))
                .await
        }
        PeeringCommand::List { network } => {
            let listing = client.peerings();
            let listing = network.iter().fold(listing, |listing, network| listing.query("network", network));
            context.out.list(&listing.all().await?)
        }
        PeeringCommand::Show { peering } => context.out.one(&client.peering(&peering).await?),
        PeeringCommand::Delete { peerings } => {
            delete_each(&context, "peering", &peerings, |name| client.peering_delete(name)).await
        }
    }
}
