//! The persistent object manager: images (their rows, and their bytes by SHA-256) and the rows of instances' disks.
//!
//! Images come from people and are not trusted: [`object::inspect`] decides what is an image. Disks are rows here and files on hosts:
//! the cluster-manager reserves them before it commits an instance, confirms them after, releases them when a deletion is accepted (the
//! quota is released then) and removes them when the host proved that the bytes are gone. What was reserved and never confirmed
//! expires ([`reconcile`]).
//!
//! Writes the tables `image`, `disk`, `storage_usage` and `storage_operation`.

pub mod config;
mod grpc;
pub mod object;
pub mod plan;
pub mod reconcile;
pub mod reservation;

pub use config::Config;

use anyhow::Context;
use futures::future::BoxFuture;
use grpc::StorageService;
use object::ObjectDir;
use operation::{LeaderTurn, serve_in_turns};
use proto::{leader::v1::leader_server::LeaderServer, storage::v1::storage_manager_server::StorageManagerServer};
use reconcile::Reconciler;
use reservation::ImageReservations;
use service_kit::{
    background::Background,
    transport::{self, GrpcListener},
};
use store::{ManagerRole, Store};
use tokio_util::sync::CancellationToken;

/// What it is given.
pub struct Deps {
    pub store: Store,
    pub listener: GrpcListener,
}

/// Serves until `shutdown`, then finishes the calls in progress. A background task that ends before is an error that names it.
///
/// The future is boxed here, so that its code is made in this crate alone and not again in the binary that awaits it.
pub fn serve(config: Config, deps: Deps, shutdown: CancellationToken) -> BoxFuture<'static, anyhow::Result<()>> {
    Box::pin(run_until(config, deps, shutdown))
}

async fn run_until(config: Config, deps: Deps, shutdown: CancellationToken) -> anyhow::Result<()> {
    let Deps { store, listener } = deps;
    // A background task that ends takes this role down, and no other.
    let shutdown = shutdown.child_token();
    serve_in_turns(&store, ManagerRole::Storage, listener, shutdown, |turn| lead(config.clone(), turn)).await
}

/// Serves for one term.
async fn lead(config: Config, turn: LeaderTurn) -> anyhow::Result<()> {
    let LeaderTurn { store, listener, shutdown, leader } = turn;
    let objects = ObjectDir::open(&config.directory)
        .await
        .with_context(|| format!("the object store at {} can't be opened", config.directory.display()))?;
    let reservations = ImageReservations::new(store.clone());
    let reconciler = Reconciler::new(store.clone(), objects.clone(), reservations.clone(), &config);
    let service = StorageService::new(store, objects, config, reservations, reconciler.waker());
    let mut background = Background::default();
    background.start("sweeps", reconciler.run(shutdown.clone()));
    let server = StorageManagerServer::new(service)
        .max_decoding_message_size(proto::MESSAGE_BYTES_MAX)
        .max_encoding_message_size(proto::MESSAGE_BYTES_MAX);
    let router = tonic::transport::Server::builder().add_service(server).add_service(LeaderServer::new(leader));
    let served = background.supervise(&shutdown, transport::serve(router, listener, shutdown.clone())).await;
    served?.context("the storage-manager's server failed")
}
