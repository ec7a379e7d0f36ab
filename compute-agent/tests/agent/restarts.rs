//! Tests in which the agent dies at any point, and its successor takes over what runs.

use crate::rig::{Host, TestInstance, eventually};
use base64::Engine;
use compute_agent::{
    adopt::running_qemus,
    qemu::socket::QemuSocket,
    qmp::{QmpClient, commands::DiskLimits},
    vms_stop::{Stopped, stop_all},
};
use proto::cluster::v1::{InstanceState as S, Power, SerialConsole, console_open::What};
use std::{fs, time::Duration};

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_agents_guests_are_adopted_with_all_that_belongs_to_them() {
    let Some(mut host) = Host::start(2).await else { return };
    let (mut a, mut b) = (TestInstance::tiny(&host, "stays"), TestInstance::tiny(&host, "ends"));
    host.manager.set_all_desired(&[a.desired.clone(), b.desired.clone()]);
    let up = host.guest_up(&a, 0).await;
    host.reached(&b, S::Running).await;
    let (qemu_a, qemu_b) = (host.qemu(&a).expect("runs"), host.qemu(&b).expect("runs"));
    host.kill_agent().await;
    assert!(qemu_a.alive() && qemu_b.alive());
    // One dies while nobody looks.
    qemu_b.kill().await.expect("killed");

    host.start_agent().await;
    let start = host.manager.hellos().last().expect("hello").start;
    assert!(start > up.start);
    let adopted =
        host.manager.report(&a.id(), "adopted", |r| r.start == start && r.state() == S::Running && r.converged).await;
    assert_eq!(host.qemu(&a), Some(qemu_a.clone()), "not restarted");
    assert_eq!((adopted.crash_count, adopted.guest_up_at, adopted.started_at), (0, up.guest_up_at, up.started_at));
    let restarted =
        host.manager.report(&b.id(), "restarted", |r| r.start == start && r.state() == S::Running && r.converged).await;
    assert_eq!(restarted.crash_count, 1);
    assert_ne!(host.qemu(&b), Some(qemu_b));

    // The console and the monitor are the successor's now.
    let mut console = host.manager.console(&a.id(), What::Serial(SerialConsole { replay_bytes: 0 })).await;
    console.type_in("echo still-$((40+2))\n").await;
    console.until_output("still-42").await;
    host.reach(a.power(Power::Off), S::Stopped).await;
    host.reach(b.delete(), S::Deleted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_up_line_that_came_while_no_agent_was_there_is_found() {
    let Some(mut host) = Host::start(1).await else { return };
    let instance = TestInstance::tiny(&host, "alone");
    let running = host.reach(&instance, S::Running).await;
    assert_eq!(running.guest_up_at, None, "too early to be up");
    host.kill_agent().await;
    let log = host.instance_dir(&instance).join("console/console.log");
    eventually("the guest is up", || fs::read_to_string(&log).ok()?.contains("iaas-guest: up alone").then_some(()))
        .await;
    host.start_agent().await;
    host.guest_up(&instance, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_killed_amid_its_starts_loses_none_and_doubles_none() {
    let Some(mut host) = Host::start(4).await else { return };
    let instances: Vec<TestInstance> =
        (0..4).map(|n| TestInstance::tiny(&host, &format!("n-{n}")).with_disk(1)).collect();
    for cut in 0..3 {
        if cut == 0 {
            host.manager.set_all_desired(&instances.iter().map(|w| w.desired.clone()).collect::<Vec<_>>());
        }
        // Each time a little further: some have no disk yet, some a QEMU that is written nowhere.
        eventually("some have begun", || {
            let dirs = instances.iter().filter(|w| host.instance_dir(w).exists()).count();
            let qemus = instances.iter().filter(|w| host.qemu(w).is_some()).count();
            (dirs > 0 && qemus >= cut).then_some(())
        })
        .await;
        host.kill_agent().await;
        host.start_agent().await;
    }
    for instance in &instances {
        let report = host.reached(instance, S::Running).await;
        assert_eq!(report.crash_count, 0, "{report:?}");
        assert!(host.qemu(instance).is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_qemu_that_the_ledger_forgot_is_an_orphan_and_is_kept() {
    let Some(mut host) = Host::start(1).await else { return };
    let instance = TestInstance::tiny(&host, "orphan");
    host.reach(&instance, S::Running).await;
    let qemu = host.qemu(&instance).expect("runs");
    host.stop_agent().await;
    assert!(qemu.alive(), "a shutdown of the agent ends no guest");
    let file = host.config.state_dir.join("ledger").join(format!("{}.json", instance.id()));
    fs::write(&file, b"{\"format\":1, half a file").expect("damaged");
    // The manager has forgotten it as well.
    host.manager.go_away();
    host.start_agent_unconnected();
    eventually("the file is set aside", || (!file.exists()).then_some(())).await;
    host.manager.come_back();
    let hello = host.manager.until("a second hello", |received| received.hellos().get(1).cloned()).await;
    let holding = hello.holdings.iter().find(|h| h.id == instance.id()).expect("reported");
    assert_eq!((holding.epoch, holding.generation, holding.tombstone), (1, 1, false), "what it was started as");
    // The stand-in's snapshot has it: it is taken back, as it runs.
    let start = hello.start;
    host.manager
        .report(&instance.id(), "taken back", |r| r.start == start && r.state() == S::Running && r.converged)
        .await;
    assert_eq!(host.qemu(&instance), Some(qemu));
    let aside = fs::read_dir(host.config.state_dir.join("ledger/quarantine")).expect("there").count();
    assert_eq!(aside, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_vms_are_stopped_without_the_control_plane_and_come_back_with_it() {
    let Some(mut host) = Host::start(2).await else { return };
    let (a, b) = (TestInstance::tiny(&host, "polite"), TestInstance::tiny(&host, "rude"));
    let mut b = b;
    // It takes no power button.
    let script = "#!/bin/sh\nkill -9 $(cat /run/acpid.pid)\n";
    b.spec().user_data_base64 = base64::engine::general_purpose::STANDARD.encode(script);
    b.spec().stop_timeout_secs = 0;
    host.manager.set_all_desired(&[a.desired.clone(), b.desired.clone()]);
    host.guest_up(&a, 0).await;
    host.guest_up(&b, 0).await;
    assert!(stop_all(&host.config).await.is_err(), "an agent runs, and would start them again");
    host.stop_agent().await;
    let report = stop_all(&host.config).await.expect("stopped");
    assert!(report.complete());
    let how = |name: &str| report.vms.iter().find(|vm| vm.name == name).map(|vm| vm.stopped.clone());
    assert_eq!((how("polite"), how("rude")), (Some(Stopped::Gracefully), Some(Stopped::Hard)));
    assert!(host.qemu(&a).is_none() && host.qemu(&b).is_none());
    assert_eq!(stop_all(&host.config).await.expect("again").vms, []);

    host.start_agent().await;
    let start = host.manager.hellos().last().expect("hello").start;
    for instance in [&a, &b] {
        let back = host
            .manager
            .report(&instance.id(), "back", |r| r.start == start && r.state() == S::Running && r.converged)
            .await;
        assert_eq!(back.crash_count, 0, "being stopped is no crash");
    }
}

/// The limits of each disk of the host's one QEMU, whose monitor nobody else may be connected to.
async fn disk_limits(host: &Host) -> Vec<DiskLimits> {
    let qemu = running_qemus(&host.config.run_dir).pop().expect("it runs");
    let path = host.config.run_dir.join("vms").join(qemu.instance_id.to_string()).join("qmp.sock");
    let monitor = QemuSocket::new(path, qemu.uid);
    let qmp = QmpClient::connect(&monitor, Duration::from_secs(60)).await.expect("nobody else is connected");
    let devices = qmp.query_block().await.expect("answered");
    let disks = devices.into_iter().filter_map(|device| device.inserted);
    disks.map(|disk| DiskLimits { iops: disk.iops, bytes_per_sec: disk.bytes_per_sec }).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn disks_have_the_configured_limits_also_those_that_ran_before() {
    let Some(mut host) = Host::start_with(1, |config| config.disk_iops_max = 700).await else { return };
    let instance = TestInstance::tiny(&host, "limited").with_disk(1);
    host.reach(&instance, S::Running).await;
    host.kill_agent().await;
    let found = disk_limits(&host).await;
    let configured = DiskLimits { iops: 700, bytes_per_sec: 1000 << 20 };
    assert!(found.len() >= 2 && found.iter().all(|limits| *limits == configured), "{found:?}");

    (host.config.disk_iops_max, host.config.disk_mib_per_sec_max) = (0, 30);
    host.start_agent().await;
    let start = host.manager.hellos().last().expect("hello").start;
    host.manager
        .report(&instance.id(), "adopted", |r| r.start == start && r.state() == S::Running && r.converged)
        .await;
    host.kill_agent().await;
    let found = disk_limits(&host).await;
    let changed = DiskLimits { iops: 0, bytes_per_sec: 30 << 20 };
    assert!(found.len() >= 2 && found.iter().all(|limits| *limits == changed), "{found:?}");
}
