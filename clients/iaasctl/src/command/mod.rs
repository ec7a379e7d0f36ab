//! One module per noun: its verbs' options, and what they do.

pub mod api_key;
pub mod audit;
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
pub mod network;
pub mod peering;
pub mod placement_group;
pub mod placement_record;
pub mod port;
pub mod project;
pub mod quota;
pub mod rebalance;
pub mod router;
pub mod security_group;
pub mod session;
pub mod subnet;
pub mod user;

use crate::{
    cli::{Cli, Noun},
    context::Context,
    error::CliError,
    output::print_bytes,
};

pub(crate) async fn run(cli: Cli) -> Result<(), CliError> {
    if let Noun::Completion { shell } = cli.noun {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut crate::command(), "iaasctl", &mut script);
        return print_bytes(&script);
    }
    if let Noun::Doctor(args) = &cli.noun {
        // It looks at the profile file itself, which may be what is wrong.
        return doctor::run(&cli.globals, args).await;
    }
    let context = Context::new(&cli.globals)?;
    match cli.noun {
        Noun::Login(args) => session::login(context, args).await,
        Noun::Logout => session::logout(context).await,
        Noun::Whoami => session::whoami(context).await,
        Noun::Passwd(args) => session::passwd(context, args).await,
        Noun::Config(command) => config::run(context, command),
        Noun::Project(command) => project::run(context, command).await,
        Noun::User(command) => user::run(context, command).await,
        Noun::Key(command) => key::run(context, command).await,
        Noun::ApiKey(command) => api_key::run(context, command).await,
        Noun::Flavor(command) => flavor::run(context, command).await,
        Noun::Image(command) => image::run(context, command).await,
        Noun::Instance(command) => instance::run(context, *command).await,
        Noun::Network(command) => network::run(context, command).await,
        Noun::Subnet(command) => subnet::run(context, command).await,
        Noun::Port(command) => port::run(context, command).await,
        Noun::Router(command) => router::run(context, command).await,
        Noun::FloatingIp(command) => floating_ip::run(context, command).await,
        Noun::SecurityGroup(command) => security_group::run(context, command).await,
        Noun::Peering(command) => peering::run(context, command).await,
        Noun::PlacementGroup(command) => placement_group::run(context, command).await,
        Noun::PlacementRecord(command) => placement_record::run(context, command).await,
        Noun::ExternalNetwork(command) => external_network::run(context, command).await,
        Noun::Capacity => capacity::run(context).await,
        Noun::Rebalance(args) => rebalance::run(context, args).await,
        Noun::Host(command) => host::run(context, command).await,
        Noun::Quota(command) => quota::run(context, command).await,
        Noun::Event(command) => event::run(context, command).await,
        Noun::Audit(command) => audit::run(context, command).await,
        Noun::Completion { .. } | Noun::Doctor(_) => Ok(()),
    }
}
