//! One module per noun: its verbs' options, and what they do.

pub mod api_key;
pub mod audit;
pub mod capacity;
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
    exit,
    output::{Row, print_bytes},
};
use client::{ClientError, Mutation};
use serde::de::DeserializeOwned;

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

/// Makes an object and shows it; one that exists already is shown instead, if that is asked for. `None`: a dry run.
async fn create<T: DeserializeOwned + Row>(
    context: &Context,
    mutation: Mutation<T>,
    if_not_exists: bool,
    existing: impl Future<Output = Result<T, ClientError>>,
) -> Result<Option<T>, CliError> {
    match context.change(mutation).await {
        Err(CliError::Client(ClientError::Problem(problem)))
            if if_not_exists && problem.status == 409 && problem.code == "name_taken" =>
        {
            context.note("it exists already");
            Ok(Some(existing.await?))
        }
        other => other,
    }
}

async fn create_and_show<T: DeserializeOwned + Row>(
    context: &Context,
    mutation: Mutation<T>,
    if_not_exists: bool,
    existing: impl Future<Output = Result<T, ClientError>>,
) -> Result<(), CliError> {
    match create(context, mutation, if_not_exists, existing).await? {
        Some(object) => context.out.one(&object),
        None => Ok(()),
    }
}

/// Refuses a change of nothing.
fn something<T: Default + PartialEq>(change: T, command: &str) -> Result<T, CliError> {
    if change == T::default() {
        return Err(CliError::usage("nothing to change").with_hint(format!("iaasctl {command} --help")));
    }
    Ok(change)
}

/// Deletes each; one that fails doesn't keep the others.
async fn delete_each(
    context: &Context,
    noun: &str,
    names: &[String],
    delete: impl Fn(&str) -> Mutation<()>,
) -> Result<(), CliError> {
    let mut failures = Failures::default();
    for name in names {
        match context.change(delete(name)).await {
            Ok(Some(())) => context.note(&format!("{noun} {name} deleted")),
            Ok(None) => {}
            Err(error) => failures.add(name, error, names.len()),
        }
    }
    failures.end()
}

/// The failures of a command on many objects: each is said at once, the first one's kind is the exit code.
#[derive(Default)]
struct Failures {
    first: Option<CliError>,
    said: bool,
}

impl Failures {
    fn add(&mut self, name: &str, error: CliError, of: usize) {
        if of > 1 {
            eprint!("{name}: {}", error.render());
            self.said = true;
        }
        self.first.get_or_insert(error);
    }

    fn end(self) -> Result<(), CliError> {
        match self.first {
            None => Ok(()),
            Some(error) if self.said => Err(CliError::Said { code: error.exit_code().max(exit::FAILURE) }),
            Some(error) => Err(error),
        }
    }
}
