//! A simulated host that is disturbed at random and must always come to rest as its owner desires.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

/// A host of one instance: steps do what they do on a real host, and disturbances come between them.
struct World {
    entry: Entry,
    observed: Observed,
    attempts: Attempts,
    now: u64,
    pid: i32,
    /// How many machines run; two at the same time would be two machines on one disk.
    alive: u32,
    /// What the network-agent has handed out.
    acquired: BTreeSet<PortId>,
    /// Whether the last plugging of a NIC was cut off.
    cut: bool,
}

#[derive(Debug, Clone)]
enum Disturbance {
    AgentRestarts,
    HostRestarts,
    QemuDies,
    GuestPowersOff,
    GuestPanics,
    Power(u8),
    Reboot(bool),
    Rebuild,
    Resize,
    Nics(u8),
    ImageEvicted,
    DiskLost,
    Steps(u8),
}

impl World {
    fn step(&mut self) -> Plan {
        let plan = plan(&self.entry, &self.observed, &self.attempts, self.now);
        if let Some(before) = self.attempts.shown {
            let to = plan.shown.state;
            assert!(InstanceState::valid_transition(before, to), "{before:?} → {to:?} by {:?}", plan.step);
        }
        self.attempts.shown = Some(plan.shown.state);
        self.act(&plan.step);
        if plan.step == Step::Wait {
            self.now = plan.wake_at.unwrap_or(self.now + 1).max(self.now + 1);
        }
        plan
    }

    fn act(&mut self, step: &Step) {
        let spec = self.entry.desired.spec.clone();
        let done = &mut self.entry.done;
        match step {
            Step::Wait | Step::WriteTombstone => {}
            Step::Settle(exit) => {
                done.process = None;
                if matches!(exit, Exit::Crashed | Exit::FailedStart) {
                    done.crash_count += 1;
                    self.attempts.start_not_before = self.now + 10;
                }
                self.attempts = Attempts {
                    start_not_before: self.attempts.start_not_before,
                    shown: self.attempts.shown,
                    ..Attempts::default()
                };
            }
            Step::Halt { cause, reason } => {
                let version = self.entry.desired.version;
                let reason = reason.clone();
                done.halt = Some(Halt { cause: *cause, boot_seq: spec.boot_seq, version, reason, at: Timestamp(0) });
            }
            Step::LiftHalt => done.halt = None,
            Step::Attach => {
                self.observed.process = ObservedProcess::Speaking(Machine::Running);
                self.attempts.fresh = false;
            }
            Step::FetchImage => self.observed.image = true,
            Step::Prepare { disks, config_drive } => {
                assert_eq!(self.observed.process, ObservedProcess::None, "no disk is made while a guest runs");
                let lost = disks.iter().find(|file| done.used_disks.iter().any(|used| used.seq >= file.seq));
                assert_eq!(lost, None, "a disk that was used is never made anew");
                let made = |file: &DiskFile| ObservedDisk {
                    file: file.clone(),
                    size_gib: spec.size.disk_gib,
                    base_gone: false,
                };
                self.observed.disks.extend(disks.iter().map(made));
                self.observed.disks.sort_by(|a, b| a.file.cmp(&b.file));
                self.observed.config_drive |= config_drive;
                self.observed.anything = true;
                done.root_seq = spec.root_seq;
            }
            Step::GrowDisk { file, size_gib } => {
                assert_eq!(self.observed.process, ObservedProcess::None);
                self.observed.disks.iter_mut().find(|disk| disk.file == *file).expect("a disk").size_gib = *size_gib;
            }
            Step::Launch => {
                assert_eq!(self.alive, 0, "one machine at a time");
                self.alive = 1;
                self.pid += 1;
                let mut process = running(&self.entry);
                process.process.pid = self.pid;
                let done = &mut self.entry.done;
                done.process = Some(process);
                done.boot_seq = spec.boot_seq;
                done.started_at = Some(Timestamp(0));
                done.note_disks(&self.observed.disks.iter().map(|disk| disk.file.clone()).collect::<Vec<_>>());
                let nics = self.entry.desired.nics.clone();
                assert!(nics.iter().all(|c| self.observed.taps.contains(c)), "nothing starts without its network");
                self.observed.taps.clear();
                self.observed.nics =
                    nics.iter().zip(1..).map(|(c, slot)| ObservedNic { slot, port_id: c.port_id }).collect();
                self.observed.process = ObservedProcess::Silent;
                self.attempts.fresh = true;
            }
            Step::Cont | Step::RetryIo => self.observed.process = ObservedProcess::Speaking(Machine::Running),
            Step::Pause => self.observed.process = ObservedProcess::Speaking(Machine::Paused),
            Step::Powerdown => {
                self.attempts.powerdown = Some(Requests::after(self.attempts.powerdown, self.now));
                // Every other guest listens.
                if self.pid % 2 == 0 {
                    self.observed.process = ObservedProcess::Speaking(Machine::PoweredOff);
                }
            }
            Step::Reset => done.boot_seq = spec.boot_seq,
            Step::Booted => done.boot_seq = spec.boot_seq,
            Step::Kill(cause) => {
                self.attempts.ending = true;
                if let Cause::Broken(what) = cause {
                    self.attempts.broken = Some((*what).to_owned());
                }
                self.ends();
            }
            Step::DestroyDisk(file) => {
                assert_eq!(self.observed.process, ObservedProcess::None);
                self.observed.disks.retain(|disk| disk.file != *file);
            }
            Step::RemoveLeftovers => self.observed.anything = false,
            Step::AcquirePorts => self.acquire_ports(),
            Step::PlugNic { nic, slot } => self.plug(nic, *slot),
            Step::UnplugNic(device) => self.unplug(device),
            Step::ReleaseNics(nics) => self.release(nics),
        }
    }

