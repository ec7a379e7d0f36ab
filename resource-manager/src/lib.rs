//! The virtual resource manager: networks, subnets, ports, routers, floating IPs, security groups, who has which address, and what each
//! host must know of all that.
//!
//! A change ([`grpc`]) is decided on what is in memory ([`network::plan`] over [`network::topology`] and [`network::ipam`]: pure), committed in
//! one unit that is fenced by what it was decided on, and applied to memory only then; the hosts that it affects are sent what changed for
//! them ([`agents`]). What follows from all this without anybody's request (uplinks, the end of reservations, the defaults of new projects)
//! is the reconcilers' ([`reconcile`]).
//!
//! Writes the tables of networks (`migrations/0001_initial.sql`) and `resource_operation`. The database is the judge: each address, MAC
//! and VNI has one owner by its constraints, whatever memory says.

pub mod agents;
pub mod config;
pub mod grpc;
pub mod invariants;
pub mod manager;
pub mod network;
pub mod reconcile;

pub use config::Config;
pub use manager::Manager;

use anyhow::Context as _;
use futures::future::BoxFuture;
use grpc::ResourceManagerService;
use operation::{LeaderTurn, serve_in_turns};
use proto::{
    leader::v1::leader_server::LeaderServer, resource::v1::resource_manager_server::ResourceManagerServer,
    sync::v1::host_sync_server::HostSyncServer,
};
use service_kit::{
    background::Background,
    host_streams::HostSyncService,
    transport::{self, GrpcListener},
};
use std::sync::Arc;
use store::{ManagerRole, Store};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// What this service is given.
pub struct Deps {
    pub store: Store,
    pub listener: GrpcListener,
}

/// Calls and streams on one connection.
const STREAMS_MAX: u32 = 10_000;

/// Serves until `shutdown`: then calls in progress are finished, streams end, and background work stops where it can be resumed. A background
/// task that ends before is an error that names it.
///
/// The future is boxed here, so that its code is made in this crate alone and not again in the binary that awaits it.
pub fn serve(config: Config, deps: Deps, shutdown: CancellationToken) -> BoxFuture<'static, anyhow::Result<()>> {
    Box::pin(run_until(config, deps, shutdown))
}

async fn run_until(config: Config, deps: Deps, shutdown: CancellationToken) -> anyhow::Result<()> {
    // A background task that ends takes this role down, and no other.
    let shutdown = shutdown.child_token();
    let Deps { store, listener } = deps;
    serve_in_turns(&store, ManagerRole::Resource, listener, shutdown, |turn| lead(config.clone(), turn)).await
}

/// Serves for one term.
async fn lead(config: Config, turn: LeaderTurn) -> anyhow::Result<()> {
    let LeaderTurn { store, listener, shutdown, leader } = turn;
    let tasks = TaskTracker::new();
    let manager = Manager::load(config, store, tasks.clone(), shutdown.clone());
    let manager = Arc::new(manager.await.context("the networks can't be read")?);
    reconcile::begin(&manager).await;
    let background = background(&manager);

    let limit = proto::MESSAGE_BYTES_MAX;
    let resources = ResourceManagerServer::new(ResourceManagerService(Arc::clone(&manager)))
        .max_decoding_message_size(limit)
        .max_encoding_message_size(limit);
    let hosts = HostSyncServer::new(HostSyncService(Arc::clone(&manager)))
        .max_decoding_message_size(limit)
        .max_encoding_message_size(limit);
    let router = tonic::transport::Server::builder()
        .max_concurrent_streams(Some(STREAMS_MAX))
        .initial_stream_window_size(1024 * 1024)
        .initial_connection_window_size(8 * 1024 * 1024)
        .add_service(resources)
        .add_service(hosts)
        .add_service(LeaderServer::new(leader));
    let served = background.supervise(&shutdown, transport::serve(router, listener, shutdown.clone())).await;
    drop(manager);
    tasks.close();
    tasks.wait().await;
    served?.context("the gRPC server failed")
}

/// What this service does by itself, beside the calls that it answers.
fn background(manager: &Arc<Manager>) -> Background {
    let mut background = Background::default();
    let m = || Arc::clone(manager);
    background.start("reconciler", reconcile::run(m()));
    background.start("uplinks", reconcile::follow(m()));
    background.start("report-ingest", agents::ingest::run(m()));
    if manager.config.leak_check_secs > 0 {
        background.start("drift-check", invariants::run(m()));
    }
    background
}
