//! Tests parsing, and the files of version 2 in a directory that stands in for the mount (ordinary files keep what was written).
//! `tests/vm/cgroup.rs` tests the kernel's own groups.

use super::*;

const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu\\054cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/uni\\040fied rw,relatime - cgroup2 cgroup2 rw,nsdelegate
";

#[test]
fn mounts_are_found_in_each_layout() {
    let hybrid = parse_mountinfo(HYBRID);
    assert_eq!(hybrid.v1.keys().collect::<Vec<_>>(), ["cpu", "memory"]);
    assert_eq!(hybrid.v2, Some("/sys/fs/cgroup/uni fied".into()));
    let unified = parse_mountinfo("30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n");
    assert_eq!((unified.v1.len(), unified.v2), (0, Some("/sys/fs/cgroup".into())));
    assert_eq!(parse_mountinfo("1 2 3\n\n"), Mounts::default());
    assert!(matches!(Cgroups::over(Mounts::default(), "iaas"), Err(CgroupError::NotMounted)));
}

fn fake_v2(controllers: &str) -> (tempfile::TempDir, Cgroups) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    fs::create_dir_all(dir.path().join("iaas.slice")).expect("made");
    for level in [dir.path().to_path_buf(), dir.path().join("iaas.slice")] {
        fs::write(level.join("cgroup.controllers"), controllers).expect("written");
        fs::write(level.join("cgroup.subtree_control"), "").expect("written");
    }
    let mounts = Mounts { v1: BTreeMap::new(), v2: Some(dir.path().into()) };
    let cgroups = Cgroups::over(mounts, "/iaas.slice/").expect("usable");
    (dir, cgroups)
}

#[test]
fn v2_controllers_are_enabled_down_to_the_parent_and_limits_written() {
    let (dir, cgroups) = fake_v2("cpuset cpu io memory pids\n");
    assert!(cgroups.warnings().is_empty(), "{:?}", cgroups.warnings());
    for level in ["", "iaas.slice"] {
        let text = fs::read_to_string(dir.path().join(level).join("cgroup.subtree_control")).expect("there");
        assert_eq!(text, "+cpu +memory +pids");
    }
    let group = cgroups.group("i1");
    group.ensure(&Limits { memory_bytes: 1 << 30, vcpus: 2, tasks_max: 134 }).expect("limited");
    let value = |name: &str| fs::read_to_string(dir.path().join("iaas.slice/i1").join(name)).expect("written");
    assert_eq!(value("memory.max"), "1073741824");
    assert_eq!(value("cpu.max"), "250000 100000");
    assert_eq!(value("cpu.weight"), "200");
    assert_eq!(value("pids.max"), "134");
    group.freeze(true).expect("frozen");
    assert_eq!(value("cgroup.freeze"), "1");
    assert_eq!(cgroups.list(), ["i1"]);
    assert_eq!(group.procs_files(), [dir.path().join("iaas.slice/i1/cgroup.procs")]);
}

#[test]
fn an_absent_controller_is_a_warning_and_no_obstacle() {
    let (dir, cgroups) = fake_v2("cpu\n");
    assert_eq!(cgroups.warnings().len(), 2, "memory and pids: {:?}", cgroups.warnings());
    assert!(cgroups.warnings()[0].contains("`memory`"));
    cgroups.group("i1").ensure(&Limits { memory_bytes: 1, vcpus: 1, tasks_max: 1 }).expect("as far as it goes");
    assert!(!dir.path().join("iaas.slice/i1/memory.max").exists());
}