    fn acquire_ports(&mut self) {
        self.observed.taps.clone_from(&self.entry.desired.nics);
        for nic in self.entry.desired.nics.clone() {
            self.entry.done.note_nic(nic);
            self.acquired.insert(nic.port_id);
        }
    }

    fn plug(&mut self, nic: &Nic, slot: u8) {
        assert!(self.observed.nics.iter().all(|c| c.slot != slot && c.port_id != nic.port_id));
        self.entry.done.note_nic(*nic);
        self.acquired.insert(nic.port_id);
        // Cut off in the middle, every other time.
        self.cut = !self.cut;
        if !self.cut {
            self.observed.nics.push(ObservedNic { slot, port_id: nic.port_id });
        }
    }

    fn unplug(&mut self, device: &ObservedNic) {
        let before =
            self.attempts.unplug.filter(|(port_id, _)| *port_id == device.port_id).map(|(_, requests)| requests);
        let requests = Requests::after(before, self.now);
        self.attempts.unplug = Some((device.port_id, requests));
        // Every other guest releases the NIC when it is asked, and all do in the end.
        if self.pid % 2 == 0 || self.now > requests.first {
            self.observed.nics.retain(|c| c != device);
        }
    }

    fn release(&mut self, nics: &[Nic]) {
        let released = |id: &PortId| nics.iter().any(|c| c.port_id == *id);
        assert!(
            self.observed.nics.iter().all(|c| !released(&c.port_id)),
            "a port is released after its NIC is unplugged"
        );
        self.observed.taps.retain(|c| !released(&c.port_id));
        self.acquired.retain(|id| !released(id));
        self.entry.done.nics.retain(|c| !nics.contains(c));
    }

    fn ends(&mut self) {
        self.observed.process = ObservedProcess::None;
        self.observed.nics.clear();
        self.alive = 0;
    }

    fn disturb(&mut self, disturbance: &Disturbance) {
        let speaking = matches!(self.observed.process, ObservedProcess::Speaking(_));
        let alive = self.observed.process != ObservedProcess::None;
        let spec = &mut self.entry.desired.spec;
        let before = spec.clone();
        match disturbance {
            Disturbance::AgentRestarts => {
                self.attempts = Attempts::default();
                self.observed.taps.clear();
                if alive {
                    self.observed.process = ObservedProcess::Silent;
                }
            }
            Disturbance::HostRestarts => {
                self.attempts = Attempts::default();
                self.ends();
                self.observed.taps.clear();
                self.observed.boot_id.push('+');
            }
            Disturbance::QemuDies => self.ends(),
            Disturbance::Nics(mask) => {
                self.entry.desired.nics = (0..3).filter(|n| mask & (1 << n) != 0).map(nic).collect();
                self.entry.desired.version.generation += 1;
            }
            Disturbance::GuestPowersOff if speaking => {
                self.observed.process = ObservedProcess::Speaking(Machine::PoweredOff)
            }
            Disturbance::GuestPanics if speaking => {
                self.observed.process = ObservedProcess::Speaking(Machine::Panicked)
            }
            Disturbance::GuestPowersOff | Disturbance::GuestPanics => {}
            Disturbance::Power(n) => {
                spec.power = [Power::On, Power::Off, Power::Paused][usize::from(*n) % 3];
                // As the manager does it: a start of what is down is a new boot.
                spec.boot_seq += u64::from(spec.power == Power::On && self.entry.done.halt.is_some());
            }
            Disturbance::Reboot(hard) => {
                spec.boot_seq += 1;
                spec.boot_hard = *hard;
            }
            Disturbance::Rebuild => {
                spec.root_seq += 1;
                self.observed.image = false;
            }
            Disturbance::Resize => spec.size.disk_gib += 1,
            Disturbance::ImageEvicted => self.observed.image = alive,
            // What a running guest has open stays open.
            Disturbance::DiskLost if !alive => self.observed.disks.clear(),
            Disturbance::DiskLost => {}
            Disturbance::Steps(n) => {
                for _ in 0..*n {
                    self.step();
                }
            }
        }
        if self.entry.desired.spec != before {
            self.entry.desired.version.generation += 1;
        }
    }

