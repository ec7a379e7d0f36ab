//! One row per situation.

use super::*;
use crate::{
    ledger::{DesiredImage, Nic, RootDisk, Version},
    qemu::process::ProcessRef,
};
use domain::{
    DiskId, ImageId, InstanceId, PortId, Timestamp,
    flavor::Size,
    image::{DiskFormat, ImageKind},
    instance::{InstanceSpec, OnCrash, OnHostLoss},
    network::MacAddr,
};

#[path = "plan_world_tests.rs"]
mod world;

const BOOT: &str = "this-boot";

fn entry(disk: bool) -> Entry {
    let image_id = ImageId::new();
    let size = Size { vcpus: 1, memory_mib: 128, disk_gib: if disk { 2 } else { 0 } };
    Entry {
        desired: Desired {
            instance_id: InstanceId::new(),
            project_id: "p".into(),
            name: "web".into(),
            version: Version { epoch: 1, generation: 1 },
            spec: InstanceSpec {
                size,
                flavor: String::new(),
                image_id,
                power: Power::On,
                boot_seq: 0,
                boot_hard: false,
                root_seq: 0,
                stop_timeout_secs: 30,
                on_crash: OnCrash::Restart,
                on_host_loss: OnHostLoss::Wait,
                ssh_keys: vec![],
                user_data_base64: String::new(),
                zone: None,
                placement: Default::default(),
                nics: vec![],
                deleted: false,
            },
            nics: vec![],
            root_disk: disk.then(|| RootDisk { disk_id: DiskId::new(), size_gib: 2, epoch: 1 }),
            image: DesiredImage {
                image_id,
                kind: ImageKind::Kernel,
                format: DiskFormat::Raw,
                cmdline: String::new(),
                parts: vec![],
            },
            request_id: String::new(),
            numa_node: None,
        },
        done: Done::default(),
    }
}

fn running(entry: &Entry) -> Running {
    let size = entry.desired.spec.size;
    Running {
        process: ProcessRef { pid: 1, start_time_ticks: 1, boot_id: BOOT.into() },
        vcpus: size.vcpus,
        memory_mib: size.memory_mib,
        disk_gib: size.disk_gib,
        root_seq: entry.desired.spec.root_seq,
        started_at: Timestamp(0),
        exec_ms: None,
        console_offset: 0,
    }
}

fn nothing() -> Observed {
    Observed {
        process: ObservedProcess::None,
        disks: vec![],
        image: false,
        config_drive: false,
        nics: vec![],
        taps: vec![],
        anything: false,
        boot_id: BOOT.into(),
    }
}

/// An instance that runs as it should.
fn up() -> (Entry, Observed, Attempts) {
    let mut e = entry(true);
    e.done.process = Some(running(&e));
    e.done.started_at = Some(Timestamp(0));
    let observed = Observed {
        process: ObservedProcess::Speaking(Machine::Running),
        disks: vec![ObservedDisk { root_seq: 0, size_gib: 2 }],
        image: true,
        config_drive: true,
        nics: vec![],
        taps: vec![],
        anything: true,
        boot_id: BOOT.into(),
    };
    (e, observed, Attempts { shown: Some(InstanceState::Running), ..Attempts::default() })
}

/// An instance that is off, as it should.
fn off() -> (Entry, Observed, Attempts) {
    let (mut e, mut observed, mut attempts) = up();
    e.desired.spec.power = Power::Off;
    e.done.process = None;
    observed.process = ObservedProcess::None;
    attempts.shown = Some(InstanceState::Stopped);
    (e, observed, attempts)
}

fn step(situation: &(Entry, Observed, Attempts), now: u64) -> (Step, InstanceState) {
    let plan = plan(&situation.0, &situation.1, &situation.2, now);
    (plan.step, plan.shown.state)
}

