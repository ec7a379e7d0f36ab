//! `api-key`: secrets for programs.

use super::{delete_each, project::RoleName};
use crate::{context::Context, error::CliError};
use clap::Subcommand;
use client::model::ApiKeyCreate;
use domain::Timestamp;

#[derive(Debug, Subcommand)]
pub enum ApiKeyCommand {
    /// Make a key for the project in use; its secret is shown once
    Create {
        name: String,
        /// At most this role; without it, your own
        #[arg(long, value_enum)]
        role: Option<RoleName>,
        /// When it stops working (`2027-01-31T00:00:00Z`)
        #[arg(long, value_name = "TIME")]
        expires_at: Option<Timestamp>,
        /// For all your projects, whatever the profile says
        #[arg(long)]
        all_projects: bool,
    },
    /// Your keys
    List,
    /// Delete keys
    Delete {
        #[arg(required = true)]
        keys: Vec<String>,
    },
}

pub(super) async fn run(context: Context, command: ApiKeyCommand) -> Result<(), CliError> {
    let client = context.client()?;
    match command {
        ApiKeyCommand::Create { name, role, expires_at, all_projects } => {
            let project = if all_projects { None } else { context.project.clone() };
            let request = ApiKeyCreate { name, project, role: role.map(RoleName::role), expires_at };
            if let Some(key) = context.change(client.api_key_create(&request)).await? {
                context.out.one(&key)?;
                context.note("keep the secret: it can't be shown again");
            }
            Ok(())
        }
        ApiKeyCommand::List => context.out.list(&client.api_keys().all().await?),
        ApiKeyCommand::Delete { keys } => {
            delete_each(&context, "API key", &keys, |name| client.api_key_delete(name)).await
        }
    }
}
