//! `iaas-bench ipam`: addresses allocated and given back in memory; then durably, through gRPC, each call with a port of its own as creates
//! make them; and ten thousand ports rebound to another host, as after the loss of theirs.

use crate::stats::round;
use anyhow::Context;
use domain::{
    HostId, InstanceId, NetworkId, PortId, ProjectId, SecurityGroupId, SubnetId, Timestamp,
    network::{SubnetSpec, Vni},
    quota::QuotaAmounts,
};
use futures::{StreamExt, TryStreamExt, stream};
use proto::{
    cluster::v1::NicRequest,
    resource::v1::{self as pb, resource_manager_client::ResourceManagerClient},
};
use resource_manager::{Config, Deps, network::ipam::Ipam};
use serde_json::{Value, json};
use service_kit::{context::CallContext, transport};
use std::{path::PathBuf, time::Instant};
use store::{
    NetworkInsert, NetworkUsageAdd, ProjectInsert, QuotaLimitPut, SecurityGroupInsert, Store, StoreConfig,
    SubnetInsert, Unit,
};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use uuid::Uuid;

/// Rebound at once, as the cluster-manager asks for the instances of a lost host.
const REBOUND: usize = 10_000;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// In memory.
    #[arg(long, default_value_t = 1_000_000)]
    addresses: usize,
    /// Durably; at least 10,000.
    #[arg(long, default_value_t = 20_000)]
    durable: usize,
    #[arg(long, default_value_t = 64)]
    concurrency: usize,
    /// Of an empty database; else SQLite.
    #[arg(long)]
    postgres: Option<String>,
    #[arg(long, default_value = "/var/tmp")]
    dir: PathBuf,
}

pub async fn run(args: Args) -> anyhow::Result<Value> {
    let (allocate_per_s, release_per_s) = in_memory(args.addresses)?;
    let world = World::start(&args).await?;
    let ports: Vec<(String, String)> =
        (0..args.durable.max(REBOUND)).map(|_| (PortId::new().to_string(), InstanceId::new().to_string())).collect();
    let began = Instant::now();
    each(&ports, args.concurrency, async |port| world.reserve(port).await).await?;
    let durable_allocate_per_s = ports.len() as f64 / began.elapsed().as_secs_f64();
    world.bind(&ports, HostId::new(), 1).await?;
    let began = Instant::now();
    world.bind(&ports[..REBOUND], HostId::new(), 2).await?;
    let reallocate_10k_ms = began.elapsed().as_secs_f64() * 1000.0;
    let began = Instant::now();
    each(&ports, args.concurrency, async |port| world.forget(port).await).await?;
    let durable_release_per_s = ports.len() as f64 / began.elapsed().as_secs_f64();
    let left = world.store.leak_report().await?;
    anyhow::ensure!(left.is_empty(), "{left:?}");
    let store = if args.postgres.is_some() { "postgres" } else { "sqlite" };
    world.stop().await?;
    Ok(json!({
        "bench": "ipam",
        "store": store,
        "allocate_per_s": allocate_per_s.round(),
        "release_per_s": release_per_s.round(),
        "durable_allocate_per_s": durable_allocate_per_s.round(),
        "durable_release_per_s": durable_release_per_s.round(),
        "reallocate_10k_ms": round(reallocate_10k_ms),
    }))
}

fn spec(cidr: &str, gateway: &str) -> anyhow::Result<SubnetSpec> {
    Ok(SubnetSpec {
        cidr: cidr.parse()?,
        gateway: gateway.parse()?,
        dns: vec![],
        allocation: vec![],
        host_routes: vec![],
    })
}

