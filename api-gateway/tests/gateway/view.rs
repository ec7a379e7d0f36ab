//! What JSON looks like, for tenants and for system admins: golden files.

use api_gateway::{
    app::{explain::Explanation, network::related::Related},
    auth::caller::SystemRole,
    v1::view::{explain::explain_view, instance::instance_view},
};
use domain::{
    DiskId, ExternalNetworkId, FloatingIpId, HostId, ImageId, InstanceId, NetworkId, PortId, ProjectId, Timestamp,
    event::Event,
    explain::{NearestFit, PlacementRecord, Rejection, RejectionCount},
    flavor::Size,
    host::{Host, HostFacts, HostState, MemoryOverhead},
    image::{DiskFormat, Image, ImageKind, ImagePart, ImagePartKind, ImageState, Visibility},
    instance::{DiskPool, Instance, InstanceSpec, InstanceState, InstanceStatus, Nic, OnCrash, OnHostLoss, Power},
    network::FloatingIp,
};
use uuid::Uuid;

fn id(n: u128) -> Uuid {
    Uuid::from_u128(0x0199_e5a0_0000_7000_8000_0000_0000_0000 + n)
}

fn placement() -> PlacementRecord {
    PlacementRecord {
        at: Timestamp(1_764_000_000_000),
        hosts_considered: 3,
        candidates: 1,
        rejected: vec![
            RejectionCount { filter: Rejection::Cordoned, hosts: 1 },
            RejectionCount { filter: Rejection::Memory, hosts: 1 },
        ],
        chosen: Some(HostId(id(1))),
        best: Vec::new(),
        score: "leaves 2 vCPUs, 512 MiB, 10 GiB".to_owned(),
        nearest: None,
        summary: "1 of 3 hosts could take it; the tightest fit was chosen".to_owned(),
        hint: String::new(),
    }
}

fn instance() -> Instance {
    Instance {
        id: InstanceId(id(2)),
        project_id: ProjectId(id(3)),
        name: "web-1".parse().expect("a name"),
        tags: [("role".to_owned(), "web".to_owned())].into(),
        generation: 4,
        epoch: 2,
        host_id: Some(HostId(id(1))),
        root_disk_id: Some(DiskId(id(4))),
        spec: InstanceSpec {
            size: Size { vcpus: 2, memory_mib: 512, disk_gib: 10 },
            flavor: "small".to_owned(),
            image_id: ImageId(id(5)),
            power: Power::On,
            boot_seq: 1,
            boot_hard: false,
            root_seq: 0,
            stop_timeout_secs: 30,
            on_crash: OnCrash::Restart,
            on_host_loss: OnHostLoss::Wait,
            pool: DiskPool::Local,
            ssh_keys: vec![crate::harness::key("ann@laptop"), "not a key".to_owned()],
            user_data_base64: "c2VjcmV0".to_owned(),
            zone: Some("a".to_owned()),
            placement: Default::default(),
            nics: vec![Nic {
                port_id: PortId(id(6)),
                network_id: NetworkId(id(7)),
                mac: "02:00:5e:10:00:01".parse().expect("a MAC"),
                addresses: vec!["10.0.0.5".parse().expect("an address"), "fd00::5".parse().expect("an address")],
                security_group_ids: None,
            }],
            deleted: false,
        },
        status: InstanceStatus {
            state: InstanceState::Running,
            step: String::new(),
            reason: String::new(),
            observed_generation: 4,
            deadline_at: None,
            started_at: Some(Timestamp(1_764_000_001_000)),
            guest_up_at: Some(Timestamp(1_764_000_003_000)),
            crash_count: 1,
        },
        placement: Some(placement()),
        binding: domain::instance::Binding {
            cpu_baseline: Some("amd-epycv1-1".to_owned()),
            numa_node: Some(1),
            root_used_seq: None,
        },
        created_at: Timestamp(1_764_000_000_000),
        updated_at: Timestamp(1_764_000_003_001),
    }
}

fn related() -> Related {
    let floating = FloatingIp {
        id: FloatingIpId(id(8)),
        project_id: ProjectId(id(3)),
        external_network_id: ExternalNetworkId(id(9)),
        address: "203.0.113.9".parse().expect("an address"),
        description: String::new(),
        port_id: Some(PortId(id(6))),
        fixed_ip: Some("10.0.0.5".parse().expect("an address")),
        generation: 1,
        created_at: Timestamp(1_764_000_000_000),
    };
    Related {
        networks: [(NetworkId(id(7)), "blue".parse().expect("a name"))].into(),
        floating_ips: vec![floating],
        ..Related::default()
    }
}

