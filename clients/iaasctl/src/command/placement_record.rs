//! `placement-record`: what placement refused, and what it decided of instances that are gone.

use crate::{
    args::{LimitArgs, one_of},
    context::Context,
    error::CliError,
};
use clap::Subcommand;
use client::model::KeptPlacement;
use domain::{limits, placement::PlacementOutcome};

#[derive(Debug, Subcommand)]
pub enum PlacementRecordCommand {
    /// List refused placements and those of deleted instances, the newest last
    List {
        /// Only those of the instance with this name or id
        #[arg(long, value_name = "NAME")]
        instance: Option<String>,
        /// Only placements with this outcome
        #[arg(long, value_parser = one_of(PlacementOutcome::ALL, PlacementOutcome::as_str))]
        outcome: Option<PlacementOutcome>,
        #[command(flatten)]
        limit: LimitArgs,
        /// Show objects of all projects (system admins)
        #[arg(long)]
        all_projects: bool,
    },
    /// Show a placement record
    Show { id: String },
}

pub(super) async fn run(context: Context, command: PlacementRecordCommand) -> Result<(), CliError> {
    let client = context.client()?;
    let (instance, outcome, limit, all_projects) = match command {
        PlacementRecordCommand::Show { id } => return context.out.one(&client.placement_record(&id).await?),
        PlacementRecordCommand::List { instance, outcome, limit, all_projects } => {
            (instance, outcome, limit, all_projects)
        }
    };
    let most = limit.limit as usize;
    let mut listing =
        client.placement_records().query("newest_first", true).limit(limit.limit.clamp(1, limits::PAGE_MAX));
    if let Some(instance) = instance {
        listing = listing.query("instance", instance);
    }
    if let Some(outcome) = outcome {
        listing = listing.query("outcome", outcome.as_str());
    }
    if all_projects {
        listing = listing.query("all_projects", true);
    }
    let mut records: Vec<KeptPlacement> = Vec::new();
    let mut cursor = None;
    while records.len() < most {
        let page = listing.page(cursor.as_deref()).await?;
        records.extend(page.items);
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    records.truncate(most);
    records.reverse();
    context.out.list(&records)
}
