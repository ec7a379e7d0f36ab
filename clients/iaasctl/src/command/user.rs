//! `user`: accounts.

use super::change::{create_and_show, delete_each};
use crate::{args::IfNotExists, context::Context, error::CliError, prompt};
use clap::Subcommand;
use client::model::{UserChange, UserCreate};
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// Create a user
    Create {
        name: String,
        /// A file whose first line is the password (`-`: stdin); without it, you are asked on the terminal
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
        /// The user may do everything in every project
        #[arg(long)]
        system_admin: bool,
        #[command(flatten)]
        exists: IfNotExists,
    },
    /// List all users
    List,
    /// Show a user
    Show { user: String },
    /// Enable or disable a user, make them a system admin, or set a password
    Set {
        user: String,
        /// Whether the user may log in; the API keys of a disabled user don't work either
        #[arg(long, value_name = "BOOL")]
        enabled: Option<bool>,
        /// Whether the user is a system admin, who may do everything in every project
        #[arg(long, value_name = "BOOL")]
        system_admin: Option<bool>,
        /// A file whose first line is the new password; it ends the user's sessions and revokes their API keys
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
        /// With a new password: don't revoke the user's API keys
        #[arg(long, requires = "password_file")]
        keep_api_keys: bool,
    },
    /// The API keys of a user
    #[command(subcommand)]
    ApiKey(UserApiKeyCommand),
    /// Delete users
    Delete {
        #[arg(required = true)]
        users: Vec<String>,
    },
}

#[derive(Debug, Subcommand)]
pub enum UserApiKeyCommand {
    /// List the API keys of a user
    List { user: String },
    /// Revoke API keys of a user: they stop working at once
    Delete {
        user: String,
        #[arg(required = true)]
        keys: Vec<String>,
    },
}

pub(super) async fn run(context: Context, command: UserCommand) -> Result<(), CliError> {
    let client = context.client()?;
    match command {
        UserCommand::Create { name, password_file, system_admin, exists } => {
            let password = prompt::secret(password_file.as_deref(), "password")?;
            let request = UserCreate { name: name.clone(), password, system_admin };
            create_and_show(&context, client.user_create(&request), exists.if_not_exists, client.user(&name)).await
        }
        UserCommand::List => context.out.list(&client.users().all().await?),
        UserCommand::Show { user } => context.out.one(&client.user(&user).await?),
        UserCommand::Set { user, enabled, system_admin, password_file, keep_api_keys } => {
            let password = match &password_file {
                Some(_) => Some(prompt::secret(password_file.as_deref(), "password")?),
                None => None,
            };
            if password.is_none() && enabled.is_none() && system_admin.is_none() {
                return Err(CliError::usage("nothing to change").with_hint("iaasctl user set --help"));
            }
            let change = UserChange { password, enabled, system_admin, keep_api_keys };
            context.change_and_show(client.user_change(&user, &change)).await
        }
        UserCommand::ApiKey(UserApiKeyCommand::List { user }) => {
            context.out.list(&client.user_api_keys(&user).all().await?)
        }
        UserCommand::ApiKey(UserApiKeyCommand::Delete { user, keys }) => {
            delete_each(&context, "API key", &keys, |key| client.user_api_key_delete(&user, key)).await
        }
        UserCommand::Delete { users } => delete_each(&context, "user", &users, |name| client.user_delete(name)).await,
    }
}
