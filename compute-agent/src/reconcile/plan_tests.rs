//! One row per case.

use super::*;
use crate::{
    ledger::{DesiredImage, Disk, Launched, Nic, Version},
    qemu::process::ProcessRef,
    reconcile::{
        attempts::{Failure, Requests},
        observed::ObservedDisk,
        step::{crash_backoff_ms, retry_backoff_ms},
    },
};
use domain::{
    DiskId, InstanceId, PortId, Timestamp, flavor::Size, image::DiskFormat, instance::InstanceSpec, network::MacAddr,
    testing,
};

#[path = "plan_world_tests.rs"]
mod world;

const BOOT: &str = "this-boot";

fn entry(disk: bool) -> Entry {
    let size = Size { vcpus: 1, memory_mib: 128, disk_gib: if disk { 2 } else { 0 } };
    let spec = InstanceSpec { size, ..testing::spec() };
    let root = || Disk { disk_id: DiskId::new(), role: "root".into(), size_gib: 2, epoch: 1, used_seq: None };
    Entry {
        desired: Desired {
            instance_id: InstanceId::new(),
            project_id: "p".into(),
            name: "web".into(),
            version: Version { epoch: 1, generation: 1 },
            image: DesiredImage {
                image_id: spec.image_id,
                kind: ImageKind::Kernel,
                format: DiskFormat::Raw,
                cmdline: String::new(),
                parts: vec![],
            },
            spec,
            nics: vec![],
            disks: disk.then(root).into_iter().collect(),
            request_id: String::new(),
            digest: 0,
            erase_shared: false,
            numa_node: None,
        },
        done: Done::default(),
    }
}

fn running(entry: &Entry) -> Running {
    let spec = &entry.desired.spec;
    Running {
        process: ProcessRef { pid: 1, start_time_ticks: 1, boot_id: BOOT.into() },
        launched: Launched {
            version: entry.desired.version,
            boot_seq: spec.boot_seq,
            root_seq: spec.root_seq,
            size: spec.size,
            console_offset: 0,
            started_at: Timestamp(0),
            disks: vec![],
        },
        exec_ms: None,
    }
}

fn root(seq: u64) -> DiskFile {
    DiskFile { role: "root".into(), seq }
}

fn disk(seq: u64, size_gib: u64) -> ObservedDisk {
    ObservedDisk { file: root(seq), size_gib, base_gone: false }
}

fn prepare(seq: Option<u64>, config_drive: bool) -> Step {
    Step::Prepare { disks: seq.map(root).into_iter().collect(), config_drive }
}

fn halt(entry: &Entry, cause: HaltCause, reason: &str) -> Option<Halt> {
    Some(Halt { cause, boot_seq: 0, version: entry.desired.version, reason: reason.into(), at: Timestamp(0) })
}

fn failure(step: StepKind, reason: &str, count: u32, retry_at: u64) -> Option<Failure> {
    Some(Failure { step, reason: reason.into(), fault: false, count, retry_at })
}

/// The power button was pressed at these times.
fn pressed(first: u64, last: u64) -> Option<Requests> {
    Some(Requests { first, last })
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
        pool_problem: None,
        permit: Permit::Granted,
    }
}

