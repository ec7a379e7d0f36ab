//! `placement-group`: instances that keep together or apart.

use super::{create_and_show, delete_each};
use crate::{cli::IfNotExists, context::Context, error::CliError};
use clap::{Subcommand, ValueEnum};
use client::model::PlacementGroupCreate;
use domain::placement::{GroupPolicy, GroupScope, GroupStrength};

#[derive(Debug, Subcommand)]
pub enum PlacementGroupCommand {
    /// Make a group; instances join it when they are made (`instance create --group`)
    Create {
        name: String,
        /// Whether its instances keep together or apart
        #[arg(long, value_enum)]
        policy: PolicyName,
        /// What counts as the same place; racks are hosts with the same tag `rack`
        #[arg(long, value_enum, default_value = "host")]
        scope: ScopeName,
        /// Without the room that it asks for, place its instances anyway
        #[arg(long)]
        soft: bool,
        #[command(flatten)]
        exists: IfNotExists,
    },
    /// The project's placement groups
    List,
    /// Show a placement group with its instances
    Show { group: String },
    /// Delete placement groups that no instance is in
    Delete {
        #[arg(required = true)]
        groups: Vec<String>,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum PolicyName {
    /// All at one place
    Affinity,
    /// Each at another place
    AntiAffinity,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum ScopeName {
    Host,
    Rack,
    Zone,
}

pub(super) async fn run(context: Context, command: PlacementGroupCommand) -> Result<(), CliError> {
    let client = context.client()?;
    match command {
        PlacementGroupCommand::Create { name, policy, scope, soft, exists } => {
            let request = PlacementGroupCreate {
                name: name.clone(),
                policy: match policy {
                    PolicyName::Affinity => GroupPolicy::Affinity,
                    PolicyName::AntiAffinity => GroupPolicy::AntiAffinity,
                },
                scope: match scope {
                    ScopeName::Host => GroupScope::Host,
                    ScopeName::Rack => GroupScope::Rack,
                    ScopeName::Zone => GroupScope::Zone,
                },
                strength: if soft { GroupStrength::Soft } else { GroupStrength::Hard },
            };
            let mutation = client.placement_group_create(&request);
            create_and_show(&context, mutation, exists.if_not_exists, client.placement_group(&name)).await
        }
        PlacementGroupCommand::List => context.out.list(&client.placement_groups().all().await?),
        PlacementGroupCommand::Show { group } => context.out.one(&client.placement_group(&group).await?),
        PlacementGroupCommand::Delete { groups } => {
            delete_each(&context, "placement group", &groups, |name| client.placement_group_delete(name)).await
        }
    }
}
