//! What a QEMU that its guest has taken over could reach: its process is looked at, and entered, from outside.

use crate::rig::{Host, TestInstance};
use proto::cluster::v1::InstanceState as S;
use std::{
    fs,
    os::unix::fs::{MetadataExt, symlink},
    path::Path,
    process::Command,
};

/// Runs a shell script where the process is, as its user and in its groups.
fn inside(pid: i32, uid: u32, script: &str) -> (bool, String) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let groups = status.lines().find_map(|line| line.strip_prefix("Groups:")).expect("a line of them");
    let groups = groups.split_whitespace().collect::<Vec<_>>().join(",");
    let groups = if groups.is_empty() { "--clear-groups".to_owned() } else { format!("--groups={groups}") };
    let (pid, uid) = (pid.to_string(), uid.to_string());
    let enter = ["--target", &pid, "--mount", "--net", "--ipc", "--", "setpriv", "--reuid", &uid, "--regid", &uid];
    let output =
        Command::new("nsenter").args(enter).args([&groups, "/bin/sh", "-c", script]).output().expect("nsenter runs");
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_qemu_sees_its_own_files_no_network_and_no_other_process() {
    let Some(host) = Host::start(2).await else { return };
    let (a, b) = (TestInstance::tiny(&host, "a").with_disk(1), TestInstance::tiny(&host, "b").with_disk(1));
    host.manager.set_all_desired(&[a.desired.clone(), b.desired.clone()]);
    host.reached(&a, S::Running).await;
    host.reached(&b, S::Running).await;
    let pid = host.qemu(&a).expect("runs").pid;
    let uid = fs::metadata(host.instance_dir(&a).join("console")).expect("there").uid();
    for namespace in ["mnt", "net", "ipc"] {
        let of = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/{namespace}")).expect("it runs");
        assert_ne!(of(&pid.to_string()), of("self"), "{namespace}");
    }
    let own = host.instance_dir(&a);
    let succeeds = |script: &str| inside(pid, uid, script);
    assert!(succeeds(&format!("test -r {}/root-0.qcow2", own.display())).0, "its own disk is there");
    let images = host.config.state_dir.join("images");
    let other_run = host.config.run_dir.join("vms").join(b.id());
    let cached = images.join(&host.tiny().kernel.0);
    assert!(succeeds(&format!("test -r {}", cached.display())).0, "and the kernel that it boots");
    for hidden in [host.instance_dir(&b), other_run, host.config.state_dir.join("ledger"), images.join("nothing")] {
        assert!(!succeeds(&format!("test -e {}", hidden.display())).0, "{}", hidden.display());
    }
    for dir in [&host.config.state_dir, &host.config.run_dir] {
        assert!(!succeeds(&format!("touch {}/new", dir.display())).0, "nothing can be put there");
    }
    let (_, devices) = succeeds("cat /proc/net/dev | tail -n +3 | cut -d: -f1 | tr -d ' '");
    assert_eq!(devices.trim(), "lo");
    let (_, processes) = succeeds("ls /proc | grep -c '^[0-9]'");
    let count: u32 = processes.trim().parse().unwrap_or_else(|_| panic!("{processes}"));
    assert!(count < 12, "{count} processes are shown, and all but its own are hidden");
    assert!(!succeeds(&format!("test -e /proc/{}", std::process::id())).0);
    // The host's mounts are as they were.
    assert!(!fs::read_to_string("/proc/self/mountinfo").expect("readable").contains(&own.display().to_string()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_console_socket_that_was_swapped_is_not_connected_to() {
    let Some(mut host) = Host::start(1).await else { return };
    let instance = TestInstance::tiny(&host, "swaps");
    host.guest_up(
        &{
            host.reach(&instance, S::Running).await;
            instance.clone()
        },
        0,
    )
    .await;
    host.stop_agent().await;
    // As its QEMU's user could: the socket of a program that trusts root.
    let run = host.config.run_dir.join("vms").join(instance.id());
    let trusting = tokio::net::UnixListener::bind(host.config.run_dir.join("root.sock")).expect("bound");
    fs::rename(run.join("serial.sock"), run.join("aside")).expect("moved");
    symlink(host.config.run_dir.join("root.sock"), run.join("serial.sock")).expect("linked");
    host.start_agent().await;
    let start = host.manager.hellos().last().expect("hello").start;
    host.manager.report(&instance.id(), "adopted", |r| r.start == start && r.state() == S::Running).await;
    let mut console = host
        .manager
        .console(
            &instance.id(),
            proto::cluster::v1::console_open::What::Serial(proto::cluster::v1::SerialConsole { replay_bytes: 0 }),
        )
        .await;
    console.type_in("typed by a tenant\n").await;
    // Put back, what was typed arrives at the guest.
    fs::remove_file(run.join("serial.sock")).expect("removed");
    fs::rename(run.join("aside"), run.join("serial.sock")).expect("moved back");
    console.until_output("typed by a tenant").await;
    let nobody = tokio::time::timeout(std::time::Duration::from_millis(1), trusting.accept()).await;
    assert!(nobody.is_err(), "nobody connected to the other socket");
    assert!(Path::new(&run).exists());
}