#[test]
fn a_create_fetches_prepares_starts_and_runs() {
    let mut s = (entry(true), nothing(), Attempts::default());
    assert_eq!(step(&s, 0), (Step::FetchImage, InstanceState::Building));
    s.1.image = true;
    assert_eq!(step(&s, 0), (Step::Prepare { disk: true, config_drive: true }, InstanceState::Building));
    s.1.config_drive = true;
    assert_eq!(
        step(&s, 0).0,
        Step::Prepare { disk: true, config_drive: false },
        "a part that is there isn't made again"
    );
    s.1.disks = vec![ObservedDisk { root_seq: 0, size_gib: 2 }];
    assert_eq!(step(&s, 0), (Step::Launch, InstanceState::Building));
    s.0.done.process = Some(running(&s.0));
    s.1.process = ObservedProcess::Silent;
    s.2 = Attempts { shown: Some(InstanceState::Building), fresh: true, ..Attempts::default() };
    assert_eq!(step(&s, 0), (Step::Attach, InstanceState::Building));
    s.1.process = ObservedProcess::Speaking(Machine::Prelaunch);
    assert_eq!(step(&s, 0), (Step::Cont, InstanceState::Building));
    s.1.process = ObservedProcess::Speaking(Machine::Running);
    let rest = plan(&s.0, &s.1, &s.2, 0);
    assert_eq!((rest.step, rest.shown.state, rest.shown.converged), (Step::Wait, InstanceState::Running, true));
}

#[test]
fn a_create_that_is_off_gets_its_disk_and_stays_off() {
    let mut s = (entry(true), nothing(), Attempts::default());
    s.0.desired.spec.power = Power::Off;
    s.1.image = true;
    assert_eq!(step(&s, 0), (Step::Prepare { disk: true, config_drive: false }, InstanceState::Building));
    s.1.disks = vec![ObservedDisk { root_seq: 0, size_gib: 2 }];
    assert_eq!(step(&s, 0), (Step::Wait, InstanceState::Stopped));
}

#[test]
fn a_stop_asks_asks_again_and_then_ends() {
    let mut s = up();
    s.0.desired.spec.power = Power::Off;
    assert_eq!(step(&s, 100), (Step::Powerdown, InstanceState::Running));
    s.2.asked = Some((100, 100));
    let waiting = plan(&s.0, &s.1, &s.2, 200);
    assert_eq!((waiting.step, waiting.wake_at, waiting.shown.converged), (Step::Wait, Some(3_100), false));
    assert_eq!(step(&s, 3_100).0, Step::Powerdown, "it may have been booting");
    assert_eq!(step(&s, 30_100).0, Step::Kill(Cause::Off));
    s.1.process = ObservedProcess::Speaking(Machine::PoweredOff);
    assert_eq!(step(&s, 3_200).0, Step::Kill(Cause::Ended));
    s.1.process = ObservedProcess::None;
    assert_eq!(step(&s, 3_300).0, Step::Settle(Exit::Expected));
    s.0.done.process = None;
    assert_eq!(step(&s, 3_300), (Step::Wait, InstanceState::Stopped));
}

#[test]
fn a_hard_stop_ends_at_once_and_a_shorter_timeout_counts_at_once() {
    let mut s = up();
    s.0.desired.spec.power = Power::Off;
    s.2.asked = Some((0, 0));
    assert_eq!(step(&s, 1_000).0, Step::Wait);
    s.0.desired.spec.stop_timeout_secs = 0;
    assert_eq!(step(&s, 1_000).0, Step::Kill(Cause::Off));
}

#[test]
fn a_paused_guest_must_run_to_stop() {
    let mut s = up();
    s.0.desired.spec.power = Power::Off;
    s.1.process = ObservedProcess::Speaking(Machine::Paused);
    assert_eq!(step(&s, 0).0, Step::Cont);
    s.1.process = ObservedProcess::Speaking(Machine::Prelaunch);
    assert_eq!(step(&s, 0).0, Step::Kill(Cause::Off), "nothing ran yet");
}

#[test]
fn pause_and_resume() {
    let mut s = up();
    s.0.desired.spec.power = Power::Paused;
    assert_eq!(step(&s, 0), (Step::Pause, InstanceState::Running));
    s.1.process = ObservedProcess::Speaking(Machine::Paused);
    assert_eq!(step(&s, 0), (Step::Wait, InstanceState::Paused));
    s.0.desired.spec.power = Power::On;
    assert_eq!(step(&s, 0), (Step::Cont, InstanceState::Paused));
}

