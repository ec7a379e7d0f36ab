//! One module per noun: its verbs' options, and what they do.

pub mod api_key;
pub mod audit;
pub mod backup;
pub mod capacity;
mod change;
pub mod config;
pub mod doctor;
pub mod event;
pub mod external_network;
pub mod flavor;
pub mod floating_ip;
pub mod host;
pub mod image;
pub mod instance;
pub mod key;
pub mod manager;
pub mod network;
pub mod peering;
pub mod placement_group;
pub mod placement_record;
pub mod port;
pub mod project;
pub mod quota;
pub mod rebalance;
pub mod recovery;
pub mod router;
pub mod security_group;
pub mod session;
pub mod subnet;
pub mod user;

use crate::{
    cli::{Cli, Command},
    context::Context,
    error::CliError,
    output::print_bytes,
};

pub(crate) async fn run(cli: Cli) -> Result<(), CliError> {
    if let Command::Completion { shell } = cli.command {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut crate::command(), "iaasctl", &mut script);
        return print_bytes(&script);
    }
    if let Command::Doctor(args) = &cli.command {
        // It looks at the profile file itself, which may be what is wrong.
        return doctor::run(&cli.globals, args).await;
    }
    let context = Context::new(&cli.globals)?;
    match cli.command {
        Command::Login(args) => session::login(context, args).await,
        Command::Logout => session::logout(context).await,
        Command::Whoami => session::whoami(context).await,
        Command::Passwd(args) => session::passwd(context, args).await,
        Command::Config(command) => config::run(context, command),
        Command::Project(command) => project::run(context, command).await,
        Command::User(command) => user::run(context, command).await,
        Command::Key(command) => key::run(context, command).await,
        Command::ApiKey(command) => api_key::run(context, command).await,
        Command::Flavor(command) => flavor::run(context, command).await,
        Command::Image(command) => image::run(context, command).await,
        Command::Instance(command) => instance::run(context, *command).await,
        Command::Network(command) => network::run(context, command).await,
        Command::Subnet(command) => subnet::run(context, command).await,
        Command::Port(command) => port::run(context, command).await,
        Command::Router(command) => router::run(context, command).await,
        Command::FloatingIp(command) => floating_ip::run(context, command).await,
        Command::SecurityGroup(command) => security_group::run(context, command).await,
        Command::Peering(command) => peering::run(context, command).await,
        Command::PlacementGroup(command) => placement_group::run(context, command).await,
        Command::PlacementRecord(command) => placement_record::run(context, command).await,
        Command::ExternalNetwork(command) => external_network::run(context, command).await,
        Command::Capacity => capacity::run(context).await,
        Command::Rebalance(args) => rebalance::run(context, args).await,
        Command::Recovery(command) => recovery::run(context, command).await,
        Command::Host(command) => host::run(context, command).await,
        Command::Quota(command) => quota::run(context, command).await,
        Command::Event(command) => event::run(context, command).await,
        Command::Audit(command) => audit::run(context, command).await,
        Command::Backup(command) => backup::run(context, command).await,
        Command::Manager(command) => manager::run(context, command).await,
        Command::Completion { .. } | Command::Doctor(_) => Ok(()),
    }
}
