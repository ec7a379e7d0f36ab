//! A store on a database of its own, with rows to stand on. Every commit is recorded, so that a test can say which ops it covered.

use domain::{
    AuditId, DiskId, ExternalNetworkId, HostId, ImageId, InstanceId, Name, NetworkId, PortId, ProjectId, RouterId,
    SecurityGroupId, SubnetId, Timestamp, UserId,
    event::{AuditEntry, NewEvent},
    flavor::Size,
    host::{HostFacts, HostState, MemoryOverhead},
    image::{DiskFormat, ImageKind, ImagePart, ImagePartKind, ImageState, Visibility},
    instance::{DiskPool, InstanceSpec, InstanceState, OnCrash, OnHostLoss, Power},
    network::{Cidr, ExternalSubnet, MacAddr, PortState, RateLimit, SubnetSpec, Vni},
    quota::QuotaAmounts,
};
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicU32, Ordering},
};
use store::{testing::TestStore, *};

pub const T0: Timestamp = Timestamp(1_700_000_000_000);
pub const SIZE: Size = Size { vcpus: 2, memory_mib: 1024, disk_gib: 10 };
/// Room for ten instances of [`SIZE`], and two of each object of networks.
pub const LIMIT: QuotaAmounts = QuotaAmounts {
    instances: 10,
    vcpus: 20,
    memory_mib: 10_240,
    disk_gib: 100,
    images: 20,
    image_gib: 400,
    networks: 2,
    subnets: 2,
    ports: 2,
    routers: 2,
    floating_ips: 2,
    security_groups: 2,
    security_rules: 2,
    ssh_keys: 2,
    placement_groups: 9,
    peerings: 2,
};
pub const OVERHEAD: MemoryOverhead = MemoryOverhead { fixed_mib: 64, per_vcpu_mib: 4, per_gib_mib: 8 };

pub struct Lab {
    pub db: TestStore,
    pub covered: Mutex<BTreeSet<&'static str>>,
}

impl std::ops::Deref for Lab {
    type Target = Store;
    fn deref(&self) -> &Store {
        &self.db.store
    }
}

pub fn name(text: &str) -> Name {
    text.parse().expect("a valid name")
}

pub fn at(secs: u64) -> Timestamp {
    T0.plus_secs(secs)
}

pub fn first(limit: u32) -> Page {
    Page::first(limit)
}

impl Lab {
    pub async fn each() -> Vec<Self> {
        TestStore::each().await.into_iter().map(|db| Self { db, covered: Mutex::default() }).collect()
    }

    pub fn on_postgres(&self) -> bool {
        self.db.database.on_postgres()
    }

    /// Commits, and records which ops. Each unit is first committed under a term that isn't: it must do nothing.
    pub async fn try_commit(&self, unit: Unit) -> Result<(), CommitError> {
        for role in ManagerRole::ALL.into_iter().filter(|_| !unit.is_empty()) {
            let refused = store::testing::of_term(&self.db.store, role, 0).commit(unit.clone()).await;
            let not_leader = refused.as_ref().err().and_then(CommitError::not_leader);
            assert_eq!(not_leader, Some(role), "{refused:?}: {unit:?}");
        }
        self.covered.lock().extend(unit.ops().iter().map(Op::name));
        self.db.store.commit(unit).await
    }

    #[track_caller]
    pub fn one(&self, op: impl Into<Op>) -> impl Future<Output = ()> {
        self.all(Unit::new().op(op))
    }

