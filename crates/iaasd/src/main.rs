//! The one server binary. It parses, wires and runs; what a role does is in the role's crate.

mod certs;
mod config;
mod host;
mod ops;
mod roles;

use anyhow::Context;
use clap::{Parser, Subcommand};
use compute_agent::{doctor::Level, vms_stop::Stopped};
use config::{Config, Uses};
use domain::{
    host::AgentRole,
    join::{InvalidJoinToken, JoinToken},
};
use roles::Role;
use std::{
    fs::File,
    path::{Path, PathBuf},
    process::ExitCode,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The control plane's server. Exit codes: 0 asked to stop; 1 failed; 2 wrong usage or configuration.
#[derive(Debug, Parser)]
#[command(name = "iaasd", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// The configuration file; every key is explained in deploy/examples/iaasd.toml.
    #[arg(long, global = true, default_value = "/etc/iaas/iaasd.toml", env = "IAAS_CONFIG")]
    config: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run every role in this process: the control plane and this host's agents.
    All,
    /// Run the control plane: the API and every manager, without an agent.
    ControlPlane,
    /// Run the API alone.
    ApiGateway,
    /// Run the cluster-manager alone.
    ClusterManager,
    /// Run the resource-manager alone.
    ResourceManager,
    /// Run the storage-manager alone.
    StorageManager,
    /// Run this host's compute-agent alone.
    ComputeAgent(AgentArgs),
    /// Run this host's network-agent alone.
    NetworkAgent(AgentArgs),
    /// The configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Certificates from the built-in CA.
    #[command(subcommand)]
    Certs(certs::CertsCommand),
    /// Say what is wrong with this host, and what to do.
    Doctor {
        /// One JSON object per finding.
        #[arg(long)]
        json: bool,
    },
    /// This host's virtual machines, without the control plane.
    #[command(subcommand)]
    Vms(VmsCommand),
    /// This host itself, without the control plane.
    #[command(subcommand)]
    Host(HostCommand),
}

#[derive(Debug, clap::Args)]
struct AgentArgs {
    /// Join with this token (`iaasctl host token create`), or with the one in a file: @FILE. Once joined it says nothing more.
    #[arg(long, value_name = "TOKEN", value_parser = parse_token)]
    join: Option<JoinToken>,
}

fn parse_token(text: &str) -> Result<JoinToken, String> {
    let token = match text.strip_prefix('@') {
        Some(path) => std::fs::read_to_string(path).map_err(|e| format!("{path}: {e}"))?,
        None => text.to_owned(),
    };
    token.parse().map_err(|e: InvalidJoinToken| e.to_string())
}

fn parse_agent(text: &str) -> Result<AgentRole, String> {
    AgentRole::parse(text).ok_or_else(|| format!("it is {}", AgentRole::ALL.map(AgentRole::as_str).join(" or ")))
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Check the file; all errors are shown at once.
    Check,
}

#[derive(Debug, Subcommand)]
enum VmsCommand {
    /// Stop every VM of this host: the guest is asked, then QEMU is ended. What should run runs again at the next start of iaasd.
    Stop,
}

/// What commands about this machine use of the configuration.
const OF_THIS_HOST: Uses = Uses(&["paths", "log", "links", "compute", "network"]);

#[derive(Debug, Subcommand)]
enum HostCommand {
    /// Begin with an empty state directory, because the one that an agent had is lost for good.
    AcceptLoss {
        /// Whose directory: compute-agent or network-agent. It must be given where both are missing.
        #[arg(long, value_name = "AGENT", value_parser = parse_agent)]
        agent: Option<AgentRole>,
    },
    /// Make the directory `compute.shared_pool` (or DIR) a shared pool: once, on one host, where the file system that all hosts of the pool mount is mounted
    /// and empty. Repeating it is harmless.
    InitPool {
        /// The directory. Without it: compute.shared_pool.
        dir: Option<PathBuf>,
    },
}

