//! Values for tests. A test names what it is about and takes the rest from here: `InstanceSpec { power: Power::Off, ..testing::spec() }`.
//!
//! The module is always compiled. Behind a feature, every build of tests would compile this crate, and with it all crates, a second time;
//! what a binary doesn't call isn't linked.

use crate::{
    DiskId, HostId, ImageId, InstanceId, ProjectId, Timestamp,
    flavor::Size,
    host::{Host, HostFacts, HostState},
    instance::{DiskPool, Instance, InstanceSpec, InstanceState, InstanceStatus, OnCrash, OnHostLoss, Power},
};

/// The time at which these values were made and last changed.
pub const NOW: Timestamp = Timestamp(1_700_000_000_000);

/// 2 vCPUs, 1 GiB of memory and a root disk of 10 GiB, switched on, of an image that nobody has.
#[must_use]
pub fn spec() -> InstanceSpec {
    InstanceSpec {
        size: Size { vcpus: 2, memory_mib: 1024, disk_gib: 10 },
        flavor: "small".into(),
        image_id: ImageId::new(),
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
    }
}

/// An instance in this state, on a host, whose desired state fits: generation 3, epoch 2. Its host has caught up if the state is final.
#[must_use]
pub fn instance(state: InstanceState) -> Instance {
    let power = if state == InstanceState::Stopped {
        Power::Off
    } else if state == InstanceState::Paused {
        Power::Paused
    } else {
        Power::On
    };
    Instance {
        id: InstanceId::new(),
        project_id: ProjectId::new(),
        name: "web".parse().expect("a name"),
        tags: Default::default(),
        generation: 3,
        epoch: 2,
        host_id: Some(HostId::new()),
        root_disk_id: Some(DiskId::new()),
        spec: InstanceSpec { power, deleted: state == InstanceState::Deleting, ..spec() },
        status: InstanceStatus {
            state,
            step: String::new(),
            reason: String::new(),
            observed_generation: if state.is_final() { 3 } else { 2 },
            deadline_at: (!state.is_final()).then(|| NOW.plus_secs(60)),
            started_at: None,
            guest_up_at: None,
            crash_count: 0,
        },
        placement: None,
        binding: Default::default(),
        created_at: NOW,
        updated_at: NOW,
    }
}

/// A connected host in zone `default` with 4 threads at an overcommit of 4, 1 MiB and 1 GiB.
#[must_use]
pub fn host(id: HostId, name: &str) -> Host {
    Host {
        id,
        name: name.into(),
        zone: "default".into(),
        tags: Default::default(),
        state: HostState::Up,
        cordoned: false,
        cordon_reason: String::new(),
        draining: false,
        dedicated_to: None,
        capacity: Size { vcpus: 16, memory_mib: 1, disk_gib: 1 },
        reported: Size { vcpus: 4, memory_mib: 1, disk_gib: 1 },
        accepted: Size { vcpus: 4, memory_mib: 1, disk_gib: 1 },
        offered: Size { vcpus: 4, memory_mib: 1, disk_gib: 1 },
        reserved: Size::default(),
        cpu_overcommit_permille: 4000,
        memory_overcommit_permille: 1000,
        disk_overcommit_permille: 1000,
        used: Size::default(),
        overhead: Default::default(),
        facts: HostFacts { threads: 4, ..HostFacts::default() },
        generation: 1,
        revision: 1,
        registered_at: NOW,
        state_changed_at: NOW,
        ledger: Default::default(),
    }
}
