//! Tests of a guest's life, from its config drive to its end, and of an agent that reconnects to it.

use std::time::Duration;

use bytes::Bytes;
use compute_agent::console::{ConsoleLog, Output};
use compute_agent::qemu::process::ProcessRef;
use compute_agent::qmp::RunState;

use crate::rig::{Scratch, TIMEOUT, Vm, guest, qemu};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn boots_with_its_name_pauses_resets_and_powers_off_gracefully() {
    let (Some(qemu), Some(guest)) = (qemu(), guest()) else { return };
    let scratch = Scratch::make().await;
    let mut spec = scratch.spec(&guest);
    spec.config_drive = Some(scratch.config_drive("web-7", b"#!/bin/sh\necho user-data-ran\n").await);
    let mut vm = Vm::start(&qemu, &spec, &scratch.confinement()).await;
    let up = vm.up().await;
    assert_eq!(up.hostname, "web-7");
    assert!(up.uptime_seconds > 0.0);
    assert_eq!(vm.state().await, RunState::Running);
    let log = ConsoleLog::new(&spec.console_log);
    let said = String::from_utf8_lossy(&log.tail(64 << 10).expect("readable").bytes).into_owned();
    assert!(said.contains("user-data-ran"), "{said}");

    vm.qmp.stop().await.expect("paused");
    assert_eq!(vm.state().await, RunState::Paused);
    vm.qmp.stop().await.expect("again is fine");
    vm.qmp.cont().await.expect("resumed");
    assert_eq!(vm.state().await, RunState::Running);
    assert_eq!(vm.qmp.query_cpus_fast().await.expect("answered").len(), 1);
    assert!(vm.qmp.query_version().await.expect("answered").split('.').count() == 3);
    let error = vm.qmp.device_del("nothing").await.expect_err("no such device");
    assert!(error.refused(), "{error}");

    vm.console.rearm();
    vm.qmp.system_reset().await.expect("reset");
    vm.event("RESET").await;
    assert_eq!(vm.up().await.hostname, "web-7", "the same machine boots again");

    vm.qmp.system_powerdown().await.expect("pressed");
    let event = vm.event("SHUTDOWN").await;
    assert_eq!(event.data["reason"], "guest-shutdown");
    // QEMU holds still until the agent has read why.
    assert_eq!(vm.state().await, RunState::Shutdown);
    assert!(vm.process.alive());
    vm.qmp.quit().await.expect("quits");
    vm.gone().await;
    assert!(vm.qmp.query_status().await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_agent_takes_over_what_runs() {
    let (Some(qemu), Some(guest)) = (qemu(), guest()) else { return };
    let scratch = Scratch::make().await;
    let mut spec = scratch.spec(&guest);
    spec.config_drive = Some(scratch.config_drive("kept", b"").await);
    let first = Vm::start(&qemu, &spec, &scratch.confinement()).await;
    first.up().await;
    let remembered = serde_json::to_string(&first.process).expect("it can be kept in a ledger");
    // The first agent's connections end; its QEMU goes on.
    first.leave();

    let process: ProcessRef = serde_json::from_str(&remembered).expect("readable");
    assert!(process.alive());
    let second = Vm::attach(process, &spec, &scratch.confinement()).await;
    assert_eq!(second.state().await, RunState::Running);
    let found = ConsoleLog::new(&spec.console_log).find_guest_up(0).expect("readable").expect("it was up before");
    assert_eq!(found.hostname, "kept");

    // Its console goes on as well: a shell answers.
    let mut watcher = second.console.watch();
    second.console.write(Bytes::from_static(b"\necho $((6 * 7))-answer\n")).await.expect("typed");
    let mut output = vec![];
    while !String::from_utf8_lossy(&output).contains("42-answer") {
        match tokio::time::timeout(TIMEOUT, watcher.next()).await.expect("in time").expect("open") {
            Output::Data(bytes) => output.extend_from_slice(&bytes),
            Output::Skipped(_) => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_is_seen_at_once() {
    let (Some(qemu), Some(guest)) = (qemu(), guest()) else { return };
    let scratch = Scratch::make().await;
    let mut spec = scratch.spec(&guest);
    spec.paused = true;
    let vm = Vm::start(&qemu, &spec, &scratch.confinement()).await;
    assert_eq!(vm.state().await, RunState::Prelaunch, "it was to start paused");
    let handle = vm.process.open().expect("observable").expect("alive");
    let exited = tokio::spawn(async move { handle.wait_exit().await });
    let pid = rustix::process::Pid::from_raw(vm.process.pid).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("killed");
    // Both the pidfd and the monitor connection tell; neither needs a poll of ours.
    tokio::time::timeout(Duration::from_secs(10), exited).await.expect("at once").expect("joined").expect("observed");
    tokio::time::timeout(Duration::from_secs(10), vm.qmp.closed()).await.expect("noticed");
    assert!(!vm.process.alive());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_that_reboots_itself_is_a_reboot_and_no_exit() {
    let (Some(qemu), Some(guest)) = (qemu(), guest()) else { return };
    let scratch = Scratch::make().await;
    let mut spec = scratch.spec(&guest);
    // Without a root the kernel panics, and is told to reboot at once.
    if let compute_agent::qemu::argv::Boot::Kernel { initrd, cmdline, .. } = &mut spec.boot {
        *initrd = None;
        *cmdline = "console=ttyS0 panic=-1".into();
    }
    let mut vm = Vm::start(&qemu, &spec, &scratch.confinement()).await;
    let event = vm.event("RESET").await;
    assert_eq!(event.data["guest"], true, "the guest rebooted, and QEMU stayed");
    assert!(vm.process.alive());
}
