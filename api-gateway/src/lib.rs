//! The REST API: the only thing tenants talk to. Identity, policy, limits, idempotency, audit, events.
//!
//! - `http`: from the socket to a route and back; the strict extractors; problems.
//! - `auth`: who sends a request, and whether they may.
//! - `app`: what routes work with; the one way to run a mutation.
//! - `v1`: the API under `/v1`; one file per kind, what it does (`routes`) and what its JSON looks like (`view`).
//!
//! Reads go to the store; changes of instances, hosts and images go to their services by gRPC; the gateway writes what is its own
//! (projects, users, keys, flavors, limits) in one commit each.

pub mod app;
pub mod auth;
mod config;
pub mod failure;
pub mod http;
pub mod v1;

pub use config::{AccessLog, ApiConfig, Config, IdentityConfig};

use crate::{
    app::{App, Services, events::EventHub, sweep},
    auth::{Auth, bootstrap, master_key::MasterKey},
    http::{dialect::Dialect, server::Server},
};
use anyhow::Context;
use futures::future::BoxFuture;
use service_kit::{background::Background, metrics::MetricsHandle, transport::GrpcTarget};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use store::Store;
use tokio_util::sync::CancellationToken;

/// How long tasks may take whose requests ended with the drain: they were told to stop when it began.
const GOODBYE: Duration = Duration::from_secs(2);

/// What the gateway needs of the process around it.
pub struct Deps {
    pub store: Store,
    pub cluster: GrpcTarget,
    pub storage: GrpcTarget,
    pub resource: GrpcTarget,
    pub metrics: MetricsHandle,
}

/// Binds, makes the first user if there is none, and serves until `shutdown`; then drains.
///
/// The future is boxed here, so that its code is made in this crate alone and not again in the binary that awaits it.
pub fn serve(config: Config, deps: Deps, shutdown: CancellationToken) -> BoxFuture<'static, anyhow::Result<()>> {
    Box::pin(run_until(config, deps, shutdown))
}

async fn run_until(config: Config, deps: Deps, shutdown: CancellationToken) -> anyhow::Result<()> {
    bind(config, deps, shutdown).await?.run().await
}

/// A gateway that has its port and is ready to run.
pub struct Gateway {
    app: App,
    dialects: Vec<Dialect>,
    server: Server,
    shutdown: CancellationToken,
}

/// The first step of [`serve`], for callers that must know the address before (port 0).
pub async fn bind(config: Config, deps: Deps, shutdown: CancellationToken) -> anyhow::Result<Gateway> {
    service_kit::install_crypto();
    let master = MasterKey::open_or_create(&config.identity.master_key_path()).context("the master key")?;
    let server = Server::bind(&config).await?;
    let auth = Auth::new(&config, deps.store.clone(), Arc::new(master));
    let services = Services {
        cluster: deps.cluster.channel()?,
        storage: deps.storage.channel()?,
        resource: deps.resource.channel()?,
    };
    let app = App::new(config, deps.store, services, auth, deps.metrics, shutdown.clone());
    app.auth().keyring.rotate(app.store()).await.map_err(|e| e.into_problem()).context("the signing keys")?;
    bootstrap::ensure_admin(app.auth(), &app.config().identity.admin_password_path())
        .await
        .map_err(|e| e.into_problem())
        .context("the first user")?;
    let dialects = vec![v1::dialect().context("the OpenAPI document")?];
    Ok(Gateway { app, dialects, server, shutdown })
}

impl Gateway {
    /// Serves another API dialect too.
    #[must_use]
    pub fn with_dialect(mut self, dialect: Dialect) -> Self {
        self.dialects.push(dialect);
        self
    }

    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.server.local_addr()
    }

    /// Serves until the shutdown token ends, then drains.
    pub async fn run(self) -> anyhow::Result<()> {
        let Self { app, dialects, server, shutdown } = self;
        let drain = Duration::from_secs(app.config().api.drain_timeout_secs);
        let tasks = app.tasks().clone();
        let mut background = Background::default();
        let (hub, until) = (app.clone(), shutdown.clone());
        background.start("event hub", async move { EventHub::run(hub.events(), until).await });
        let (audited, until) = (app.clone(), shutdown.clone());
        background.start("audit of refusals", async move { audited.auth().audit.run(until).await });
        background.start("sweep", sweep::run(app.clone(), shutdown.clone()));
        tracing::info!(address = ?server.local_addr(), tls = app.config().api.uses_tls(), "the API is served");
        let served = background.supervise(&shutdown, server.serve(app.clone(), dialects, shutdown.clone())).await;
        tasks.close();
        // They were told to stop when the drain began, and what they served is over.
        if tokio::time::timeout(GOODBYE, tasks.wait()).await.is_err() {
            tracing::warn!(tasks = tasks.len(), "some streams didn't end in time and are cut");
        }
        let _ = tokio::time::timeout(drain, app.auth().audit.finish()).await;
        Ok(served?)
    }
}
