//! `user`: accounts.

use super::{create_and_show, delete_each};
use crate::{cli::IfNotExists, context::Context, error::CliError, prompt};
use clap::Subcommand;
use client::model::{UserChange, UserCreate};
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// Make a user
    Create {
        name: String,
        /// A file whose first line is the password (`-`: stdin); asked for on a terminal
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
        /// May do everything, everywhere
        #[arg(long)]
        system_admin: bool,
        #[command(flatten)]
        exists: IfNotExists,
    },
    /// All users
    List,
    /// Show a user
    Show { user: String },
    /// Enable, disable, promote, or give a new password
    Set {
        user: String,
        /// A disabled user can't log in, and their keys don't work
        #[arg(long, value_name = "BOOL")]
        enabled: Option<bool>,
        /// Whether they may do everything, everywhere
        #[arg(long, value_name = "BOOL")]
        system_admin: Option<bool>,
        /// A file with the new password
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
    },
    /// Delete users
    Delete {
        #[arg(required = true)]
        users: Vec<String>,
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
        UserCommand::Set { user, enabled, system_admin, password_file } => {
            let password = match &password_file {
                Some(_) => Some(prompt::secret(password_file.as_deref(), "password")?),
                None => None,
            };
            if password.is_none() && enabled.is_none() && system_admin.is_none() {
                return Err(CliError::usage("nothing to change").with_hint("iaasctl user set --help"));
            }
            context.change_and_show(client.user_change(&user, &UserChange { password, enabled, system_admin })).await
        }
        UserCommand::Delete { users } => delete_each(&context, "user", &users, |name| client.user_delete(name)).await,
    }
}
