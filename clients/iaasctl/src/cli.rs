//! The command line. Options that many commands share are structs here; each noun's own are with the noun.

use crate::{
    exit,
    noun::{
        api_key::ApiKeyCommand, audit::AuditCommand, config::ConfigCommand, doctor::DoctorArgs, event::EventCommand,
        external_network::ExternalNetworkCommand, flavor::FlavorCommand, floating_ip::FloatingIpCommand,
        host::HostCommand, image::ImageCommand, instance::InstanceCommand, key::KeyCommand, network::NetworkCommand,
        peering::PeeringCommand, placement_group::PlacementGroupCommand, placement_record::PlacementRecordCommand,
        port::PortCommand, project::ProjectCommand, quota::QuotaCommand, router::RouterCommand,
        security_group::SecurityGroupCommand, session::LoginArgs, subnet::SubnetCommand, user::UserCommand,
    },
    output::Format,
    size::{parse_duration, parse_gib, parse_mib},
};
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use client::WaitTarget;
use std::time::Duration;

/// The cloud from a terminal or a script
#[derive(Debug, Parser)]
#[command(name = "iaasctl", version, after_help = exit::HELP, max_term_width = 100, disable_help_subcommand = true)]
#[command(disable_help_flag = true)]
#[command(subcommand_value_name = "NOUN", subcommand_help_heading = "Nouns")]
pub struct Cli {
    #[command(flatten)]
    pub globals: Globals,
    #[command(subcommand)]
    pub noun: Noun,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct Globals {
    /// The profile to use (made by `login`)
    #[arg(long, global = true, env = "IAAS_PROFILE", hide_env_values = true, value_name = "NAME")]
    pub profile: Option<String>,
    /// The API's address
    #[arg(long, global = true, env = "IAAS_URL", hide_env_values = true, value_name = "URL")]
    pub url: Option<String>,
    /// The project that the command is about, by name or id
    #[arg(long, short, global = true, env = "IAAS_PROJECT", hide_env_values = true, value_name = "PROJECT")]
    pub project: Option<String>,
    /// How data is printed
    #[arg(long, short, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    pub output: Format,
    /// Check everything and show what would change, but change nothing
    #[arg(long, global = true)]
    pub dry_run: bool,
    /// No progress and no notes on stderr, only errors
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// Print help
    #[arg(long, short, global = true, action = ArgAction::HelpShort)]
    help: Option<bool>,
}

#[derive(Debug, Subcommand)]
pub enum Noun {
    /// Log in with a password, and keep the session in a profile
    Login(LoginArgs),
    /// End the session
    Logout,
    /// Who is logged in, and the projects they may use
    Whoami,
    /// Change your password
    Passwd(crate::noun::session::PasswdArgs),
    /// Settings of profiles
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Projects and their members
    #[command(subcommand)]
    Project(ProjectCommand),
    /// Users (for system admins)
    #[command(subcommand)]
    User(UserCommand),
    /// SSH keys that new instances get
    #[command(subcommand, alias = "ssh-key")]
    Key(KeyCommand),
    /// Keys for programs, instead of a login
    #[command(subcommand)]
    ApiKey(ApiKeyCommand),
    /// Sizes of instances
    #[command(subcommand)]
    Flavor(FlavorCommand),
    /// What instances start from
    #[command(subcommand)]
    Image(ImageCommand),
    /// Virtual machines
    #[command(subcommand)]
    Instance(Box<InstanceCommand>),
    /// Private networks of a project
    #[command(subcommand)]
    Network(NetworkCommand),
    /// Blocks of addresses of networks
    #[command(subcommand)]
    Subnet(SubnetCommand),
    /// Attachment points of networks: the cards of instances, and others
    #[command(subcommand)]
    Port(PortCommand),
    /// Ways of networks to the outside
    #[command(subcommand)]
    Router(RouterCommand),
    /// Addresses of the outside that stand for instances
    #[command(subcommand, alias = "fip")]
    FloatingIp(FloatingIpCommand),
    /// What may pass to and from instances
    #[command(subcommand, alias = "sg")]
    SecurityGroup(SecurityGroupCommand),
    /// Networks that talk to each other
    #[command(subcommand)]
    Peering(PeeringCommand),
    /// Instances that keep together or apart
    #[command(subcommand)]
    PlacementGroup(PlacementGroupCommand),
    /// What placement refused, and why
    #[command(subcommand)]
    PlacementRecord(PlacementRecordCommand),
    /// The outside (system admins change it)
    #[command(subcommand)]
    ExternalNetwork(ExternalNetworkCommand),
    /// What still fits: of each flavor, in each zone, and when any one host is lost (for system admins)
    Capacity,
    /// Moves of instances that would free hosts (for system admins)
    Rebalance(crate::noun::rebalance::RebalanceArgs),
    /// The machines that instances run on (for system admins)
    #[command(subcommand)]
    Host(HostCommand),
    /// What a project may hold, and what it holds
    #[command(subcommand)]
    Quota(QuotaCommand),
    /// What happens, as it happens
    #[command(subcommand)]
    Event(EventCommand),
    /// Who asked for what
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Look for what is wrong, and say what to do
    Doctor(DoctorArgs),
    /// Print a shell's completion script (bash: into /etc/bash_completion.d/iaasctl)
    Completion {
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
}

/// For commands that make something.
#[derive(Debug, Clone, Copy, Args)]
pub struct IfNotExists {
    /// If one of this name exists already, show it and succeed
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
    /// Running, and the guest said that it is up
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
    /// Wait for a state; without one, for the state that the command leads to
    #[arg(long, value_enum, num_args = 0..=1, value_name = "STATE")]
    pub wait: Option<Option<WaitState>>,
    /// How long to wait (`90s`, `5m`)
    #[arg(long = "timeout", value_parser = parse_duration, default_value = "5m", value_name = "TIME")]
    pub wait_timeout: Duration,
}

/// A size in numbers, instead of a flavor.
#[derive(Debug, Clone, Args)]
pub struct SizeArgs {
    /// A named size (`iaasctl flavor list`)
    #[arg(long, value_name = "NAME", conflicts_with_all = ["vcpus", "memory", "disk"])]
    pub flavor: Option<String>,
    /// Instead of a flavor
    #[arg(long, value_name = "N")]
    pub vcpus: Option<u32>,
    /// With a unit: `512MiB`, `2GiB`
    #[arg(long, value_parser = parse_mib, value_name = "SIZE")]
    pub memory: Option<u64>,
    /// With a unit: `10GiB`
    #[arg(long, value_parser = parse_gib, value_name = "SIZE")]
    pub disk: Option<u64>,
}

/// For lists that may be long.
#[derive(Debug, Clone, Copy, Args)]
pub struct LimitArgs {
    /// At most so many
    #[arg(long, default_value_t = 100, value_name = "N")]
    pub limit: u32,
}
