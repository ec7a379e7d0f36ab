//! Tests of the kernel's own control groups: membership from the first instant, limits, the freezer, and removal.

use compute_agent::host::cgroup::{Cgroups, Limits};
use compute_agent::qemu::argv::Accel;
use compute_agent::qemu::overhead::{overhead_mib, tasks_max};
use compute_agent::qmp::RunState;

use crate::rig::{Scratch, TIMEOUT, Vm, guest, qemu};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn qemu_lives_in_its_group_within_its_limits_and_the_group_ends_it() {
    let (Some(qemu), Some(guest)) = (qemu(), guest()) else { return };
    let parent = format!("iaas-test-{}", std::process::id());
    let cgroups = match Cgroups::detect(&parent) {
        Ok(cgroups) => cgroups,
        Err(error) => return println!("not run: {error}"),
    };
    for warning in cgroups.warnings() {
        println!("not run in full: {warning}");
    }
    let scratch = Scratch::make().await;
    let group = cgroups.group("i1");
    let limit_mib = 256 + overhead_mib(&Accel::TCG, 1, 256);
    let limits = Limits { memory_bytes: limit_mib << 20, vcpus: 1, tasks_max: tasks_max(1) };
    group.ensure(&limits).expect("made");
    group.ensure(&limits).expect("again is fine");
    assert_eq!(cgroups.list(), ["i1"]);

    let mut spec = scratch.spec(&guest);
    spec.config_drive = Some(scratch.config_drive("grouped", b"").await);
    let mut confinement = scratch.confinement();
    confinement.cgroup_procs = group.procs_files();
    let vm = Vm::start(&qemu, &spec, &confinement).await;
    let members = group.members();
    assert!(
        members.len() == 2 && members.contains(&vm.process.pid),
        "QEMU and its keeper, the shim is gone: {members:?}"
    );
    let membership = std::fs::read_to_string(format!("/proc/{}/cgroup", vm.process.pid)).expect("it runs");
    assert!(membership.contains(&format!("/{parent}/i1")), "{membership}");
    vm.up().await;
    assert!(group.memory_used_bytes().is_none_or(|used| used > 0 && used <= limits.memory_bytes));
    for (file, value) in
        [("memory.limit_in_bytes", limits.memory_bytes.to_string()), ("pids.max", tasks_max(1).to_string())]
    {
        let found =
            group.procs_files().iter().find_map(|procs| std::fs::read_to_string(procs.with_file_name(file)).ok());
        assert!(found.is_none_or(|found| found.trim() == value), "{file}");
    }

    // Frozen, QEMU doesn't answer; thawed, it goes on where it was.
    group.freeze(true).expect("frozen");
    let frozen = async {
        while !group.frozen().expect("readable") {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(TIMEOUT, frozen).await.expect("frozen in time");
    group.freeze(false).expect("thawed");
    assert_eq!(vm.state().await, RunState::Running);

    assert!(group.remove().is_err(), "occupied");
    group.freeze(true).expect("frozen");
    group.kill_all().await.expect("killed, although frozen");
    vm.gone().await;
    group.remove().expect("removed");
    group.remove().expect("again is fine");
    assert!(cgroups.list().is_empty() && group.members().is_empty());
    for procs in cgroups.group("").procs_files() {
        let dir = procs.parent().expect("a directory");
        std::fs::remove_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    }
}
