//! `audit`: who asked for what.

use crate::{cli::LimitArgs, context::Context, error::CliError};
use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// The newest entries of the audit log, newest first
    List {
        #[command(flatten)]
        limit: LimitArgs,
        /// Of every project (system admins)
        #[arg(long)]
        all_projects: bool,
    },
}

pub(super) async fn run(context: Context, command: AuditCommand) -> Result<(), CliError> {
    let AuditCommand::List { limit, all_projects } = command;
    let client = context.client()?;
    let mut listing = client.audit().limit(limit.limit.clamp(1, domain::limits::PAGE_MAX));
    if all_projects {
        listing = listing.query("all_projects", true);
    }
    let mut entries = Vec::new();
    let mut cursor = None;
    loop {
        let page = listing.page(cursor.as_deref()).await?;
        entries.extend(page.items);
        cursor = page.next_cursor;
        if cursor.is_none() || entries.len() >= limit.limit as usize {
            break;
        }
    }
    entries.truncate(limit.limit as usize);
    context.out.list(&entries)
}
