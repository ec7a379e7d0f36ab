//! Decides which step to take next for one instance, and what to report of it. Pure: (what the ledger says, what is observed on the
//! host, what was attempted, the time) in, one step out.
//!
//! The problem: commands, crashes, restarts of the agent and of the host arrive in any order and at any point of any other one. A
//! script per command ("to reboot: ask, wait, start") breaks when it is cut in the middle, so there is none: after every step and
//! every event the whole decision is made again, and only the difference between *desired* and *observed* determines it. What a step
//! left half-done looks to the next decision like anything else that isn't as it should be.
//!
//! Choices that aren't obvious:
//! - **A guest that powers itself off stays off.** QEMU holds still in `shutdown`; the halt is written to the ledger before QEMU is
//!   ended, and is shown as `stopped` with the reason, although `power` is still on. It is lifted by a higher `boot_seq` (the
//!   manager raises it for a start of an instance that is down) and by `power` having been off in between. A guest that ended
//!   because *we* pressed its power button isn't such a guest.
//! - **Reboots are counters.** `done.boot_seq` catches up with `spec.boot_seq` by a reset, or by a graceful stop and a new start; a
//!   start does so at once.
//! - **Which disk is the right one is in its file's name** (the root disk's is numbered by `root_seq`), so that no crash can make a
//!   rebuild happen twice or not at all. A disk of a *higher* number than desired is kept: a manager restored from a backup must not
//!   cost anyone's data.
//! - **A disk that was used is never made anew.** A disk with which the instance ran and which isn't there is lost, and so is one whose
//!   image is gone from under it. To make an empty one in its place would show a healthy instance whose data is gone. So it is an error
//!   until the file is back, or until a rebuild demands another one. The manager says it as well, in case the ledger was lost too.
//! - **A rebuild fetches first**: when the new image can't be fetched, the instance goes on with its old disk.
//! - **A guest that hangs is restarted in place**, as one that crashed, with the same back-off: where it armed its watchdog, and that expired, or
//!   where QEMU itself stopped answering. A QEMU that was only not reached for a moment is left alone.
//! - **A QEMU that is gone is a crash unless something intended its end**: the desired state, our own quit, or a boot of the host.
//! - **Failures are remembered per kind of step**: an image that can't be fetched delays the next fetch, not a deletion.

use super::{
    attempts::Attempts,
    layout::DiskFile,
    observed::{Machine, Observed, ObservedNic, ObservedProcess},
    plan_nics::{NicStep, plan_nics},
    starts::Permit,
    step::{Cause, Exit, Plan, SILENT_ATTEMPTS, Shown, Step, StepKind},
};
use crate::ledger::{Desired, Disk, Done, Entry, Halt, HaltCause, Running};
use domain::{
    image::ImageKind,
    instance::{InstanceState, Power, ROOT_DISK},
};

/// The power button is pressed again after this time, because a guest that is still booting misses the first press.
const POWERDOWN_AGAIN_MS: u64 = 3_000;
/// A guest that hasn't released a NIC is asked again after this time (QEMU refuses to ask more often than every 5 s).
const UNPLUG_AGAIN_MS: u64 = 6_000;
/// After this time the report says that the guest hasn't released the NIC.
const UNPLUG_EXPLAINED_AFTER_MS: u64 = 20_000;
/// After this many failed attempts to release ports the tombstone is written all the same: the proof of a deletion depends on no
/// other agent.
const RELEASE_ATTEMPTS: u32 = 3;
/// After a disk error stopped the guest, it is resumed again after this time.
const IO_RETRY_MS: u64 = 10_000;
/// A guest that was resumed after a disk error is shown as running again once it ran for this long.
const IO_CALM_MS: u64 = 30_000;
/// A shared pool that can't be used is looked at again after this time.
const POOL_AGAIN_MS: u64 = 5_000;
/// A state in between is observed again after this time.
const BETWEEN_MS: u64 = 500;

#[must_use]
pub fn plan(entry: &Entry, observed: &Observed, attempts: &Attempts, now: u64) -> Plan {
    let planner = Planner { desired: &entry.desired, done: &entry.done, observed, attempts, now };
    planner.delay_failed_step(planner.next_step())
}

struct Planner<'a> {
    desired: &'a Desired,
    done: &'a Done,
    observed: &'a Observed,
    attempts: &'a Attempts,
    now: u64,
}

