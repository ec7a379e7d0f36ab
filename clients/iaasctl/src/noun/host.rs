//! `host`: the machines.

use super::delete_each;
use crate::{
    context::Context,
    error::CliError,
    output::{Format, print},
    size::{parse_duration, parse_gib, parse_mib, parse_tag},
    view::beyond_capacity,
};
use clap::Subcommand;
use client::model::{HostChange, HostReserve, HostTokenCreate};
use std::time::Duration;

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
    /// Take a cordoned or drained host back into service
    Uncordon { host: String },
    /// Empty a host: nothing new comes; what can't move yet stays until it is deleted
    Drain {
        host: String,
        /// Shown to other operators
        #[arg(long, default_value = "", hide_default_value = true)]
        reason: String,
    },
    /// Change a host's zone, tags, overcommit, what is kept from instances or the project that it is dedicated to
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
        /// Guests' memory per memory; above 1, guests swap once all use theirs
        #[arg(long, value_name = "FACTOR")]
        memory_overcommit: Option<f64>,
        /// Guests' disk per disk; above 1, writes fail once all are full
        #[arg(long, value_name = "FACTOR")]
        disk_overcommit: Option<f64>,
        /// Hardware threads kept from instances
        #[arg(long, value_name = "N")]
        reserve_vcpus: Option<u32>,
        /// Memory kept from instances: `512MiB`, `2GiB`
        #[arg(long, value_parser = parse_mib, value_name = "SIZE")]
        reserve_memory: Option<u64>,
        /// Disk kept from instances: `10GiB`
        #[arg(long, value_parser = parse_gib, value_name = "SIZE")]
        reserve_disk: Option<u64>,
        /// Take this project's instances alone
        #[arg(long, value_name = "PROJECT", conflicts_with = "shared")]
        dedicated_to: Option<String>,
        /// Take every project's instances again
        #[arg(long)]
        shared: bool,
    },
    /// Take hosts that hold no instance out of the fleet; they can join again with a new token
    Remove {
        #[arg(required = true)]
        hosts: Vec<String>,
    },
    /// Tokens that admit hosts
    #[command(subcommand)]
    Token(HostTokenCommand),
}

#[derive(Debug, Subcommand)]
pub enum HostTokenCommand {
    /// Make a token that admits one host; it is shown once
    Create {
        /// The one host it is for: a new one, which is named so, or a known one, which gets a new key
        #[arg(long, value_name = "HOST")]
        name: Option<String>,
        /// The zone that a new host is put in; without it, what its agent says
        #[arg(long)]
        zone: Option<String>,
        /// How long it is good
        #[arg(long, value_parser = parse_duration, default_value = "1h", value_name = "TIME")]
        ttl: Duration,
    },
    /// All tokens, without their secrets
    List,
    /// Delete tokens; the hosts that they have admitted stay
    Delete {
        #[arg(required = true)]
        tokens: Vec<String>,
    },
}

pub(super) async fn run(context: Context, command: HostCommand) -> Result<(), CliError> {
    let client = context.client()?;
    let (host, change) = match command {
        HostCommand::List => return context.out.list(&client.hosts().all().await?),
        HostCommand::Show { host } => return context.out.one(&client.host(&host).await?),
        HostCommand::Remove { hosts } => {
            return delete_each(&context, "host", &hosts, |host| client.host_remove(host)).await;
        }
        HostCommand::Token(command) => return token(context, command).await,
        HostCommand::Cordon { host, reason } => {
            (host, HostChange { cordoned: Some(true), cordon_reason: Some(reason), ..HostChange::default() })
        }
        HostCommand::Uncordon { host } => (
            host,
            HostChange {
                cordoned: Some(false),
                cordon_reason: Some(String::new()),
                draining: Some(false),
                ..HostChange::default()
            },
        ),
        HostCommand::Drain { host, reason } => {
            let change = HostChange { cordoned: Some(true), draining: Some(true), ..HostChange::default() };
            (host, HostChange { cordon_reason: Some(reason), ..change })
        }
        HostCommand::Set {
            host,
            zone,
            tags,
            cpu_overcommit,
            memory_overcommit,
            disk_overcommit,
            reserve_vcpus,
            reserve_memory,
            reserve_disk,
            dedicated_to,
            shared,
        } => {
            let tags = if tags.is_empty() { None } else { Some(tags.into_iter().collect()) };
            let dedicated_to = if shared { Some(String::new()) } else { dedicated_to };
            let kept = HostReserve { vcpus: reserve_vcpus, memory_mib: reserve_memory, disk_gib: reserve_disk };
            let reserved = (kept != HostReserve::default()).then_some(kept);
            let change = HostChange { zone, tags, cpu_overcommit, memory_overcommit, ..HostChange::default() };
            (host, HostChange { disk_overcommit, reserved, dedicated_to, ..change })
        }
    };
    let Some(host) = context.change(client.host_change(&host, &change)).await? else { return Ok(()) };
    if let Some(beyond) = beyond_capacity(&host) {
        context
            .note(&format!("warning: host {} holds {beyond} more than it has room for; nothing new fits", host.name));
    }
    context.out.one(&host)
}

async fn token(context: Context, command: HostTokenCommand) -> Result<(), CliError> {
    let client = context.client()?;
    match command {
        HostTokenCommand::Create { name, zone, ttl } => {
            let request = HostTokenCreate { name, zone, ttl_secs: Some(ttl.as_secs()) };
            let Some(made) = context.change(client.host_token_create(&request)).await? else { return Ok(()) };
            if context.out.format != Format::Table {
                return context.out.value(&made);
            }
            // Alone on its output, for scripts; what to do with it is for people.
            print(&format!("{}\n", made.token))?;
            context.note(&format!(
                "it admits one host until {}, and can't be shown again. On that host:\n  iaasd compute-agent --join {}\n  iaasd network-agent --join {}",
                made.expires_at, made.token, made.token
            ));
            Ok(())
        }
        HostTokenCommand::List => context.out.list(&client.host_tokens().all().await?),
        HostTokenCommand::Delete { tokens } => {
            delete_each(&context, "host token", &tokens, |id| client.host_token_delete(id)).await
        }
    }
}
