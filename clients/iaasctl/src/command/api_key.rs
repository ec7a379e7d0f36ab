//! `api-key`: secrets for programs.

use super::{change::delete_each, project::RoleName};
use crate::{context::Context, error::CliError, prompt};
use clap::Subcommand;
use client::model::ApiKeyCreate;
use domain::Timestamp;
use std::path::PathBuf;

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
        /// A file whose first line is your password (`-`: stdin); a key for all projects needs it, and without the file you are asked on the terminal
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
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
        ApiKeyCommand::Create { name, role, expires_at, all_projects, password_file } => {
            let project = if all_projects { None } else { context.project.clone() };
            let limited = project.is_some() || role.is_some_and(|role| role != RoleName::Admin);
            let password = match password_file {
                None if limited => None,
                file => Some(prompt::secret(file.as_deref(), "password")?),
            };
            let request = ApiKeyCreate { name, project, role: role.map(RoleName::role), expires_at, password };
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
