//! `event`: the stream of what happens.

use crate::{context::Context, error::CliError};
use clap::Subcommand;
use client::event::EventMessage;

#[derive(Debug, Subcommand)]
pub enum EventCommand {
    /// Print events as they happen, until interrupted; after a lost connection, none is missing
    Follow {
        /// Start after the event with this id (0: with the oldest that the server keeps) instead of now
        #[arg(long, value_name = "ID")]
        after: Option<i64>,
        /// Exit after this many events
        #[arg(long, value_name = "N")]
        count: Option<u64>,
        /// Only events whose kind begins with this (`instance.`)
        #[arg(long, value_name = "PREFIX")]
        kind: Option<String>,
        /// Show objects of all projects (system admins)
        #[arg(long)]
        all_projects: bool,
    },
}

pub(super) async fn run(context: Context, command: EventCommand) -> Result<(), CliError> {
    let EventCommand::Follow { after, count, kind, all_projects } = command;
    let mut events = context.client()?.events(after, all_projects);
    let mut printed = 0;
    while count.is_none_or(|count| printed < count) {
        match events.next().await? {
            EventMessage::Reset => {
                context.note("the server no longer has all events since then: some are missing");
            }
            EventMessage::Event(event) => {
                if kind.as_ref().is_some_and(|prefix| !event.kind.starts_with(prefix.as_str())) {
                    continue;
                }
                printed += 1;
                let line =
                    format!("{}  {}  {}  {}  {}", event.id, event.at, event.kind, event.object_id, event.message);
                context.out.stream_item(&event, &line)?;
            }
        }
    }
    Ok(())
}
