//! A world that is tormented at random and must always come to rest as its owner wants.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

/// A host of one instance: steps do what they do on a real one, trouble comes between them.
struct World {
    entry: Entry,
    seen: Seen,
    effort: Effort,
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
    Cards(u8),
    ImageEvicted,
    Steps(u8),
}

impl World {
    fn step(&mut self) -> Plan {
        let plan = plan(&self.entry, &self.seen, &self.effort, self.now);
        if let Some(before) = self.effort.shown {
            let to = plan.shown.state;
            assert!(InstanceState::valid_transition(before, to), "{before:?} → {to:?} by {:?}", plan.step);
        }
        self.effort.shown = Some(plan.shown.state);
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
            Step::Wait | Step::Bury => {}
            Step::Settle(exit) => {
                done.process = None;
                if matches!(exit, Exit::Crashed | Exit::FailedStart) {
                    done.crash_count += 1;
                    self.effort.start_not_before = self.now + 10;
                }
                self.effort = Effort {
                    start_not_before: self.effort.start_not_before,
                    shown: self.effort.shown,
                    ..Effort::default()
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
                self.seen.process = ProcessSeen::Speaking(Machine::Running);
                self.effort.fresh = false;
            }
            Step::FetchImage => self.seen.image = true,
            Step::Prepare { disk, config_drive } => {
                assert_eq!(self.seen.process, ProcessSeen::None, "no disk is made under a running guest");
                if *disk {
                    self.seen.disks.push(DiskSeen { root_seq: spec.root_seq, size_gib: spec.size.disk_gib });
                }
                self.seen.config_drive |= config_drive;
                self.seen.anything = true;
                done.root_seq = spec.root_seq;
            }
            Step::GrowDisk => {
                assert_eq!(self.seen.process, ProcessSeen::None);
                self.seen.disks.last_mut().expect("a disk").size_gib = spec.size.disk_gib;
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
                let cards = self.entry.desired.cards.clone();
                assert!(cards.iter().all(|c| self.seen.taps.contains(c)), "nothing starts without its network");
                self.seen.taps.clear();
                self.seen.cards =
                    cards.iter().zip(1..).map(|(c, slot)| CardSeen { slot, port_id: c.port_id }).collect();
                self.seen.process = ProcessSeen::Silent;
                self.effort.fresh = true;
            }
            Step::Cont => self.seen.process = ProcessSeen::Speaking(Machine::Running),
            Step::Pause => self.seen.process = ProcessSeen::Speaking(Machine::Paused),
            Step::Powerdown => {
                let first = self.effort.asked.map_or(self.now, |(first, _)| first);
                self.effort.asked = Some((first, self.now));
                // Every other guest listens.
                if self.pid % 2 == 0 {
                    self.seen.process = ProcessSeen::Speaking(Machine::PoweredOff);
                }
            }
            Step::Reset => done.boot_seq = spec.boot_seq,
            Step::Booted => done.boot_seq = spec.boot_seq,
            Step::Kill(cause) => {
                self.effort.ending = true;
                if let Cause::Broken(what) = cause {
                    self.effort.broken = Some((*what).to_owned());
                }
                self.ends();
            }
            Step::DestroyDisk { root_seq } => {
                assert_eq!(self.seen.process, ProcessSeen::None);
                self.seen.disks.retain(|d| d.root_seq != *root_seq);
            }
            Step::RemoveLeftovers => self.seen.anything = false,
            Step::AcquirePorts => {
                self.seen.taps.clone_from(&self.entry.desired.cards);
                for card in self.entry.desired.cards.clone() {
                    self.entry.done.note_card(card);
                    self.acquired.insert(card.port_id);
                }
            }
            Step::PlugCard { card, slot } => {
                assert!(self.seen.cards.iter().all(|c| c.slot != *slot && c.port_id != card.port_id));
                self.entry.done.note_card(*card);
                self.acquired.insert(card.port_id);
                // Cut off in the middle, every other time.
                self.cut = !self.cut;
                if !self.cut {
                    self.seen.cards.push(CardSeen { slot: *slot, port_id: card.port_id });
                }
            }
            Step::UnplugCard(device) => {
                let first = self.effort.unplug.filter(|u| u.port_id == device.port_id).map_or(self.now, |u| u.first);
                self.effort.unplug = Some(Unplugging { port_id: device.port_id, first, last: self.now });
                // Every other guest lets go when it is asked, and all do in the end.
                if self.pid % 2 == 0 || self.now > first {
                    self.seen.cards.retain(|c| c != device);
                }
            }
            Step::FreeCards(cards) => {
                let freed = |id: &PortId| cards.iter().any(|c| c.port_id == *id);
                assert!(
                    self.seen.cards.iter().all(|c| !freed(&c.port_id)),
                    "a port is given back after its card is out"
                );
                self.seen.taps.retain(|c| !freed(&c.port_id));
                self.acquired.retain(|id| !freed(id));
                self.entry.done.cards.retain(|c| !cards.contains(c));
            }
        }
    }

