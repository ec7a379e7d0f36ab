//! `api-key`: secrets for programs.

use super::{change::delete_each, project::RoleName};
use crate::{context::Context, error::CliError};
use clap::Subcommand;
use client::model::ApiKeyCreate;
use domain::Timestamp;

#[derive(Debug, Subcommand)]
pub enum ApiKeyCommand {
    /// Create a key for the project in use; its secret is shown once
    Create {
        name: String,
        /// The highest role that the key has; without it, your own
        #[arg(long, value_enum)]
        role: Option<RoleName>,
        /// When the key expires (`2027-01-31T00:00:00Z`)
        #[arg(long, value_name = "TIME")]
        expires_at: Option<Timestamp>,
        /// The key is valid for all your projects, not only for the one in use
        #[arg(long)]
        all_projects: bool,
    },
    /// List your keys
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
                context.note("store the secret now: it can't be shown again");
            }
            Ok(())
        }
        ApiKeyCommand::List => context.out.list(&client.api_keys().all().await?),
        ApiKeyCommand::Delete { keys } => {
            delete_each(&context, "API key", &keys, |name| client.api_key_delete(name)).await
        }
    }
}
