//! `iaas-bench commit`: full creates through gRPC with the durable commit: instance, claim, host, quota, audit line, event, each answered
//! after its fsync. The hosts are rows without agents, so that placement and commit are measured and nothing else; afterwards the sums of
//! all hosts are compared with their capacity.

use crate::stats::{Sample, round};
use anyhow::{Context, ensure};
use domain::{
    HostId, ImageId, InstanceId, OperationId, ProjectId, Timestamp,
    flavor::Size,
    host::{HostFacts, HostState, MemoryOverhead},
    image::{DiskFormat, ImageKind, ImagePart, ImagePartKind, ImageState, Visibility},
    instance::{DiskPool, InstanceSpec, OnCrash, OnHostLoss, Power},
    quota::QuotaAmounts,
};
use futures::{StreamExt, stream};
use proto::{
    cluster::v1::{self as pb, cluster_manager_client::ClusterManagerClient},
    convert::spec_to_pb,
};
use serde_json::{Value, json};
use service_kit::{context::CallContext, transport};
use std::{collections::BTreeMap, path::PathBuf, time::Instant};
use store::{Store, StoreConfig, Unit};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

/// Nothing of the hosts is awaited: they have no agents.
const NEVER_MS: u64 = 24 * 3_600_000;
const HOSTS_PER_UNIT: usize = 500;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(long, default_value_t = 10_000)]
    hosts: usize,
    #[arg(long, default_value_t = 50_000)]
    requests: usize,
    #[arg(long, default_value_t = 64)]
    concurrency: usize,
    /// Over which the requests are spread: each has its quota's row.
    #[arg(long, default_value_t = 16)]
    projects: usize,
    /// An empty database, as in postgres://user@host/name. Default: SQLite.
    #[arg(long)]
    postgres: Option<String>,
    /// The disk to measure on.
    #[arg(long, default_value = "/var/tmp")]
    dir: PathBuf,
}

pub async fn run(args: Args) -> anyhow::Result<Value> {
    ensure!(args.projects > 0 && args.concurrency > 0, "at least one project and one request at a time");
    let metrics = service_kit::metrics::install();
    let dir = tempfile::Builder::new().prefix("iaas-bench").tempdir_in(&args.dir)?;
    let sqlite = || format!("sqlite://{}", dir.path().join("iaas.db").display());
    let store = Store::open(&StoreConfig::new(args.postgres.clone().unwrap_or_else(sqlite))).await?;
    let image_id = ImageId::new();
    let projects = seed(&store, &args, image_id).await.context("the cloud can't be made")?;
    let shutdown = CancellationToken::new();
    let (storage_listener, storage) = transport::in_process();
    let config = storage_manager::Config { directory: dir.path().join("images"), ..Default::default() };
    let deps = storage_manager::Deps { store: store.clone(), listener: storage_listener };
    let storage_role = tokio::spawn(storage_manager::serve(config, deps, shutdown.clone()));
    let (listener, cluster) = transport::in_process();
    let (_, resource) = transport::in_process();
    let deps = cluster_manager::Deps { store: store.clone(), listener, storage, resource, admission: None };
    let config = cluster_manager::Config { disconnect_grace_ms: NEVER_MS, leak_check_secs: 0, ..Default::default() };
    let role = tokio::spawn(cluster_manager::serve(config, deps, shutdown.clone()));
    let client = ClusterManagerClient::new(cluster.channel()?);
    eprintln!("{} hosts; warming up", args.hosts);
    create(&client, &projects, image_id, "warm", args.concurrency * 4, args.concurrency).await?;
    let before = store.counters();
    let began = Instant::now();
    let millis = create(&client, &projects, image_id, "vm", args.requests, args.concurrency).await?;
    let spent = began.elapsed().as_secs_f64();
    let commits = store.counters().commits - before.commits;
    let overcommitted = overcommitted(&store).await?;
    shutdown.cancel();
    role.await??;
    storage_role.await??;
    let sample = Sample::new(millis);
    Ok(json!({
        "bench": "commit",
        "store": if args.postgres.is_some() { "postgres" } else { "sqlite" },
        "hosts": args.hosts,
        "projects": args.projects,
        "per_s": round(args.requests as f64 / spent),
        "p50_ms": round(sample.percentile(50.0)),
        "p99_ms": round(sample.percentile(99.0)),
        "commits_per_s": round(commits as f64 / spent),
        "conflicts": conflicts(&metrics.render()),
        "overcommitted": overcommitted,
    }))
}

/// Commits that the database refused because memory was behind it, each retried.
fn conflicts(text: &str) -> u64 {
    let line = text.lines().find(|line| line.starts_with("iaas_placement_conflicts_total"));
    line.and_then(|line| line.rsplit(' ').next()).and_then(|n| n.parse::<f64>().ok()).map_or(0, |n| n as u64)
}

