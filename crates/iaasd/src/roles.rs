//! Wires the roles and runs them: all in one process over in-process links, or one over TCP.
//!
//! A role that ends before it was told to takes the others down with it: half a control plane answers wrongly, a stopped one is
//! restarted. Instances don't notice either way.

use crate::{config::Config, ops};
use anyhow::{Context, anyhow, bail};
use service_kit::{
    metrics,
    tls::{CertFiles, ClientTls, ServerTls},
    transport::{self, GrpcListener, GrpcTarget},
};
use std::{future::Future, net::SocketAddr, path::Path, sync::Arc, time::Duration};
use store::Store;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How long the roles may take to finish what they are doing.
const DRAIN: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    All,
    ApiGateway,
    ClusterManager,
    StorageManager,
    ComputeAgent,
}

impl Role {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::ApiGateway => "api-gateway",
            Self::ClusterManager => "cluster-manager",
            Self::StorageManager => "storage-manager",
            Self::ComputeAgent => "compute-agent",
        }
    }
}

struct Running {
    shutdown: CancellationToken,
    roles: JoinSet<(&'static str, anyhow::Result<()>)>,
}

impl Running {
    fn start(&mut self, name: &'static str, role: impl Future<Output = anyhow::Result<()>> + Send + 'static) {
        self.roles.spawn(async move { (name, role.await) });
    }

