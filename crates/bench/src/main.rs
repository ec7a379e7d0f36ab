//! Benchmarks. One JSON object per line on stdout; what is being done goes to stderr. Build with `--release`, on a quiet machine; absolute
//! times vary with the machine, so each bench carries its reference.

mod api;
mod boot;
mod boot_network;
mod commit;
mod control_plane;
mod dataplane;
mod idle;
mod inventory;
mod ipam;
mod network;
mod packing;
mod placement;
mod stack;
mod stats;
mod takeover;
mod trace;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "iaas-bench", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// REST call to the guest's up line, against the same QEMU started by hand. Needs root.
    Boot(boot::Args),
    /// Durable creates to `running` and deletes, on simulated hosts.
    ControlPlane(control_plane::Args),
    /// Latency of reads.
    Api(api::Args),
    /// Memory, CPU, threads and start of `iaasd all` without instances. Needs root.
    Idle(idle::Args),
    /// Programming ports, rules and networks on one host. Needs root.
    Network(network::Args),
    /// Throughput and delay between two hosts' endpoints against plain veth. Needs root and iperf3.
    Dataplane(dataplane::Args),
    /// Addresses allocated, rebound and given back, in memory and durably.
    Ipam(ipam::Args),
    /// The scheduler's decisions in memory, against a scan of all hosts.
    Placement(placement::Args),
    /// Hosts that a trace of requests needs, against best fit, first fit and the lower bound.
    Packing(packing::Args),
    /// Full creates through gRPC with the durable commit, on hosts without agents.
    Commit(commit::Args),
    /// Creates over a takeover: two processes of each manager on PostgreSQL, the leaders killed.
    Takeover(takeover::Args),
    /// Memory and load time of the scheduler's inventory.
    Inventory(inventory::Args),
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    service_kit::install_crypto();
    service_kit::telemetry::init(service_kit::telemetry::LogFormat::Pretty, "error");
    let result = match Cli::parse().bench {
        Bench::Boot(args) => boot::run(args).await?,
        Bench::ControlPlane(args) => control_plane::run(args).await?,
        Bench::Api(args) => api::run(args).await?,
        Bench::Idle(args) => idle::run(args).await?,
        Bench::Network(args) => network::run(args).await?,
        Bench::Dataplane(args) => dataplane::run(args).await?,
        Bench::Ipam(args) => ipam::run(args).await?,
        Bench::Placement(args) => placement::run(&args)?,
        Bench::Packing(args) => packing::run(&args)?,
        Bench::Commit(args) => commit::run(args).await?,
        Bench::Takeover(args) => takeover::run(args).await?,
        Bench::Inventory(args) => inventory::run(&args)?,
    };
    println!("{result}");
    Ok(())
}