    /// Takes steps until nothing is left to do, and never more than a sane host would take.
    fn come_to_rest(&mut self) -> Shown {
        for _ in 0..200 {
            let plan = self.step();
            if plan.step == Step::WriteTombstone || (plan.step == Step::Wait && plan.wake_at.is_none()) {
                return plan.shown;
            }
        }
        panic!(
            "never comes to rest: {:?} {:?}",
            plan(&self.entry, &self.observed, &self.attempts, self.now),
            self.entry
        );
    }
}

fn disturbance() -> impl Strategy<Value = Disturbance> {
    prop_oneof![
        1 => Just(Disturbance::AgentRestarts),
        1 => Just(Disturbance::HostRestarts),
        1 => Just(Disturbance::QemuDies),
        1 => Just(Disturbance::GuestPowersOff),
        1 => Just(Disturbance::GuestPanics),
        2 => (0u8..3).prop_map(Disturbance::Power),
        2 => any::<bool>().prop_map(Disturbance::Reboot),
        1 => Just(Disturbance::Rebuild),
        1 => Just(Disturbance::Resize),
        2 => (0u8..8).prop_map(Disturbance::Nics),
        1 => Just(Disturbance::ImageEvicted),
        1 => Just(Disturbance::DiskLost),
        8 => (0u8..12).prop_map(Disturbance::Steps),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn whatever_happens_it_comes_to_rest_as_desired(
        disk in any::<bool>(),
        disturbances in proptest::collection::vec(disturbance(), 0..40),
        deleted in any::<bool>(),
    ) {
        let mut world = World {
            entry: entry(disk),
            observed: nothing(),
            attempts: Attempts::default(),
            now: 0,
            pid: 0,
            alive: 0,
            acquired: BTreeSet::new(),
            cut: false,
        };
        for t in &disturbances {
            world.disturb(t);
        }
        if deleted {
            world.entry.desired.spec.deleted = true;
            world.entry.desired.version.generation += 1;
        }
        let shown = world.come_to_rest();
        let spec = &world.entry.desired.spec;
        if deleted {
            prop_assert_eq!(shown.state, InstanceState::Deleting);
            prop_assert!(world.acquired.is_empty() && world.observed.taps.is_empty());
            prop_assert!(!world.observed.anything && world.observed.disks.is_empty() && world.alive == 0);
            return Ok(());
        }
        if disk && world.observed.disks.is_empty() {
            prop_assert_eq!(shown.state, InstanceState::Error);
            prop_assert!(!shown.converged && shown.reason.contains("disk is gone") && world.alive == 0);
            prop_assert!(world.acquired.is_empty(), "what can't run answers for no address");
            // A rebuild is the way out.
            world.disturb(&Disturbance::Rebuild);
            let rebuilt = world.come_to_rest();
            prop_assert!(rebuilt.converged && world.observed.disks.len() == 1, "{:?}", rebuilt);
            return Ok(());
        }
        prop_assert!(shown.converged);
        let expected = match spec.power {
            _ if world.entry.done.halt.is_some() => InstanceState::Stopped,
            Power::On => InstanceState::Running,
            Power::Paused => InstanceState::Paused,
            Power::Off => InstanceState::Stopped,
        };
        prop_assert_eq!(shown.state, expected);
        prop_assert_eq!(world.alive == 1, expected != InstanceState::Stopped);
        let runs = expected != InstanceState::Stopped;
        let desired: BTreeSet<PortId> = world.entry.desired.nics.iter().filter(|_| runs).map(|c| c.port_id).collect();
        prop_assert_eq!(world.observed.nics.iter().map(|c| c.port_id).collect::<BTreeSet<_>>(), desired.clone());
        prop_assert_eq!(&world.acquired, &desired, "acquired is what is plugged in");
        prop_assert_eq!(world.observed.disks.len(), usize::from(disk));
        if disk {
            prop_assert!(world.observed.disks[0].file.seq >= spec.root_seq && world.observed.disks[0].size_gib >= spec.size.disk_gib);
        }
        if expected != InstanceState::Stopped {
            prop_assert!(world.entry.done.boot_seq >= spec.boot_seq);
        }
        // And it stays there.
        prop_assert_eq!(world.come_to_rest(), shown);
    }
}