/// All of them taken, then all given back in another order, through quarantine.
fn in_memory(count: usize) -> anyhow::Result<(f64, f64)> {
    let (scope, now) = (Uuid::from_u128(1), Timestamp::now());
    let mut ipam = Ipam::default();
    ipam.put_pool(scope, Some(SubnetId::new()), &spec("10.0.0.0/8", "10.0.0.1")?);
    let mut taken = Vec::with_capacity(count);
    let began = Instant::now();
    for _ in 0..count {
        let (_, address) =
            ipam.claim_any(scope, |_| true, now).map_err(|refusal| anyhow::anyhow!("no address: {refusal:?}"))?;
        ipam.hold((scope, address));
        taken.push(address);
    }
    let allocate_per_s = count as f64 / began.elapsed().as_secs_f64();
    // A stride that meets each once and no neighbour twice in a row.
    let stride = (1..).map(|n| n * 2 + 7919).find(|n| gcd(*n, count) == 1).context("a stride")?;
    let began = Instant::now();
    for n in 0..count {
        let at = (scope, taken[n * stride % count]);
        ipam.quarantine(at, now);
        ipam.set(at, None);
    }
    Ok((allocate_per_s, count as f64 / began.elapsed().as_secs_f64()))
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

async fn each(
    ports: &[(String, String)],
    concurrency: usize,
    call: impl AsyncFn(&(String, String)) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    stream::iter(ports.iter().map(|port| call(port))).buffer_unordered(concurrency).try_collect::<Vec<()>>().await?;
    Ok(())
}

/// A resource-manager on a real database, and a network that is large enough.
struct World {
    store: Store,
    client: ResourceManagerClient<Channel>,
    project_id: ProjectId,
    network_id: NetworkId,
    shutdown: CancellationToken,
    served: tokio::task::JoinHandle<anyhow::Result<()>>,
    _dir: tempfile::TempDir,
}

impl World {
    async fn start(args: &Args) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("iaas-bench").tempdir_in(&args.dir)?;
        let sqlite = || format!("sqlite://{}", dir.path().join("iaas.db").display());
        let store = Store::open(&StoreConfig::new(args.postgres.clone().unwrap_or_else(sqlite))).await?;
        let (project_id, network_id, created_at) = (ProjectId::new(), NetworkId::new(), Timestamp::now());
        let used = QuotaAmounts { networks: 1, subnets: 1, security_groups: 1, ..QuotaAmounts::NONE };
        let limit = QuotaAmounts { ports: i64::MAX / 2, ..QuotaAmounts::DEFAULT_LIMIT };
        let unit = Unit::new()
            .op(ProjectInsert { id: project_id, name: "bench".parse()?, description: String::new(), created_at })
            .op(NetworkUsageAdd::take(project_id, &used))
            .op(QuotaLimitPut::new(project_id, &limit, 0))
            .op(NetworkInsert {
                id: network_id,
                project_id,
                name: "bench".parse()?,
                description: String::new(),
                vni: Vni::try_from(1000)?,
                mtu: None,
                created_at,
            })
            .op(SubnetInsert {
                id: SubnetId::new(),
                project_id,
                network_id,
                name: "bench".parse()?,
                spec: spec("10.0.0.0/8", "10.0.0.1")?,
                dhcp: true,
                created_at,
            })
            .op(SecurityGroupInsert {
                id: SecurityGroupId::new(),
                project_id,
                name: "default".parse()?,
                description: String::new(),
                created_at,
            });
        store.commit(unit).await?;
        let (listener, target) = transport::in_process();
        let shutdown = CancellationToken::new();
        let deps = Deps { store: store.clone(), listener };
        let served = tokio::spawn(resource_manager::serve(Config::default(), deps, shutdown.clone()));
        let client = ResourceManagerClient::new(target.channel()?)
            .max_decoding_message_size(proto::MESSAGE_BYTES_MAX)
            .max_encoding_message_size(proto::MESSAGE_BYTES_MAX);
        Ok(Self { store, client, project_id, network_id, shutdown, served, _dir: dir })
    }

    async fn stop(self) -> anyhow::Result<()> {
        self.shutdown.cancel();
        self.served.await??;
        self.store.close().await;
        Ok(())
    }

    async fn reserve(&self, (port_id, instance_id): &(String, String)) -> anyhow::Result<()> {
        let port = pb::PortReservation {
            nic: Some(NicRequest {
                port_id: port_id.clone(),
                network_id: self.network_id.to_string(),
                ..Default::default()
            }),
            instance_id: instance_id.clone(),
            project_id: self.project_id.to_string(),
            hostname: "bench".into(),
        };
        let request = pb::ReservePortsRequest { ports: vec![port], ttl_secs: 3600 };
        self.client.clone().reserve_ports(CallContext::system("bench").request(request)).await?;
        Ok(())
    }

    async fn bind(&self, ports: &[(String, String)], host_id: HostId, instance_epoch: i64) -> anyhow::Result<()> {
        let ports = ports.iter().map(|(port_id, instance_id)| pb::PortBinding {
            port_id: port_id.clone(),
            instance_id: instance_id.clone(),
            host_id: host_id.to_string(),
            instance_epoch,
            metadata_digest: "0".repeat(64),
            hostname: "bench".into(),
        });
        let answer =
            self.client.clone().bind_ports(pb::BindPortsRequest { ports: ports.collect() }).await?.into_inner();
        anyhow::ensure!(answer.expired_port_ids.is_empty(), "{} reservations expired", answer.expired_port_ids.len());
        Ok(())
    }

    async fn forget(&self, (_, instance_id): &(String, String)) -> anyhow::Result<()> {
        let request = pb::RemovePortsRequest { instance_ids: vec![instance_id.clone()], ports: vec![] };
        self.client.clone().remove_ports(request).await?;
        Ok(())
    }
}