#[test]
fn a_hard_reboot_resets_and_a_graceful_one_stops_and_starts() {
    let mut s = up();
    s.0.desired.spec.boot_seq = 1;
    s.0.desired.spec.boot_hard = true;
    assert_eq!(step(&s, 0).0, Step::Reset);
    s.0.desired.spec.boot_hard = false;
    assert_eq!(step(&s, 0), (Step::Powerdown, InstanceState::Running));
    s.2.asked = Some((0, 0));
    assert_eq!(step(&s, 30_000).0, Step::Kill(Cause::Reboot), "and hard at the deadline");
    s.1.process = ObservedProcess::Speaking(Machine::PoweredOff);
    assert_eq!(step(&s, 500).0, Step::Kill(Cause::Ended));
    s.1.process = ObservedProcess::None;
    assert_eq!(step(&s, 500).0, Step::Settle(Exit::Expected));
    s.0.done.process = None;
    assert_eq!(step(&s, 500).0, Step::Launch);
    let (mut off, observed, attempts) = off();
    off.desired.spec.boot_seq = 9;
    assert_eq!(step(&(off, observed, attempts), 0), (Step::Wait, InstanceState::Stopped), "what is off doesn't boot");
}

#[test]
fn a_resize_of_a_running_one_stops_it_grows_and_starts() {
    let mut s = up();
    s.0.desired.spec.size = Size { vcpus: 2, memory_mib: 256, disk_gib: 5 };
    assert_eq!(step(&s, 0).0, Step::Powerdown);
    s.1.process = ObservedProcess::None;
    s.0.done.process = None;
    assert_eq!(step(&s, 0).0, Step::GrowDisk);
    s.1.disks[0].size_gib = 5;
    assert_eq!(step(&s, 0).0, Step::Launch);
    let mut s = off();
    s.0.desired.spec.size.disk_gib = 5;
    assert_eq!(step(&s, 0), (Step::GrowDisk, InstanceState::Stopped));
    s.0.desired.spec.size.disk_gib = 1;
    assert_eq!(step(&s, 0), (Step::Wait, InstanceState::Stopped), "a disk never shrinks");
}

#[test]
fn a_rebuild_fetches_first_then_replaces_the_disk() {
    let mut s = up();
    s.0.desired.spec.root_seq = 1;
    s.1.image = false;
    assert_eq!(step(&s, 0), (Step::FetchImage, InstanceState::Rebuilding));
    s.1.image = true;
    assert_eq!(step(&s, 0), (Step::Kill(Cause::Rebuild), InstanceState::Rebuilding));
    s.1.process = ObservedProcess::None;
    assert_eq!(step(&s, 0).0, Step::Settle(Exit::Expected));
    s.0.done.process = None;
    assert_eq!(step(&s, 0), (Step::Prepare { disk: true, config_drive: false }, InstanceState::Rebuilding));
    s.0.done.root_seq = 1;
    s.1.disks.push(ObservedDisk { root_seq: 1, size_gib: 2 });
    assert_eq!(step(&s, 0).0, Step::DestroyDisk { root_seq: 0 });
    s.1.disks.remove(0);
    assert_eq!(step(&s, 0).0, Step::Launch);
    // A manager that came back from a backup asks for an older one: nobody's data is destroyed.
    s.0.desired.spec.root_seq = 0;
    assert_eq!(step(&s, 0).0, Step::Launch);
}

#[test]
fn a_delete_ends_destroys_removes_and_buries() {
    let mut s = up();
    s.0.desired.spec.deleted = true;
    assert_eq!(step(&s, 0), (Step::Kill(Cause::Delete), InstanceState::Deleting));
    s.1.process = ObservedProcess::None;
    assert_eq!(step(&s, 0).0, Step::Settle(Exit::Expected));
    s.0.done.process = None;
    assert_eq!(step(&s, 0), (Step::DestroyDisk { root_seq: 0 }, InstanceState::Deleting));
    s.1.disks.clear();
    assert_eq!(step(&s, 0).0, Step::RemoveLeftovers);
    s.1.anything = false;
    assert_eq!(step(&s, 0).0, Step::WriteTombstone);
    s.1.process = ObservedProcess::Silent;
    assert_eq!(step(&s, 0).0, Step::Kill(Cause::Delete), "also one that doesn't answer");
}

