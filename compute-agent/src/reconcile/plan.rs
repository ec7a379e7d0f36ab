//! What to do next about one instance, and what to say of it. Pure: (what the ledger says, what is really there, what was tried,
//! the time) in, one step out.
//!
//! The problem: commands, crashes, restarts of the agent and of the host arrive in any order and at any point of any other one. A
//! script per command ("to reboot: ask, wait, start") breaks when it is cut in the middle, so there is none: after every step and
//! every event the whole question is asked again, and only the difference between *wanted* and *seen* answers it. What a step left
//! half-done looks to the next run like anything else that isn't as it should be.
//!
//! Choices that aren't obvious:
//! - **A guest that powers itself off stays off.** QEMU holds still in `shutdown`; the halt is written to the ledger before QEMU is
//!   ended, and is shown as `stopped` with the reason, although `power` is still on. It is lifted by a higher `boot_seq` (the
//!   manager raises it for a start of an instance that is down) and by `power` having been off in between. A guest that ended
//!   because *we* pressed its power button isn't such a guest.
//! - **Reboots are counters.** `done.boot_seq` catches up with `spec.boot_seq` by a reset, or by a graceful stop and a new start; a
//!   start does with it at once.
//! - **Which root disk is the right one is in its name** (`root_seq`), so that no crash can make a rebuild happen twice or not at
//!   all. A disk of a *higher* number than asked for is kept: a manager restored from a backup must not cost anyone's data.
//! - **A rebuild fetches first**: when the new image can't be had, the instance goes on with its old disk.
//! - **A QEMU that is gone is a crash unless something wanted it gone**: the desired state, our own quit, or a boot of the host.
//! - **Failures are remembered per kind of step**: an image that can't be fetched delays the next fetch, not a deletion.

pub use super::observed::*;
use super::plan_nics::{NicStep, plan_nics};

use crate::ledger::{Desired, Done, Entry, Halt, HaltCause, Running};
use domain::instance::{InstanceState, Power};

/// The power button is pressed again this often: a guest that is still booting misses the first.
const ASK_AGAIN_MS: u64 = 3_000;
/// Attempts to speak with a QEMU before one that should end is killed.
const SILENT_ATTEMPTS: u32 = 3;
/// A guest that hasn't let a NIC go is asked again this often (QEMU refuses to ask more than every 5 s).
const UNPLUG_AGAIN_MS: u64 = 6_000;
/// After so long it is said what is waited for.
const UNPLUG_EXPLAINED_AFTER_MS: u64 = 20_000;
/// Attempts to release ports before an instance gets its tombstone all the same: its proof of deletion hangs on no other agent.
const FREE_ATTEMPTS: u32 = 3;
/// After a disk error stopped the guest, it is let go on this often.
const IO_RETRY_MS: u64 = 10_000;