impl Planner<'_> {
    fn next_step(&self) -> Plan {
        let spec = &self.desired.spec;
        if let (Some(running), ObservedProcess::None) = (&self.done.process, self.observed.process) {
            return self.take(Step::Settle(self.exit_of(running)), "");
        }
        if spec.deleted {
            return self.delete();
        }
        if let Some(halt) = &self.done.halt
            && (spec.power == Power::Off || self.lifts(halt))
        {
            return self.take(Step::LiftHalt, "");
        }
        match self.observed.process {
            ObservedProcess::None => self.plan_stopped(),
            ObservedProcess::Silent => self.plan_silent(),
            ObservedProcess::Unresponsive => self.plan_unresponsive(),
            ObservedProcess::Speaking(machine) => self.plan_running(machine),
        }
    }

    /// Whether the desired state makes the halted instance start again.
    fn lifts(&self, halt: &Halt) -> bool {
        match halt.cause {
            HaltCause::GuestPowerOff | HaltCause::Crash => self.desired.spec.boot_seq > halt.boot_seq,
            // Any change may be the cure.
            HaltCause::CrashLoop => self.desired.version > halt.version,
        }
    }

    /// Whether this QEMU was meant to go on.
    fn should_continue(&self, running: &Running) -> bool {
        let spec = &self.desired.spec;
        !spec.deleted
            && spec.power != Power::Off
            && self.done.halt.is_none()
            && running.launched.root_seq >= spec.root_seq
            && self.done.boot_seq >= spec.boot_seq
            && self.has_desired_size(running)
    }

    fn has_desired_size(&self, running: &Running) -> bool {
        let size = self.desired.spec.size;
        let launched = running.launched.size;
        launched.vcpus == size.vcpus && launched.memory_mib == size.memory_mib && launched.disk_gib >= size.disk_gib
    }

    fn exit_of(&self, running: &Running) -> Exit {
        if running.process.boot_id != self.observed.boot_id {
            return Exit::HostRestarted;
        }
        if self.attempts.broken.is_none() && (self.attempts.ending || !self.should_continue(running)) {
            return Exit::Expected;
        }
        if self.attempts.fresh { Exit::FailedStart } else { Exit::Crashed }
    }

    fn rebuilding(&self) -> bool {
        self.desired.spec.root_seq > self.done.root_seq && self.done.started_at.is_some()
    }

    /// The state to show while something is under way.
    fn transitional_state(&self) -> InstanceState {
        let spec = &self.desired.spec;
        if spec.deleted {
            return InstanceState::Deleting;
        }
        let shown = self.attempts.shown;
        let state = match self.observed.process {
            _ if self.rebuilding() => InstanceState::Rebuilding,
            ObservedProcess::Speaking(Machine::Running | Machine::Between) => InstanceState::Running,
            ObservedProcess::Speaking(Machine::Paused | Machine::IoError) => InstanceState::Paused,
            // This QEMU is about to end; what follows tells what it was.
            ObservedProcess::Speaking(Machine::PoweredOff | Machine::Panicked | Machine::Hung | Machine::Broken) => {
                shown.unwrap_or(InstanceState::Running)
            }
            ObservedProcess::None if spec.power == Power::Off || self.done.halt.is_some() => {
                // The first preparation is a building, also of an instance that then stays off.
                let building = shown == Some(InstanceState::Building);
                if building { InstanceState::Building } else { InstanceState::Stopped }
            }
            // QEMU was adopted, or its monitor is lost for a moment: nothing has changed for the owner.
            ObservedProcess::Silent | ObservedProcess::Unresponsive if !self.attempts.fresh => match shown {
                Some(InstanceState::Paused) => InstanceState::Paused,
                _ => InstanceState::Running,
            },
            ObservedProcess::None
            | ObservedProcess::Silent
            | ObservedProcess::Unresponsive
            | ObservedProcess::Speaking(Machine::Prelaunch) => InstanceState::Building,
        };
        match shown {
            Some(before) if !InstanceState::valid_transition(before, state) => InstanceState::Building,
            Some(_) | None => state,
        }
    }

    /// Takes a step, shown in the state of something under way.
    fn take(&self, step: Step, doing: impl Into<String>) -> Plan {
        Self::take_in(step, self.transitional_state(), doing)
    }

    fn take_in(step: Step, state: InstanceState, doing: impl Into<String>) -> Plan {
        let shown = Shown { state, step: doing.into(), reason: String::new(), converged: false };
        Plan { step, shown, wake_at: None }
    }

    fn settled(state: InstanceState, reason: impl Into<String>) -> Plan {
        let shown = Shown { state, step: String::new(), reason: reason.into(), converged: true };
        Plan { step: Step::Wait, shown, wake_at: None }
    }

    fn delete(&self) -> Plan {
        if self.observed.process != ObservedProcess::None {
            return self.take(Step::Kill(Cause::Delete), "ending QEMU");
        }
        if let Some(problem) = &self.observed.pool_problem {
            return self.await_pool(self.take(Step::Wait, "waiting for the shared pool"), problem);
        }
        if let Some(disk) = self.observed.disks.first() {
            return self.take(Step::DestroyDisk(disk.file.clone()), "destroying the disk");
        }
        if self.observed.anything {
            return self.take(Step::RemoveLeftovers, "removing what is left");
        }
        if !self.done.nics.is_empty() && !self.attempts.failed(StepKind::Nics, RELEASE_ATTEMPTS) {
            return self.take(Step::ReleaseNics(self.done.nics.clone()), "releasing its network ports");
        }
        self.take(Step::WriteTombstone, "")
    }

    /// Without the pool that its disks are in, nothing is known of them, and nothing is done about them.
    fn await_pool(&self, mut plan: Plan, problem: &str) -> Plan {
        problem.clone_into(&mut plan.shown.reason);
        plan.wake_at = Some(self.now + POOL_AGAIN_MS);
        plan
    }

    /// QEMU runs, and its monitor isn't connected.
    fn plan_silent(&self) -> Plan {
        let spec = &self.desired.spec;
        let should_end = self.done.process.as_ref().is_none_or(|running| !self.should_continue(running));
        let hard_stop = spec.power == Power::Off && spec.stop_timeout_secs == 0;
        if should_end && (hard_stop || self.attempts.failed(StepKind::Attach, SILENT_ATTEMPTS)) {
            return self.take(Step::Kill(Cause::Off), "ending QEMU, which doesn't answer");
        }
        self.take(Step::Attach, "waiting for QEMU")
    }

    /// QEMU runs and has not answered for so long that it won't: nobody can stop or change it, and its guest most likely stands still.
    fn plan_unresponsive(&self) -> Plan {
        let continues = self.done.process.as_ref().is_some_and(|running| self.should_continue(running));
        let cause = if continues { Cause::Broken("QEMU stopped answering") } else { Cause::Off };
        self.take(Step::Kill(cause), "ending QEMU, which doesn't answer")
    }

    /// QEMU runs, and its monitor reports this state.
    fn plan_running(&self, machine: Machine) -> Plan {
        let spec = &self.desired.spec;
        // What an unrecorded QEMU was started as isn't known: it is taken as desired.
        let (booted, sized, rebuilt) = self.done.process.as_ref().map_or((true, true, true), |running| {
            let booted = self.done.boot_seq >= spec.boot_seq;
            (booted, self.has_desired_size(running), running.launched.root_seq >= spec.root_seq)
        });
        if !rebuilt {
            if !self.observed.image {
                return self.take(Step::FetchImage, self.fetching());
            }
            return self.take(Step::Kill(Cause::Rebuild), "ending QEMU for the rebuild");
        }
        let (on, halted) = (spec.power != Power::Off, self.done.halt.is_some());
        let end = |cause| self.take(Step::Kill(cause), "ending QEMU");
        let end_halted = || Self::take_in(Step::Kill(Cause::Ended), InstanceState::Stopped, "ending QEMU");
        match machine {
            Machine::PoweredOff if on && booted && sized && self.attempts.powerdown.is_none() => {
                if halted {
                    return end_halted();
                }
                let reason = "the guest powered itself off; start the instance to run it again".to_owned();
                return self.take(Step::Halt { cause: HaltCause::GuestPowerOff, reason }, "");
            }
            Machine::Panicked if on && booted => return end(Cause::Broken("the guest's kernel panicked")),
            Machine::Hung if on && booted => return end(Cause::Broken("the guest hung: its watchdog expired")),
            Machine::Broken if on && booted => return end(Cause::Broken("QEMU reported an internal error")),
            Machine::PoweredOff | Machine::Panicked | Machine::Hung | Machine::Broken => return end(Cause::Ended),
            Machine::Between => {
                return Plan { wake_at: Some(self.now + BETWEEN_MS), ..self.take(Step::Wait, "") };
            }
            Machine::Prelaunch | Machine::Running | Machine::Paused | Machine::IoError => {}
        }
        if halted {
            return end_halted();
        }
        if !on {
            return self.end_gracefully(machine, Cause::Off, "stopping");
        }
        if !sized {
            return self.end_gracefully(machine, Cause::Resize, "stopping to apply the new size");
        }
        if booted {
            return self.run_or_pause(machine);
        }
        match machine {
            // Not a single instruction has run, so this counts as the new boot.
            Machine::Prelaunch => self.take(Step::Booted, ""),
            Machine::Running if !spec.boot_hard && spec.stop_timeout_secs > 0 => {
                self.end_gracefully(machine, Cause::Reboot, "rebooting")
            }
            Machine::Running | Machine::Paused | Machine::IoError => self.take(Step::Reset, "resetting"),
            Machine::PoweredOff | Machine::Panicked | Machine::Hung | Machine::Broken | Machine::Between => {
                unreachable!("these states are handled above")
            }
        }
    }

    fn run_or_pause(&self, machine: Machine) -> Plan {
        let paused = self.desired.spec.power == Power::Paused;
        match machine {
            Machine::Running if paused => Self::take_in(Step::Pause, InstanceState::Running, "pausing"),
            Machine::Running => {
                let plan = self.plan_nics(InstanceState::Running);
                match self.attempts.io_retried.map(|at| at + IO_CALM_MS) {
                    // Whether the disk takes writes again isn't known yet: the timeline shall not say so every few seconds.
                    Some(calm_at) if self.now < calm_at => Self::io_error(plan.step, calm_at),
                    Some(_) | None => plan,
                }
            }
            Machine::Prelaunch | Machine::Paused | Machine::IoError if paused => self.plan_nics(InstanceState::Paused),
            Machine::Prelaunch => Self::take_in(Step::Cont, InstanceState::Building, "starting"),
            Machine::Paused => Self::take_in(Step::Cont, InstanceState::Paused, "resuming"),
            Machine::IoError => {
                let retry_at = self.attempts.io_retried.map_or(self.now, |at| at + IO_RETRY_MS);
                let step = if self.now >= retry_at { Step::RetryIo } else { Step::Wait };
                Self::io_error(step, retry_at.max(self.now + 1))
            }
            Machine::PoweredOff | Machine::Panicked | Machine::Hung | Machine::Broken | Machine::Between => {
                unreachable!("these states are handled before")
            }
        }
    }

    fn io_error(step: Step, wake_at: u64) -> Plan {
        let mut plan = Self::take_in(step, InstanceState::Error, "");
        plan.shown.reason =
            "a disk error on the host stopped the guest (is the host's disk full?); the guest continues when \
                             writes succeed again"
                .into();
        plan.wake_at = Some(wake_at);
        plan
    }

    /// Brings the NICs of a machine in order that is otherwise as desired; `state` is shown meanwhile.
    fn plan_nics(&self, state: InstanceState) -> Plan {
        match plan_nics(&self.desired.nics, &self.done.nics, &self.observed.nics) {
            None => Self::settled(state, ""),
            Some(NicStep::Plug { nic, slot }) => {
                let doing = format!("plugging in network port {}", nic.port_id);
                Self::take_in(Step::PlugNic { nic, slot }, state, doing)
            }
            Some(NicStep::Release(nic)) => {
                Self::take_in(Step::ReleaseNics(vec![nic]), state, format!("releasing network port {}", nic.port_id))
            }
            Some(NicStep::Unplug(device)) => self.unplug(device, state),
        }
    }

    /// Only the guest can release a NIC.
    fn unplug(&self, device: ObservedNic, state: InstanceState) -> Plan {
        let doing = format!("unplugging network port {}", device.port_id);
        let requests =
            self.attempts.unplug.filter(|(port_id, _)| *port_id == device.port_id).map(|(_, requests)| requests);
        let Some(requests) = requests else { return Self::take_in(Step::UnplugNic(device), state, doing) };
        let again = requests.last + UNPLUG_AGAIN_MS;
        let step = if self.now >= again { Step::UnplugNic(device) } else { Step::Wait };
        let mut plan = Self::take_in(step, state, doing);
        plan.wake_at = Some(again.max(self.now + 1));
        if state == InstanceState::Paused {
            plan.shown.reason = "a paused guest can't release a NIC: resume the instance".to_owned();
        } else if self.now >= requests.first + UNPLUG_EXPLAINED_AFTER_MS {
            plan.shown.reason =
                "the guest hasn't released the NIC yet (is it still booting?); it will be asked again".to_owned();
        }
        plan
    }

    /// An instance that is down and stays so releases its ports: its addresses answer no more.
    fn release_ports(&self, mut plan: Plan) -> Plan {
        if !self.done.nics.is_empty() {
            plan.step = Step::ReleaseNics(self.done.nics.clone());
        }
        plan
    }

    /// Asks the guest to shut down, again and again, and ends QEMU at the deadline.
    fn end_gracefully(&self, machine: Machine, cause: Cause, doing: &str) -> Plan {
        let timeout_ms = u64::from(self.desired.spec.stop_timeout_secs) * 1000;
        match machine {
            Machine::Running if timeout_ms > 0 => {}
            // A paused guest doesn't notice its power button.
            Machine::Paused if timeout_ms > 0 => return self.take(Step::Cont, doing),
            Machine::Running
            | Machine::Paused
            | Machine::Prelaunch
            | Machine::IoError
            | Machine::PoweredOff
            | Machine::Panicked
            | Machine::Hung
            | Machine::Broken
            | Machine::Between => return self.take(Step::Kill(cause), doing),
        }
        let doing = format!("{doing} (the guest has {} s to shut down)", timeout_ms / 1000);
        let Some(requests) = self.attempts.powerdown else { return self.take(Step::Powerdown, doing) };
        let (deadline, again) = (requests.first + timeout_ms, requests.last + POWERDOWN_AGAIN_MS);
        if self.now >= deadline {
            return self.take(Step::Kill(cause), "the guest didn't shut down in time; ending QEMU");
        }
        if self.now >= again {
            return self.take(Step::Powerdown, doing);
        }
        Plan { wake_at: Some(deadline.min(again)), ..self.take(Step::Wait, doing) }
    }

    fn fetching(&self) -> String {
        match &self.attempts.fetched {
            Some(part) => format!("fetching the image ({part})"),
            None => "fetching the image".to_owned(),
        }
    }

    /// No QEMU runs.
    fn plan_stopped(&self) -> Plan {
        if let Some(problem) = &self.observed.pool_problem {
            let mut plan = Self::settled(InstanceState::Error, "");
            plan.shown.converged = false;
            return self.release_ports(self.await_pool(plan, problem));
        }
        if let Some(plan) = self.plan_disks() {
            return plan;
        }
        match &self.done.halt {
            Some(halt) if halt.cause == HaltCause::CrashLoop => {
                let mut plan = Self::settled(InstanceState::Error, halt.reason.clone());
                plan.shown.converged = false;
                self.release_ports(plan)
            }
            Some(halt) => self.release_ports(Self::settled(InstanceState::Stopped, halt.reason.clone())),
            None if self.desired.spec.power == Power::Off => {
                self.release_ports(Self::settled(InstanceState::Stopped, ""))
            }
            None => self.plan_start(),
        }
    }

    /// Makes, replaces and grows the disks, and makes the config drive of an instance that is about to start.
    fn plan_disks(&self) -> Option<Plan> {
        let spec = &self.desired.spec;
        let prepare = |step, doing: String| Some(Self::take_in(step, self.preparing_state(), doing));
        let files = || self.desired.disks.iter().map(|disk| (disk, DiskFile::of(disk, spec)));
        let missing: Vec<DiskFile> = files()
            .map(|(_, file)| file)
            .filter(|file| self.observed.newest_disk(&file.role).is_none_or(|newest| newest.file.seq < file.seq))
            .collect();
        if let Some(plan) = self.plan_lost_disk(&missing) {
            return Some(plan);
        }
        let starts = spec.power != Power::Off && self.done.halt.is_none();
        let config_drive = starts && !self.observed.config_drive;
        if !missing.is_empty() || self.done.root_seq < spec.root_seq || config_drive {
            if (starts || !missing.is_empty()) && !self.observed.image {
                return prepare(Step::FetchImage, self.fetching());
            }
            return prepare(Step::Prepare { disks: missing, config_drive }, "preparing".to_owned());
        }
        if let Some(disk) = self.observed.replaced_disk() {
            return prepare(Step::DestroyDisk(disk.file.clone()), "destroying the old disk".to_owned());
        }
        let small = files().find_map(|(disk, file)| {
            let newest = self.observed.newest_disk(&file.role)?;
            let size_gib = self.desired.disk_size_gib(disk);
            (newest.size_gib < size_gib).then(|| Step::GrowDisk { file: newest.file.clone(), size_gib })
        });
        small.and_then(|step| prepare(step, "growing the disk".to_owned()))
    }

    /// A disk that was used and isn't there, or whose image isn't: nothing is made in its place.
    fn plan_lost_disk(&self, missing: &[DiskFile]) -> Option<Plan> {
        let lost = missing.iter().find(|file| self.was_used(file));
        let lies_on_nothing = |file: &DiskFile| {
            let newest = self.observed.newest_disk(&file.role);
            newest.is_some_and(|newest| newest.base_gone && newest.file.seq >= file.seq)
        };
        let mut desired = self.desired.disks.iter().map(|disk| DiskFile::of(disk, &self.desired.spec));
        let (disk, what) = match (lost, desired.find(lies_on_nothing)) {
            (Some(file), _) => (file.clone(), "is gone from its host"),
            (None, Some(file)) => (file, "can't be read, because the image that it lies on is gone from its host"),
            (None, None) => return None,
        };
        let rebuild =
            if disk.role == ROOT_DISK { ", or rebuild the instance to get a new disk from its image" } else { "" };
        let reason = format!("its {} disk {what}: ask the operator to restore it{rebuild}", disk.role);
        let mut plan = Self::settled(InstanceState::Error, reason);
        plan.shown.converged = false;
        Some(self.release_ports(plan))
    }

    /// Whether the instance ran on this host with this disk, or a later one of its role.
    fn was_used(&self, file: &DiskFile) -> bool {
        let here = self.done.used_disks.iter().any(|used| used.role == file.role && used.seq >= file.seq);
        let by_manager = |disk: &Disk| disk.role == file.role && disk.used_seq.is_some_and(|seq| seq >= file.seq);
        here || self.desired.disks.iter().any(by_manager)
    }

    /// Everything on disk is as desired, and the instance must run.
    fn plan_start(&self) -> Plan {
        let prepare = |step, doing: String| Self::take_in(step, self.preparing_state(), doing);
        if !self.observed.image && self.desired.image.kind == ImageKind::Kernel {
            return prepare(Step::FetchImage, self.fetching());
        }
        match self.observed.permit {
            Permit::Granted => {}
            Permit::NotBefore { ms } => {
                return Plan { wake_at: Some(ms), ..prepare(Step::Wait, "waiting for the cluster-manager".to_owned()) };
            }
            Permit::Withheld => {
                let mut plan = self.release_ports(prepare(Step::Wait, "waiting for the cluster-manager".to_owned()));
                plan.shown.reason =
                    "its host was away: it starts when the cluster-manager says that it doesn't run elsewhere"
                        .to_owned();
                return plan;
            }
        }
        if self.now < self.attempts.start_not_before {
            let mut plan = prepare(Step::Wait, "starting again after a crash".to_owned());
            plan.shown.reason = self.attempts.broken.clone().unwrap_or_default();
            plan.wake_at = Some(self.attempts.start_not_before);
            return plan;
        }
        let starting = "starting QEMU".to_owned();
        if let Some(nic) = self.desired.nics.iter().find(|nic| !self.observed.taps.contains(nic)) {
            // Mostly the ports are there at once, and nothing needs to be said about them.
            let waited = self.attempts.failed(StepKind::AcquirePorts, 1);
            let doing = if waited { format!("waiting for network port {}", nic.port_id) } else { starting };
            return prepare(Step::AcquirePorts, doing);
        }
        prepare(Step::Launch, starting)
    }

    /// The state while disks are made and QEMU is started.
    fn preparing_state(&self) -> InstanceState {
        if self.rebuilding() {
            return self.transitional_state();
        }
        if self.desired.spec.power == Power::Off && self.done.started_at.is_some() {
            return InstanceState::Stopped;
        }
        InstanceState::Building
    }

    /// A step that failed waits until it is tried again, and its failure is shown.
    fn delay_failed_step(&self, mut plan: Plan) -> Plan {
        let Some(failure) = &self.attempts.last_failure else { return plan };
        if plan.step == Step::Wait || plan.step.kind() != failure.step {
            return plan;
        }
        if plan.shown.reason.is_empty() {
            plan.shown.reason.clone_from(&failure.reason);
        }
        if failure.fault && !self.desired.spec.deleted {
            plan.shown.state = InstanceState::Error;
        }
        if self.now < failure.retry_at {
            plan.step = Step::Wait;
            plan.wake_at = Some(failure.retry_at);
        }
        plan
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