#[test]
fn a_crash_is_told_from_ends_that_were_wanted() {
    let mut s = up();
    s.1.process = ObservedProcess::None;
    assert_eq!(step(&s, 0).0, Step::Settle(Exit::Crashed));
    s.2.fresh = true;
    assert_eq!(step(&s, 0).0, Step::Settle(Exit::FailedStart));
    s.2.ending = true;
    assert_eq!(step(&s, 0).0, Step::Settle(Exit::Expected));
    s.2 = Attempts { broken: Some("the guest's kernel panicked".into()), ending: true, ..Attempts::default() };
    assert_eq!(step(&s, 0).0, Step::Settle(Exit::Crashed));
    s.1.boot_id = "next-boot".into();
    assert_eq!(step(&s, 0).0, Step::Settle(Exit::HostRestarted));
}

#[test]
fn panics_and_broken_machines_are_crashes() {
    for machine in [Machine::Panicked, Machine::Broken] {
        let mut s = up();
        s.1.process = ObservedProcess::Speaking(machine);
        assert!(matches!(step(&s, 0).0, Step::Kill(Cause::Broken(_))), "{machine:?}");
        s.0.desired.spec.power = Power::Off;
        assert_eq!(step(&s, 0).0, Step::Kill(Cause::Ended));
    }
}

#[test]
fn a_start_after_a_crash_waits_its_time() {
    let mut s = up();
    s.0.done.process = None;
    s.1.process = ObservedProcess::None;
    s.2.start_not_before = 1_000;
    s.2.broken = Some("killed".into());
    let waiting = plan(&s.0, &s.1, &s.2, 400);
    assert_eq!((waiting.step, waiting.wake_at, waiting.shown.reason.as_str()), (Step::Wait, Some(1_000), "killed"));
    assert_eq!(step(&s, 1_000).0, Step::Launch);
    assert_eq!(crash_backoff_ms(1), 0, "the first restart is at once");
    assert!((2..30).all(|n| crash_backoff_ms(n) <= crash_backoff_ms(n + 1) && crash_backoff_ms(n) <= 32_000));
}

#[test]
fn a_guest_that_powers_itself_off_stays_off_until_started() {
    let mut s = up();
    s.1.process = ObservedProcess::Speaking(Machine::PoweredOff);
    let Step::Halt { cause: HaltCause::GuestPowerOff, reason } = step(&s, 0).0 else { panic!("halts") };
    s.0.done.halt = Some(Halt {
        cause: HaltCause::GuestPowerOff,
        boot_seq: 0,
        version: s.0.desired.version,
        reason,
        at: Timestamp(0),
    });
    assert_eq!(step(&s, 0).0, Step::Kill(Cause::Ended));
    s.1.process = ObservedProcess::None;
    assert_eq!(step(&s, 0).0, Step::Settle(Exit::Expected));
    s.0.done.process = None;
    let rest = plan(&s.0, &s.1, &s.2, 0);
    assert_eq!((rest.step, rest.shown.state, rest.shown.converged), (Step::Wait, InstanceState::Stopped, true));
    assert!(rest.shown.reason.contains("powered itself off"));
    s.0.desired.version.generation += 1;
    assert_eq!(step(&s, 0).0, Step::Wait, "a new name starts nothing");
    let mut started = s.clone();
    started.0.desired.spec.boot_seq = 1;
    assert_eq!(step(&started, 0).0, Step::LiftHalt);
    s.0.desired.spec.power = Power::Off;
    assert_eq!(step(&s, 0).0, Step::LiftHalt);
}

#[test]
fn a_guest_that_ended_because_we_asked_comes_back_when_it_is_wanted_again() {
    let mut s = up();
    s.2.asked = Some((0, 0));
    assert_eq!(step(&s, 10), (Step::Wait, InstanceState::Running), "nothing to undo");
    s.1.process = ObservedProcess::Speaking(Machine::PoweredOff);
    assert_eq!(step(&s, 10).0, Step::Kill(Cause::Ended));
    s.2.ending = true;
    s.1.process = ObservedProcess::None;
    assert_eq!(step(&s, 10).0, Step::Settle(Exit::Expected));
}

#[test]
fn a_crash_loop_is_an_error_until_anything_changes() {
    let mut s = up();
    s.0.done.process = None;
    s.1.process = ObservedProcess::None;
    s.0.done.halt = Some(Halt {
        cause: HaltCause::CrashLoop,
        boot_seq: 0,
        version: s.0.desired.version,
        reason: "5 crashes".into(),
        at: Timestamp(0),
    });
    let rest = plan(&s.0, &s.1, &s.2, 0);
    assert_eq!((rest.step, rest.shown.state, rest.shown.converged), (Step::Wait, InstanceState::Error, false));
    s.0.desired.version.generation += 1;
    assert_eq!(step(&s, 0).0, Step::LiftHalt);
}

