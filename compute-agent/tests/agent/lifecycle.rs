//! Tests of one instance from its creation to its deletion.

use crate::rig::{Host, TestInstance, eventually};
use proto::cluster::v1::{InstanceState as S, Power, Size};
use std::fs;

#[tokio::test(flavor = "multi_thread")]
async fn create_pause_resume_stop_start_and_delete_which_leaves_nothing() {
    let Some(host) = Host::start(1).await else { return };
    let mut instance = TestInstance::tiny(&host, "web-1").with_disk(1);
    let running = host.reach(&instance, S::Running).await;
    assert!(running.exec_ms.is_some_and(|ms| ms >= 0) && running.started_at.is_some(), "{running:?}");
    let up = host.guest_up(&instance, 0).await.guest_up_at.expect("up");
    let first = host.qemu(&instance).expect("it runs");
    assert!(!host.cgroups(&instance).is_empty());
    let status = fs::read_to_string(format!("/proc/{}/status", first.pid)).expect("readable");
    let uid = status.lines().find_map(|l| l.strip_prefix("Uid:")).expect("a uid").split_whitespace().next();
    assert_eq!(uid, Some(host.config.uid_first.to_string().as_str()), "its own unprivileged user");

    host.reach(instance.power(Power::Paused), S::Paused).await;
    host.reach(instance.power(Power::On), S::Running).await;
    assert_eq!(host.qemu(&instance), Some(first.clone()), "the same machine all the while");

    // The guest takes the power button.
    let stopped = host.reach(instance.power(Power::Off), S::Stopped).await;
    assert_eq!((stopped.crash_count, stopped.guest_up_at), (0, None));
    assert_eq!(host.qemu(&instance), None);
    let log = fs::read_to_string(host.instance_dir(&instance).join("console/console.log")).expect("kept");
    assert!(log.contains("iaas-guest: poweroff"), "it was asked, not killed: {log}");

    host.reach(instance.power(Power::On), S::Running).await;
    host.guest_up(&instance, up).await;
    let disk = host.instance_dir(&instance).join("root-0.qcow2");
    assert!(disk.exists());
    // Whoever holds the disk open reads nothing after its end.
    let mut held = fs::File::open(&disk).expect("open");

    let deleted = host.reach(instance.delete(), S::Deleted).await;
    assert_eq!(deleted.epoch, 1);
    assert_eq!(host.qemu(&instance), None);
    assert!(!host.instance_dir(&instance).exists() && !host.config.run_dir.join("vms").join(instance.id()).exists());
    assert_eq!(host.cgroups(&instance), Vec::<std::path::PathBuf>::new());
    let mut rest = Vec::new();
    std::io::Read::read_to_end(&mut held, &mut rest).expect("readable");
    assert!(rest.iter().all(|&b| b == 0), "{} bytes are left readable", rest.len());
    let ledger = host.config.state_dir.join("ledger").join(format!("{}.json", instance.id()));
    assert!(fs::read_to_string(ledger).expect("kept").contains("tombstone"));
}

