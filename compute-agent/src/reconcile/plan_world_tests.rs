//! A world that is tormented at random and must always come to rest as its owner wants.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

/// A host of one instance: steps do what they do on a real one, trouble comes between them.
struct World {
    entry: Entry,
    observed: Observed,
    attempts: Attempts,
    now: u64,
    pid: i32,
    /// Launches since the last time the instance was wanted off; two at once would be two machines on one disk.
    alive: u32,
    /// What the network-agent has handed out.
    acquired: BTreeSet<PortId>,
    cut: bool,
}

#[derive(Debug, Clone)]
enum Trouble {
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
                done.halt = Some(Halt {
                    cause: *cause,
                    boot_seq: spec.boot_seq,
                    version: self.entry.desired.version,
                    reason: reason.clone(),
                    at: Timestamp(0),
                });
            }
            Step::LiftHalt => done.halt = None,
            Step::Attach => {
                self.observed.process = ObservedProcess::Speaking(Machine::Running);
                self.attempts.fresh = false;
            }
            Step::FetchImage => self.observed.image = true,
            Step::Prepare { disk, config_drive } => {
                assert_eq!(self.observed.process, ObservedProcess::None, "no disk is made under a running guest");
                if *disk {
                    self.observed.disks.push(ObservedDisk { root_seq: spec.root_seq, size_gib: spec.size.disk_gib });
                }
                self.observed.config_drive |= config_drive;
                self.observed.anything = true;
                done.root_seq = spec.root_seq;
            }
            Step::GrowDisk => {
                assert_eq!(self.observed.process, ObservedProcess::None);
                self.observed.disks.last_mut().expect("a disk").size_gib = spec.size.disk_gib;
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
                let nics = self.entry.desired.nics.clone();
                assert!(nics.iter().all(|c| self.observed.taps.contains(c)), "nothing starts without its network");
                self.observed.taps.clear();
                self.observed.nics =
                    nics.iter().zip(1..).map(|(c, slot)| ObservedNic { slot, port_id: c.port_id }).collect();
                self.observed.process = ObservedProcess::Silent;
                self.attempts.fresh = true;
            }
            Step::Cont => self.observed.process = ObservedProcess::Speaking(Machine::Running),
            Step::Pause => self.observed.process = ObservedProcess::Speaking(Machine::Paused),
            Step::Powerdown => {
                let first = self.attempts.asked.map_or(self.now, |(first, _)| first);
                self.attempts.asked = Some((first, self.now));
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
            Step::DestroyDisk { root_seq } => {
                assert_eq!(self.observed.process, ObservedProcess::None);
                self.observed.disks.retain(|d| d.root_seq != *root_seq);
            }
            Step::RemoveLeftovers => self.observed.anything = false,
            Step::AcquirePorts => {
                self.observed.taps.clone_from(&self.entry.desired.nics);
                for nic in self.entry.desired.nics.clone() {
                    self.entry.done.note_nic(nic);
                    self.acquired.insert(nic.port_id);
                }
            }
            Step::PlugNic { nic, slot } => {
                assert!(self.observed.nics.iter().all(|c| c.slot != *slot && c.port_id != nic.port_id));
                self.entry.done.note_nic(*nic);
                self.acquired.insert(nic.port_id);
                // Cut off in the middle, every other time.
                self.cut = !self.cut;
                if !self.cut {
                    self.observed.nics.push(ObservedNic { slot: *slot, port_id: nic.port_id });
                }
            }
            Step::UnplugNic(device) => {
                let first = self.attempts.unplug.filter(|u| u.port_id == device.port_id).map_or(self.now, |u| u.first);
                self.attempts.unplug = Some(Unplugging { port_id: device.port_id, first, last: self.now });
                // Every other guest lets go when it is asked, and all do in the end.
                if self.pid % 2 == 0 || self.now > first {
                    self.observed.nics.retain(|c| c != device);
                }
            }
            Step::FreeNics(nics) => {
                let freed = |id: &PortId| nics.iter().any(|c| c.port_id == *id);
                assert!(
                    self.observed.nics.iter().all(|c| !freed(&c.port_id)),
                    "a port is given back after its nic is out"
                );
                self.observed.taps.retain(|c| !freed(&c.port_id));
                self.acquired.retain(|id| !freed(id));
                self.entry.done.nics.retain(|c| !nics.contains(c));
            }
        }
    }

    fn ends(&mut self) {
        self.observed.process = ObservedProcess::None;
        self.observed.nics.clear();
        self.alive = 0;
    }

    fn trouble(&mut self, trouble: &Trouble) {
        let speaking = matches!(self.observed.process, ObservedProcess::Speaking(_));
        let alive = self.observed.process != ObservedProcess::None;
        let spec = &mut self.entry.desired.spec;
        let before = spec.clone();
        match trouble {
            Trouble::AgentRestarts => {
                self.attempts = Attempts::default();
                self.observed.taps.clear();
                if alive {
                    self.observed.process = ObservedProcess::Silent;
                }
            }
            Trouble::HostRestarts => {
                self.attempts = Attempts::default();
                self.ends();
                self.observed.taps.clear();
                self.observed.boot_id.push('+');
            }
            Trouble::QemuDies => self.ends(),
            Trouble::Nics(mask) => {
                self.entry.desired.nics = (0..3).filter(|n| mask & (1 << n) != 0).map(nic).collect();
                self.entry.desired.version.generation += 1;
            }
            Trouble::GuestPowersOff if speaking => {
                self.observed.process = ObservedProcess::Speaking(Machine::PoweredOff)
            }
            Trouble::GuestPanics if speaking => self.observed.process = ObservedProcess::Speaking(Machine::Panicked),
            Trouble::GuestPowersOff | Trouble::GuestPanics => {}
            Trouble::Power(n) => {
                spec.power = [Power::On, Power::Off, Power::Paused][usize::from(*n) % 3];
                // As the manager does it: a start of what is down is a new boot.
                spec.boot_seq += u64::from(spec.power == Power::On && self.entry.done.halt.is_some());
            }
            Trouble::Reboot(hard) => {
                spec.boot_seq += 1;
                spec.boot_hard = *hard;
            }
            Trouble::Rebuild => {
                spec.root_seq += 1;
                self.observed.image = false;
            }
            Trouble::Resize => spec.size.disk_gib += 1,
            Trouble::ImageEvicted => self.observed.image = alive,
            Trouble::Steps(n) => {
                for _ in 0..*n {
                    self.step();
                }
            }
        }
        if self.entry.desired.spec != before {
            self.entry.desired.version.generation += 1;
        }
    }

    /// Until nothing is left to do; never by more steps than a sane host would take.
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