#[test]
fn a_failed_step_waits_and_shows_why_and_holds_up_nothing_else() {
    let mut s = (entry(true), nothing(), Attempts::default());
    let mut failure = Failure {
        step: StepKind::FetchImage,
        reason: "the image's SHA-256 doesn't match".into(),
        fault: true,
        count: 1,
        retry_at: 5_000,
    };
    s.2.failure = Some(failure.clone());
    let waiting = plan(&s.0, &s.1, &s.2, 100);
    assert_eq!((waiting.step, waiting.shown.state, waiting.wake_at), (Step::Wait, InstanceState::Error, Some(5_000)));
    assert_eq!(waiting.shown.reason, failure.reason);
    assert_eq!(step(&s, 5_000), (Step::FetchImage, InstanceState::Error), "tried again, still in error");
    failure.fault = false;
    s.2.failure = Some(failure);
    assert_eq!(step(&s, 100), (Step::Wait, InstanceState::Building), "what passes by itself is no error");
    s.0.desired.spec.deleted = true;
    assert_eq!(step(&s, 100).0, Step::WriteTombstone);
    assert!((1..40).all(|n| (500..=30_000).contains(&retry_backoff_ms(StepKind::Launch, n))));
    assert_eq!(retry_backoff_ms(StepKind::AcquirePorts, 40), 5_000);
}

#[test]
fn a_silent_qemu_is_asked_again_and_ended_only_when_unwanted() {
    let mut s = up();
    s.1.process = ObservedProcess::Silent;
    let silent = |count| Failure {
        step: StepKind::Attach,
        reason: "QEMU doesn't answer".into(),
        fault: false,
        count,
        retry_at: 0,
    };
    s.2.failure = Some(silent(50));
    assert_eq!(step(&s, 1).0, Step::Attach, "a guest that may well run isn't ended for our being deaf");
    s.0.desired.spec.power = Power::Off;
    assert_eq!(step(&s, 1).0, Step::Kill(Cause::Off));
    s.2.failure = Some(silent(1));
    assert_eq!(step(&s, 1).0, Step::Attach);
    s.0.desired.spec.stop_timeout_secs = 0;
    assert_eq!(step(&s, 1).0, Step::Kill(Cause::Off));
}

#[test]
fn a_full_disk_stops_the_guest_until_it_can_write_again() {
    let mut s = up();
    s.1.process = ObservedProcess::Speaking(Machine::IoError);
    assert_eq!(step(&s, 50), (Step::Cont, InstanceState::Error));
    s.2.io_retried = Some(50);
    let waiting = plan(&s.0, &s.1, &s.2, 60);
    assert_eq!((waiting.step, waiting.wake_at), (Step::Wait, Some(10_050)));
    assert_eq!(step(&s, 10_050).0, Step::Cont);
}

fn nic(n: u8) -> Nic {
    Nic { port_id: PortId(uuid::Uuid::from_bytes([n; 16])), epoch: 1, mac: MacAddr::local([n; 5]) }
}

fn device(n: u8, slot: u8) -> ObservedNic {
    ObservedNic { slot, port_id: nic(n).port_id }
}

#[test]
fn a_start_acquires_its_ports_first_and_says_what_it_waits_for() {
    let mut s = off();
    s.0.desired.spec.power = Power::On;
    s.0.desired.nics = vec![nic(1), nic(2)];
    assert_eq!(plan(&s.0, &s.1, &s.2, 0).shown.step, "starting QEMU", "mostly there is nothing to say");
    s.1.taps = vec![nic(1)];
    s.2.failure = Some(Failure {
        step: StepKind::AcquirePorts,
        reason: "the host's network-agent can't be asked".into(),
        fault: false,
        count: 3,
        retry_at: 2_000,
    });
    let waiting = plan(&s.0, &s.1, &s.2, 1_000);
    assert_eq!(
        (waiting.step, waiting.shown.state, waiting.wake_at),
        (Step::Wait, InstanceState::Building, Some(2_000))
    );
    assert_eq!(waiting.shown.step, format!("waiting for network port {}", nic(2).port_id));
    assert_eq!(waiting.shown.reason, "the host's network-agent can't be asked");
    assert_eq!(step(&s, 2_000).0, Step::AcquirePorts);
    s.1.taps.push(nic(2));
    assert_eq!(step(&s, 0).0, Step::Launch);
    s.1.taps[1].epoch = 0;
    assert_eq!(step(&s, 2_000).0, Step::AcquirePorts, "a tap of another epoch is another port's");
}

