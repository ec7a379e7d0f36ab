//! Decides which step to take next for the NICs of a running QEMU. Pure: (the desired NICs, the noted NICs, the NICs that QEMU has) in,
//! one step out.
//!
//! Plugging a NIC in takes five actions (note it, acquire the port, pass the tap, make the back end, make the device), and unplugging
//! takes four more, one of them the guest's; the agent may be killed between any two. So no progress is remembered: the devices that
//! QEMU lists are observed each time. What QEMU can't list (a passed file, a back end without a device) depends on the note, which is
//! written before anything else is done and removed after everything has ended.

use super::observed::ObservedNic;
use crate::{ledger::Nic, qemu::argv::NICS_MAX};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NicStep {
    /// QEMU has the NIC and must not: the guest is asked to release it.
    Unplug(ObservedNic),
    /// The NIC is unplugged: what is left of it is removed, and its port is released.
    Release(Nic),
    Plug {
        nic: Nic,
        slot: u8,
    },
}

#[must_use]
pub fn plan_nics(desired: &[Nic], noted: &[Nic], devices: &[ObservedNic]) -> Option<NicStep> {
    let note = |nic: &Nic| noted.iter().find(|n| n.port_id == nic.port_id);
    let in_qemu = |nic: &Nic| devices.iter().any(|d| d.port_id == nic.port_id);
    // A port that was bound again (a higher epoch) is another one, although it has the same id.
    let stays = |device: &ObservedNic| {
        let nic = desired.iter().find(|nic| nic.port_id == device.port_id);
        nic.is_some_and(|nic| note(nic).is_none_or(|n| n.epoch == nic.epoch))
    };
    if let Some(device) = devices.iter().find(|d| !stays(d)) {
        return Some(NicStep::Unplug(*device));
    }
    let obsolete =
        |n: &&Nic| !in_qemu(n) && !desired.iter().any(|nic| nic.port_id == n.port_id && nic.epoch == n.epoch);
    if let Some(nic) = noted.iter().find(obsolete) {
        return Some(NicStep::Release(*nic));
    }
    let nic = *desired.iter().find(|nic| !in_qemu(nic))?;
    let free = |slot: &u8| devices.iter().all(|d| d.slot != *slot);
    let slot = (1..=u8::try_from(NICS_MAX).unwrap_or(u8::MAX)).find(free)?;
    Some(NicStep::Plug { nic, slot })
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{PortId, network::MacAddr};

    fn nic(n: u8, epoch: i64) -> Nic {
        Nic { port_id: PortId(uuid::Uuid::from_bytes([n; 16])), epoch, mac: MacAddr::local([n; 5]) }
    }

    fn device(n: u8, slot: u8) -> ObservedNic {
        ObservedNic { slot, port_id: nic(n, 0).port_id }
    }

    #[test]
    fn each_case() {
        use NicStep::{Plug, Release, Unplug};
        let (a, b) = (nic(1, 1), nic(2, 1));
        let newer = nic(1, 2);
        type Row<'a> = (&'a str, &'a [Nic], &'a [Nic], &'a [ObservedNic], Option<NicStep>);
        let rows: &[Row<'_>] = &[
            ("nothing at all", &[], &[], &[], None),
            ("as it must be", &[a], &[a], &[device(1, 1)], None),
            ("as it must be, started by an agent that lost its notes", &[a], &[], &[device(1, 1)], None),
            ("one more", &[a, b], &[a], &[device(1, 1)], Some(Plug { nic: b, slot: 2 })),
            ("one more, noted before", &[a, b], &[a, b], &[device(1, 1)], Some(Plug { nic: b, slot: 2 })),
            ("into a gap", &[a, b], &[b], &[device(2, 2)], Some(Plug { nic: a, slot: 1 })),
            ("one less", &[b], &[a, b], &[device(1, 1), device(2, 2)], Some(Unplug(device(1, 1)))),
            ("one less, the guest released it", &[b], &[a, b], &[device(2, 2)], Some(Release(a))),
            ("one less, port released", &[b], &[b], &[device(2, 2)], None),
            ("one that nobody noted", &[], &[], &[device(1, 3)], Some(Unplug(device(1, 3)))),
            ("out with one before in with another", &[b], &[a], &[device(1, 1)], Some(Unplug(device(1, 1)))),
            ("its port released before the next one comes", &[b], &[a], &[], Some(Release(a))),
            ("the same port under a newer epoch", &[newer], &[a], &[device(1, 1)], Some(Unplug(device(1, 1)))),
            ("that, unplugged", &[newer], &[a], &[], Some(Release(a))),
            ("that, port released", &[newer], &[], &[], Some(Plug { nic: newer, slot: 1 })),
            ("noted and no longer desired", &[], &[a], &[], Some(Release(a))),
        ];
        for (what, desired, noted, devices, step) in rows {
            assert_eq!(plan_nics(desired, noted, devices), *step, "{what}");
        }
    }

    #[test]
    fn whatever_is_observed_the_nics_become_as_desired() {
        let all: Vec<Nic> = (1..=4).map(|n| nic(n, 1)).collect();
        let subsets = |mask: usize| -> Vec<Nic> { (0..4).filter(|n| mask & (1 << n) != 0).map(|n| all[n]).collect() };
        for mask in 0..(1 << 12) {
            let desired = subsets(mask & 15);
            let mut noted = subsets((mask >> 4) & 15);
            let mut devices: Vec<ObservedNic> =
                subsets(mask >> 8).iter().zip(1..).map(|(c, slot)| ObservedNic { slot, port_id: c.port_id }).collect();
            let mut steps = 0;
            while let Some(step) = plan_nics(&desired, &noted, &devices) {
                match step {
                    NicStep::Unplug(device) => devices.retain(|d| *d != device),
                    NicStep::Release(nic) => noted.retain(|n| *n != nic),
                    NicStep::Plug { nic, slot } => {
                        assert!(devices.iter().all(|d| d.slot != slot), "{mask}");
                        noted.retain(|n| n.port_id != nic.port_id);
                        noted.push(nic);
                        devices.push(ObservedNic { slot, port_id: nic.port_id });
                    }
                }
                steps += 1;
                assert!(steps < 20, "{mask} never ends");
            }
            let mut have: Vec<_> = devices.iter().map(|d| d.port_id).collect();
            have.sort_unstable();
            assert_eq!(have, desired.iter().map(|c| c.port_id).collect::<Vec<_>>(), "{mask}");
            assert!(noted.iter().all(|n| desired.contains(n)), "{mask}");
        }
    }

    #[test]
    fn a_sixteenth_nic_has_a_slot_and_a_seventeenth_waits() {
        let desired: Vec<Nic> = (1..=17).map(|n| nic(n, 1)).collect();
        let devices: Vec<ObservedNic> = (1..=15).map(|n| device(n, n)).collect();
        assert_eq!(plan_nics(&desired, &[], &devices), Some(NicStep::Plug { nic: desired[15], slot: 16 }));
        let devices: Vec<ObservedNic> = (1..=16).map(|n| device(n, n)).collect();
        assert_eq!(plan_nics(&desired, &[], &devices), None);
    }
}
