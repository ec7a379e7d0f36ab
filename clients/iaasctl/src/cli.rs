//! The command line: the tree of commands. Options that many commands share are in `args`; each command's own are with the command.

use crate::{
    args::Globals,
    command::{
        api_key::ApiKeyCommand, audit::AuditCommand, backup::BackupCommand, config::ConfigCommand, doctor::DoctorArgs,
        event::EventCommand, external_network::ExternalNetworkCommand, flavor::FlavorCommand,
        floating_ip::FloatingIpCommand, host::HostCommand, image::ImageCommand, instance::InstanceCommand,
        key::KeyCommand, network::NetworkCommand, peering::PeeringCommand, placement_group::PlacementGroupCommand,
        placement_record::PlacementRecordCommand, port::PortCommand, project::ProjectCommand, quota::QuotaCommand,
        router::RouterCommand, security_group::SecurityGroupCommand, session::LoginArgs, subnet::SubnetCommand,
        user::UserCommand,
    },
    exit,
};
use clap::{Parser, Subcommand};

/// Use the cloud from a terminal or a script
#[derive(Debug, Parser)]
#[command(name = "iaasctl", version, after_help = exit::HELP, max_term_width = 100, disable_help_subcommand = true)]
#[command(disable_help_flag = true)]
#[command(subcommand_help_heading = "Commands")]
pub struct Cli {
    #[command(flatten)]
    pub globals: Globals,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Log in with a password and save the session in a profile
    Login(LoginArgs),
    /// Log out: end the session
    Logout,
    /// Show who is logged in and which projects they may use
    Whoami,
    /// Change your password
    Passwd(crate::command::session::PasswdArgs),
    /// Manage profiles and their settings
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
    /// API keys, with which programs authenticate
    #[command(subcommand)]
    ApiKey(ApiKeyCommand),
    /// Sizes of instances
    #[command(subcommand)]
    Flavor(FlavorCommand),
    /// Images that instances start from
    #[command(subcommand)]
    Image(ImageCommand),
    /// Virtual machines
    #[command(subcommand)]
    Instance(Box<InstanceCommand>),
    /// Private networks of a project
    #[command(subcommand)]
    Network(NetworkCommand),
    /// Subnets: address ranges of networks
    #[command(subcommand)]
    Subnet(SubnetCommand),
    /// Ports, which attach instances to networks
    #[command(subcommand)]
    Port(PortCommand),
    /// Routers, which connect networks to external networks
    #[command(subcommand)]
    Router(RouterCommand),
    /// Floating IPs: external addresses that are mapped to instances
    #[command(subcommand, alias = "fip")]
    FloatingIp(FloatingIpCommand),
    /// Rules for the traffic to and from instances
    #[command(subcommand, alias = "sg")]
    SecurityGroup(SecurityGroupCommand),
    /// Peerings, which connect two networks
    #[command(subcommand)]
    Peering(PeeringCommand),
    /// Groups of instances that are placed together or apart
    #[command(subcommand)]
    PlacementGroup(PlacementGroupCommand),
    /// Placements that were refused, with the reasons
    #[command(subcommand)]
    PlacementRecord(PlacementRecordCommand),
    /// External networks that hosts are connected to (system admins change them)
    #[command(subcommand)]
    ExternalNetwork(ExternalNetworkCommand),
    /// Show how many more instances of each flavor fit, per zone, and how many if one host is lost (for system admins)
    Capacity,
    /// Plan moves of instances that would empty hosts or even out their load (for system admins)
    Rebalance(crate::command::rebalance::RebalanceArgs),
    /// The physical machines that run instances (for system admins)
    #[command(subcommand)]
    Host(HostCommand),
    /// Recoveries of instances whose hosts were lost (for system admins)
    #[command(subcommand)]
    Recovery(crate::command::recovery::RecoveryCommand),
    /// Limits and usage of projects
    #[command(subcommand)]
    Quota(QuotaCommand),
    /// Follow events
    #[command(subcommand)]
    Event(EventCommand),
    /// Read the audit log: who requested what
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Copies of the control plane's database (for system admins)
    #[command(subcommand)]
    Backup(BackupCommand),
    /// The processes of the control plane's managers (for system admins)
    #[command(subcommand)]
    Manager(crate::command::manager::ManagerCommand),
    /// Look for problems and suggest solutions
    Doctor(DoctorArgs),
    /// Print a shell's completion script (bash: into /etc/bash_completion.d/iaasctl)
    Completion {
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
}
