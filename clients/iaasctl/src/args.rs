//! Options that many commands share.

use crate::{
    output::Format,
    size::{parse_duration, parse_gib, parse_mib},
};
use clap::{
    ArgAction, Args, ValueEnum,
    builder::{PossibleValuesParser, TypedValueParser},
};
use client::WaitTarget;
use std::time::Duration;

#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct Globals {
    /// The profile to use (`login` creates one)
    #[arg(long, global = true, env = "IAAS_PROFILE", hide_env_values = true, value_name = "NAME")]
    pub profile: Option<String>,
    /// The API's address
    #[arg(long, global = true, env = "IAAS_URL", hide_env_values = true, value_name = "URL")]
    pub url: Option<String>,
    /// The project to work in, by name or id
    #[arg(long, short, global = true, env = "IAAS_PROJECT", hide_env_values = true, value_name = "PROJECT")]
    pub project: Option<String>,
    /// The output format
    #[arg(long, short, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    pub output: Format,
    /// Check everything and show what would change, but change nothing
    #[arg(long, global = true)]
    pub dry_run: bool,
    /// Print only errors on stderr, no progress and no notes
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// Print help
    #[arg(long, short, global = true, action = ArgAction::HelpShort)]
    help: Option<bool>,
}

/// One of a closed list's values, by its name in the API.
pub fn one_of<T: Copy + Send + Sync + 'static, const N: usize>(
    all: [T; N],
    name: fn(T) -> &'static str,
) -> impl TypedValueParser<Value = T> {
    let value = move |text: String| all.into_iter().find(|value| name(*value) == text).ok_or("it is not in the list");
    PossibleValuesParser::new(all.map(name)).try_map(value)
}

/// For commands that make something.
#[derive(Debug, Clone, Copy, Args)]
pub struct IfNotExists {
    /// If an object with this name already exists, show it and succeed
    #[arg(long)]
    pub if_not_exists: bool,
}

/// For settings that are on or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    On,
    Off,
}

impl Switch {
    #[must_use]
    pub fn on(self) -> bool {
        self == Self::On
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum WaitState {
    Running,
    Stopped,
    Paused,
    /// Running, and the guest has reported that it is up
    Guest,
    Deleted,
}

impl WaitState {
    #[must_use]
    pub fn target(self) -> WaitTarget {
        match self {
            Self::Running => WaitTarget::Running,
            Self::Stopped => WaitTarget::Stopped,
            Self::Paused => WaitTarget::Paused,
            Self::Guest => WaitTarget::Guest,
            Self::Deleted => WaitTarget::Deleted,
        }
    }
}

/// For commands whose effect takes a while.
#[derive(Debug, Clone, Copy, Args)]
pub struct WaitArgs {
    /// Wait until the instance is in this state; without a state, in the one that the command leads to
    #[arg(long, value_enum, num_args = 0..=1, value_name = "STATE")]
    pub wait: Option<Option<WaitState>>,
    /// How long to wait (`90s`, `5m`)
    #[arg(long = "timeout", value_parser = parse_duration, default_value = "5m", value_name = "TIME")]
    pub wait_timeout: Duration,
}

/// A size in numbers, instead of a flavor.
#[derive(Debug, Clone, Args)]
pub struct SizeArgs {
    /// The flavor, which names a size (`iaasctl flavor list`)
    #[arg(long, value_name = "NAME", conflicts_with_all = ["vcpus", "memory", "disk"])]
    pub flavor: Option<String>,
    /// The number of vCPUs, instead of a flavor
    #[arg(long, value_name = "N")]
    pub vcpus: Option<u32>,
    /// The memory, with a unit: `512MiB`, `2GiB`
    #[arg(long, value_parser = parse_mib, value_name = "SIZE")]
    pub memory: Option<u64>,
    /// The size of the root disk, with a unit: `10GiB`
    #[arg(long, value_parser = parse_gib, value_name = "SIZE")]
    pub disk: Option<u64>,
}

/// For lists that may be long.
#[derive(Debug, Clone, Copy, Args)]
pub struct LimitArgs {
    /// The most entries to list
    #[arg(long, default_value_t = 100, value_name = "N")]
    pub limit: u32,
}
