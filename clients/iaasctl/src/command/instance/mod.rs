//! `instance`: virtual machines.

mod act;
mod console;
mod create;
mod log;
mod nic;
mod placement;
mod ssh;
mod wait;

pub use act::{ActArgs, RebootArgs, RebuildArgs, ResizeArgs, StopArgs};
pub use create::CreateArgs;
pub use log::LogArgs;
pub use nic::{AddArgs, NicArgs, NicCommand, RemoveArgs};
pub use placement::PlacementArgs;
pub use ssh::SshArgs;

use crate::{
    args::{WaitArgs, one_of},
    context::Context,
    error::CliError,
    output::{Format, Row, print, render_table},
    size::parse_tag,
};
use clap::{Args, Subcommand};
use client::{
    Client,
    model::{Explain, InstanceChange, KeptPlacement, TimelineItem},
};
use domain::instance::OnCrash;

#[derive(Debug, Subcommand)]
pub enum InstanceCommand {
    /// Create instances
    Create(CreateArgs),
    /// List the project's instances
    List(ListArgs),
    /// Show an instance
    Show { instance: String },
    /// Rename an instance
    Rename { instance: String, name: String },
    /// Set or remove tags
    Tag {
        instance: String,
        /// KEY=VALUE sets a tag, KEY- removes it
        #[arg(required = true, value_name = "KEY=VALUE|KEY-")]
        tags: Vec<String>,
    },
    /// What to do when QEMU exits unexpectedly
    OnCrash {
        instance: String,
        #[arg(value_parser = one_of(OnCrash::ALL, OnCrash::as_str))]
        what: OnCrash,
    },
    /// Delete instances and their disks
    Delete(ActArgs),
    /// Start instances
    Start(ActArgs),
    /// Stop instances: the guest is asked to shut down, and powered off if it takes too long
    Stop(StopArgs),
    /// Reboot instances
    Reboot(RebootArgs),
    /// Pause instances: their vCPUs stop, their memory is kept
    Pause(ActArgs),
    /// Resume paused instances
    Resume(ActArgs),
    /// Change the size of a stopped instance
    Resize(ResizeArgs),
    /// Replace the root disk with a fresh copy of an image
    Rebuild(RebuildArgs),
    /// Manage the NICs (NICs) of an instance, also while it runs
    #[command(subcommand)]
    Nic(NicCommand),
    /// Same as `nic add`
    #[command(hide = true)]
    Attach(AddArgs),
    /// Same as `nic remove`
    #[command(hide = true)]
    Detach(RemoveArgs),
    /// Log in with ssh through the instance's floating IP
    Ssh(SshArgs),
    /// Connect the terminal to the serial console; Ctrl-] disconnects
    Console { instance: String },
    /// Print the log of the serial console
    Log(LogArgs),
    /// Show what happened to an instance, and why
    Timeline { instance: String },
    /// Explain why an instance is on its host, or why it isn't running
    Explain { instance: String },
    /// Wait for an instance to reach a state
    Wait {
        instance: String,
        #[command(flatten)]
        wait: WaitArgs,
    },
}

#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only in this state; repeat it for several
    #[arg(long, value_name = "STATE")]
    state: Vec<String>,
    /// Only with this name, or with names that begin like this (`web-*`)
    #[arg(long)]
    name: Option<String>,
    /// Only made from this image
    #[arg(long)]
    image: Option<String>,
    /// Only with this tag; repeat it for several
    #[arg(long = "tag", value_parser = parse_tag, value_name = "KEY=VALUE")]
    tags: Vec<(String, String)>,
    /// Only on this host (system admins)
    #[arg(long)]
    host: Option<String>,
    /// Show objects of all projects (system admins)
    #[arg(long)]
    all_projects: bool,
}

