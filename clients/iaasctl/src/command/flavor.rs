//! `flavor`: named sizes.

use super::change::{create_and_show, delete_each};
use crate::{
    args::{IfNotExists, one_of},
    context::Context,
    error::CliError,
    size::{parse_gib, parse_mib},
};
use clap::Subcommand;
use client::model::FlavorCreate;
use domain::flavor::Pinning;

#[derive(Debug, Subcommand)]
pub enum FlavorCommand {
    /// Create a flavor (system admins)
    Create {
        name: String,
        #[arg(long, value_name = "N")]
        vcpus: u32,
        /// The memory, with a unit: `512MiB`, `2GiB`
        #[arg(long, value_parser = parse_mib, value_name = "SIZE")]
        memory: u64,
        /// The size of the root disk, with a unit: `10GiB`; 0 for no root disk
        #[arg(long, value_parser = parse_gib, value_name = "SIZE")]
        disk: u64,
        /// Pin each vCPU of its instances to a hardware thread of its own, all in one NUMA node
        #[arg(long, value_parser = one_of(Pinning::ALL, Pinning::as_str), default_value = "none", value_name = "HOW")]
        pin: Pinning,
        #[arg(long, default_value = "", hide_default_value = true)]
        description: String,
        #[command(flatten)]
        exists: IfNotExists,
    },
    /// List all flavors
    List,
    /// Show a flavor
    Show { flavor: String },
    /// Delete flavors; existing instances keep their sizes
    Delete {
        #[arg(required = true)]
        flavors: Vec<String>,
    },
}

pub(super) async fn run(context: Context, command: FlavorCommand) -> Result<(), CliError> {
    let client = context.client()?;
    match command {
        FlavorCommand::Create { name, vcpus, memory, disk, pin, description, exists } => {
            let (memory_mib, disk_gib) = (memory, disk);
            let request = FlavorCreate { name: name.clone(), vcpus, memory_mib, disk_gib, pinning: pin, description };
            create_and_show(&context, client.flavor_create(&request), exists.if_not_exists, client.flavor(&name)).await
        }
        FlavorCommand::List => context.out.list(&client.flavors().all().await?),
        FlavorCommand::Show { flavor } => context.out.one(&client.flavor(&flavor).await?),
        FlavorCommand::Delete { flavors } => {
            delete_each(&context, "flavor", &flavors, |name| client.flavor_delete(name)).await
        }
    }
}