    #[track_caller]
    pub fn all(&self, unit: Unit) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move {
            if let Err(error) = self.try_commit(unit).await {
                panic!("{caller}: {error}: {:?}", std::error::Error::source(&error).map(ToString::to_string));
            }
        }
    }

    /// The guard that refuses this op.
    #[track_caller]
    pub fn guard(&self, op: impl Into<Op>) -> impl Future<Output = Guard> {
        let (unit, caller) = (Unit::new().op(op), std::panic::Location::caller());
        async move {
            match self.try_commit(unit).await {
                Err(CommitError::Guard(guard)) => guard,
                other => panic!("{caller}: a guard was to refuse this: {other:?}"),
            }
        }
    }

    /// The constraint that refuses this op.
    #[track_caller]
    pub fn constraint(&self, op: impl Into<Op>) -> impl Future<Output = Constraint> {
        let (unit, caller) = (Unit::new().op(op), std::panic::Location::caller());
        async move {
            match self.try_commit(unit).await {
                Err(CommitError::Constraint(constraint)) => constraint,
                other => panic!("{caller}: a constraint was to refuse this: {other:?}"),
            }
        }
    }

    /// A project with [`LIMIT`]s: they hold ten instances of [`SIZE`].
    pub async fn project(&self, called: &str) -> ProjectId {
        let id = ProjectId::new();
        let limit = QuotaLimitPut::new(id, &LIMIT, 0);
        let project = ProjectInsert { id, name: name(called), description: String::new(), created_at: T0 };
        self.all(Unit::new().op(limit).op(project)).await;
        id
    }

    pub async fn user(&self, called: &str) -> UserId {
        let id = UserId::new();
        self.one(UserInsert {
            id,
            name: name(called),
            password_hash: "$argon2id$".into(),
            system_admin: false,
            enabled: true,
            created_at: T0,
        })
        .await;
        id
    }

    /// A host that is up, with room for ten instances of [`SIZE`].
    pub async fn host(&self, called: &str) -> HostId {
        let host = host_upsert(called);
        let id = host.id;
        self.one(host).await;
        id
    }

    pub async fn image(&self, project_id: ProjectId, called: &str) -> ImageId {
        let image = image_insert(project_id, called);
        let id = image.id;
        self.all(image_with_usage(image)).await;
        id
    }

    /// Everything a running system has of one instance, in one unit.
    pub async fn instance(
        &self,
        project_id: ProjectId,
        host_id: HostId,
        image_id: ImageId,
        called: &str,
    ) -> InstanceId {
        let (unit, id) = create(project_id, host_id, image_id, called);
        self.all(unit).await;
        id
    }
}

pub fn host_upsert(called: &str) -> HostUpsert {
    HostUpsert {
        id: HostId::new(),
        name: name(called),
        zone: "a".into(),
        tags: BTreeMap::from([("disk".to_owned(), "ssd".to_owned())]),
        state: HostState::Up,
        threads: 5,
        memory_mib: 20_000,
        disk_gib: 100,
        accept_first: true,
        accept_later: true,
        cpu_overcommit_permille: 4000,
        overhead: OVERHEAD,
        facts: HostFacts { cpu_model: "a \"fast\" one".into(), threads: 8, ..HostFacts::default() },
        at: T0,
    }
}

pub fn image_insert(project_id: ProjectId, called: &str) -> ImageInsert {
    ImageInsert {
        id: ImageId::new(),
        project_id,
        name: name(called),
        visibility: Visibility::Private,
        kind: ImageKind::Disk,
        format: DiskFormat::Qcow2,
        cmdline: String::new(),
        min_disk_gib: 1,
        min_memory_mib: 64,
        state: ImageState::Active,
        parts: vec![ImagePart { kind: ImagePartKind::Disk, sha256: "ab".repeat(32), size_bytes: 1 << 33 }],
        size_gib: 8,
        reason: String::new(),
        deadline_at: None,
        created_at: T0,
    }
}

/// An image with what it takes of the quota.
pub fn image_with_usage(image: ImageInsert) -> Unit {
    let size_gib = i64::try_from(image.size_gib).expect("small");
    Unit::new().op(StorageUsageAdd::image(image.project_id, 1, size_gib)).op(image)
}

/// The end of an image without uploads, with what it took of the quota.
pub fn image_end(project_id: ProjectId, id: ImageId, size_gib: i64) -> Unit {
    Unit::new().op(ImageDelete { id, reserved_gib: 0 }).op(StorageUsageAdd::image(project_id, -1, -size_gib))
}

pub fn spec(image_id: ImageId) -> InstanceSpec {
    InstanceSpec {
        size: SIZE,
        flavor: "small".into(),
        image_id,
        power: Power::On,
        boot_seq: 0,
        boot_hard: false,
        root_seq: 0,
        stop_timeout_secs: 30,
        on_crash: OnCrash::Restart,
        on_host_loss: OnHostLoss::Wait,
        pool: DiskPool::Local,
        ssh_keys: vec!["ssh-ed25519 AAAA it's \"me\" 漢字".into()],
        user_data_base64: String::new(),
        zone: None,
        placement: Default::default(),
        nics: vec![],
        deleted: false,
    }
}

