//! The cluster-manager: hosts, placement, and the life of instances.
//!
//! A request ([`grpc`]) changes desired state in one unit and returns. The reconciler ([`reconcile`]) brings what was requested to the
//! instance's host, over the stream that the host's agent holds ([`agents`]), and what agents report comes back into the rows, fenced.
//! Where an instance goes ([`scheduler`]), what a change makes of it ([`instance::transition`]) and what it needs next ([`reconcile::plan`],
//! [`reconcile::report`]) are pure; everything else only loads, calls and writes.
//!
//! Nothing in memory is the truth: after a start the inventory is read from the rows and every instance that isn't settled is taken up
//! by the same reconciler.

pub mod agents;
pub mod background;
pub mod client;
mod config;
mod console;
pub mod grpc;
pub mod host;
pub mod instance;
pub mod manager;
mod outcome;
pub mod placement;
pub mod reconcile;
pub mod recovery;
pub mod scheduler;

pub use config::{Config, Lease};
pub use host::admission::{Admission, AgentLinks};

use agents::consoles::ConsoleRelayService;
use anyhow::Context as _;
use client::{Clients, resource::Resource, storage::Storage};
use domain::host::HostState;
use futures::future::BoxFuture;
use grpc::{ClusterManagerService, host_identity::HostIdentityService};
use manager::{Lifetime, Manager, Parts};
use operation::{LeaderTurn, serve_in_turns};
use placement::constraints::load_placed_instances;
use proto::{
    agent::v1::{console_relay_server::ConsoleRelayServer, host_identity_server::HostIdentityServer},
    cluster::v1::cluster_manager_server::ClusterManagerServer,
    leader::v1::leader_server::LeaderServer,
    sync::v1::{host_liveness_server::HostLivenessServer, host_sync_server::HostSyncServer},
};
use scheduler::Inventory;
use service_kit::{
    host_streams::{HostLivenessService, HostSyncService},
    leader::LeaderService,
    transport::{self, GrpcListener, GrpcTarget},
};
use std::sync::Arc;
use store::{ManagerRole, Store};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::transport::server::Router;

/// What this service is given.
pub struct Deps {
    pub store: Store,
    pub listener: GrpcListener,
    pub storage: GrpcTarget,
    pub resource: GrpcTarget,
    /// The CA that signs hosts' certificates. `None`: no host can join through this process.
    pub admission: Option<Admission>,
}

const RESUME_PAGE: u32 = 1000;
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
    let Deps { store, listener, storage, resource, admission } = deps;
    let (storage, resource, admission) = (&storage, &resource, admission.map(Arc::new));
    serve_in_turns(&store, ManagerRole::Cluster, listener, shutdown, |turn| {
        lead(config.clone(), turn, storage, resource, admission.clone())
    })
    .await
}

/// Serves for one term.
async fn lead(
    config: Config,
    turn: LeaderTurn,
    storage: &GrpcTarget,
    resource: &GrpcTarget,
    admission: Option<Arc<Admission>>,
) -> anyhow::Result<()> {
    let LeaderTurn { store, listener, shutdown, leader } = turn;
    let tasks = TaskTracker::new();
    let channel = storage.channel().context("the storage-manager's address")?;
    let storage = Storage::start(channel, config.storage_timeout(), config.reservation_ttl_secs, &tasks);
    let channel = resource.channel().context("the resource-manager's address")?;
    let resource = Resource::start(channel, config.resource_timeout(), config.reservation_ttl_secs, &tasks);
    let hosts = store.host_list().await.context("the hosts can't be read")?;
    let manager = Arc::new(Manager::new(Parts {
        config,
        clients: Clients::new(storage, resource, store.clone(), &tasks),
        store,
        inventory: Inventory::new(&hosts),
        admission,
        lifetime: Lifetime { tasks: tasks.clone(), shutdown: shutdown.clone() },
    }));
    for host in hosts.iter().filter(|h| !matches!(h.state, HostState::Disconnected | HostState::Lost)) {
        manager.agents.expect(host.id);
    }
    let tracked = load_placed_instances(&manager.store, &manager.placement).await;
    let tracked = tracked.context("the members of placement groups can't be read")?;
    tracing::info!(tracked, "placement knows the instances that later decisions depend on");
    resume(&manager).await.context("the instances can't be read")?;
    let background = background::start(&manager);
    let serving = transport::serve(router(&manager, leader), listener, shutdown.clone());
    let served = background.supervise(&shutdown, serving).await;
    // The tasks hold the manager, and it the ends of the channels that other tasks read from.
    drop(manager);
    tasks.close();
    tasks.wait().await;
    served?.context("the gRPC server failed")
}

fn router(manager: &Arc<Manager>, leader: LeaderService) -> Router {
    let limit = proto::MESSAGE_BYTES_MAX;
    let cluster = ClusterManagerServer::new(ClusterManagerService(Arc::clone(manager)))
        .max_decoding_message_size(limit)
        .max_encoding_message_size(limit);
    let agents = HostSyncServer::new(HostSyncService(Arc::clone(manager)))
        .max_decoding_message_size(limit)
        .max_encoding_message_size(limit);
    let consoles = ConsoleRelayServer::new(ConsoleRelayService(Arc::clone(manager)))
        .max_decoding_message_size(limit)
        .max_encoding_message_size(limit);
    let identity = HostIdentityServer::new(HostIdentityService(Arc::clone(manager)));
    tonic::transport::Server::builder()
        // Consoles and agents' streams stay open: they must not use up what short calls need.
        .max_concurrent_streams(Some(STREAMS_MAX))
        .initial_stream_window_size(1024 * 1024)
        .initial_connection_window_size(8 * 1024 * 1024)
        .add_service(cluster)
        .add_service(agents)
        .add_service(HostLivenessServer::new(HostLivenessService(Arc::clone(manager))))
        .add_service(consoles)
        .add_service(identity)
        .add_service(LeaderServer::new(leader))
}

/// Wakes every instance that isn't settled, as if it had just been requested.
async fn resume(manager: &Manager) -> Result<(), store::ReadError> {
    let (mut after, mut resumed) = (None, 0);
    loop {
        let rows = manager.store.instance_list_unsettled(after, RESUME_PAGE).await?;
        after = rows.last().map(|row| row.instance.id);
        resumed += rows.len();
        for row in &rows {
            let starts = !row.instance.spec.deleted && !row.instance.status.state.is_final();
            if let Some(host_id) = row.instance.host_id.filter(|_| starts) {
                manager.inventory().start_begins(host_id, row.instance.id);
            }
        }
        manager.signal.wake(rows.iter().map(|row| row.instance.id), None);
        if rows.len() < RESUME_PAGE as usize {
            break;
        }
    }
    tracing::info!(hosts = manager.inventory().len(), instances_resumed = resumed, "the cluster-manager starts");
    Ok(())
}