    /// Until all have ended. The first unexpected end ends the rest.
    async fn finish(mut self) -> anyhow::Result<()> {
        let mut failure = None;
        loop {
            let ended = tokio::select! {
                ended = self.roles.join_next() => ended,
                () = drained(&self.shutdown) => bail!("some roles didn't finish within {} s", DRAIN.as_secs()),
            };
            let (name, result) = match ended {
                None => break,
                Some(Ok(ended)) => ended,
                Some(Err(panic)) => ("a role", Err(anyhow!(panic))),
            };
            let asked = self.shutdown.is_cancelled();
            match result {
                Ok(()) if asked => tracing::debug!(role = name, "ended"),
                Ok(()) => failure = failure.or(Some(anyhow!("{name} ended by itself"))),
                Err(error) => failure = failure.or(Some(error.context(name))),
            }
            self.shutdown.cancel();
        }
        failure.map_or(Ok(()), Err)
    }
}

async fn drained(shutdown: &CancellationToken) {
    shutdown.cancelled().await;
    tokio::time::sleep(DRAIN).await;
}

/// Runs `role` until `shutdown`.
pub async fn run(role: Role, config: Config, shutdown: CancellationToken) -> anyhow::Result<()> {
    let handle = metrics::install();
    let mut running = Running { shutdown: shutdown.clone(), roles: JoinSet::new() };
    let upkeep = (handle.clone(), shutdown.clone());
    tokio::spawn(async move {
        let mut every = tokio::time::interval(Duration::from_secs(5));
        while !upkeep.1.is_cancelled() {
            every.tick().await;
            upkeep.0.run_upkeep();
        }
    });
    let store = if role == Role::ComputeAgent { None } else { Some(open_store(&config).await?) };
    match role {
        Role::All => {
            let store = store.clone().context("the store is open")?;
            let (cluster_listener, cluster) = transport::in_process();
            let (storage_listener, storage) = transport::in_process();
            let deps = storage_manager::Deps { store: store.clone(), listener: storage_listener };
            running.start("storage-manager", storage_manager::serve(config.storage, deps, shutdown.clone()));
            let deps =
                cluster_manager::Deps { store: store.clone(), listener: cluster_listener, storage: storage.clone() };
            running.start("cluster-manager", cluster_manager::serve(config.cluster, deps, shutdown.clone()));
            let deps = compute_agent::Deps { cluster: cluster.clone(), storage: storage.clone() };
            running.start("compute-agent", compute_agent::serve(config.compute, deps, shutdown.clone()));
            let deps = api_gateway::Deps { store, cluster, storage, metrics: handle };
            running
                .start("api-gateway", api_gateway::serve(gateway(config.api, config.identity), deps, shutdown.clone()));
        }
        Role::ApiGateway => {
            let (cluster, storage) = targets(&config, role)?;
            let deps = api_gateway::Deps {
                store: store.clone().context("the store is open")?,
                cluster,
                storage,
                metrics: handle,
            };
            running
                .start("api-gateway", api_gateway::serve(gateway(config.api, config.identity), deps, shutdown.clone()));
        }
        Role::ClusterManager => {
            let (_, storage) = targets(&config, role)?;
            let listener = listener(&config, role, &config.links.cluster_listen).await?;
            serve_ops(&mut running, &config, handle, store.clone())?;
            let deps = cluster_manager::Deps { store: store.clone().context("the store is open")?, listener, storage };
            running.start("cluster-manager", cluster_manager::serve(config.cluster, deps, shutdown.clone()));
        }
        Role::StorageManager => {
            let listener = listener(&config, role, &config.links.storage_listen).await?;
            serve_ops(&mut running, &config, handle, store.clone())?;
            let deps = storage_manager::Deps { store: store.clone().context("the store is open")?, listener };
            running.start("storage-manager", storage_manager::serve(config.storage, deps, shutdown.clone()));
        }
        Role::ComputeAgent => {
            let (cluster, storage) = targets(&config, role)?;
            serve_ops(&mut running, &config, handle, None)?;
            let deps = compute_agent::Deps { cluster, storage };
            running.start("compute-agent", compute_agent::serve(config.compute, deps, shutdown.clone()));
        }
    }
    let result = running.finish().await;
    if let Some(store) = store {
        store.close().await;
    }
    result
}

fn gateway(api: api_gateway::ApiConfig, identity: api_gateway::IdentityConfig) -> api_gateway::Config {
    api_gateway::Config { api, identity }
}

async fn open_store(config: &Config) -> anyhow::Result<Store> {
    std::fs::create_dir_all(&config.paths.state)
        .with_context(|| format!("paths.state: {}", config.paths.state.display()))?;
    Store::open(&config.store()).await.context("the database can't be opened")
}

fn cert_files(dir: &Path, role: Role) -> CertFiles {
    let name = role.as_str();
    CertFiles {
        cert: dir.join(format!("{name}.pem")),
        key: dir.join(format!("{name}.key")),
        peers_ca: Some(dir.join("ca.pem")),
    }
}

async fn listener(config: &Config, role: Role, addr: &str) -> anyhow::Result<GrpcListener> {
    let tls_dir = &config.links.tls_dir;
    let tls = if tls_dir.as_os_str().is_empty() {
        None
    } else {
        Some(ServerTls::new(cert_files(tls_dir, role), &[b"h2"]).context("links.tls_dir")?)
    };
    Ok(GrpcListener::tcp(addr.parse::<SocketAddr>().context("checked before")?, tls).await?)
}

fn targets(config: &Config, role: Role) -> anyhow::Result<(GrpcTarget, GrpcTarget)> {
    let links = &config.links;
    let tls = if links.tls_dir.as_os_str().is_empty() {
        None
    } else {
        Some(ClientTls::new(cert_files(&links.tls_dir, role)).context("links.tls_dir")?)
    };
    let target = |url: &String| GrpcTarget::Tcp { url: url.clone(), tls: tls.clone() };
    Ok((target(&links.cluster_url), target(&links.storage_url)))
}

fn serve_ops(
    running: &mut Running,
    config: &Config,
    handle: metrics::MetricsHandle,
    store: Option<Store>,
) -> anyhow::Result<()> {
    if config.links.ops_listen.is_empty() {
        return Ok(());
    }
    let ready: ops::Readiness = Arc::new(move || {
        let store = store.clone();
        Box::pin(async move {
            match store {
                Some(store) => store.ping().await.map_err(|e| format!("the database doesn't answer: {e}")),
                None => Ok(()),
            }
        })
    });
    let addr = config.links.ops_listen.parse().context("checked before")?;
    running.start("ops", ops::serve(addr, handle, ready, running.shutdown.clone()));
    Ok(())
}