fn host() -> Host {
    Host {
        id: HostId(id(1)),
        name: "alpha".to_owned(),
        zone: "a".to_owned(),
        tags: [("ssd".to_owned(), "yes".to_owned())].into(),
        state: HostState::Disconnected,
        cordoned: true,
        cordon_reason: "disk".to_owned(),
        draining: false,
        dedicated_to: None,
        capacity: Size { vcpus: 16, memory_mib: 8192, disk_gib: 100 },
        reported: Size { vcpus: 4, memory_mib: 8192, disk_gib: 100 },
        accepted: Size { vcpus: 4, memory_mib: 8192, disk_gib: 100 },
        offered: Size { vcpus: 4, memory_mib: 8192, disk_gib: 100 },
        reserved: Size::default(),
        cpu_overcommit_permille: 4000,
        memory_overcommit_permille: 1000,
        disk_overcommit_permille: 1000,
        used: Size { vcpus: 2, memory_mib: 600, disk_gib: 10 },
        overhead: MemoryOverhead { fixed_mib: 64, per_vcpu_mib: 4, per_gib_mib: 8 },
        facts: HostFacts { cpu_model: "a CPU".to_owned(), threads: 4, ..HostFacts::default() },
        generation: 3,
        revision: 77,
        registered_at: Timestamp(1_763_000_000_000),
        state_changed_at: Timestamp(1_764_000_002_000),
        ledger: Default::default(),
    }
}

fn event() -> Event {
    Event {
        id: 12,
        at: Timestamp(1_764_000_001_500),
        project_id: Some(ProjectId(id(3))),
        kind: "instance.running".to_owned(),
        object_kind: "instance".to_owned(),
        object_id: id(2).to_string(),
        message: "web-1 is running".to_owned(),
        request_id: "req-1".to_owned(),
        data: serde_json::json!({ "from": "building", "to": "running" }),
    }
}

#[test]
fn instances() {
    insta::assert_json_snapshot!("instance_tenant", instance_view(instance(), &related(), SystemRole::Tenant));
    insta::assert_json_snapshot!("instance_admin", instance_view(instance(), &related(), SystemRole::Admin));
}

#[test]
fn images_and_hosts() {
    let part = ImagePart { kind: ImagePartKind::Disk, sha256: "ab".repeat(32), size_bytes: 512 };
    let image = Image {
        id: ImageId(id(5)),
        project_id: ProjectId(id(3)),
        name: "debian-12".parse().expect("a name"),
        visibility: Visibility::Public,
        kind: ImageKind::Disk,
        format: DiskFormat::Qcow2,
        cmdline: String::new(),
        min_disk_gib: 2,
        min_memory_mib: 256,
        state: ImageState::Active,
        parts: vec![part],
        reason: String::new(),
        deadline_at: None,
        generation: 2,
        created_at: Timestamp(1_763_000_000_000),
    };
    insta::assert_json_snapshot!("image", api_types::Image::from(image));
    insta::assert_json_snapshot!("host", api_types::Host::from(host()));
}

#[test]
fn explanations() {
    let explain = |role| {
        let instance = Some((instance(), related()));
        explain_view(Explanation { instance, host: Some(host()), records: vec![], events: vec![event()] }, role)
    };
    insta::assert_json_snapshot!("explain_admin", explain(SystemRole::Admin));
    let tenant = explain(SystemRole::Tenant);
    let text = serde_json::to_string(&tenant).expect("it serialises");
    for secret in [id(1).to_string(), "alpha".to_owned(), "c2VjcmV0".to_owned()] {
        assert!(!text.contains(&secret), "a tenant reads {secret}");
    }
    insta::assert_json_snapshot!("explain_tenant", tenant);
}

#[test]
fn every_state_is_put_into_words() {
    let mut texts = Vec::new();
    for state in InstanceState::ALL {
        for power in [Power::On, Power::Off, Power::Paused] {
            let mut observed = instance();
            observed.spec.power = power;
            observed.status.state = state;
            observed.status.step = if state.is_final() { String::new() } else { "fetching image (41 %)".to_owned() };
            observed.status.crash_count = 0;
            observed.placement = None;
            if state == InstanceState::Error {
                observed.status.reason = "QEMU ended at once.".to_owned();
            }
            if power == Power::On || state.is_final() {
                texts.push(api_gateway::v1::view::explain::why(&observed, None));
            }
        }
    }
    let mut refused = instance();
    refused.host_id = None;
    refused.status.state = InstanceState::Scheduling;
    refused.status.deadline_at = Some(Timestamp(1_764_000_030_000));
    refused.status.reason = "no host has room".to_owned();
    refused.placement = Some(PlacementRecord {
        candidates: 0,
        chosen: None,
        best: Vec::new(),
        score: String::new(),
        nearest: Some(NearestFit {
            host_id: Some(HostId(id(1))),
            lacks: Size { vcpus: 0, memory_mib: 256, disk_gib: 3 },
        }),
        summary: "none of 3 hosts can take it".to_owned(),
        hint: String::new(),
        ..placement()
    });
    texts.push(api_gateway::v1::view::explain::why(&refused, None));
    insta::assert_snapshot!(texts.join("\n"));
}
