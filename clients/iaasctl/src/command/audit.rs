//! `audit`: who requested what.

use crate::{args::LimitArgs, context::Context, error::CliError};
use clap::Subcommand;
use std::collections::VecDeque;

#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// List the last entries of the audit log, the newest last
    List {
        #[command(flatten)]
        limit: LimitArgs,
        /// Show objects of all projects (system admins)
        #[arg(long)]
        all_projects: bool,
    },
}

pub(super) async fn run(context: Context, command: AuditCommand) -> Result<(), CliError> {
    let AuditCommand::List { limit, all_projects } = command;
    let client = context.client()?;
    let mut listing = client.audit().limit(domain::limits::PAGE_MAX);
    if all_projects {
        listing = listing.query("all_projects", true);
    }
    // The server lists the oldest first: only the last ones are kept on the way to the end.
    let mut entries = VecDeque::new();
    let mut cursor = None;
    loop {
        let page = listing.page(cursor.as_deref()).await?;
        entries.extend(page.items);
        while entries.len() > limit.limit as usize {
            entries.pop_front();
        }
        cursor = page.next_cursor;
        if cursor.is_none() {
            return context.out.list(entries.make_contiguous());
        }
    }
}
