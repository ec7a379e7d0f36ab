//! `backup`: copies of the control plane's database.

use crate::{context::Context, error::CliError};
use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub enum BackupCommand {
    /// Copy the database to a file on the API's machine, whole and of one moment
    ///
    /// The server keeps the last few copies (`api.backups_kept`) in `api.backup_dir`. Only SQLite is copied; for PostgreSQL use pg_dump. What else
    /// belongs to a backup, and how to restore one: docs/how-to/back-up-and-restore.md
    Create,
    /// List the copies on the API's machine, the oldest first
    List,
}

pub(super) async fn run(context: Context, command: BackupCommand) -> Result<(), CliError> {
    let client = context.client()?;
    match command {
        BackupCommand::Create => context.change_and_show(client.backup_create()).await,
        BackupCommand::List => context.out.list(&client.backups().all().await?),
    }
}
