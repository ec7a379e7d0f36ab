//! Tests in which QEMU dies, doesn't start, or isn't installed.

use crate::{
    rig::{Host, TestInstance, eventually},
    stand_in::machine,
};
use proto::cluster::v1::{InstanceState as S, OnCrash};
use std::{fs, os::unix::fs::PermissionsExt};

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_qemu_is_started_again_or_left_as_on_crash_says() {
    let Some(host) = Host::start(2).await else { return };
    let (again, mut stays) = (TestInstance::tiny(&host, "again"), TestInstance::tiny(&host, "stays"));
    stays.spec().on_crash = OnCrash::Stop.into();
    host.manager.set_all_desired(&[again.desired.clone(), stays.desired.clone()]);
    host.reached(&again, S::Running).await;
    host.reached(&stays, S::Running).await;
    let (first, second) = (host.qemu(&again).expect("runs"), host.qemu(&stays).expect("runs"));
    first.kill().await.expect("killed");
    second.kill().await.expect("killed");

    let back = host
        .manager
        .report(&again.id(), "back", |r| r.crash_count == 1 && r.state() == S::Running && r.converged)
        .await;
    assert!(back.started_at.is_some());
    assert_ne!(host.qemu(&again), Some(first));

    let down = host.reached(&stays, S::Stopped).await;
    assert_eq!(down.crash_count, 1);
    assert!(down.reason.contains("ended unexpectedly"), "{down:?}");
    assert_eq!(host.qemu(&stays), None);
    // Its owner starts it: the manager counts a boot.
    stays.change(|spec| spec.boot_seq = 1);
    host.reach(&stays, S::Running).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_loop_is_an_error_with_qemus_own_output_and_a_cure_ends_it() {
    let broken = std::env::temp_dir().join(format!("iaas-broken-qemu-{}", std::process::id()));
    let Some(host) = Host::start_with(1, |config| {
        let real = "/usr/bin/qemu-system-x86_64";
        let sick = broken.with_extension("sick");
        let script = format!(
            "#!/bin/sh\n[ \"$1\" = --version ] && exec {real} --version\n[ -e {} ] || exec {real} \"$@\"\necho 'boom: no such device' >&2\nexit 1\n",
            sick.display()
        );
        fs::write(&broken, script).expect("written");
        fs::write(sick, "").expect("written");
        fs::set_permissions(&broken, fs::Permissions::from_mode(0o755)).expect("executable");
        config.qemu = Some(broken.clone());
    })
    .await
    else {
        return;
    };
    let mut instance = TestInstance::tiny(&host, "loops");
    host.manager.instance(&instance.desired);
    let failed = host.manager.report(&instance.id(), "error", |r| r.state() == S::Error).await;
    assert!(failed.reason.contains("boom: no such device") && failed.reason.contains("5 times"), "{failed:?}");
    assert!(!failed.converged && failed.crash_count == 5);
    fs::remove_file(broken.with_extension("sick")).expect("cured");
    host.reach(instance.change(|_| ()), S::Running).await;
    drop(host);
    fs::remove_file(&broken).expect("removed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_without_qemu_says_so_has_no_capacity_and_needs_no_restart_once_it_has_one() {
    let link = std::env::temp_dir().join(format!("iaas-late-qemu-{}", std::process::id()));
    let Some(host) = Host::start_with(1, |config| config.qemu = Some(link.clone())).await else { return };
    let hello = host.manager.hellos().remove(0);
    assert_eq!(machine(&hello).capacity.map(|c| c.vcpus), Some(0));
    assert!(
        machine(&hello).facts_json.contains("not installed") || machine(&hello).facts_json.contains("can't be run"),
        "{}",
        machine(&hello).facts_json
    );
    let mut instance = TestInstance::tiny(&host, "waits").with_disk(1);
    host.manager.instance(&instance.desired);
    let failed = host.manager.report(&instance.id(), "error", |r| r.state() == S::Error).await;
    assert!(failed.reason.contains("qemu"), "{failed:?}");
    std::os::unix::fs::symlink("/usr/bin/qemu-system-x86_64", &link).expect("installed");
    host.reached(&instance, S::Running).await;
    let hello = host.manager.until("described anew", |received| received.hellos().get(1).cloned()).await;
    assert!(machine(&hello).capacity.is_some_and(|c| c.vcpus > 0));
    host.reach(instance.delete(), S::Deleted).await;
    fs::remove_file(&link).expect("removed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_monitor_that_somebody_took_away_is_no_reason_to_touch_the_guest() {
    let Some(host) = Host::start(1).await else { return };
    let mut instance = TestInstance::tiny(&host, "silent");
    host.reach(&instance, S::Running).await;
    let qemu = host.qemu(&instance).expect("runs");
    // Frozen, it answers nothing; its owner instances it off now.
    let pid = rustix::process::Pid::from_raw(qemu.pid).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).expect("frozen");
    instance.change(|spec| {
        spec.power = proto::cluster::v1::Power::Off.into();
        spec.stop_timeout_secs = 0;
    });
    host.reach(&instance, S::Stopped).await;
    eventually("it is gone", || (!qemu.alive()).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_qemu_that_hangs_is_ended_and_its_instance_started_again() {
    let Some(host) = Host::start_with(1, |config| config.qemu_silence_secs = 15).await else { return };
    let mut instance = TestInstance::tiny(&host, "hangs");
    host.reach(&instance, S::Running).await;
    let qemu = host.qemu(&instance).expect("runs");
    let pid = rustix::process::Pid::from_raw(qemu.pid).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).expect("frozen");
    // Any change makes the agent look at once.
    host.manager.instance(&instance.change(|_| ()).desired);
    let back = host
        .manager
        .report(&instance.id(), "back", |r| r.crash_count == 1 && r.state() == S::Running && r.converged)
        .await;
    assert!(back.started_at.is_some());
    assert!(!qemu.alive(), "the one that hung is gone");
    assert!(host.qemu(&instance).is_some_and(|again| again != qemu));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_hangs_is_ended_by_its_watchdog_and_treated_as_on_crash_says() {
    use base64::Engine;
    let Some(host) = Host::start(1).await else { return };
    let mut instance = TestInstance::tiny(&host, "hangs");
    instance.spec().on_crash = OnCrash::Stop.into();
    instance.spec().user_data_base64 = base64::engine::general_purpose::STANDARD.encode("#!/bin/sh\nhang\n");
    host.manager.instance(&instance.desired);
    let down = host.reached(&instance, S::Stopped).await;
    assert!(down.reason.contains("its watchdog expired") && down.crash_count == 1, "{down:?}");
    instance.change(|spec| {
        spec.boot_seq = 1;
        spec.user_data_base64 = String::new();
    });
    host.reach(&instance, S::Running).await;
}