pub fn disk_insert(project_id: ProjectId, instance_id: InstanceId) -> DiskInsert {
    DiskInsert {
        id: DiskId::new(),
        project_id,
        instance_id,
        role: "root".into(),
        pool: "local".into(),
        size_gib: SIZE.disk_gib,
        expires_at: at(60),
        generation: 1,
        created_at: T0,
    }
}

pub fn instance_insert(
    project_id: ProjectId,
    host_id: Option<HostId>,
    image_id: ImageId,
    called: &str,
) -> InstanceInsert {
    InstanceInsert {
        id: InstanceId::new(),
        project_id,
        name: name(called),
        tags: BTreeMap::from([("env".to_owned(), "it's \"test\"".to_owned())]),
        generation: 1,
        epoch: 1,
        host_id,
        root_disk_id: None,
        image_id,
        spec: spec(image_id),
        placement: None,
        claim_vcpus: SIZE.vcpus,
        claim_memory_mib: OVERHEAD.claim_mib(SIZE),
        claim_disk_gib: SIZE.disk_gib,
        state: InstanceState::Pending,
        step: String::new(),
        reason: String::new(),
        deadline_at: Some(at(30)),
        attached: false,
        cpu_baseline: Some("intel-host-1".into()),
        numa_node: Some(1),
        created_at: T0,
    }
}

pub fn claim(host_id: HostId) -> HostClaim {
    let memory_mib = OVERHEAD.claim_mib(SIZE);
    HostClaim { host_id, generation: None, vcpus: SIZE.vcpus, memory_mib, disk_gib: SIZE.disk_gib }
}

pub fn release(host_id: HostId) -> HostRelease {
    let HostClaim { host_id, vcpus, memory_mib, disk_gib, .. } = claim(host_id);
    HostRelease { host_id, vcpus, memory_mib, disk_gib }
}

/// As the row is.
pub fn delete_disk(disk: &DiskRow) -> DiskDelete {
    DiskDelete { id: disk.id, expected_state: disk.state, expected_generation: disk.generation }
}

/// `times` of what one instance of [`SIZE`] uses.
pub fn compute(project_id: ProjectId, times: i64) -> ComputeUsageAdd {
    ComputeUsageAdd { project_id, instances: times, vcpus: 2 * times, memory_mib: 1024 * times }
}

pub fn storage(project_id: ProjectId, times: i64) -> StorageUsageAdd {
    StorageUsageAdd::disk(project_id, 10 * times)
}

pub fn event(project_id: Option<ProjectId>, object_id: impl ToString, message: &str) -> EventInsert {
    EventInsert(NewEvent {
        at: T0,
        project_id,
        kind: "instance.create_accepted".into(),
        object_kind: "instance".into(),
        object_id: object_id.to_string(),
        message: message.into(),
        request_id: "r-1".into(),
        data: serde_json::json!({"from": "pending", "ms": 12, "nested": {"a": [1, null, true]}}),
    })
}

pub fn audit(project_id: Option<ProjectId>, object_id: impl ToString) -> AuditInsert {
    AuditInsert(AuditEntry {
        id: AuditId::new(),
        at: T0,
        principal: "system".into(),
        principal_name: "the system".into(),
        project_id,
        action: "instance.create".into(),
        object_kind: "instance".into(),
        object_id: object_id.to_string(),
        request_id: "r-1".into(),
        outcome: "accepted".into(),
        detail: String::new(),
        count: 1,
    })
}

/// A create as the services make it, but in one unit: disk, instance, claims, usage, event, audit.
pub fn create(project_id: ProjectId, host_id: HostId, image_id: ImageId, called: &str) -> (Unit, InstanceId) {
    let mut instance = instance_insert(project_id, Some(host_id), image_id, called);
    let disk = disk_insert(project_id, instance.id);
    instance.root_disk_id = Some(disk.id);
    let id = instance.id;
    let confirm = DiskConfirm { id: disk.id, instance_id: id, host_id, epoch: 1 };
    let unit = Unit::new()
        .op(disk)
        .op(confirm)
        .op(instance)
        .op(claim(host_id))
        .op(compute(project_id, 1))
        .op(storage(project_id, 1))
        .op(event(Some(project_id), id, "accepted"))
        .op(audit(Some(project_id), id));
    (unit, id)
}