    fn ends(&mut self) {
        self.seen.process = ProcessSeen::None;
        self.seen.cards.clear();
        self.alive = 0;
    }

    fn trouble(&mut self, trouble: &Trouble) {
        let speaking = matches!(self.seen.process, ProcessSeen::Speaking(_));
        let alive = self.seen.process != ProcessSeen::None;
        let spec = &mut self.entry.desired.spec;
        let before = spec.clone();
        match trouble {
            Trouble::AgentRestarts => {
                self.effort = Effort::default();
                self.seen.taps.clear();
                if alive {
                    self.seen.process = ProcessSeen::Silent;
                }
            }
            Trouble::HostRestarts => {
                self.effort = Effort::default();
                self.ends();
                self.seen.taps.clear();
                self.seen.boot_id.push('+');
            }
            Trouble::QemuDies => self.ends(),
            Trouble::Cards(mask) => {
                self.entry.desired.cards = (0..3).filter(|n| mask & (1 << n) != 0).map(card).collect();
                self.entry.desired.version.generation += 1;
            }
            Trouble::GuestPowersOff if speaking => self.seen.process = ProcessSeen::Speaking(Machine::PoweredOff),
            Trouble::GuestPanics if speaking => self.seen.process = ProcessSeen::Speaking(Machine::Panicked),
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
                self.seen.image = false;
            }
            Trouble::Resize => spec.size.disk_gib += 1,
            Trouble::ImageEvicted => self.seen.image = alive,
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
            if plan.step == Step::Bury || (plan.step == Step::Wait && plan.wake_at.is_none()) {
                return plan.shown;
            }
        }
        panic!("never comes to rest: {:?} {:?}", plan(&self.entry, &self.seen, &self.effort, self.now), self.entry);
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
        2 => (0u8..8).prop_map(Trouble::Cards),
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
            seen: nothing(),
            effort: Effort::default(),
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
            prop_assert!(world.acquired.is_empty() && world.seen.taps.is_empty());
            prop_assert!(!world.seen.anything && world.seen.disks.is_empty() && world.alive == 0);
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
            _ => world.entry.desired.cards.iter().map(|c| c.port_id).collect(),
        };
        prop_assert_eq!(world.seen.cards.iter().map(|c| c.port_id).collect::<BTreeSet<_>>(), wanted.clone());
        prop_assert_eq!(&world.acquired, &wanted, "acquired is what is plugged in");
        prop_assert_eq!(world.seen.disks.len(), usize::from(disk));
        if disk {
            prop_assert!(world.seen.disks[0].root_seq >= spec.root_seq && world.seen.disks[0].size_gib >= spec.size.disk_gib);
        }
        if expected != InstanceState::Stopped {
            prop_assert!(world.entry.done.boot_seq >= spec.boot_seq);
        }
        // And stays there.
        prop_assert_eq!(world.come_to_rest(), shown);
    }
}