fn main() -> ExitCode {
    // QEMU is started through this binary, re-executed: it must be single-threaded then, so before anything else.
    if std::env::args_os().nth(1).is_some_and(|arg| arg == "vm-launch") {
        return compute_agent::qemu::shim::shim_main();
    }
    let cli = Cli::parse();
    match cli.command {
        Command::Certs(command) => {
            service_kit::install_crypto();
            report(certs::run(command))
        }
        Command::Config(ConfigCommand::Check) => with_config(&cli.config, Uses::EVERYTHING, |_| {
            println!("{}: fine", cli.config.display());
            Ok(())
        }),
        Command::Doctor { json } => with_config(&cli.config, OF_THIS_HOST, |config| doctor(&config, json)),
        Command::Vms(VmsCommand::Stop) => with_config(&cli.config, OF_THIS_HOST, |config| vms_stop(&config)),
        Command::Host(HostCommand::AcceptLoss { agent }) => {
            with_config(&cli.config, OF_THIS_HOST, |config| accept_loss(&config, agent))
        }
        Command::Host(HostCommand::InitPool { dir }) => {
            with_config(&cli.config, OF_THIS_HOST, |config| init_pool(&config, dir))
        }
        Command::All => run(&cli.config, Role::All, None),
        Command::ControlPlane => run(&cli.config, Role::ControlPlane, None),
        Command::ApiGateway => run(&cli.config, Role::ApiGateway, None),
        Command::ClusterManager => run(&cli.config, Role::ClusterManager, None),
        Command::ResourceManager => run(&cli.config, Role::ResourceManager, None),
        Command::StorageManager => run(&cli.config, Role::StorageManager, None),
        Command::ComputeAgent(args) => run(&cli.config, Role::ComputeAgent, args.join),
        Command::NetworkAgent(args) => run(&cli.config, Role::NetworkAgent, args.join),
    }
}

fn run(config: &Path, role: Role, token: Option<JoinToken>) -> ExitCode {
    with_config(config, role.uses(), |config| serve(role, config, token))
}

fn with_config(path: &Path, uses: Uses, command: impl FnOnce(Config) -> anyhow::Result<()>) -> ExitCode {
    match Config::load(path, uses) {
        Ok(config) => report(command(config)),
        Err(errors) => {
            eprintln!("iaasd: {errors}");
            ExitCode::from(2)
        }
    }
}

fn report(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("iaasd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(role: Role, config: Config, token: Option<JoinToken>) -> anyhow::Result<()> {
    let config::Log { format, filter, file, file_mib } = &config.log;
    service_kit::telemetry::init_to(*format, filter, file.as_deref(), *file_mib);
    service_kit::install_crypto();
    let _lock = lock(&config, role)?;
    runtime()?.block_on(async {
        let shutdown = CancellationToken::new();
        let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let stop = shutdown.clone();
        tokio::spawn(async move {
            tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
            tracing::info!("stopping; instances keep running");
            stop.cancel();
        });
        tracing::info!(role = role.as_str(), version = env!("CARGO_PKG_VERSION"), "starting");
        let result = roles::run(role, config, token, shutdown).await;
        match &result {
            Ok(()) => tracing::info!("stopped"),
            Err(error) => tracing::error!(error = format!("{error:#}"), "stopped by an error"),
        }
        result
    })
}

/// One process per role and run directory: two would fight over the same sockets and ledgers.
fn lock(config: &Config, role: Role) -> anyhow::Result<nix::fcntl::Flock<File>> {
    let dir = &config.paths.run;
    std::fs::create_dir_all(dir).with_context(|| format!("paths.run: {}", dir.display()))?;
    let path = dir.join(format!("{}.lock", role.as_str()));
    let file = File::create(&path).with_context(|| format!("{}", path.display()))?;
    nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusiveNonblock)
        .map_err(|(_, errno)| anyhow::anyhow!("another iaasd {} holds {} ({errno})", role.as_str(), path.display()))
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("iaasd")
        .build()
        .context("the runtime can't start")
}

