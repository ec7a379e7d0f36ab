//! The network-agent: one per host, owner of the host's share of every network.
//!
//! It keeps a [`ledger`] of what the host must be, derives from it the kernel state of one namespace per network ([`model`],
//! [`nft`]), compares it with what it finds ([`plan`], [`link::observe`]), and changes what differs ([`apply`], [`undo`]), in one
//! level-triggered loop ([`host::reconcile`]). Instances get addresses, names and metadata from it ([`service`]); the compute-agent
//! gets taps ([`port`]).

pub mod announce;
pub mod apply;
pub mod config;
pub mod doctor;
pub mod drops;
pub mod host;
pub mod ledger;
pub mod link;
pub mod manager;
pub mod model;
pub mod nft;
pub mod observation;
pub mod plan;
pub mod port;
pub mod probe;
pub mod service;
#[cfg(test)]
mod tests;
pub mod undo;

use agent_kit::follow_manager;
use config::Config;
use futures::future::BoxFuture;
use host::{Host, HostError, reconcile};
use link::netns::{NetnsError, Worker};
use service_kit::transport::{GrpcTarget, TransportError};
use std::{path::PathBuf, sync::Arc};
use tokio_util::sync::CancellationToken;

/// What the agent needs of others.
pub struct Deps {
    /// The resource-manager.
    pub manager: GrpcTarget,
}

#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("the host's network namespace can't be used")]
    Namespace(#[source] NetnsError),
    #[error("the host's networks can't be taken over")]
    Open(#[source] HostError),
    #[error("the resource-manager has no address")]
    Manager(#[source] TransportError),
    #[error("the opening of the ledger was interrupted")]
    Interrupted,
    #[error("the port socket {path} can't be served")]
    Socket {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

/// Serves until `shutdown`. Networks go on without the agent; the next one takes them over.
///
/// The future is boxed here, so that its code is made in this crate alone and not again in the binary that awaits it.
pub fn serve(config: Config, deps: Deps, shutdown: CancellationToken) -> BoxFuture<'static, Result<(), ServeError>> {
    Box::pin(run_until(config, deps, shutdown))
}

async fn run_until(config: Config, deps: Deps, shutdown: CancellationToken) -> Result<(), ServeError> {
    let path = config.port_socket.clone();
    let opened = tokio::task::spawn_blocking(move || {
        let worker = Worker::current().map_err(ServeError::Namespace)?;
        Host::open(config, worker).map_err(ServeError::Open)
    });
    let host = Arc::new(opened.await.map_err(|_| ServeError::Interrupted)??);
    match host.orphans() {
        Ok(orphans) if orphans.is_empty() => {}
        Ok(orphans) => tracing::warn!(?orphans, "namespaces of networks that the ledger doesn't know are left alone"),
        Err(error) => tracing::warn!(%error, "namespaces can't be listed"),
    }
    let manager = deps.manager.channel().map_err(ServeError::Manager)?;
    let listener = port::listen(&path).map_err(|source| ServeError::Socket { path: path.clone(), source })?;
    tokio::join!(
        reconcile::run(Arc::clone(&host), shutdown.clone()),
        port::serve(Arc::clone(&host), listener, shutdown.clone()),
        follow_manager(host, manager, shutdown),
    );
    // A socket that nobody serves would make callers wait.
    let _ = std::fs::remove_file(&path);
    Ok(())
}
