//! `host`: the machines.

use crate::{context::Context, error::CliError, size::parse_tag};
use clap::Subcommand;
use client::model::HostChange;

#[derive(Debug, Subcommand)]
pub enum HostCommand {
    /// All hosts, with what is used of them
    List,
    /// Show a host
    Show { host: String },
    /// Place nothing new on a host; what runs there goes on
    Cordon {
        host: String,
        /// Shown to other operators
        #[arg(long, default_value = "", hide_default_value = true)]
        reason: String,
    },
    /// Take a host back into service
    Uncordon { host: String },
    /// Change a host's zone, tags or overcommit
    Set {
        host: String,
        #[arg(long)]
        zone: Option<String>,
        /// Replaces all tags; repeat it for each
        #[arg(long = "tag", value_parser = parse_tag, value_name = "KEY=VALUE")]
        tags: Vec<(String, String)>,
        /// vCPUs per hardware thread
        #[arg(long, value_name = "FACTOR")]
        cpu_overcommit: Option<f64>,
    },
}

pub(super) async fn run(context: Context, command: HostCommand) -> Result<(), CliError> {
    let client = context.client()?;
    let (host, change) = match command {
        HostCommand::List => return context.out.list(&client.hosts().all().await?),
        HostCommand::Show { host } => return context.out.one(&client.host(&host).await?),
        HostCommand::Cordon { host, reason } => {
            (host, HostChange { cordoned: Some(true), cordon_reason: Some(reason), ..HostChange::default() })
        }
        HostCommand::Uncordon { host } => {
            (host, HostChange { cordoned: Some(false), cordon_reason: Some(String::new()), ..HostChange::default() })
        }
        HostCommand::Set { host, zone, tags, cpu_overcommit } => {
            let tags = if tags.is_empty() { None } else { Some(tags.into_iter().collect()) };
            (host, HostChange { zone, tags, cpu_overcommit, ..HostChange::default() })
        }
    };
    context.change_and_show(client.host_change(&host, &change)).await
}