#[tokio::test(flavor = "multi_thread")]
async fn both_reboots_and_the_hard_stop() {
    let Some(host) = Host::start(1).await else { return };
    let mut instance = TestInstance::tiny(&host, "web-2");
    host.reach(&instance, S::Running).await;
    let up = host.guest_up(&instance, 0).await.guest_up_at.expect("up");
    let first = host.qemu(&instance).expect("it runs");

    instance.change(|spec| (spec.boot_seq, spec.boot_hard) = (1, true));
    host.reach(&instance, S::Running).await;
    let again = host.guest_up(&instance, up).await.guest_up_at.expect("up");
    assert_eq!(host.qemu(&instance), Some(first.clone()), "a reset keeps its QEMU");

    instance.change(|spec| (spec.boot_seq, spec.boot_hard) = (2, false));
    host.reach(&instance, S::Running).await;
    let report = host.guest_up(&instance, again).await;
    assert_eq!(report.crash_count, 0);
    let log = fs::read_to_string(host.instance_dir(&instance).join("console/console.log")).expect("kept");
    assert_eq!(log.matches("iaas-guest: poweroff").count(), 1, "the guest was asked once, by the graceful one");
    assert_eq!(log.matches("iaas-guest: up web-2").count(), 3);

    instance.change(|spec| (spec.power, spec.stop_timeout_secs) = (Power::Off.into(), 0));
    host.reach(&instance, S::Stopped).await;
    let log = fs::read_to_string(host.instance_dir(&instance).join("console/console.log")).expect("kept");
    assert_eq!(log.matches("iaas-guest: poweroff").count(), 1, "nobody was asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_does_not_listen_is_ended_at_its_deadline() {
    let Some(host) = Host::start(1).await else { return };
    let mut instance = TestInstance::tiny(&host, "deaf");
    // Asked while its kernel has only begun, for less time than it needs to come up.
    host.reach(&instance, S::Running).await;
    instance.change(|spec| (spec.power, spec.stop_timeout_secs) = (Power::Off.into(), 1));
    let stopped = host.reach(&instance, S::Stopped).await;
    assert_eq!(stopped.crash_count, 0);
    assert_eq!(host.qemu(&instance), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resize_changes_the_machine_and_grows_the_disk() {
    let Some(host) = Host::start(1).await else { return };
    let mut instance = TestInstance::tiny(&host, "grows").with_disk(1);
    instance.spec().power = Power::Off.into();
    host.reach(&instance, S::Stopped).await;
    let disk = host.instance_dir(&instance).join("root-0.qcow2");
    let size_gib = || u64::from_be_bytes(fs::read(&disk).expect("a disk")[24..32].try_into().expect("eight")) >> 30;
    assert_eq!(size_gib(), 1);
    instance.change(|spec| spec.size = Some(Size { vcpus: 2, memory_mib: 224, disk_gib: 3 }));
    host.reach(&instance, S::Stopped).await;
    assert_eq!(size_gib(), 3);
    host.reach(instance.power(Power::On), S::Running).await;
    let pid = host.qemu(&instance).expect("it runs").pid;
    let line = String::from_utf8(fs::read(format!("/proc/{pid}/cmdline")).expect("readable")).expect("text");
    assert!(line.contains("cpus=2") && line.contains("size=224M"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_gives_a_new_disk_and_destroys_the_old_one() {
    let Some(host) = Host::start(1).await else { return };
    let mut instance = TestInstance::tiny(&host, "anew").with_disk(1);
    host.reach(&instance, S::Running).await;
    let (old, new) =
        (host.instance_dir(&instance).join("root-0.qcow2"), host.instance_dir(&instance).join("root-1.qcow2"));
    assert!(old.exists());
    instance.change(|spec| spec.root_seq = 1);
    let rebuilt = host.reach(&instance, S::Running).await;
    assert_eq!(rebuilt.crash_count, 0);
    assert!(!old.exists() && new.exists());
    let states: Vec<S> = host.manager.reports(&instance.id()).iter().map(|r| r.state()).collect();
    assert!(states.contains(&S::Rebuilding), "{states:?}");
    host.guest_up(&instance, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn user_data_runs_and_a_guest_that_powers_itself_off_stays_off_until_it_is_started() {
    use base64::Engine;
    let Some(host) = Host::start(1).await else { return };
    let mut instance = TestInstance::tiny(&host, "leaves");
    // USR2 is this guest's poweroff. It comes at the first boot alone.
    let script = "#!/bin/sh\necho user-data-ran-$(hostname)\nkill -USR2 1\n";
    instance.spec().user_data_base64 = base64::engine::general_purpose::STANDARD.encode(script);
    host.manager.instance(&instance.desired);
    let stopped = host.reached(&instance, S::Stopped).await;
    assert!(stopped.reason.contains("powered itself off"), "{stopped:?}");
    assert_eq!(stopped.crash_count, 0);
    let log = fs::read_to_string(host.instance_dir(&instance).join("console/console.log")).expect("kept");
    assert!(log.contains("user-data-ran-leaves"), "{log}");
    eventually("QEMU is gone", || host.qemu(&instance).is_none().then_some(())).await;

    // Any other change starts nothing; a boot that is asked for does.
    host.reach(instance.change(|_| ()), S::Stopped).await;
    instance.change(|spec| {
        spec.boot_seq = 1;
        spec.user_data_base64 = String::new();
    });
    host.reach(&instance, S::Running).await;
    host.guest_up(&instance, 0).await;
}
