//! `placement-group`: instances that keep together or apart.

use super::change::{create_and_show, delete_each};
use crate::{
    args::{IfNotExists, one_of},
    context::Context,
    error::CliError,
};
use clap::{Subcommand, ValueEnum};
use client::model::PlacementGroupCreate;
use domain::placement::{GroupPolicy, GroupScope, GroupStrength};

#[derive(Debug, Subcommand)]
pub enum PlacementGroupCommand {
    /// Create a placement group; instances join it when they are created (`instance create --group`)
    Create {
        name: String,
        /// Whether its instances are placed together (affinity) or apart (anti-affinity)
        #[arg(long, value_enum)]
        policy: PolicyName,
        /// What counts as one place; a rack is all hosts with the same value of the tag `rack`
        #[arg(long, value_parser = one_of(GroupScope::ALL, GroupScope::as_str), default_value = "host")]
        scope: GroupScope,
        /// Place its instances even if the policy can't be met
        #[arg(long)]
        soft: bool,
        #[command(flatten)]
        exists: IfNotExists,
    },
    /// List the project's placement groups
    List,
    /// Show a placement group with its instances
    Show { group: String },
    /// Delete placement groups without instances
    Delete {
        #[arg(required = true)]
        groups: Vec<String>,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum PolicyName {
    /// All in one place
    Affinity,
    /// Each in another place
    AntiAffinity,
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
                scope: Some(scope),
                strength: Some(if soft { GroupStrength::Soft } else { GroupStrength::Hard }),
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
