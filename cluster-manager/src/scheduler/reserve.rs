//! N+1: capacity reserved so that protected instances survive the loss of any one host.
//!
//! The problem: "the zone has as much free as its fullest host holds" proves nothing, because free capacity is scattered; trying to place
//! every host's instances elsewhere at each create costs a hundred thousand trials. So the proof is kept instead of sought: each
//! protected instance has a *backup*, another host of its zone that reserves capacity for it. Only one host is lost at a time, so the
//! reserved capacity of a backup is shared by the instances of different hosts: it is the most that any *one* host would send it. That is
//! shared backup provisioning, as in protected optical networks.
//!
//! Invariants: a backup is another host of the zone that the instance may run on; used + tentative + reserved <= capacity where
//! everything fitted when it was decided; `recovery_reserved` of a host is the componentwise maximum, over the hosts that rely on it, of
//! what they'd send. Backups are chosen one by one and not moved to make space, so a refusal may come a little before the optimum's.
//! Hard groups hold after the loss as before it: a backup is where the group's members elsewhere allow it, members that must be together
//! share one, and the place of a member's backup is closed to newcomers of its anti-affinity group. Members that don't restart wait for
//! their host and count for nothing meanwhile.
//!
//! Backups live in memory: a restarted manager finds them anew, and an instance for which it finds none is counted as *without backup*, and
//! tried again ([`super::inventory`]'s `backups.rs`).

use super::host::{HostEntry, minus, plus};
use domain::flavor::Size;
use std::collections::HashMap;

/// Hosts that may rely on one backup: this bounds the work of a release, and costs a large zone less than half a percent.
const RELIERS_MAX: usize = 256;

#[derive(Debug, Default)]
pub(super) struct Reserve {
    /// What each relying host would send to each backup, sorted by the relying host's slot.
    relied: HashMap<u32, Vec<(u32, Size)>>,
    /// The backups in use in each zone, oldest first.
    backups: HashMap<u16, Vec<u32>>,
}

fn most(sent: &[(u32, Size)]) -> Size {
    sent.iter().fold(Size::default(), |most, (_, s)| Size {
        vcpus: most.vcpus.max(s.vcpus),
        memory_mib: most.memory_mib.max(s.memory_mib),
        disk_gib: most.disk_gib.max(s.disk_gib),
    })
}

impl Reserve {
    /// What the backup would have to reserve in addition for this claim. None: too many hosts rely on it.
    pub fn extra(&self, backup: &HostEntry, slot: u32, from: u32, claim: Size) -> Option<Size> {
        let sent = self.relied.get(&slot).map_or(&[][..], Vec::as_slice);
        let before = match sent.binary_search_by_key(&from, |(host, _)| *host) {
            Ok(at) => sent[at].1,
            Err(_) if sent.len() >= RELIERS_MAX => return None,
            Err(_) => Size::default(),
        };
        Some(minus(plus(before, claim), backup.recovery_reserved))
    }

    /// Whether any host relies on this backup.
    pub fn relies_on(&self, slot: u32) -> bool {
        self.relied.contains_key(&slot)
    }

    /// The backups in use in the zone, oldest first.
    pub fn in_use(&self, zone: u16) -> &[u32] {
        self.backups.get(&zone).map_or(&[], Vec::as_slice)
    }

    /// Reserves for the claim; answers what the backup reserves now.
    pub fn add(&mut self, zone: u16, slot: u32, from: u32, claim: Size) -> Size {
        let sent = self.relied.entry(slot).or_default();
        if sent.is_empty() {
            let backups = self.backups.entry(zone).or_default();
            if !backups.contains(&slot) {
                backups.push(slot);
            }
        }
        match sent.binary_search_by_key(&from, |(host, _)| *host) {
            Ok(at) => sent[at].1 = plus(sent[at].1, claim),
            Err(at) => sent.insert(at, (from, claim)),
        }
        most(sent)
    }

    /// Releases what is reserved for the claim; answers what the backup reserves now.
    pub fn remove(&mut self, slot: u32, from: u32, claim: Size) -> Size {
        let Some(sent) = self.relied.get_mut(&slot) else { return Size::default() };
        if let Ok(at) = sent.binary_search_by_key(&from, |(host, _)| *host) {
            sent[at].1 = minus(sent[at].1, claim);
            if sent[at].1 == Size::default() {
                sent.remove(at);
            }
        }
        let left = most(sent);
        if sent.is_empty() {
            self.relied.remove(&slot);
            for backups in self.backups.values_mut() {
                backups.retain(|other| *other != slot);
            }
        }
        left
    }
}