fn doctor(config: &Config, json: bool) -> anyhow::Result<()> {
    service_kit::install_crypto();
    let marked = |agent| match host::marker::check(config, agent) {
        Ok(Ok(())) => (true, None),
        Ok(Err(reason)) => (false, Some((Level::Error, reason.to_string(), String::new()))),
        Err(error) => {
            let what =
                format!("whether the {}'s state directory is this host's can't be told: {error:#}", agent.as_str());
            (true, Some((Level::Error, what, String::new())))
        }
    };
    // Where a state directory isn't the host's, nothing that is found in it says anything.
    let (own, of_marker) = marked(AgentRole::ComputeAgent);
    let findings = if own { runtime()?.block_on(compute_agent::doctor::doctor(&config.compute)) } else { Vec::new() };
    let of_instances = findings.into_iter().map(|finding| (finding.level, finding.what, finding.hint));
    let of_instances = of_marker.into_iter().chain(of_instances);
    let (own, of_marker) = marked(AgentRole::NetworkAgent);
    let findings = if own { network_agent::doctor::doctor(&config.network) } else { Vec::new() };
    let of_networks = findings.into_iter().map(|finding| {
        let level = if finding.error { Level::Error } else { Level::Warning };
        (level, finding.what, finding.hint)
    });
    let of_networks = of_marker.into_iter().chain(of_networks);
    let mut usable = true;
    for (level, what, hint) in of_instances.chain(of_networks) {
        usable &= level != Level::Error;
        let level = match level {
            Level::Ok => "ok",
            Level::Warning => "warning",
            Level::Error => "error",
        };
        if json {
            println!("{}", serde_json::json!({"level": level, "what": what, "hint": hint}));
        } else {
            println!("{level:8} {what}");
            if !hint.is_empty() {
                println!("         {hint}");
            }
        }
    }
    anyhow::ensure!(usable, "this host can't run instances as it is");
    Ok(())
}

fn accept_loss(config: &Config, agent: Option<AgentRole>) -> anyhow::Result<()> {
    let agent = match (agent, host::marker::lost(config)?.as_slice()) {
        (Some(agent), _) => agent,
        (None, [agent]) => *agent,
        (None, []) => {
            println!("the agents' state directories are this host's: nothing is lost");
            return Ok(());
        }
        // One of them may only not be mounted.
        (None, [..]) => {
            anyhow::bail!("the state directories of both agents are missing: say with --agent whose is lost for good")
        }
    };
    let (dir, name) = (host::marker::dir(config, agent).display(), agent.as_str());
    if host::marker::accept_loss(config, agent)? {
        println!("{dir} counts as lost: the {name} begins with an empty one{}", host::marker::what_then(agent));
    } else {
        println!("{dir} is this host's state directory of the {name}: nothing is lost");
    }
    Ok(())
}

fn init_pool(config: &Config, dir: Option<PathBuf>) -> anyhow::Result<()> {
    let dir = dir
        .or_else(|| config.compute.shared_pool.clone())
        .context("name the directory, or set compute.shared_pool in the configuration")?;
    let id = compute_agent::disk::pool::init(&dir)?;
    println!(
        "{} is the shared pool {id}: mount it on every host of the pool, and set compute.shared_pool there",
        dir.display()
    );
    Ok(())
}

fn vms_stop(config: &Config) -> anyhow::Result<()> {
    service_kit::telemetry::init(config.log.format, "warn");
    let compute = host::Identity::open_or_create(config)?.compute(config.compute.clone());
    let report = runtime()?.block_on(compute_agent::vms_stop::stop_all(&compute))?;
    for vm in &report.vms {
        let name = if vm.name.is_empty() { "(not in the ledger)" } else { &vm.name };
        let how = match &vm.stopped {
            Stopped::Gracefully => "shut down",
            Stopped::Hard => "ended: the guest didn't shut down in its time",
            Stopped::Failed { reason } => reason,
        };
        println!("{} {name}: {how}", vm.instance_id);
    }
    anyhow::ensure!(report.complete(), "some VMs still run");
    Ok(())
}