#[test]
fn nics_are_plugged_and_unplugged_while_it_runs_and_the_guest_is_asked_until_it_lets_go() {
    let mut s = up();
    s.0.desired.nics = vec![nic(1)];
    let plugging = plan(&s.0, &s.1, &s.2, 0);
    assert_eq!((plugging.step, plugging.shown.state), (Step::PlugNic { nic: nic(1), slot: 1 }, InstanceState::Running));
    assert!(!plugging.shown.converged);
    s.0.done.nics = vec![nic(1)];
    s.1.nics = vec![device(1, 1)];
    assert!(plan(&s.0, &s.1, &s.2, 0).shown.converged);

    s.0.desired.nics.clear();
    assert_eq!(step(&s, 0).0, Step::UnplugNic(device(1, 1)));
    s.2.unplug = Some(Unplugging { port_id: nic(1).port_id, first: 0, last: 0 });
    let asked = plan(&s.0, &s.1, &s.2, 1_000);
    assert_eq!((asked.step, asked.wake_at, asked.shown.reason.as_str()), (Step::Wait, Some(6_000), ""));
    assert_eq!(step(&s, 6_000).0, Step::UnplugNic(device(1, 1)), "asked again");
    s.2.unplug = Some(Unplugging { port_id: nic(1).port_id, first: 0, last: 18_000 });
    let late = plan(&s.0, &s.1, &s.2, 20_000);
    assert!(late.shown.reason.contains("hasn't let the network card go"), "{}", late.shown.reason);
    assert!(!late.shown.converged, "a nic that is in is never said to be out");
    // Stopping it is a way out of this too.
    s.0.desired.spec.power = Power::Off;
    assert_eq!(step(&s, 20_000).0, Step::Powerdown);
    s.0.desired.spec.power = Power::Paused;
    assert_eq!(step(&s, 20_000).0, Step::Pause, "nothing waits for a guest that doesn't listen");
    s.1.process = ObservedProcess::Speaking(Machine::Paused);
    assert!(plan(&s.0, &s.1, &s.2, 20_000).shown.reason.contains("resume it"));

    s.0.desired.spec.power = Power::On;
    s.1.process = ObservedProcess::Speaking(Machine::Running);
    s.1.nics.clear();
    assert_eq!(step(&s, 0).0, Step::FreeNics(vec![nic(1)]));
    s.0.done.nics.clear();
    assert!(plan(&s.0, &s.1, &s.2, 0).shown.converged);
}

#[test]
fn what_is_down_gives_its_ports_back_and_is_stopped_all_the_while() {
    let mut s = off();
    s.0.desired.nics = vec![nic(1)];
    assert_eq!(step(&s, 0).0, Step::Wait, "nothing was acquired");
    s.0.done.nics = vec![nic(1), nic(2)];
    let both = || Step::FreeNics(vec![nic(1), nic(2)]);
    let freeing = plan(&s.0, &s.1, &s.2, 0);
    assert_eq!((freeing.step, freeing.shown.state), (both(), InstanceState::Stopped));
    assert!(freeing.shown.converged, "that the network-agent is away keeps nobody from being stopped");
    s.0.done.halt = Some(Halt {
        cause: HaltCause::GuestPowerOff,
        boot_seq: 0,
        version: s.0.desired.version,
        reason: "it powered itself off".into(),
        at: Timestamp(0),
    });
    s.0.desired.spec.power = Power::On;
    assert_eq!(step(&s, 0), (both(), InstanceState::Stopped));

    // A deletion tries, and doesn't wait for ever.
    s.0.desired.spec.deleted = true;
    s.1 = nothing();
    let failed = |count| Failure { step: StepKind::Nics, reason: "away".into(), fault: false, count, retry_at: 0 };
    s.2.failure = Some(failed(2));
    assert_eq!(step(&s, 0).0, both());
    s.2.failure = Some(failed(3));
    assert_eq!(step(&s, 0).0, Step::WriteTombstone);
}
