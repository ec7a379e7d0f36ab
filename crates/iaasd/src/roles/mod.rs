//! Wires the roles and runs them: several in one process over in-process links, or one over TCP.
//!
//! A role that ends before it was told to takes the others down with it: half a control plane answers wrongly, a stopped one is
//! restarted. Instances don't notice either way.

mod fleet;
pub mod links;

use crate::{
    config::{Config, Uses},
    host::{Host, Identity, marker},
    ops,
};
use anyhow::{Context, anyhow, bail};
use domain::{host::AgentRole, join::JoinToken};
use links::ControlPlaneLinks;
use service_kit::{fleet::Fleet, metrics, tls::Ca};
use std::{future::Future, sync::Arc, time::Duration};
use store::{ManagerRole, RoleState, Store};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How long the roles may take to finish what they are doing.
const DRAIN: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The control plane and this host's agents.
    All,
    /// Every manager and the API.
    ControlPlane,
    ApiGateway,
    ClusterManager,
    ResourceManager,
    StorageManager,
    ComputeAgent,
    NetworkAgent,
}

impl Role {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::ControlPlane => "control-plane",
            Self::ApiGateway => "api-gateway",
            Self::ClusterManager => "cluster-manager",
            Self::ResourceManager => "resource-manager",
            Self::StorageManager => "storage-manager",
            Self::ComputeAgent => "compute-agent",
            Self::NetworkAgent => "network-agent",
        }
    }

    fn uses_store(self) -> bool {
        self.uses().0.contains(&"store")
    }

    /// What it uses of the configuration. Both agents know each other's host id and state directory: they are one host's.
    #[must_use]
    pub fn uses(self) -> Uses {
        Uses(match self {
            Self::All => Uses::EVERYTHING.0,
            Self::ControlPlane => {
                &["paths", "log", "store", "links", "api", "identity", "cluster", "resource", "storage"]
            }
            Self::ApiGateway => &["paths", "log", "store", "links", "api", "identity"],
            Self::ClusterManager => &["paths", "log", "store", "links", "api.ca_dir", "cluster"],
            Self::ResourceManager => &["paths", "log", "store", "links", "resource"],
            Self::StorageManager => &["paths", "log", "store", "links", "storage"],
            Self::ComputeAgent => &["paths", "log", "links", "compute", "network.port_socket", "network.host_id"],
            Self::NetworkAgent => &["paths", "log", "links", "network", "compute.state_dir", "compute.host_id"],
        })
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
        let shutdown = self.shutdown.clone();
        // One for all: roles that end one after the other don't prolong it.
        let mut drained = std::pin::pin!(drained(&shutdown));
        loop {
            let ended = tokio::select! {
                ended = self.roles.join_next() => ended,
                () = &mut drained => bail!("some roles didn't finish within {} s", DRAIN.as_secs()),
            };
            let (name, result) = match ended {
                None => break,
                Some(Ok(ended)) => ended,
                Some(Err(panic)) => ("a role", Err(anyhow!(panic))),
            };
            let requested = self.shutdown.is_cancelled();
            match result {
                Ok(()) if requested => tracing::debug!(role = name, "ended"),
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

/// Runs `role` until `shutdown`. `token`: an agent joins with it first.
pub async fn run(
    role: Role,
    config: Config,
    token: Option<JoinToken>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
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
    let store = if role.uses_store() { Some(open_store(&config).await?) } else { None };
    let opened = || store.clone().context("the store is open");
    let name = role.as_str();
    let target = |url, manager| links::target(&config, name, url, &opened()?, manager);
    match role {
        Role::All | Role::ControlPlane => control_plane(&mut running, role, config, handle, opened()?).await?,
        Role::ApiGateway => {
            let deps = api_gateway::Deps {
                store: opened()?,
                cluster: target(config.links.cluster_url(), ManagerRole::Cluster)?,
                storage: target(config.links.storage_url(), ManagerRole::Storage)?,
                resource: target(config.links.resource_url(), ManagerRole::Resource)?,
                metrics: handle,
            };
            serve_ops(&mut running, &config, deps.metrics.clone(), store.clone())?;
            running.start(name, api_gateway::serve(gateway(config.api, config.identity), deps, shutdown));
        }
        Role::ClusterManager => {
            let fleet = Fleet::default();
            let listener = links::listener(&config, name, config.links.cluster_listen(), &fleet).await?;
            let storage = target(config.links.storage_url(), ManagerRole::Storage)?;
            let resource = target(config.links.resource_url(), ManagerRole::Resource)?;
            running.start("fleet", fleet::watch(opened()?, fleet, shutdown.clone()));
            serve_ops(&mut running, &config, handle, store.clone())?;
            // Made once with `iaasd certs ca`; never by chance on a second machine.
            let has_ca = config.ca_dir().join("ca.key").exists();
            let admission = has_ca.then(|| admission(&config, links::agent_links(&config.links))).transpose()?;
            let deps = cluster_manager::Deps { store: opened()?, listener, storage, resource, admission };
            running.start(name, cluster_manager::serve(config.cluster, deps, shutdown));
        }
        Role::ResourceManager => {
            let fleet = Fleet::default();
            let listener = links::listener(&config, name, config.links.resource_listen(), &fleet).await?;
            serve_ops(&mut running, &config, handle, store.clone())?;
            let deps = resource_manager::Deps { store: opened()?, listener };
            running.start(name, resource_manager::serve(config.resource, deps, shutdown));
        }
        Role::StorageManager => {
            let fleet = Fleet::default();
            let listener = links::listener(&config, name, config.links.storage_listen(), &fleet).await?;
            running.start("fleet", fleet::watch(opened()?, fleet, shutdown.clone()));
            serve_ops(&mut running, &config, handle, store.clone())?;
            let deps = storage_manager::Deps { store: opened()?, listener };
            running.start(name, storage_manager::serve(config.storage, deps, shutdown));
        }
        Role::ComputeAgent => {
            let Some(host) = Host::open(&config, AgentRole::ComputeAgent, token.as_ref(), &shutdown).await? else {
                return Ok(());
            };
            let (cluster, storage) = (host.cluster(&config)?, host.storage(&config)?);
            serve_ops(&mut running, &config, handle, None)?;
            let compute = host.identity.compute(config.compute.clone());
            running.start("certificate", host.keep_certificate(cluster.clone(), shutdown.clone()));
            let deps = compute_agent::Deps { cluster, storage };
            running.start(name, compute_agent_where_it_belongs(config, compute, deps, shutdown));
        }
        Role::NetworkAgent => {
            let Some(host) = Host::open(&config, AgentRole::NetworkAgent, token.as_ref(), &shutdown).await? else {
                return Ok(());
            };
            let (cluster, manager) = (host.cluster(&config)?, host.resource(&config)?);
            serve_ops(&mut running, &config, handle, None)?;
            let network = host.identity.network(config.network.clone());
            running.start("certificate", host.keep_certificate(cluster, shutdown.clone()));
            let deps = network_agent::Deps { manager };
            running.start(name, network_agent_where_it_belongs(config, network, deps, shutdown));
        }
    }
    let result = running.finish().await;
    if let Some(store) = store {
        store.close().await;
    }
    result
}

/// Every manager in this process; with `Role::All` this host's agents too.
async fn control_plane(
    running: &mut Running,
    role: Role,
    config: Config,
    handle: metrics::MetricsHandle,
    store: Store,
) -> anyhow::Result<()> {
    let shutdown = running.shutdown.clone();
    let whole = config.clone();
    let links = ControlPlaneLinks::open(&config)?;
    let (cluster_listener, cluster) = links.role(&config.links, &config.links.cluster_listen).await?;
    let (storage_listener, storage) = links.role(&config.links, &config.links.storage_listen).await?;
    let (resource_listener, resource) = links.role(&config.links, &config.links.resource_listen).await?;
    let identity = if role == Role::All { Some(Identity::open_or_create(&config)?) } else { None };
    let admission = Some(admission(&config, links::control_plane_agent_links(&config.links))?);
    serve_ops(running, &config, handle.clone(), Some(store.clone()))?;
    let deps = storage_manager::Deps { store: store.clone(), listener: storage_listener };
    running.start("storage-manager", storage_manager::serve(config.storage, deps, shutdown.clone()));
    let deps = resource_manager::Deps { store: store.clone(), listener: resource_listener };
    running.start("resource-manager", resource_manager::serve(config.resource, deps, shutdown.clone()));
    let deps = cluster_manager::Deps {
        store: store.clone(),
        listener: cluster_listener,
        storage: storage.clone(),
        resource: resource.clone(),
        admission,
    };
    running.start("cluster-manager", cluster_manager::serve(config.cluster, deps, shutdown.clone()));
    if let Some(identity) = &identity {
        let deps = compute_agent::Deps { cluster: cluster.clone(), storage: storage.clone() };
        let compute = identity.compute(whole.compute.clone());
        let agent = compute_agent_where_it_belongs(whole.clone(), compute, deps, shutdown.clone());
        running.start("compute-agent", agent);
        let deps = network_agent::Deps { manager: resource.clone() };
        let network = identity.network(config.network);
        let agent = network_agent_where_it_belongs(whole, network, deps, shutdown.clone());
        running.start("network-agent", agent);
    }
    if links.listens() {
        running.start("fleet", fleet::watch(store.clone(), links.fleet.clone(), shutdown.clone()));
        running.start("certificates", links.renew(shutdown.clone()));
    }
    let deps = api_gateway::Deps { store, cluster, storage, resource, metrics: handle };
    running.start("api-gateway", api_gateway::serve(gateway(config.api, config.identity), deps, shutdown));
    Ok(())
}

fn admission(config: &Config, links: cluster_manager::AgentLinks) -> anyhow::Result<cluster_manager::Admission> {
    let ca = Ca::open_or_create(config.ca_dir()).context("the built-in CA")?;
    Ok(cluster_manager::Admission { ca, links })
}

/// Runs the compute-agent once its state directory is there.
async fn compute_agent_where_it_belongs(
    config: Config,
    compute: compute_agent::Config,
    deps: compute_agent::Deps,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    if !marker::wait(&config, AgentRole::ComputeAgent, &shutdown).await? {
        return Ok(());
    }
    compute_agent::serve(compute, deps, shutdown).await
}

/// Runs the network-agent once its state directory is there.
async fn network_agent_where_it_belongs(
    config: Config,
    network: network_agent::config::Config,
    deps: network_agent::Deps,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    if !marker::wait(&config, AgentRole::NetworkAgent, &shutdown).await? {
        return Ok(());
    }
    network_agent::serve(network, deps, shutdown).await.map_err(Into::into)
}

fn gateway(api: api_gateway::ApiConfig, identity: api_gateway::IdentityConfig) -> api_gateway::Config {
    api_gateway::Config { api, identity }
}

async fn open_store(config: &Config) -> anyhow::Result<Store> {
    std::fs::create_dir_all(&config.paths.state)
        .with_context(|| format!("paths.state: {}", config.paths.state.display()))?;
    Store::open(&config.store()).await.context("the database can't be opened")
}

/// A standby is ready: for the moment at which it must lead.
fn standing(store: &Store) -> String {
    let waits = store.role_states().into_iter().filter_map(|(role, state)| match state {
        RoleState::Standby { leader } => {
            let leader = leader.unwrap_or_else(|| "not known yet".to_owned());
            Some(format!("standby of the {}, whose leader is {leader}", role.as_str()))
        }
        RoleState::Leads { .. } => None,
    });
    let waits: Vec<String> = waits.collect();
    if waits.is_empty() { "ready".to_owned() } else { waits.join("\n") }
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
                Some(store) => {
                    store.record_counters();
                    store.ping().await.map_err(|e| format!("the database doesn't answer: {e}"))?;
                    Ok(standing(&store))
                }
                None => Ok("ready".to_owned()),
            }
        })
    });
    let addr = config.links.ops_listen.parse().context("checked before")?;
    running.start("ops", ops::serve(addr, handle, ready, running.shutdown.clone()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SECTIONS;

    const ROLES: [Role; 8] = [
        Role::All,
        Role::ControlPlane,
        Role::ApiGateway,
        Role::ClusterManager,
        Role::ResourceManager,
        Role::StorageManager,
        Role::ComputeAgent,
        Role::NetworkAgent,
    ];

    /// A key of the section with a value of the right type that is refused, and who must refuse it.
    fn mistake(section: &str) -> (&'static str, Vec<Role>) {
        use Role::{
            All, ApiGateway, ClusterManager, ComputeAgent, ControlPlane, NetworkAgent, ResourceManager, StorageManager,
        };
        let stores = vec![All, ControlPlane, ApiGateway, ClusterManager, ResourceManager, StorageManager];
        match section {
            "paths" => ("run = 'relative'", ROLES.to_vec()),
            "log" => ("file_mib = 0", ROLES.to_vec()),
            "links" => ("ops_listen = 'somewhere'", ROLES.to_vec()),
            "store" => ("readers = 0", stores),
            "api" => ("max_connections = 0", vec![All, ControlPlane, ApiGateway]),
            "identity" => ("access_token_secs = 0", vec![All, ControlPlane, ApiGateway]),
            "cluster" => ("reservation_ttl_secs = 0", vec![All, ControlPlane, ClusterManager]),
            "resource" => ("vni_first = 0", vec![All, ControlPlane, ResourceManager]),
            "storage" => ("part_gib_max = 0", vec![All, ControlPlane, StorageManager]),
            "compute" => ("run_dir = 'relative'", vec![All, ComputeAgent]),
            "network" => ("underlay_mtu = 1", vec![All, NetworkAgent]),
            other => panic!("no mistake is known for the section {other}"),
        }
    }

    fn refused(text: &str, role: Role) -> bool {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), text).expect("written");
        Config::load(file.path(), role.uses()).is_err()
    }

    #[test]
    fn a_role_refuses_mistakes_in_what_it_uses_and_in_nothing_else() {
        for section in SECTIONS {
            let (line, concerned) = mistake(section);
            for role in ROLES {
                let must = concerned.contains(&role);
                for (kind, text) in [
                    ("a value", format!("[{section}]\n{line}\n")),
                    ("a key", format!("[{section}]\nno_such_key = 1\n")),
                    ("no section", format!("{section} = 1\n")),
                ] {
                    let refused = refused(&text, role);
                    // A single key that is used makes the section's own shape matter.
                    let shape = kind == "no section" && role.uses().0.iter().any(|used| used.starts_with(section));
                    assert_eq!(refused, must || shape, "{}: {kind} of [{section}]", role.as_str());
                }
                assert!(!refused(&format!("[{section}]\n"), role), "{}: an empty [{section}] is fine", role.as_str());
            }
        }
    }

    #[test]
    fn a_single_key_of_a_section_is_checked_where_it_is_used() {
        for (text, role) in [
            ("[api]\nca_dir = 7\n", Role::ClusterManager),
            ("[network]\nport_socket = 7\n", Role::ComputeAgent),
            ("[network]\nhost_id = 'nobody'\n", Role::ComputeAgent),
            ("[compute]\nstate_dir = 'relative'\n", Role::NetworkAgent),
        ] {
            assert!(refused(text, role), "{}: {text}", role.as_str());
            assert!(!refused(text, Role::StorageManager), "{text}");
        }
        for role in ROLES {
            assert!(refused("[comptue]\n", role), "{}: a section that there isn't", role.as_str());
        }
    }
}
