//! `key`: SSH public keys.

use super::change::{create_and_show, delete_each};
use crate::{args::IfNotExists, context::Context, error::CliError};
use clap::Subcommand;
use client::model::SshKeyCreate;
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Store a public key
    Create {
        name: String,
        /// The .pub file (`~/.ssh/id_ed25519.pub`)
        #[arg(value_name = "FILE")]
        public_key_file: PathBuf,
        #[command(flatten)]
        exists: IfNotExists,
    },
    /// List the project's keys
    List,
    /// Show a key
    Show { key: String },
    /// Delete keys; instances that were created with them keep them
    Delete {
        #[arg(required = true)]
        keys: Vec<String>,
    },
}

pub(super) async fn run(context: Context, command: KeyCommand) -> Result<(), CliError> {
    let client = context.client()?;
    match command {
        KeyCommand::Create { name, public_key_file, exists } => {
            let public_key = std::fs::read_to_string(&public_key_file).map_err(|source| CliError::File {
                action: "read",
                path: public_key_file,
                source,
            })?;
            // Checked here too, so that a private key given by mistake never leaves the machine.
            domain::ssh_key::parse_public_key(&public_key).map_err(|e| CliError::usage(e.to_string()))?;
            let request = SshKeyCreate { name: name.clone(), public_key: public_key.trim().to_owned() };
            create_and_show(&context, client.ssh_key_create(&request), exists.if_not_exists, client.ssh_key(&name))
                .await
        }
        KeyCommand::List => context.out.list(&client.ssh_keys().all().await?),
        KeyCommand::Show { key } => context.out.one(&client.ssh_key(&key).await?),
        KeyCommand::Delete { keys } => delete_each(&context, "key", &keys, |name| client.ssh_key_delete(name)).await,
    }
}