pub(super) async fn run(context: Context, command: InstanceCommand) -> Result<(), CliError> {
    let client = context.client()?;
    match command {
        InstanceCommand::Create(args) => create::run(&context, &client, args).await,
        InstanceCommand::List(args) => list(&context, &client, args).await,
        InstanceCommand::Show { instance } => context.out.one(&client.instance(&instance).await?),
        InstanceCommand::Rename { instance, name } => {
            let change = InstanceChange { name: Some(name), ..InstanceChange::default() };
            context.change_and_show(client.instance_change(&instance, &change)).await
        }
        InstanceCommand::Tag { instance, tags } => tag(&context, &client, &instance, &tags).await,
        InstanceCommand::OnCrash { instance, what } => {
            let change = InstanceChange { on_crash: Some(what), ..InstanceChange::default() };
            context.change_and_show(client.instance_change(&instance, &change)).await
        }
        InstanceCommand::Delete(args) => act::delete(&context, &client, args).await,
        InstanceCommand::Start(args) => act::start(&context, &client, args).await,
        InstanceCommand::Stop(args) => act::stop(&context, &client, args).await,
        InstanceCommand::Reboot(args) => act::reboot(&context, &client, args).await,
        InstanceCommand::Pause(args) => act::pause(&context, &client, args).await,
        InstanceCommand::Resume(args) => act::resume(&context, &client, args).await,
        InstanceCommand::Resize(args) => act::resize(&context, &client, args).await,
        InstanceCommand::Rebuild(args) => act::rebuild(&context, &client, args).await,
        InstanceCommand::Nic(command) => nic::run(&context, &client, command).await,
        InstanceCommand::Attach(args) => nic::add(&context, &client, args).await,
        InstanceCommand::Detach(args) => nic::remove(&context, &client, args).await,
        InstanceCommand::Ssh(args) => ssh::run(&context, &client, args).await,
        InstanceCommand::Console { instance } => console::run(&context, &client, &instance).await,
        InstanceCommand::Log(args) => log::run(&client, args).await,
        InstanceCommand::Timeline { instance } => context.out.list(&client.instance_timeline(&instance).all().await?),
        InstanceCommand::Explain { instance } => explain(&context, &client, &instance).await,
        InstanceCommand::Wait { instance, wait } => wait::run(&context, &client, &instance, wait).await,
    }
}

async fn list(context: &Context, client: &Client, args: ListArgs) -> Result<(), CliError> {
    let mut listing = client.instances();
    let one = [("name", args.name), ("image", args.image), ("host", args.host)];
    for (name, value) in one.into_iter().filter_map(|(name, value)| Some((name, value?))) {
        listing = listing.query(name, value);
    }
    for state in &args.state {
        listing = listing.query("state", state);
    }
    for (key, value) in &args.tags {
        listing = listing.query("tag", format!("{key}:{value}"));
    }
    if args.all_projects {
        listing = listing.query("all_projects", true);
    }
    context.out.list(&listing.all().await?)
}

/// The new tags are made from the ones that were read, so the change is made only if nobody changed them meanwhile.
async fn tag(context: &Context, client: &Client, instance: &str, edits: &[String]) -> Result<(), CliError> {
    let before = client.instance(instance).await?;
    let mut tags = before.tags;
    for edit in edits {
        match edit.strip_suffix('-').filter(|_| !edit.contains('=')) {
            Some(key) => {
                tags.remove(key);
            }
            None => {
                let (key, value) = parse_tag(edit).map_err(CliError::usage)?;
                tags.insert(key, value);
            }
        }
    }
    let change = InstanceChange { tags: Some(tags), ..InstanceChange::default() };
    context.change_and_show(client.instance_change(instance, &change).if_match(before.generation)).await
}

async fn explain(context: &Context, client: &Client, instance: &str) -> Result<(), CliError> {
    let explained = client.instance_explain(instance).await?;
    if context.out.format != Format::Table {
        return context.out.value(&explained);
    }
    print(&render_explained(&explained))
}

/// The server's paragraph, what is kept of its name, and what happened last.
fn render_explained(explained: &Explain) -> String {
    let mut text = format!("{}\n", explained.why);
    // The newest of what isn't there is what the paragraph says.
    let covered = usize::from(explained.instance.is_none());
    if explained.records.len() > covered {
        let rows: Vec<_> = explained.records.iter().rev().map(Row::cells).collect();
        text += &format!("\n{}", render_table(KeptPlacement::HEADER, &rows, false));
    }
    if !explained.timeline.is_empty() || covered == 0 {
        let rows: Vec<_> = explained.timeline.iter().map(Row::cells).collect();
        text += &format!("\n{}", render_table(TimelineItem::HEADER, &rows, false));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_explanation_is_a_paragraph_and_what_happened() {
        let explained = Explain {
            why: "hello was refused.".to_owned(),
            placement: None,
            timeline: vec![TimelineItem {
                id: 7,
                at: domain::Timestamp(0),
                kind: "instance.deleted".to_owned(),
                message: "it is gone".to_owned(),
                request_id: String::new(),
                data: serde_json::Value::Null,
            }],
            records: vec![],
            instance: None,
        };
        let text = render_explained(&explained);
        let expected = "hello was refused.\n\nAT                        KIND              MESSAGE\n\
                        1970-01-01T00:00:00.000Z  instance.deleted  it is gone\n";
        assert_eq!(text, expected);
    }
}
