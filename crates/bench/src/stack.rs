//! The control plane in this process, with simulated hosts that speak the real protocol: gateway on loopback, managers over in-process
//! links, a real database on a real disk.

use anyhow::Context;
use harness::{Rest, free_address, wait_alive};
use service_kit::{metrics, transport};
use std::path::Path;
use store::{Store, StoreConfig};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub struct Stack {
    pub rest: Rest,
    pub store: Store,
    fleet: sim::SimFleet,
    shutdown: CancellationToken,
    roles: JoinSet<anyhow::Result<()>>,
    _dir: tempfile::TempDir,
}

/// What an image needs to look like a kernel to the storage-manager's inspection; nothing here is ever run.
pub fn kernel_like() -> Vec<u8> {
    let mut bytes = vec![0u8; 4096];
    bytes[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    bytes[0x202..0x206].copy_from_slice(b"HdrS");
    bytes[0x206..0x208].copy_from_slice(&[0x0f, 0x02]);
    bytes
}

impl Stack {
    /// `dir`: on the disk to measure. `postgres`: a URL of an empty database, else SQLite in `dir`.
    pub async fn start(dir: &Path, postgres: Option<&str>, hosts: usize) -> anyhow::Result<Self> {
        service_kit::install_crypto();
        let dir = tempfile::Builder::new().prefix("iaas-bench").tempdir_in(dir)?;
        let url = postgres.map_or_else(|| format!("sqlite://{}", dir.path().join("iaas.db").display()), str::to_owned);
        let store = Store::open(&StoreConfig::new(url)).await?;
        let shutdown = CancellationToken::new();
        let mut roles = JoinSet::new();
        let (cluster_listener, cluster) = transport::in_process();
        let (storage_listener, storage) = transport::in_process();
        let config = storage_manager::Config { directory: dir.path().join("images"), ..Default::default() };
        let deps = storage_manager::Deps { store: store.clone(), listener: storage_listener };
        roles.spawn(storage_manager::serve(config, deps, shutdown.clone()));
        // What is measured here has no networks.
        let (_, resource) = transport::in_process();
        let deps = cluster_manager::Deps {
            store: store.clone(),
            listener: cluster_listener,
            storage: storage.clone(),
            resource: resource.clone(),
            admission: None,
        };
        roles.spawn(cluster_manager::serve(cluster_manager::Config::default(), deps, shutdown.clone()));
        let addr = free_address()?;
        let password = dir.path().join("password");
        let gateway = api_gateway::Config {
            api: api_gateway::ApiConfig { listen: addr, ..Default::default() },
            identity: api_gateway::IdentityConfig {
                state_dir: dir.path().join("identity"),
                admin_password_file: Some(password.clone()),
                ..Default::default()
            },
        };
        let deps = api_gateway::Deps {
            store: store.clone(),
            cluster: cluster.clone(),
            storage,
            resource,
            metrics: metrics::install(),
        };
        roles.spawn(api_gateway::serve(gateway, deps, shutdown.clone()));
        // Room for everything: placement is what is measured, not its end.
        let capacity = domain::flavor::Size { vcpus: 4096, memory_mib: 16 << 20, disk_gib: 1 << 20 };
        let fleet = sim::SimFleet::start(&cluster, hosts, capacity)?;
        let base = format!("http://{addr}");
        // It isn't ready without a resource-manager.
        wait_alive(&base).await?;
        fleet.connected().await;
        let password = std::fs::read_to_string(&password).context("the admin's password")?;
        let rest = Rest::login(&base, "admin", password.trim()).await?.in_project("bench").await?;
        rest.kernel_image("none", kernel_like(), b"070701".repeat(100), "").await?;
        Ok(Self { rest, store, fleet, shutdown, roles, _dir: dir })
    }

    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.fleet.stop().await;
        self.shutdown.cancel();
        while let Some(ended) = self.roles.join_next().await {
            ended??;
        }
        self.store.close().await;
        Ok(())
    }
}