#[must_use]
pub fn plan(entry: &Entry, observed: &Observed, attempts: &Attempts, now: u64) -> Plan {
    let planner = Planner { desired: &entry.desired, done: &entry.done, observed, attempts, now };
    planner.hold_back(planner.next_step())
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
            return self.say(Step::Settle(self.exit_of(running)), self.between(), "");
        }
        if spec.deleted {
            return self.delete();
        }
        if spec.power == Power::Off && self.done.halt.is_some() {
            return self.say(Step::LiftHalt, self.between(), "");
        }
        if let Some(halt) = &self.done.halt
            && self.lifts(halt)
        {
            return self.say(Step::LiftHalt, self.between(), "");
        }
        match self.observed.process {
            ObservedProcess::None => self.down(),
            ObservedProcess::Silent => self.silent(),
            ObservedProcess::Speaking(machine) => self.up(machine),
        }
    }

    /// Whether what the desired state says now makes the halted instance start again.
    fn lifts(&self, halt: &Halt) -> bool {
        match halt.cause {
            HaltCause::GuestPowerOff | HaltCause::Crash => self.desired.spec.boot_seq > halt.boot_seq,
            // Any change may be the cure.
            HaltCause::CrashLoop => self.desired.version > halt.version,
        }
    }

    /// Whether this QEMU was to go on.
    fn wants(&self, running: &Running) -> bool {
        let spec = &self.desired.spec;
        !spec.deleted
            && spec.power != Power::Off
            && self.done.halt.is_none()
            && running.root_seq >= spec.root_seq
            && self.done.boot_seq >= spec.boot_seq
            && self.fits(running)
    }

    fn fits(&self, running: &Running) -> bool {
        let size = self.desired.spec.size;
        running.vcpus == size.vcpus && running.memory_mib == size.memory_mib && running.disk_gib >= size.disk_gib
    }

    fn exit_of(&self, running: &Running) -> Exit {
        if running.process.boot_id != self.observed.boot_id {
            return Exit::HostRestarted;
        }
        if self.attempts.broken.is_none() && (self.attempts.ending || !self.wants(running)) {
            return Exit::Expected;
        }
        if self.attempts.fresh { Exit::FailedStart } else { Exit::Crashed }
    }

    fn rebuilding(&self) -> bool {
        self.desired.spec.root_seq > self.done.root_seq && self.done.started_at.is_some()
    }

    /// The state to show while something is under way.
    fn between(&self) -> InstanceState {
        let spec = &self.desired.spec;
        if spec.deleted {
            return InstanceState::Deleting;
        }
        let state = match self.observed.process {
            _ if self.rebuilding() => InstanceState::Rebuilding,
            ObservedProcess::Speaking(Machine::Running | Machine::Between) => InstanceState::Running,
            ObservedProcess::Speaking(Machine::Paused | Machine::IoError) => InstanceState::Paused,
            // About to go; what comes next says what it was.
            ObservedProcess::Speaking(Machine::PoweredOff | Machine::Panicked | Machine::Broken) => {
                self.attempts.shown.unwrap_or(InstanceState::Running)
            }
            ObservedProcess::None if spec.power == Power::Off || self.done.halt.is_some() => {
                // A first preparation is a building, also of what then stays off.
                let building = self.attempts.shown == Some(InstanceState::Building);
                if building { InstanceState::Building } else { InstanceState::Stopped }
            }
            // Adopted, or its monitor is lost for a moment: nothing changed for its owner.
            ObservedProcess::Silent if !self.attempts.fresh => match self.attempts.shown {
                Some(InstanceState::Paused) => InstanceState::Paused,
                Some(_) | None => InstanceState::Running,
            },
            _ => InstanceState::Building,
        };
        match self.attempts.shown {
            Some(before) if !InstanceState::valid_transition(before, state) => InstanceState::Building,
            Some(_) | None => state,
        }
    }

    fn say(&self, step: Step, state: InstanceState, doing: impl Into<String>) -> Plan {
        let shown = Shown { state, step: doing.into(), reason: String::new(), converged: false };
        Plan { step, shown, wake_at: None }
    }

    fn settled(&self, state: InstanceState, reason: impl Into<String>) -> Plan {
        let shown = Shown { state, step: String::new(), reason: reason.into(), converged: true };
        Plan { step: Step::Wait, shown, wake_at: None }
    }

    fn delete(&self) -> Plan {
        let say = |step, doing: &str| self.say(step, InstanceState::Deleting, doing);
        if self.observed.process != ObservedProcess::None {
            return say(Step::Kill(Cause::Delete), "ending QEMU");
        }
        if let Some(disk) = self.observed.disks.first() {
            return say(Step::DestroyDisk { root_seq: disk.root_seq }, "destroying the disk");
        }
        if self.observed.anything {
            return say(Step::RemoveLeftovers, "removing what is left");
        }
        let given_up =
            self.attempts.failure.as_ref().is_some_and(|f| f.step == StepKind::Nics && f.count >= FREE_ATTEMPTS);
        if !self.done.nics.is_empty() && !given_up {
            return say(Step::FreeNics(self.done.nics.clone()), "giving its network ports back");
        }
        say(Step::WriteTombstone, "")
    }

    fn silent(&self) -> Plan {
        let spec = &self.desired.spec;
        let given_up =
            self.attempts.failure.as_ref().is_some_and(|f| f.step == StepKind::Attach && f.count >= SILENT_ATTEMPTS);
        let unwanted = self.done.process.as_ref().is_none_or(|running| !self.wants(running));
        if unwanted && (given_up || (spec.power == Power::Off && spec.stop_timeout_secs == 0)) {
            return self.say(Step::Kill(Cause::Off), self.between(), "ending QEMU, which doesn't answer");
        }
        self.say(Step::Attach, self.between(), "waiting for QEMU")
    }

    fn up(&self, machine: Machine) -> Plan {
        let spec = &self.desired.spec;
        let (booted, fits, root) = match &self.done.process {
            Some(running) => {
                (self.done.boot_seq >= spec.boot_seq, self.fits(running), running.root_seq >= spec.root_seq)
            }
            // Found in the instance's cgroup, unrecorded: what it was started as isn't known.
            None => (true, true, true),
        };
        if !root {
            if !self.observed.image {
                return self.say(Step::FetchImage, self.between(), self.fetching());
            }
            return self.say(Step::Kill(Cause::Rebuild), self.between(), "ending QEMU for the rebuild");
        }
        match machine {
            Machine::PoweredOff if spec.power != Power::Off && booted && fits && self.attempts.asked.is_none() => {
                if self.done.halt.is_some() {
                    return self.say(Step::Kill(Cause::Ended), InstanceState::Stopped, "ending QEMU");
                }
                let reason = "the guest powered itself off; start it to bring it up again".to_owned();
                return self.say(Step::Halt { cause: HaltCause::GuestPowerOff, reason }, self.between(), "");
            }
            Machine::PoweredOff => return self.say(Step::Kill(Cause::Ended), self.between(), "ending QEMU"),
            Machine::Panicked | Machine::Broken if spec.power != Power::Off && booted => {
                let what = match machine {
                    Machine::Panicked => "the guest's kernel panicked",
                    _ => "QEMU met an internal error",
                };
                return self.say(Step::Kill(Cause::Broken(what)), self.between(), "ending QEMU");
            }
            Machine::Panicked | Machine::Broken => {
                return self.say(Step::Kill(Cause::Ended), self.between(), "ending QEMU");
            }
            Machine::Between => {
                return Plan { wake_at: Some(self.now + 500), ..self.say(Step::Wait, self.between(), "") };
            }
            Machine::Prelaunch | Machine::Running | Machine::Paused | Machine::IoError => {}
        }
        if self.done.halt.is_some() {
            return self.say(Step::Kill(Cause::Ended), InstanceState::Stopped, "ending QEMU");
        }
        if spec.power == Power::Off {
            return self.end_gracefully(machine, Cause::Off, "stopping");
        }
        if !fits {
            return self.end_gracefully(machine, Cause::Resize, "stopping to take the new size");
        }
        if !booted {
            return match machine {
                // Not a single instruction ran: that is as fresh as a boot gets.
                Machine::Prelaunch => self.say(Step::Booted, self.between(), ""),
                Machine::Running if !spec.boot_hard && spec.stop_timeout_secs > 0 => {
                    self.end_gracefully(machine, Cause::Reboot, "rebooting")
                }
                Machine::Running | Machine::Paused | Machine::IoError | Machine::PoweredOff => {
                    self.say(Step::Reset, self.between(), "resetting")
                }
                Machine::Panicked | Machine::Broken | Machine::Between => unreachable!("answered above"),
            };
        }
        self.run_or_pause(machine)
    }

    fn run_or_pause(&self, machine: Machine) -> Plan {
        let paused = self.desired.spec.power == Power::Paused;
        match machine {
            Machine::Running if paused => self.say(Step::Pause, InstanceState::Running, "pausing"),
            Machine::Running => self.nics(InstanceState::Running),
            Machine::Prelaunch | Machine::Paused if paused => self.nics(InstanceState::Paused),
            Machine::IoError if paused => self.nics(InstanceState::Paused),
            Machine::Prelaunch => self.say(Step::Cont, InstanceState::Building, "starting"),
            Machine::Paused => self.say(Step::Cont, InstanceState::Paused, "resuming"),
            Machine::IoError => {
                let retry_at = self.attempts.io_retried.map_or(self.now, |at| at + IO_RETRY_MS);
                let step = if self.now >= retry_at { Step::Cont } else { Step::Wait };
                let mut plan = self.say(step, InstanceState::Error, "");
                plan.shown.reason =
                    "a disk error on the host stopped the guest (is its disk full?); it goes on when writing works again".into();
                plan.wake_at = Some(retry_at.max(self.now + 1));
                plan
            }
            Machine::PoweredOff | Machine::Panicked | Machine::Broken | Machine::Between => {
                unreachable!("answered before")
            }
        }
    }

    /// The NICs of a machine that is otherwise as it must be, in this state.
    fn nics(&self, state: InstanceState) -> Plan {
        match plan_nics(&self.desired.nics, &self.done.nics, &self.observed.nics) {
            None => self.settled(state, ""),
            Some(NicStep::Plug { nic, slot }) => {
                self.say(Step::PlugNic { nic, slot }, state, format!("plugging in network port {}", nic.port_id))
            }
            Some(NicStep::Free(nic)) => {
                self.say(Step::FreeNics(vec![nic]), state, format!("giving network port {} back", nic.port_id))
            }
            Some(NicStep::Unplug(device)) => self.unplug(device, state),
        }
    }

    /// Taking a NIC out is the guest's to do.
    fn unplug(&self, device: ObservedNic, state: InstanceState) -> Plan {
        let doing = format!("taking out network port {}", device.port_id);
        let asked = self.attempts.unplug.filter(|u| u.port_id == device.port_id);
        let Some(Unplugging { first, last, .. }) = asked else {
            return self.say(Step::UnplugNic(device), state, doing);
        };
        let again = last + UNPLUG_AGAIN_MS;
        let step = if self.now >= again { Step::UnplugNic(device) } else { Step::Wait };
        let mut plan = self.say(step, state, doing);
        plan.wake_at = Some(again.max(self.now + 1));
        if state == InstanceState::Paused {
            plan.shown.reason = "a paused guest can't let a network card go: resume it".to_owned();
        } else if self.now >= first + UNPLUG_EXPLAINED_AFTER_MS {
            plan.shown.reason =
                "the guest hasn't let the network card go yet (is it still booting?); it is asked again".to_owned();
        }
        plan
    }

    /// Down, and to stay so: its addresses answer no more.
    fn stays_down(&self, mut plan: Plan) -> Plan {
        if !self.done.nics.is_empty() {
            plan.step = Step::FreeNics(self.done.nics.clone());
        }
        plan
    }

    /// Asks the guest to end, again and again, and ends QEMU at the deadline.
    fn end_gracefully(&self, machine: Machine, cause: Cause, doing: &str) -> Plan {
        let timeout_ms = u64::from(self.desired.spec.stop_timeout_secs) * 1000;
        let state = self.between();
        match machine {
            Machine::Running if timeout_ms > 0 => {}
            // A stopped guest hears no power button.
            Machine::Paused if timeout_ms > 0 => return self.say(Step::Cont, state, doing),
            _ => return self.say(Step::Kill(cause), state, doing),
        }
        let doing = format!("{doing} (the guest may take {} s)", timeout_ms / 1000);
        let Some((first, last)) = self.attempts.asked else { return self.say(Step::Powerdown, state, doing) };
        let deadline = first + timeout_ms;
        if self.now >= deadline {
            return self.say(Step::Kill(cause), state, "the guest didn't stop in time; ending QEMU");
        }
        let again = last + ASK_AGAIN_MS;
        if self.now >= again {
            return self.say(Step::Powerdown, state, doing);
        }
        Plan { wake_at: Some(deadline.min(again)), ..self.say(Step::Wait, state, doing) }
    }

    fn fetching(&self) -> String {
        match &self.attempts.fetched {
            Some(part) => format!("fetching the image ({part})"),
            None => "fetching the image".to_owned(),
        }
    }

    /// No QEMU.
    fn down(&self) -> Plan {
        let spec = &self.desired.spec;
        let starts = spec.power != Power::Off && self.done.halt.is_none();
        let newest = self.observed.disks.last();
        let disk_right = self.desired.root_disk.is_none() || newest.is_some_and(|d| d.root_seq >= spec.root_seq);
        let root_written = self.done.root_seq >= spec.root_seq;
        if !disk_right || !root_written || (starts && !self.observed.config_drive) {
            let needs_image = !disk_right || starts;
            if needs_image && !self.observed.image {
                return self.say(Step::FetchImage, self.preparing(), self.fetching());
            }
            let step = Step::Prepare { disk: !disk_right, config_drive: starts && !self.observed.config_drive };
            return self.say(step, self.preparing(), "preparing");
        }
        if let [stale, _newer, ..] = self.observed.disks.as_slice() {
            return self.say(
                Step::DestroyDisk { root_seq: stale.root_seq },
                self.preparing(),
                "destroying the old disk",
            );
        }
        if self.desired.root_disk.is_some() && newest.is_some_and(|d| d.size_gib < spec.size.disk_gib) {
            return self.say(Step::GrowDisk, self.preparing(), "growing the disk");
        }
        if let Some(halt) = &self.done.halt {
            return match halt.cause {
                HaltCause::GuestPowerOff | HaltCause::Crash => {
                    self.stays_down(self.settled(InstanceState::Stopped, halt.reason.clone()))
                }
                HaltCause::CrashLoop => {
                    let mut plan = self.settled(InstanceState::Error, halt.reason.clone());
                    plan.shown.converged = false;
                    self.stays_down(plan)
                }
            };
        }
        if !starts {
            return self.stays_down(self.settled(InstanceState::Stopped, ""));
        }
        if !self.observed.image && self.desired.image.kind == domain::image::ImageKind::Kernel {
            return self.say(Step::FetchImage, self.preparing(), self.fetching());
        }
        if self.now < self.attempts.start_not_before {
            let mut plan = self.say(Step::Wait, self.preparing(), "starting again after a crash");
            plan.shown.reason = self.attempts.broken.clone().unwrap_or_default();
            plan.wake_at = Some(self.attempts.start_not_before);
            return plan;
        }
        if let Some(nic) = self.desired.nics.iter().find(|nic| !self.observed.taps.contains(nic)) {
            // Mostly they are there at once, and nothing is to be said.
            let waited = self.attempts.failure.as_ref().is_some_and(|f| f.step == StepKind::AcquirePorts);
            let doing = format!("waiting for network port {}", nic.port_id);
            let doing = if waited { doing } else { "starting QEMU".to_owned() };
            return self.say(Step::AcquirePorts, self.preparing(), doing);
        }
        self.say(Step::Launch, self.preparing(), "starting QEMU")
    }

    /// The state while disks are made and QEMU is started.
    fn preparing(&self) -> InstanceState {
        if self.rebuilding() {
            return self.between();
        }
        if self.desired.spec.power == Power::Off && self.done.started_at.is_some() {
            return InstanceState::Stopped;
        }
        InstanceState::Building
    }

    /// A step that failed waits for its turn, and its failure is shown.
    fn hold_back(&self, mut plan: Plan) -> Plan {
        let Some(failure) = &self.attempts.failure else { return plan };
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
