//! A small cloud: a database, a project with a quota, two images, a storage-manager, a cluster-manager that can be killed, and hosts.

use crate::{
    resource_proxy,
    storage_proxy::{Plan, Proxy},
    switchboard::Switchboard,
};
use cluster_manager::{Config, Deps};
use domain::{
    DiskId, HostId, ImageId, InstanceId, OperationId, Problem, ProjectId, Timestamp,
    flavor::Size,
    image::{DiskFormat, ImageKind, ImagePart, ImagePartKind, ImageState, Visibility},
    instance::{Instance, InstanceSpec, InstanceState, Power},
    network::{Change as NetworkChange, ChangeOutcome},
    quota::QuotaAmounts,
    testing,
};
use proto::{
    cluster::v1::{self as pb, change_instance_request::Change, cluster_manager_client::ClusterManagerClient},
    convert::{instance_from_pb, power_to_pb, size_to_pb, spec_to_pb},
    resource::v1::{
        self as resource, resource_manager_client::ResourceManagerClient,
        resource_manager_server::ResourceManagerServer,
    },
    status::from_status,
    storage::v1::storage_manager_server::StorageManagerServer,
};
use service_kit::{
    context::CallContext,
    transport::{self, GrpcListener, GrpcTarget},
};
use sim::{SimConfig, SimHost, World, invariants};
use std::{
    future::Future,
    time::{Duration, Instant},
};
use store::{InstanceRow, Store, StoreConfig, Unit, testing::TestDatabase};
use tokio::{
    runtime::Runtime,
    sync::{Mutex, mpsc},
};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