/// The whole of an instance's desired state as it is, to be changed by the caller.
pub fn desired(row: &InstanceRow) -> InstanceDesired {
    InstanceDesired {
        id: row.id,
        expected_generation: row.generation,
        expected_state: None,
        name: row.name.clone(),
        tags: row.tags.clone(),
        spec: row.spec.clone(),
        image_id: Some(row.spec.image_id),
        epoch: row.epoch,
        host_id: row.host_id,
        root_disk_id: row.root_disk_id,
        placement: row.placement.clone(),
        claim_vcpus: row.claim.vcpus,
        claim_memory_mib: row.claim.memory_mib,
        claim_disk_gib: row.claim.disk_gib,
        quota_released: row.quota_released,
        state: row.status.state,
        step: row.status.step.clone(),
        reason: row.status.reason.clone(),
        deadline_at: row.status.deadline_at,
        at: at(1),
    }
}

/// Rises with each call: VNIs and MACs are unique in a database.
fn counted() -> u32 {
    static COUNT: AtomicU32 = AtomicU32::new(1);
    COUNT.fetch_add(1, Ordering::Relaxed)
}

pub fn external_network_insert(called: &str) -> ExternalNetworkInsert {
    let subnet = ExternalSubnet {
        cidr: "203.0.113.0/24".parse().expect("a CIDR"),
        gateway: "203.0.113.1".parse().expect("an address"),
        allocation: vec!["203.0.113.10-203.0.113.99".parse().expect("a range")],
    };
    ExternalNetworkInsert {
        id: ExternalNetworkId::new(),
        name: name(called),
        description: String::new(),
        subnets: vec![subnet],
        created_at: T0,
    }
}

pub fn network_insert(project_id: ProjectId, called: &str) -> NetworkInsert {
    NetworkInsert {
        id: NetworkId::new(),
        project_id,
        name: name(called),
        description: String::new(),
        vni: Vni::try_from(counted()).expect("a VNI"),
        mtu: None,
        created_at: T0,
    }
}

pub fn subnet_insert(project_id: ProjectId, network_id: NetworkId, called: &str, cidr: &str) -> SubnetInsert {
    let cidr: Cidr = cidr.parse().expect("a CIDR");
    let spec = SubnetSpec { cidr, gateway: cidr.addr(), dns: vec![], allocation: vec![], host_routes: vec![] };
    SubnetInsert { id: SubnetId::new(), project_id, network_id, name: name(called), spec, dhcp: true, created_at: T0 }
}

pub fn router_insert(
    project_id: ProjectId,
    called: &str,
    network_id: NetworkId,
    external_network_id: ExternalNetworkId,
) -> RouterInsert {
    RouterInsert {
        id: RouterId::new(),
        project_id,
        name: name(called),
        network_id,
        external_network_id,
        source_nat: true,
        created_at: T0,
    }
}

pub fn security_group_insert(project_id: ProjectId, called: &str) -> SecurityGroupInsert {
    let description = String::new();
    SecurityGroupInsert { id: SecurityGroupId::new(), project_id, name: name(called), description, created_at: T0 }
}

/// Reserved for an instance that isn't named, without addresses.
pub fn port_insert(project_id: ProjectId, network_id: NetworkId) -> PortInsert {
    let [a, b, c, d] = counted().to_be_bytes();
    PortInsert {
        id: PortId::new(),
        project_id,
        network_id,
        name: None,
        mac: MacAddr::local([0xee, a, b, c, d]),
        fixed_ips: vec![],
        allowed_addresses: vec![],
        rate_limit: RateLimit::default(),
        hostname: String::new(),
        state: PortState::Reserved,
        instance_id: None,
        with_instance: true,
        expires_at: Some(at(60)),
        generation: 1,
        created_at: T0,
    }
}

/// `times` a network's usage.
pub fn network_usage(project_id: ProjectId, times: i64) -> NetworkUsageAdd {
    NetworkUsageAdd::take(project_id, &QuotaAmounts { networks: times, ..QuotaAmounts::NONE })
}
