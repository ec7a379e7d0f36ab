//! `manager`: who leads the control plane's roles.

use crate::{context::Context, error::CliError};
use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub enum ManagerCommand {
    /// List the processes of each manager: which one leads, since when, and which ones wait to
    ///
    /// With PostgreSQL a manager may run as two processes or more. One of them leads; when it ends or can't be reached, another one takes over within
    /// seconds: docs/how-to/separate-roles.md
    List,
}

pub(super) async fn run(context: Context, command: ManagerCommand) -> Result<(), CliError> {
    let client = context.client()?;
    match command {
        ManagerCommand::List => context.out.list(&client.managers().all().await?),
    }
}