fn trouble() -> impl Strategy<Value = Trouble> {
    prop_oneof![
        1 => Just(Trouble::AgentRestarts),
        1 => Just(Trouble::HostRestarts),
        1 => Just(Trouble::QemuDies),
        1 => Just(Trouble::GuestPowersOff),
        1 => Just(Trouble::GuestPanics),
        2 => (0u8..3).prop_map(Trouble::Power),
        2 => any::<bool>().prop_map(Trouble::Reboot),
        1 => Just(Trouble::Rebuild),
        1 => Just(Trouble::Resize),
        2 => (0u8..8).prop_map(Trouble::Nics),
        1 => Just(Trouble::ImageEvicted),
        8 => (0u8..12).prop_map(Trouble::Steps),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn whatever_happens_it_comes_to_rest_as_wanted(
        disk in any::<bool>(),
        troubles in proptest::collection::vec(trouble(), 0..40),
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
        for t in &troubles {
            world.trouble(t);
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
        prop_assert!(shown.converged);
        let expected = match spec.power {
            _ if world.entry.done.halt.is_some() => InstanceState::Stopped,
            Power::On => InstanceState::Running,
            Power::Paused => InstanceState::Paused,
            Power::Off => InstanceState::Stopped,
        };
        prop_assert_eq!(shown.state, expected);
        prop_assert_eq!(world.alive == 1, expected != InstanceState::Stopped);
        let wanted: BTreeSet<PortId> = match expected {
            InstanceState::Stopped => BTreeSet::new(),
            _ => world.entry.desired.nics.iter().map(|c| c.port_id).collect(),
        };
        prop_assert_eq!(world.observed.nics.iter().map(|c| c.port_id).collect::<BTreeSet<_>>(), wanted.clone());
        prop_assert_eq!(&world.acquired, &wanted, "acquired is what is plugged in");
        prop_assert_eq!(world.observed.disks.len(), usize::from(disk));
        if disk {
            prop_assert!(world.observed.disks[0].root_seq >= spec.root_seq && world.observed.disks[0].size_gib >= spec.size.disk_gib);
        }
        if expected != InstanceState::Stopped {
            prop_assert!(world.entry.done.boot_seq >= spec.boot_seq);
        }
        // And stays there.
        prop_assert_eq!(world.come_to_rest(), shown);
    }
}