/// Longer than anything here takes on a machine that does something else too.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Checks again until it is so; fails with what the last check answered.
pub async fn eventually<T, F>(what: &str, mut check: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, String>>,
{
    let began = Instant::now();
    loop {
        match check().await {
            Ok(found) => return found,
            Err(last) if began.elapsed() > TIMEOUT => panic!("{what}: still not after {TIMEOUT:?}: {last}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// A cluster-manager's process: its own runtime, so that it can die at any await.
pub struct Process {
    runtime: Runtime,
    shutdown: CancellationToken,
    ended: tokio::task::JoinHandle<anyhow::Result<()>>,
}

impl Process {
    fn start(
        config: Config,
        database: StoreConfig,
        listener: GrpcListener,
        storage: GrpcTarget,
        resource: GrpcTarget,
    ) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("manager")
            .enable_all()
            .build()
            .expect("a runtime");
        let shutdown = CancellationToken::new();
        let token = shutdown.clone();
        let ended = runtime.spawn(async move {
            let store = Store::open(&database).await?;
            let deps = Deps { store: store.clone(), listener, storage, resource, admission: None };
            let served = cluster_manager::serve(config, deps, token).await;
            store.close().await;
            served
        });
        Self { runtime, shutdown, ended }
    }

    /// Ends it as `kill -9` does.
    pub fn kill(self) {
        self.runtime.shutdown_background();
    }

    pub async fn stop(self) {
        self.shutdown.cancel();
        let ended = tokio::time::timeout(TIMEOUT, self.ended).await.expect("it stops");
        ended.expect("no panic").expect("it ends clean");
        self.runtime.shutdown_background();
    }
}

/// A client of the cluster-manager.
#[derive(Clone)]
pub struct Caller(ClusterManagerClient<Channel>);

impl Caller {
    async fn try_create(
        &self,
        context: &CallContext,
        request: pb::CreateInstancesRequest,
    ) -> Result<pb::CreateInstancesResponse, Problem> {
        let answer = self.0.clone().create_instances(context.request(request)).await;
        answer.map(tonic::Response::into_inner).map_err(|s| from_status(&s))
    }

    /// The same request under the same operation until there is an answer.
    pub async fn insist(
        &self,
        context: &CallContext,
        request: &pb::CreateInstancesRequest,
    ) -> Result<pb::CreateInstancesResponse, Problem> {
        let began = Instant::now();
        loop {
            match self.try_create(context, request.clone()).await {
                Err(p) if p.kind == domain::ErrorKind::Unavailable && began.elapsed() < TIMEOUT => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                answer => return answer,
            }
        }
    }
}

/// What every test finds in the database.
struct Seeded {
    project_id: ProjectId,
    image_id: ImageId,
    kernel_id: ImageId,
}

pub struct Backup {
    file: Vec<u8>,
    log: Vec<u8>,
}

pub struct Cloud {
    pub store: Store,
    pub project_id: ProjectId,
    /// An image that boots from a disk of at least 1 GiB.
    pub image_id: ImageId,
    /// An image that runs from memory.
    pub kernel_id: ImageId,
    pub world: World,
    pub storage_plan: Plan,
    pub board: Switchboard,
    pub config: Config,
    client: ClusterManagerClient<Channel>,
    cluster: GrpcTarget,
    storage_target: GrpcTarget,
    resource_target: GrpcTarget,
    resources: ResourceManagerClient<Channel>,
    /// Where network-agents connect.
    pub resource_channel: Channel,
    deaths: Mutex<mpsc::UnboundedReceiver<()>>,
    process: Mutex<Option<Process>>,
    shutdown: CancellationToken,
    services_ended: Vec<tokio::task::JoinHandle<anyhow::Result<()>>>,
    _objects: tempfile::TempDir,
    // Last: it is dropped after all that use it.
    database: TestDatabase,
}

/// Deadlines and intervals for tests, where a second is long.
pub fn quick() -> Config {
    Config {
        heartbeat_timeout_ms: 3000,
        reconcile_interval_ms: 50,
        storage_timeout_secs: 3,
        console_open_timeout_ms: 2000,
        ..Config::default()
    }
}

/// For tests in which hosts stay away: that is noticed soon. Where nothing should be refused while agents find a restarted manager again,
/// they must have the time a busy machine takes.
pub fn restless() -> Config {
    Config { disconnect_grace_ms: 200, ..quick() }
}

/// A cloud on each database there is.
pub async fn each(config: Config) -> Vec<Cloud> {
    let mut clouds = Vec::new();
    for database in TestDatabase::each().await {
        clouds.push(Cloud::on(database, config.clone()).await);
    }
    clouds
}

impl Cloud {
    pub async fn start(config: Config) -> Self {
        Self::on(TestDatabase::sqlite(), config).await
    }

    pub async fn on(database: TestDatabase, config: Config) -> Self {
        let seeded = Seeded { project_id: ProjectId::new(), image_id: ImageId::new(), kernel_id: ImageId::new() };
        let store = database.open().await;
        seed(&store, seeded.project_id, seeded.image_id, seeded.kernel_id).await;
        store.close().await;
        Self::assemble(database, config, seeded, (Switchboard::new(), World::default())).await
    }

    /// All services on a database that has been seeded; hosts reach them by `board`.
    async fn assemble(
        database: TestDatabase,
        config: Config,
        seeded: Seeded,
        (board, world): (Switchboard, World),
    ) -> Self {
        // A failing test shows its log with RUST_LOG=debug.
        let level = std::env::var("RUST_LOG").ok().and_then(|level| level.parse::<tracing::Level>().ok());
        let level = level.unwrap_or(tracing::Level::ERROR);
        let _ = tracing_subscriber::fmt().with_max_level(level).with_test_writer().try_init();
        let store = database.open().await;
        let Seeded { project_id, image_id, kernel_id } = seeded;
        let shutdown = CancellationToken::new();
        let objects = tempfile::tempdir().expect("a temporary directory");
        let (real_listener, real_target) = transport::in_process();
        let storage_config =
            storage_manager::Config { directory: objects.path().to_owned(), ..storage_manager::Config::default() };
        let deps = storage_manager::Deps { store: store.clone(), listener: real_listener };
        let real = tokio::spawn(storage_manager::serve(storage_config, deps, shutdown.clone()));
        let (listener, storage_target) = transport::in_process();
        let (storage_plan, (died, deaths)) = (Plan::default(), mpsc::unbounded_channel());
        let proxy = Proxy::new(real_target.channel().expect("a channel"), storage_plan.clone(), died.clone());
        let router = tonic::transport::Server::builder().add_service(StorageManagerServer::new(proxy));
        let token = shutdown.clone();
        let proxy = tokio::spawn(async move { Ok(transport::serve(router, listener, token).await?) });

        let (real_listener, real_target) = transport::in_process();
        // Addresses aren't quarantined: one that is requested again is had at once.
        let resource_config = resource_manager::Config { quarantine_secs: 0, ..Default::default() };
        let deps = resource_manager::Deps { store: store.clone(), listener: real_listener };
        let real_resource = tokio::spawn(resource_manager::serve(resource_config, deps, shutdown.clone()));
        let (listener, resource_target) = transport::in_process();
        let channel = real_target.channel().expect("a channel");
        let resources = ResourceManagerClient::new(channel.clone());
        let resource_channel = channel.clone();
        let resource_proxy = resource_proxy::Proxy::new(channel, storage_plan.clone(), died);
        let router = tonic::transport::Server::builder().add_service(ResourceManagerServer::new(resource_proxy));
        let token = shutdown.clone();
        let resource_proxy = tokio::spawn(async move { Ok(transport::serve(router, listener, token).await?) });

        let (storage, resource) = (storage_target.clone(), resource_target.clone());
        let process = Process::start(config.clone(), database.config.clone(), board.listener(), storage, resource);
        let client = ClusterManagerClient::new(board.target.channel().expect("a channel"));
        Self {
            store,
            project_id,
            image_id,
            kernel_id,
            world,
            storage_plan,
            cluster: board.target.clone(),
            board,
            config,
            client,
            storage_target,
            resource_target,
            resources,
            resource_channel,
            deaths: Mutex::new(deaths),
            process: Mutex::new(Some(process)),
            shutdown,
            services_ended: vec![real, proxy, real_resource, resource_proxy],
            _objects: objects,
            database,
        }
    }

    /// A copy of the (SQLite) database as it is now, while nothing changes it: the file and its log.
    pub fn back_up(&self) -> Backup {
        let path = self.database.path();
        let read = |suffix: &str| std::fs::read(format!("{}{suffix}", path.display())).unwrap_or_default();
        Backup { file: read(""), log: read("-wal") }
    }

    /// All managers end; the database is put back, and they start on it. Hosts go on meanwhile.
    pub async fn put_back(self, backup: Backup) -> Self {
        let seeded = Seeded { project_id: self.project_id, image_id: self.image_id, kernel_id: self.kernel_id };
        self.board.unplug();
        if let Some(process) = self.process.lock().await.take() {
            process.stop().await;
        }
        self.shutdown.cancel();
        for ended in self.services_ended {
            ended.await.expect("no panic").expect("it ends clean");
        }
        self.store.close().await;
        let path = self.database.path();
        let write = |suffix: &str, bytes: &[u8]| {
            std::fs::write(format!("{}{suffix}", path.display()), bytes).expect("writable");
        };
        write("", &backup.file);
        write("-wal", &backup.log);
        // It belongs to the log that was there.
        let _ = std::fs::remove_file(format!("{}-shm", path.display()));
        Self::assemble(self.database, self.config, seeded, (self.board, self.world)).await
    }

    /// What the database is, for messages.
    pub fn on_postgres(&self) -> bool {
        self.database.on_postgres()
    }

    pub async fn kill(&self) {
        self.board.unplug();
        if let Some(process) = self.process.lock().await.take() {
            process.kill();
        }
    }

    /// Tells the process to end, and waits until it has.
    pub async fn ends(&self) {
        if let Some(process) = self.process.lock().await.take() {
            process.stop().await;
        }
    }

    /// Starts a new process in place of the last one.
    pub async fn restart(&self) {
        self.kill().await;
        let (storage, resource) = (self.storage_target.clone(), self.resource_target.clone());
        let (config, database) = (self.config.clone(), self.database.config.clone());
        let process = Process::start(config, database, self.board.listener(), storage, resource);
        *self.process.lock().await = Some(process);
    }

    /// A further process, which has the database at `url` and accepts calls on `listener`.
    pub fn process_at(&self, url: &str, listener: GrpcListener) -> Process {
        let (storage, resource) = (self.storage_target.clone(), self.resource_target.clone());
        Process::start(self.config.clone(), StoreConfig::new(url), listener, storage, resource)
    }

    /// From now on this is where the cluster-manager is.
    pub fn attach(&mut self, cluster: GrpcTarget) {
        self.client = ClusterManagerClient::new(cluster.channel().expect("a channel"));
        self.cluster = cluster;
    }

    pub fn database_url(&self) -> String {
        self.database.config.url.clone()
    }

    /// What a task of its own calls by.
    pub fn clone_client(&self) -> Caller {
        Caller(self.client.clone())
    }

    /// What a second process of the role ends with, which doesn't wait for the first.
    pub async fn second_process(&self) -> anyhow::Error {
        let config = store::StoreConfig { role_wait: Duration::from_millis(200), ..self.database.config.clone() };
        let store = Store::open(&config).await.expect("opens");
        let (listener, _target) = transport::in_process();
        let (storage, resource) = (self.storage_target.clone(), self.resource_target.clone());
        let deps = Deps { store, listener, storage, resource, admission: None };
        let served = cluster_manager::serve(self.config.clone(), deps, CancellationToken::new());
        let ended = tokio::time::timeout(TIMEOUT, served).await.expect("it refuses to serve");
        ended.expect_err("another process holds the role")
    }

    /// Waits until a planned failure kills the manager; it is dead then.
    pub async fn dies(&self) {
        let died = tokio::time::timeout(TIMEOUT, async { self.deaths.lock().await.recv().await }).await;
        died.expect("it dies").expect("the proxy lives");
        self.kill().await;
    }

    /// Stops all that runs, in order; the manager must end clean.
    pub async fn stop(self, hosts: Vec<SimHost>) {
        for host in hosts {
            host.stop().await;
        }
        if let Some(process) = self.process.lock().await.take() {
            process.stop().await;
        }
        self.shutdown.cancel();
        for ended in self.services_ended {
            ended.await.expect("no panic").expect("it ends clean");
        }
        self.store.close().await;
    }

    pub async fn host(&self, config: SimConfig) -> SimHost {
        let channel = self.cluster.channel().expect("a channel");
        let host = SimHost::start_on(channel, config, self.world.clone());
        host.connected().await;
        host
    }

    pub async fn hosts(&self, count: usize) -> Vec<SimHost> {
        let mut hosts = Vec::new();
        for n in 1..=count {
            hosts.push(self.host(SimConfig::named(&format!("host-{n}"))).await);
        }
        hosts
    }

    pub fn spec(&self) -> InstanceSpec {
        let size = Size { vcpus: 1, memory_mib: 256, disk_gib: 2 };
        InstanceSpec { size, image_id: self.image_id, stop_timeout_secs: 1, ..testing::spec() }
    }

    pub fn context(&self) -> CallContext {
        CallContext { operation_id: Some(OperationId::new()), ..CallContext::system("test") }
    }

    pub fn request(&self, names: &[&str], spec: &InstanceSpec) -> pb::CreateInstancesRequest {
        pb::CreateInstancesRequest {
            project_id: self.project_id.to_string(),
            instances: names
                .iter()
                .map(|name| pb::InstanceRequest {
                    id: InstanceId::new().to_string(),
                    name: (*name).to_owned(),
                    root_disk_id: DiskId::new().to_string(),
                    nics: vec![],
                })
                .collect(),
            fill: pb::Fill::AllOrNothing.into(),
            spec: Some(spec_to_pb(spec)),
            tags: Default::default(),
        }
    }

    pub async fn try_create(
        &self,
        context: &CallContext,
        request: pb::CreateInstancesRequest,
    ) -> Result<pb::CreateInstancesResponse, Problem> {
        self.clone_client().try_create(context, request).await
    }

    /// Creates as a careful client does: the same request under the same operation until there is an answer.
    pub async fn insist(
        &self,
        context: &CallContext,
        request: &pb::CreateInstancesRequest,
    ) -> Result<pb::CreateInstancesResponse, Problem> {
        self.clone_client().insist(context, request).await
    }

    pub async fn create(&self, name: &str) -> Instance {
        self.create_as(name, &self.spec()).await
    }

    pub async fn create_as(&self, name: &str, spec: &InstanceSpec) -> Instance {
        let answer = self.try_create(&self.context(), self.request(&[name], spec)).await.expect("created");
        instance_from_pb(answer.instances[0].clone()).expect("well-formed")
    }

    pub async fn running(&self, name: &str) -> Instance {
        let instance = self.create(name).await;
        self.becomes(instance.id, InstanceState::Running).await
    }

    pub async fn try_change(
        &self,
        context: &CallContext,
        id: InstanceId,
        expected_generation: i64,
        change: Change,
    ) -> Result<pb::ChangeInstanceResponse, Problem> {
        let request = pb::ChangeInstanceRequest {
            project_id: self.project_id.to_string(),
            instance_id: id.to_string(),
            expected_generation,
            change: Some(change),
        };
        let answer = self.client.clone().change_instance(context.request(request)).await;
        answer.map(tonic::Response::into_inner).map_err(|s| from_status(&s))
    }

    pub async fn change(&self, id: InstanceId, change: Change) -> Result<Instance, Problem> {
        let answer = self.try_change(&self.context(), id, 0, change).await?;
        Ok(instance_from_pb(answer.instance.expect("an instance")).expect("well-formed"))
    }

    pub async fn power(&self, id: InstanceId, power: Power) -> Result<Instance, Problem> {
        let power = pb::SetPower { power: power_to_pb(power).into(), stop_timeout_secs: None };
        self.change(id, Change::SetPower(power)).await
    }

    pub async fn resize(&self, id: InstanceId, size: Size) -> Result<Instance, Problem> {
        let resize = pb::Resize { size: Some(size_to_pb(size)), flavor: String::new() };
        self.change(id, Change::Resize(resize)).await
    }

    pub async fn try_delete(
        &self,
        context: &CallContext,
        id: InstanceId,
    ) -> Result<pb::ChangeInstanceResponse, Problem> {
        let request = pb::DeleteInstanceRequest {
            project_id: self.project_id.to_string(),
            instance_id: id.to_string(),
            expected_generation: 0,
        };
        let answer = self.client.clone().delete_instance(context.request(request)).await;
        answer.map(tonic::Response::into_inner).map_err(|s| from_status(&s))
    }

    pub async fn delete(&self, id: InstanceId) -> Instance {
        let answer = self.try_delete(&self.context(), id).await.expect("accepted");
        instance_from_pb(answer.instance.expect("an instance")).expect("well-formed")
    }

    pub async fn change_host(&self, request: pb::ChangeHostRequest) -> Result<pb::ChangeHostResponse, Problem> {
        let answer = self.client.clone().change_host(self.context().request(request)).await;
        answer.map(tonic::Response::into_inner).map_err(|s| from_status(&s))
    }

    pub async fn try_declare_lost(
        &self,
        context: &CallContext,
        host_id: HostId,
    ) -> Result<pb::DeclareHostLostResponse, Problem> {
        let request = pb::DeclareHostLostRequest { host_id: host_id.to_string() };
        let answer = self.client.clone().declare_host_lost(context.request(request)).await;
        answer.map(tonic::Response::into_inner).map_err(|s| from_status(&s))
    }

    /// Declares the host lost, as soon as it is shown as disconnected and a manager answers.
    pub async fn declare_lost(&self, host_id: HostId) -> pb::DeclareHostLostResponse {
        eventually("the host is declared lost", || async {
            self.try_declare_lost(&self.context(), host_id).await.map_err(|problem| problem.to_string())
        })
        .await
    }

    pub async fn cordon(&self, host_id: HostId, cordoned: bool) {
        let request =
            pb::ChangeHostRequest { host_id: host_id.to_string(), cordoned: Some(cordoned), ..Default::default() };
        self.change_host(request).await.expect("accepted");
    }

    pub fn client(&self) -> ClusterManagerClient<Channel> {
        self.client.clone()
    }

    pub async fn find(&self, id: InstanceId) -> Option<InstanceRow> {
        self.store.instance_find(None, id).await.expect("readable")
    }

    pub async fn fetch(&self, id: InstanceId) -> InstanceRow {
        self.find(id).await.expect("there")
    }

    /// Waits for a state that the host has confirmed for the latest generation.
    pub async fn becomes(&self, id: InstanceId, state: InstanceState) -> Instance {
        eventually(&format!("{id} becomes {}", state.as_str()), || async {
            let Some(row) = self.find(id).await else { return Err("it is gone".to_owned()) };
            let done = row.status.state == state
                && (row.status.observed_generation == row.generation || state == InstanceState::Error);
            if done { Ok(row.instance) } else { Err(format!("{:?} at {}", row.status, row.generation)) }
        })
        .await
    }

    pub async fn gone(&self, id: InstanceId) {
        eventually(&format!("{id} is gone"), || async {
            match self.find(id).await {
                None => Ok(()),
                Some(row) => Err(format!("{:?}", row.status)),
            }
        })
        .await;
    }

    /// Has the resource-manager change something of the project.
    pub async fn apply(&self, change: &NetworkChange) -> Result<ChangeOutcome, Problem> {
        let message = resource::ApplyRequest {
            project_id: self.project_id.to_string(),
            expected_generation: 0,
            change_json: serde_json::to_string(change).expect("JSON"),
        };
        let answer = self.resources.clone().apply(self.context().request(message)).await;
        let answer = answer.map_err(|s| from_status(&s))?.into_inner();
        Ok(serde_json::from_str(&answer.outcome_json).expect("an outcome"))
    }

    pub fn resources(&self) -> ResourceManagerClient<Channel> {
        self.resources.clone()
    }

    /// What instances use of the quota: the project's default network stays when they are gone, and isn't counted.
    pub async fn used(&self) -> QuotaAmounts {
        let used = self.store.quota_usage(self.project_id).await.expect("readable");
        QuotaAmounts { networks: 0, subnets: 0, security_groups: 0, security_rules: 0, images: 0, image_gib: 0, ..used }
    }

    pub async fn limit(&self, limit: QuotaAmounts) {
        let put = store::QuotaLimitPut::new(self.project_id, &limit, 0);
        self.store.commit(Unit::new().op(put)).await.expect("stored");
    }

    /// Waits until all is as desired on these hosts, which are all that run something.
    pub async fn converges(&self, hosts: &[SimHost]) {
        let hosts: Vec<&SimHost> = hosts.iter().collect();
        eventually("all converges", || async {
            let open = invariants::unconverged(&self.store, &hosts).await.expect("readable");
            if open.is_empty() { Ok(()) } else { Err(open.join("; ")) }
        })
        .await;
        assert_eq!(self.world.violations(), Vec::<String>::new());
    }

    /// Waits until nothing is left behind of anything: no claim, no usage, no disk.
    pub async fn leaves_nothing(&self) {
        eventually("nothing is left behind", || async {
            let mut left = invariants::leaks(&self.store).await.expect("readable");
            // Images and placement groups stay.
            let used = QuotaAmounts { images: 0, image_gib: 0, placement_groups: 0, ..self.used().await };
            if used != QuotaAmounts::default() {
                left.push(format!("{used:?} used"));
            }
            for host in self.store.host_list().await.expect("readable") {
                if host.used != Size::default() {
                    left.push(format!("{} has {:?} claimed", host.name, host.used));
                }
            }
            let page = store::Page::first(1000);
            for disk in self.store.disk_list(self.project_id, page.clone()).await.expect("readable") {
                left.push(format!("disk {disk:?}"));
            }
            for port in self.store.port_list(self.project_id, page).await.expect("readable") {
                if port.owner.is_some() || port.name.is_none() {
                    left.push(format!("port {port:?}"));
                }
            }
            if left.is_empty() { Ok(()) } else { Err(left.join("; ")) }
        })
        .await;
    }
}

async fn seed(store: &Store, project_id: ProjectId, image_id: ImageId, kernel_id: ImageId) {
    let now = Timestamp::now();
    let part = |kind| ImagePart { kind, sha256: "ab".repeat(32), size_bytes: 1024 };
    let image = |id, name: &str, kind, parts: Vec<ImagePart>, min_disk_gib| store::ImageInsert {
        id,
        project_id,
        name: name.parse().expect("a name"),
        visibility: Visibility::Private,
        kind,
        format: DiskFormat::Raw,
        cmdline: String::new(),
        min_disk_gib,
        min_memory_mib: 64,
        state: ImageState::Active,
        size_gib: domain::image::size_gib(&parts),
        parts,
        reason: String::new(),
        deadline_at: None,
        created_at: now,
    };
    let unit = Unit::new()
        .op(store::ProjectInsert {
            id: project_id,
            name: "test".parse().expect("a name"),
            description: String::new(),
            created_at: now,
        })
        .op(store::QuotaLimitPut::new(
            project_id,
            &QuotaAmounts {
                instances: 500,
                vcpus: 500,
                memory_mib: 512 * 1024,
                disk_gib: 5000,
                ..QuotaAmounts::DEFAULT_LIMIT
            },
            0,
        ))
        .op(store::StorageUsageAdd::image(project_id, 2, 2))
        .op(image(image_id, "disk", ImageKind::Disk, vec![part(ImagePartKind::Disk)], 1))
        .op(image(
            kernel_id,
            "kernel",
            ImageKind::Kernel,
            vec![part(ImagePartKind::Kernel), part(ImagePartKind::Initrd)],
            0,
        ));
    store.commit(unit).await.expect("seeded");
}
