//! `recovery`: what the loss of a host cost each instance.

use crate::{args::LimitArgs, context::Context, error::CliError};
use clap::Subcommand;
use client::model::Recovery;
use domain::limits;

#[derive(Debug, Subcommand)]
pub enum RecoveryCommand {
    /// List recoveries, the newest last
    List {
        /// Only those of the instance with this id
        #[arg(long, value_name = "ID")]
        instance: Option<String>,
        /// Only those that aren't over
        #[arg(long)]
        open: bool,
        #[command(flatten)]
        limit: LimitArgs,
    },
    /// Show a recovery with the times of its phases
    Show { id: String },
}

pub(super) async fn run(context: Context, command: RecoveryCommand) -> Result<(), CliError> {
    let client = context.client()?;
    let (instance, open, limit) = match command {
        RecoveryCommand::Show { id } => return context.out.one(&client.recovery(&id).await?),
        RecoveryCommand::List { instance, open, limit } => (instance, open, limit),
    };
    let most = limit.limit as usize;
    let mut listing = client.recoveries().query("newest_first", true).limit(limit.limit.clamp(1, limits::PAGE_MAX));
    if let Some(instance) = instance {
        listing = listing.query("instance", instance);
    }
    if open {
        listing = listing.query("open", true);
    }
    let mut recoveries: Vec<Recovery> = Vec::new();
    let mut cursor = None;
    while recoveries.len() < most {
        let page = listing.page(cursor.as_deref()).await?;
        recoveries.extend(page.items);
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    recoveries.truncate(most);
    recoveries.reverse();
    context.out.list(&recoveries)
}