async fn overcommitted(store: &Store) -> anyhow::Result<usize> {
    let fits = |host: &domain::host::Host| {
        host.used.vcpus <= host.capacity.vcpus
            && host.used.memory_mib <= host.capacity.memory_mib
            && host.used.disk_gib <= host.capacity.disk_gib
    };
    Ok(store.host_list().await?.iter().filter(|host| !fits(host)).count())
}

async fn create(
    client: &ClusterManagerClient<Channel>,
    projects: &[ProjectId],
    image_id: ImageId,
    prefix: &str,
    count: usize,
    concurrency: usize,
) -> anyhow::Result<Vec<f64>> {
    let one = |at: usize| {
        let (mut client, project_id) = (client.clone(), projects[at % projects.len()]);
        let request = request(project_id, image_id, &format!("{prefix}-{at}"));
        async move {
            let context = CallContext { operation_id: Some(OperationId::new()), ..CallContext::system("bench") };
            let began = Instant::now();
            client.create_instances(context.request(request)).await?;
            anyhow::Ok(began.elapsed().as_secs_f64() * 1000.0)
        }
    };
    let mut calls = stream::iter((0..count).map(|at| tokio::spawn(one(at)))).buffer_unordered(concurrency);
    let mut millis = Vec::with_capacity(count);
    while let Some(call) = calls.next().await {
        millis.push(call??);
    }
    Ok(millis)
}

fn request(project_id: ProjectId, image_id: ImageId, name: &str) -> pb::CreateInstancesRequest {
    let spec = InstanceSpec {
        size: Size { vcpus: 1, memory_mib: 512, disk_gib: 0 },
        flavor: String::new(),
        image_id,
        power: Power::On,
        boot_seq: 0,
        boot_hard: false,
        root_seq: 0,
        stop_timeout_secs: 30,
        on_crash: OnCrash::Restart,
        on_host_loss: OnHostLoss::Wait,
        pool: DiskPool::Local,
        ssh_keys: vec![],
        user_data_base64: String::new(),
        zone: None,
        placement: Default::default(),
        nics: vec![],
        deleted: false,
    };
    let new = pb::InstanceRequest { id: InstanceId::new().to_string(), name: name.to_owned(), ..Default::default() };
    pb::CreateInstancesRequest {
        project_id: project_id.to_string(),
        instances: vec![new],
        fill: pb::Fill::AllOrNothing.into(),
        spec: Some(spec_to_pb(&spec)),
        tags: Default::default(),
    }
}

async fn seed(store: &Store, args: &Args, image_id: ImageId) -> anyhow::Result<Vec<ProjectId>> {
    let now = Timestamp::now();
    let projects: Vec<ProjectId> = (0..args.projects).map(|_| ProjectId::new()).collect();
    let mut unit = Unit::new();
    let many = 1 << 40;
    let limit = QuotaAmounts { instances: many, vcpus: many, memory_mib: many, ..QuotaAmounts::DEFAULT_LIMIT };
    for (at, id) in projects.iter().enumerate() {
        let name = format!("p-{at}").parse()?;
        unit.push(store::ProjectInsert { id: *id, name, description: String::new(), created_at: now });
        unit.push(store::QuotaLimitPut::new(*id, &limit, 0));
    }
    let part = |kind| ImagePart { kind, sha256: "ab".repeat(32), size_bytes: 1024 };
    unit.push(store::StorageUsageAdd::image(projects[0], 1, 1));
    unit.push(store::ImageInsert {
        id: image_id,
        project_id: projects[0],
        name: "kernel".parse()?,
        visibility: Visibility::Public,
        kind: ImageKind::Kernel,
        format: DiskFormat::Raw,
        cmdline: String::new(),
        min_disk_gib: 0,
        min_memory_mib: 64,
        state: ImageState::Active,
        parts: vec![part(ImagePartKind::Kernel), part(ImagePartKind::Initrd)],
        size_gib: 1,
        reason: String::new(),
        deadline_at: None,
        created_at: now,
    });
    store.commit(unit).await?;
    let numbers: Vec<usize> = (0..args.hosts).collect();
    for some in numbers.chunks(HOSTS_PER_UNIT) {
        let mut unit = Unit::new();
        for at in some {
            unit.push(host(*at, now)?);
        }
        store.commit(unit).await?;
    }
    Ok(projects)
}

fn host(at: usize, now: Timestamp) -> anyhow::Result<store::HostUpsert> {
    Ok(store::HostUpsert {
        id: HostId::new(),
        name: format!("host-{at}").parse()?,
        zone: format!("z-{}", at % 3),
        tags: BTreeMap::new(),
        state: HostState::Up,
        threads: 64,
        memory_mib: 262_144,
        disk_gib: 4096,
        accept_first: true,
        accept_later: true,
        cpu_overcommit_permille: 1000,
        overhead: MemoryOverhead { fixed_mib: 64, per_vcpu_mib: 2, per_gib_mib: 4 },
        facts: HostFacts { threads: 64, ..HostFacts::default() },
        at: now,
    })
}
