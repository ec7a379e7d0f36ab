//! `host`: the machines.

use super::change::delete_each;
use crate::{
    context::Context,
    error::CliError,
    output::{Format, print},
    size::{parse_duration, parse_gib, parse_mib, parse_tag},
    view::beyond_capacity,
};
use clap::Subcommand;
use client::model::{HostChange, HostReserve, HostTokenCreate};
use std::{io::IsTerminal as _, time::Duration};

#[derive(Debug, Subcommand)]
pub enum HostCommand {
    /// List all hosts, with their usage
    List,
    /// Show a host
    Show { host: String },
    /// Place no new instances on a host; those on it keep running
    Cordon {
        host: String,
        /// The reason, shown to other operators
        #[arg(long, default_value = "", hide_default_value = true)]
        reason: String,
    },
    /// Allow new instances on a cordoned or drained host again
    Uncordon { host: String },
    /// Drain a host: it gets no new instances; those that can't be moved stay until they are deleted
    Drain {
        host: String,
        /// The reason, shown to other operators
        #[arg(long, default_value = "", hide_default_value = true)]
        reason: String,
    },
    /// Take a held host as it is, without what it has lost; instances whose disks are gone become errors
    AcceptLoss { host: String },
    /// Offer all the capacity that a host reports to instances, also what it has grown by
    AcceptCapacity { host: String },
    /// Declare a host dead that is switched off: its instances are recovered on other hosts, as each one's policy says
    DeclareDead {
        host: String,
        /// The host's name once more, instead of being asked for it on the terminal
        #[arg(long, value_name = "HOST")]
        confirm: Option<String>,
    },
    /// Change a host's zone, tags, overcommit, reserved capacity or dedication to a project
    Set {
        host: String,
        #[arg(long)]
        zone: Option<String>,
        /// A tag; replaces all present ones; repeat it for several
        #[arg(long = "tag", value_parser = parse_tag, value_name = "KEY=VALUE")]
        tags: Vec<(String, String)>,
        /// Ratio of vCPUs to hardware threads
        #[arg(long, value_name = "FACTOR")]
        cpu_overcommit: Option<f64>,
        /// Ratio of guest memory to host memory; above 1, the host swaps when guests use all of theirs
        #[arg(long, value_name = "FACTOR")]
        memory_overcommit: Option<f64>,
        /// Ratio of guest disks to host disk; above 1, writes fail when guests use all of theirs
        #[arg(long, value_name = "FACTOR")]
        disk_overcommit: Option<f64>,
        /// Hardware threads that instances may not use
        #[arg(long, value_name = "N")]
        reserve_vcpus: Option<u32>,
        /// Memory that instances may not use: `512MiB`, `2GiB`
        #[arg(long, value_parser = parse_mib, value_name = "SIZE")]
        reserve_memory: Option<u64>,
        /// Disk that instances may not use: `10GiB`
        #[arg(long, value_parser = parse_gib, value_name = "SIZE")]
        reserve_disk: Option<u64>,
        /// Reserve the host for the instances of this project
        #[arg(long, value_name = "PROJECT", conflicts_with = "shared")]
        dedicated_to: Option<String>,
        /// Open the host to the instances of all projects again
        #[arg(long)]
        shared: bool,
    },
    /// Remove hosts that have no instances; they can join again with a new token
    Remove {
        #[arg(required = true)]
        hosts: Vec<String>,
    },
    /// Manage the tokens with which hosts join
    #[command(subcommand)]
    Token(HostTokenCommand),
}

#[derive(Debug, Subcommand)]
pub enum HostTokenCommand {
    /// Create a token with which one host can join; it is shown once
    Create {
        /// The host that may use it: a new one, which gets this name, or a known one, which gets a new key
        #[arg(long, value_name = "HOST")]
        name: Option<String>,
        /// The zone of a new host; without it, the one in the host's configuration
        #[arg(long)]
        zone: Option<String>,
        /// How long the token is valid
        #[arg(long, value_parser = parse_duration, default_value = "1h", value_name = "TIME")]
        ttl: Duration,
    },
    /// List all tokens, without their secrets
    List,
    /// Delete tokens; hosts that joined with them stay
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
        HostCommand::DeclareDead { host, confirm } => return declare_dead(&context, &host, confirm).await,
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
        HostCommand::AcceptLoss { host } => (host, HostChange { accept_loss: true, ..HostChange::default() }),
        HostCommand::AcceptCapacity { host } => (host, HostChange { accept_capacity: true, ..HostChange::default() }),
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
        context.note(&format!("warning: host {} is overcommitted by {beyond}; it takes no new instances", host.name));
    }
    context.out.one(&host)
}

/// Shows what it would do, and does it when the host's name was typed.
async fn declare_dead(context: &Context, host: &str, confirm: Option<String>) -> Result<(), CliError> {
    let client = context.client()?;
    let mutation = client.host_declare_dead(host);
    if context.dry_run {
        return context.change_and_show(mutation).await;
    }
    let name = client.host(host).await?.name;
    let confirmed = match confirm {
        Some(confirmed) => confirmed,
        None => {
            let plan = client.host_declare_dead(host).plan().await?;
            let lines: String = plan.touches.iter().map(|line| format!("  {line}\n")).collect();
            eprint!("{}", crate::plain::lines(&format!("{}:\n{lines}", plan.summary)));
            eprintln!(
                "\nYou say by this that nothing runs on that machine any more. If something does, it runs twice from now on."
            );
            ask("Type the host's name to go on: ")?
        }
    };
    if confirmed.trim() != name {
        return Err(CliError::usage(format!("the host's name is {name}: nothing was changed")));
    }
    context.change_and_show(mutation).await
}

/// A line from the terminal.
fn ask(prompt: &str) -> Result<String, CliError> {
    if !std::io::stdin().is_terminal() {
        return Err(CliError::usage("there is no terminal to confirm it on")
            .with_hint("give the host's name with --confirm HOST"));
    }
    eprint!("{prompt}");
    let mut line = String::new();
    std::io::stdin()
        .read_line(&mut line)
        .map_err(|error| CliError::usage(format!("the terminal can't be read: {error}")))?;
    Ok(line)
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
                "one host can join with this token until {}. The token can't be shown again. Run on that host:\n  iaasd compute-agent --join {}\n  iaasd network-agent --join {}",
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