/// An instance that runs as it should.
fn up() -> (Entry, Observed, Attempts) {
    let mut e = entry(true);
    e.done.process = Some(running(&e));
    e.done.started_at = Some(Timestamp(0));
    let observed = Observed {
        process: ObservedProcess::Speaking(Machine::Running),
        disks: vec![disk(0, 2)],
        image: true,
        config_drive: true,
        nics: vec![],
        taps: vec![],
        anything: true,
        boot_id: BOOT.into(),
        pool_problem: None,
        permit: Permit::Granted,
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

fn step(case: &(Entry, Observed, Attempts), now: u64) -> (Step, InstanceState) {
    let plan = plan(&case.0, &case.1, &case.2, now);
    (plan.step, plan.shown.state)
}

#[test]
fn a_create_fetches_prepares_starts_and_runs() {
    let mut s = (entry(true), nothing(), Attempts::default());
    assert_eq!(step(&s, 0), (Step::FetchImage, InstanceState::Building));
    s.1.image = true;
    assert_eq!(step(&s, 0), (prepare(Some(0), true), InstanceState::Building));
    s.1.config_drive = true;
    assert_eq!(step(&s, 0).0, prepare(Some(0), false), "a part that is there isn't made again");
    s.1.disks = vec![disk(0, 2)];
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
fn what_a_manager_withholds_is_not_started_and_releases_its_ports_and_what_runs_goes_on() {
    let mut s = up();
    s.0.done.process = None;
    s.1.process = ObservedProcess::None;
    assert_eq!(step(&s, 0).0, Step::Launch);
    s.1.permit = Permit::NotBefore { ms: 700 };
    let waits = plan(&s.0, &s.1, &s.2, 0);
    assert_eq!((waits.step, waits.wake_at), (Step::Wait, Some(700)));
    s.1.permit = Permit::Withheld;
    let withheld = plan(&s.0, &s.1, &s.2, 0);
    assert_eq!((withheld.step, withheld.shown.converged), (Step::Wait, false));
    assert!(withheld.shown.reason.contains("cluster-manager"), "{}", withheld.shown.reason);
    s.0.done.nics = vec![nic(1)];
    assert_eq!(step(&s, 0).0, Step::ReleaseNics(vec![nic(1)]), "its addresses may be elsewhere by now");
    let mut runs = up();
    runs.1.permit = Permit::Withheld;
    assert_eq!(step(&runs, 0), (Step::Wait, InstanceState::Running));
}

#[test]
fn a_create_that_is_off_gets_its_disk_and_stays_off() {
    let mut s = (entry(true), nothing(), Attempts::default());
    s.0.desired.spec.power = Power::Off;
    s.1.image = true;
    assert_eq!(step(&s, 0), (prepare(Some(0), false), InstanceState::Building));
    s.1.disks = vec![disk(0, 2)];
    assert_eq!(step(&s, 0), (Step::Wait, InstanceState::Stopped));
}

#[test]
fn a_stop_asks_asks_again_and_then_ends() {
    let mut s = up();
    s.0.desired.spec.power = Power::Off;
    assert_eq!(step(&s, 100), (Step::Powerdown, InstanceState::Running));
    s.2.powerdown = pressed(100, 100);
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
    s.2.powerdown = pressed(0, 0);
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
    s.2.powerdown = pressed(0, 0);
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
    assert_eq!(step(&s, 0).0, Step::GrowDisk { file: root(0), size_gib: 5 });
    s.1.disks[0].size_gib = 5;
    assert_eq!(step(&s, 0).0, Step::Launch);
    let mut s = off();
    s.0.desired.spec.size.disk_gib = 5;
    assert_eq!(step(&s, 0), (Step::GrowDisk { file: root(0), size_gib: 5 }, InstanceState::Stopped));
    s.0.desired.spec.size.disk_gib = 1;
    assert_eq!(step(&s, 0), (Step::Wait, InstanceState::Stopped), "a disk never shrinks");
}

#[test]
fn each_disk_is_made_and_grown_by_itself() {
    let data = || DiskFile { role: "data".into(), seq: 0 };
    let mut s = off();
    s.0.desired.disks.push(Disk { disk_id: DiskId::new(), role: "data".into(), size_gib: 3, epoch: 1, used_seq: None });
    assert_eq!(step(&s, 0).0, Step::Prepare { disks: vec![data()], config_drive: false });
    s.1.disks.insert(0, ObservedDisk { file: data(), size_gib: 1, base_gone: false });
    assert_eq!(step(&s, 0).0, Step::GrowDisk { file: data(), size_gib: 3 });
    s.1.disks[0].size_gib = 3;
    assert_eq!(step(&s, 0), (Step::Wait, InstanceState::Stopped));
    s.0.desired.spec.root_seq = 1;
    assert_eq!(step(&s, 0).0, prepare(Some(1), false), "a rebuild makes the root disk alone anew");
}

/// All ways in which it is known that a disk was used, times all ways in which it can be missing.
#[test]
fn a_disk_that_was_used_and_is_gone_is_an_error_and_never_made_anew() {
    let data = || DiskFile { role: "data".into(), seq: 0 };
    type Say = fn(&mut Entry);
    let ledger: Say = |e| e.done.used_disks = vec![root(0), DiskFile { role: "data".into(), seq: 0 }];
    let manager: Say = |e| e.desired.disks.iter_mut().for_each(|disk| disk.used_seq = Some(0));
    for known in [ledger, manager] {
        for (what, kept) in [("root", vec![data()]), ("data", vec![root(0)]), ("root", vec![])] {
            let mut e = entry(true);
            e.desired.disks.push(Disk {
                disk_id: DiskId::new(),
                role: "data".into(),
                size_gib: 2,
                epoch: 1,
                used_seq: None,
            });
            let of = |file: &DiskFile| ObservedDisk { file: file.clone(), size_gib: 2, base_gone: false };
            let observed = Observed { disks: kept.iter().map(of).collect(), image: true, ..nothing() };
            // Before anything was used the same is a disk to be made.
            let made = plan(&e, &observed, &Attempts::default(), 0);
            assert!(matches!(made.step, Step::Prepare { .. }), "{made:?}");
            known(&mut e);
            for power in [Power::On, Power::Off, Power::Paused] {
                e.desired.spec.power = power;
                let Plan { step, shown, .. } = plan(&e, &observed, &Attempts::default(), 0);
                assert_eq!((step, shown.state, shown.converged), (Step::Wait, InstanceState::Error, false));
                assert!(shown.reason.starts_with(&format!("its {what} disk is gone")), "{}", shown.reason);
            }
            e.done.nics = vec![nic(1)];
            assert!(matches!(plan(&e, &observed, &Attempts::default(), 0).step, Step::ReleaseNics(_)));
            e.done.nics.clear();
            // Back, it is used as it is.
            let back = Observed { disks: vec![of(&data()), of(&root(0))], config_drive: true, ..observed.clone() };
            e.desired.spec.power = Power::On;
            assert_eq!(plan(&e, &back, &Attempts::default(), 0).step, Step::Launch);
            // Only a rebuild makes another, and only of the root disk.
            e.desired.spec.root_seq = 1;
            let rebuilt = plan(&e, &observed, &Attempts::default(), 0);
            let lacks_data = !kept.contains(&data());
            assert_eq!(matches!(rebuilt.step, Step::Prepare { .. }), !lacks_data, "{rebuilt:?}");
            e.desired.spec.deleted = true;
            let deletion = plan(&e, &observed, &Attempts::default(), 0).step;
            assert!(matches!(deletion, Step::DestroyDisk(_) | Step::WriteTombstone), "{deletion:?}");
        }
    }
}

#[test]
fn a_disk_without_the_image_that_it_lies_on_is_not_started() {
    let mut e = entry(true);
    let mut observed = Observed { disks: vec![disk(0, 2)], image: true, config_drive: true, ..nothing() };
    observed.disks[0].base_gone = true;
    let Plan { step, shown, .. } = plan(&e, &observed, &Attempts::default(), 0);
    assert_eq!((step, shown.state), (Step::Wait, InstanceState::Error));
    assert!(shown.reason.contains("image that it lies on is gone"), "{}", shown.reason);
    e.desired.spec.root_seq = 1;
    assert_eq!(plan(&e, &observed, &Attempts::default(), 0).step, prepare(Some(1), false));
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
    assert_eq!(step(&s, 0), (prepare(Some(1), false), InstanceState::Rebuilding));
    s.0.done.root_seq = 1;
    s.1.disks.push(disk(1, 2));
    assert_eq!(step(&s, 0).0, Step::DestroyDisk(root(0)));
    s.1.disks.remove(0);
    assert_eq!(step(&s, 0).0, Step::Launch);
    // A manager that came back from a backup asks for an older one: nobody's data is destroyed.
    s.0.desired.spec.root_seq = 0;
    assert_eq!(step(&s, 0).0, Step::Launch);
}

#[test]
fn a_delete_ends_destroys_removes_and_leaves_a_tombstone() {
    let mut s = up();
    s.0.desired.spec.deleted = true;
    assert_eq!(step(&s, 0), (Step::Kill(Cause::Delete), InstanceState::Deleting));
    s.1.process = ObservedProcess::None;
    assert_eq!(step(&s, 0).0, Step::Settle(Exit::Expected));
    s.0.done.process = None;
    assert_eq!(step(&s, 0), (Step::DestroyDisk(root(0)), InstanceState::Deleting));
    s.1.disks.clear();
    assert_eq!(step(&s, 0).0, Step::RemoveLeftovers);
    s.1.anything = false;
    assert_eq!(step(&s, 0).0, Step::WriteTombstone);
    s.1.process = ObservedProcess::Silent;
    assert_eq!(step(&s, 0).0, Step::Kill(Cause::Delete), "also one that doesn't answer");
}

#[test]
fn a_crash_is_told_from_intended_ends() {
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
    s.0.done.halt = halt(&s.0, HaltCause::GuestPowerOff, &reason);
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
fn a_guest_that_ended_because_we_pressed_its_button_comes_back_when_it_must_run_again() {
    let mut s = up();
    s.2.powerdown = pressed(0, 0);
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
    s.0.done.halt = halt(&s.0, HaltCause::CrashLoop, "5 crashes");
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
    s.2.last_failure = Some(failure.clone());
    let waiting = plan(&s.0, &s.1, &s.2, 100);
    assert_eq!((waiting.step, waiting.shown.state, waiting.wake_at), (Step::Wait, InstanceState::Error, Some(5_000)));
    assert_eq!(waiting.shown.reason, failure.reason);
    assert_eq!(step(&s, 5_000), (Step::FetchImage, InstanceState::Error), "tried again, still in error");
    failure.fault = false;
    s.2.last_failure = Some(failure);
    assert_eq!(step(&s, 100), (Step::Wait, InstanceState::Building), "what passes by itself is no error");
    s.0.desired.spec.deleted = true;
    assert_eq!(step(&s, 100).0, Step::WriteTombstone);
    assert!((1..40).all(|n| (500..=30_000).contains(&retry_backoff_ms(StepKind::Launch, n))));
    assert_eq!(retry_backoff_ms(StepKind::AcquirePorts, 40), 5_000);
}

#[test]
fn a_silent_qemu_is_attached_again_and_ended_only_when_it_should_end() {
    let mut s = up();
    s.1.process = ObservedProcess::Silent;
    let silent = |count| failure(StepKind::Attach, "QEMU doesn't answer", count, 0);
    s.2.last_failure = silent(50);
    assert_eq!(step(&s, 1).0, Step::Attach, "a guest that may well run isn't ended for our being deaf");
    s.0.desired.spec.power = Power::Off;
    assert_eq!(step(&s, 1).0, Step::Kill(Cause::Off));
    s.2.last_failure = silent(1);
    assert_eq!(step(&s, 1).0, Step::Attach);
    s.0.desired.spec.stop_timeout_secs = 0;
    assert_eq!(step(&s, 1).0, Step::Kill(Cause::Off));
}

#[test]
fn a_qemu_that_stopped_answering_and_a_guest_that_hangs_are_ended_as_crashes() {
    for process in [ObservedProcess::Unresponsive, ObservedProcess::Speaking(Machine::Hung)] {
        let mut s = up();
        s.1.process = process;
        let (Step::Kill(Cause::Broken(what)), InstanceState::Running) = step(&s, 0) else {
            panic!("{:?}", step(&s, 0))
        };
        s.2.broken = Some(what.to_owned());
        s.1.process = ObservedProcess::None;
        assert_eq!(step(&s, 0).0, Step::Settle(Exit::Crashed), "{what}");
        s.2.broken = None;
        s.1.process = process;
        s.0.desired.spec.power = Power::Off;
        assert!(matches!(step(&s, 0).0, Step::Kill(Cause::Off | Cause::Ended)), "it should end, and this is no crash");
        s.0.desired.spec.deleted = true;
        assert_eq!(step(&s, 0).0, Step::Kill(Cause::Delete));
    }
}

#[test]
fn a_full_disk_stops_the_guest_until_it_can_write_again() {
    let mut s = up();
    s.1.process = ObservedProcess::Speaking(Machine::IoError);
    assert_eq!(step(&s, 50), (Step::RetryIo, InstanceState::Error));
    s.2.io_retried = Some(50);
    let waiting = plan(&s.0, &s.1, &s.2, 60);
    assert_eq!((waiting.step, waiting.wake_at), (Step::Wait, Some(10_050)));
    assert_eq!(step(&s, 10_050).0, Step::RetryIo);
    // It runs, and perhaps only until its next write: the timeline shows one error and not one every ten seconds.
    s.1.process = ObservedProcess::Speaking(Machine::Running);
    assert_eq!(step(&s, 60), (Step::Wait, InstanceState::Error));
    assert_eq!(plan(&s.0, &s.1, &s.2, 60).wake_at, Some(30_050));
    assert_eq!(step(&s, 30_050), (Step::Wait, InstanceState::Running));
}

fn nic(n: u8) -> Nic {
    Nic { port_id: PortId(uuid::Uuid::from_bytes([n; 16])), epoch: 1, mac: MacAddr::local([n; 5]) }
}

fn device(n: u8, slot: u8) -> ObservedNic {
    ObservedNic { slot, port_id: nic(n).port_id }
}

#[test]
fn a_start_acquires_its_ports_first_and_reports_what_it_waits_for() {
    let mut s = off();
    s.0.desired.spec.power = Power::On;
    s.0.desired.nics = vec![nic(1), nic(2)];
    assert_eq!(plan(&s.0, &s.1, &s.2, 0).shown.step, "starting QEMU", "mostly there is nothing to say");
    s.1.taps = vec![nic(1)];
    s.2.last_failure = failure(StepKind::AcquirePorts, "the host's network-agent can't be reached", 3, 2_000);
    let waiting = plan(&s.0, &s.1, &s.2, 1_000);
    assert_eq!(
        (waiting.step, waiting.shown.state, waiting.wake_at),
        (Step::Wait, InstanceState::Building, Some(2_000))
    );
    assert_eq!(waiting.shown.step, format!("waiting for network port {}", nic(2).port_id));
    assert_eq!(waiting.shown.reason, "the host's network-agent can't be reached");
    assert_eq!(step(&s, 2_000).0, Step::AcquirePorts);
    s.1.taps.push(nic(2));
    assert_eq!(step(&s, 0).0, Step::Launch);
    s.1.taps[1].epoch = 0;
    assert_eq!(step(&s, 2_000).0, Step::AcquirePorts, "a tap of another epoch is another port's");
}

#[test]
fn nics_are_plugged_and_unplugged_while_it_runs_and_the_guest_is_asked_until_it_releases_them() {
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
    s.2.unplug = Some((nic(1).port_id, Requests { first: 0, last: 0 }));
    let requested = plan(&s.0, &s.1, &s.2, 1_000);
    assert_eq!((requested.step, requested.wake_at, requested.shown.reason.as_str()), (Step::Wait, Some(6_000), ""));
    assert_eq!(step(&s, 6_000).0, Step::UnplugNic(device(1, 1)), "asked again");
    s.2.unplug = Some((nic(1).port_id, Requests { first: 0, last: 18_000 }));
    let late = plan(&s.0, &s.1, &s.2, 20_000);
    assert!(late.shown.reason.contains("hasn't released the NIC"), "{}", late.shown.reason);
    assert!(!late.shown.converged, "a nic that is in is never said to be out");
    // Stopping it is a way out of this too.
    s.0.desired.spec.power = Power::Off;
    assert_eq!(step(&s, 20_000).0, Step::Powerdown);
    s.0.desired.spec.power = Power::Paused;
    assert_eq!(step(&s, 20_000).0, Step::Pause, "nothing waits for a guest that doesn't listen");
    s.1.process = ObservedProcess::Speaking(Machine::Paused);
    assert!(plan(&s.0, &s.1, &s.2, 20_000).shown.reason.contains("resume the instance"));

    s.0.desired.spec.power = Power::On;
    s.1.process = ObservedProcess::Speaking(Machine::Running);
    s.1.nics.clear();
    assert_eq!(step(&s, 0).0, Step::ReleaseNics(vec![nic(1)]));
    s.0.done.nics.clear();
    assert!(plan(&s.0, &s.1, &s.2, 0).shown.converged);
}

#[test]
fn what_is_down_releases_its_ports_and_is_stopped_all_the_while() {
    let mut s = off();
    s.0.desired.nics = vec![nic(1)];
    assert_eq!(step(&s, 0).0, Step::Wait, "nothing was acquired");
    s.0.done.nics = vec![nic(1), nic(2)];
    let both = || Step::ReleaseNics(vec![nic(1), nic(2)]);
    let freeing = plan(&s.0, &s.1, &s.2, 0);
    assert_eq!((freeing.step, freeing.shown.state), (both(), InstanceState::Stopped));
    assert!(freeing.shown.converged, "that the network-agent is away keeps nobody from being stopped");
    s.0.done.halt = halt(&s.0, HaltCause::GuestPowerOff, "it powered itself off");
    s.0.desired.spec.power = Power::On;
    assert_eq!(step(&s, 0), (both(), InstanceState::Stopped));

    // A deletion tries, and doesn't wait for ever.
    s.0.desired.spec.deleted = true;
    s.1 = nothing();
    let failed = |count| failure(StepKind::Nics, "away", count, 0);
    s.2.last_failure = failed(2);
    assert_eq!(step(&s, 0).0, both());
    s.2.last_failure = failed(3);
    assert_eq!(step(&s, 0).0, Step::WriteTombstone);
}
