//! N+1: room set aside so that protected instances survive the loss of any one host.
//!
//! The problem: "the zone has as much free as its fullest host holds" proves nothing, because free room is scattered; trying to place
//! every host's instances elsewhere at each create costs a hundred thousand trials. So the proof is kept instead of sought: each
//! protected instance has a *backup*, another host of its zone that keeps room for it. Only one host is lost at a time, so room on a
//! backup is shared by the instances of different hosts: it keeps the most that any *one* host would send it. That is shared backup
//! provisioning, as in protected optical networks.
//!
//! Invariants: a backup is another host of the zone that the instance may run on; used + tentative + set aside <= capacity where
//! everything fitted when it was decided; `set_aside` of a host is the componentwise maximum, over the hosts that rely on it, of
//! what they'd send. Backups are chosen one by one and not moved to make room, so a refusal may come a little before the optimum's.
//! Hard groups hold after the loss as before it: a backup is where the group's members elsewhere allow it, members that must be together
//! share one, and the place of a member's backup is closed to newcomers of its anti-affinity group. Members that don't restart wait for
//! their host and count for nothing meanwhile.
//!
//! They live in memory: a restarted manager finds them anew, and what finds none is *exposed*, counted, and tried again.

use super::{
    decide::cell_suits,
    filter,
    host::{HostEntry, fits, minus, plus},
    index::CellKey,
    inventory::Inventory,
    request::Request,
    roster::Groups,
    sets::NIL,
};
use domain::{HostId, InstanceId, flavor::Size, placement::GroupStrength};
use std::collections::HashMap;

/// Hosts that may rely on one backup: bounds the work of a release, and costs a large zone less than half a percent.
const RELIERS_MOST: usize = 256;
/// Backups in use that are tried before a fresh host is.
const TRIED: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Reserve {
    /// Per backup: what each relying host would send. Sorted by the relying host's slot.
    relied: HashMap<u32, Vec<(u32, Size)>>,
    /// Per zone: the backups in use, oldest first.
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
    /// What the backup would have to set aside more, were it to take this too. None: too many rely on it.
    fn growth(&self, backup: &HostEntry, slot: u32, from: u32, claim: Size) -> Option<Size> {
        let sent = self.relied.get(&slot).map_or(&[][..], Vec::as_slice);
        let before = match sent.binary_search_by_key(&from, |(host, _)| *host) {
            Ok(at) => sent[at].1,
            Err(_) if sent.len() >= RELIERS_MOST => return None,
            Err(_) => Size::default(),
        };
        Some(minus(plus(before, claim), backup.set_aside))
    }

    fn add(&mut self, zone: u16, slot: u32, from: u32, claim: Size) -> Size {
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

    fn remove(&mut self, slot: u32, from: u32, claim: Size) -> Size {
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

impl Inventory {
    /// What the host would have to set aside more for an instance that goes to `primary`; none: it can't.
    fn growth_on(&self, slot: u32, primary: u32, request: &Request, groups: &Groups) -> Option<Size> {
        let host = self.at(slot)?;
        let zone = self.at(primary)?.zone_at;
        if slot == primary || host.zone_at != zone || !host.usable() || filter::closed(host, request).is_some() {
            return None;
        }
        groups.violations(host, slot, &self.backup_scratch)?;
        let growth = self.reserve.growth(host, slot, primary, filter::claim(host, request))?;
        // With what it sets aside already: of a host that keeps less than it promised nothing more is asked, not even nothing.
        fits(&plus(host.set_aside, growth), &host.free_for_recovery()).then_some(growth)
    }

    /// A host that could keep room for an instance that goes to `primary`: of those in use, the one that must set aside least more
    /// for it; else a fresh one.
    pub(super) fn find_backup(&mut self, primary: u32, request: &Request) -> Option<u32> {
        let groups = Groups::locate_backup(self, request, primary, None);
        self.find_backup_in(primary, request, &groups)
    }

    fn find_backup_in(&mut self, primary: u32, request: &Request, groups: &Groups) -> Option<u32> {
        let zone = self.at(primary)?.zone_at;
        let key = |slot: u32| {
            let growth = self.growth_on(slot, primary, request, groups)?;
            Some(((growth.memory_mib, growth.vcpus, growth.disk_gib, self.at(slot)?.id), slot))
        };
        if let Some(near) = groups.near(GroupStrength::Hard) {
            // Where the other members are or will be.
            let mut best = None;
            Groups::each_near(near, self, &self.backup_scratch, |slot| {
                best = [best, key(slot)].into_iter().flatten().min_by_key(|(key, _)| *key);
            });
            return best.map(|(_, slot)| slot);
        }
        let in_use = self.reserve.backups.get(&zone).map_or(&[][..], Vec::as_slice);
        let best = in_use.iter().rev().take(TRIED).filter_map(|slot| key(*slot)).min_by_key(|(key, _)| *key);
        if let Some((_, slot)) = best {
            return Some(slot);
        }
        let asked = self.ask(request);
        if asked.hopeless {
            return None;
        }
        let Self { index, hosts, reserve, backup_scratch, .. } = self;
        let wanted = |slot: u32| {
            let host = hosts[slot as usize].as_ref();
            host.is_some_and(|host| {
                slot != primary
                    && filter::reject(host, request).is_none()
                    && groups.violations(host, slot, backup_scratch).is_some()
                    && reserve.growth(host, slot, primary, filter::claim(host, request)).is_some()
            })
        };
        let suits = |key: &CellKey| key.zone == zone && cell_suits(key, &asked, request);
        index.best(request.size, suits, wanted).map(|found| found.slot)
    }

    /// Gives an attached, protected instance its backup, if there is room for one: `hint`, where a decision found it.
    pub(super) fn back_up(&mut self, id: InstanceId, hint: Option<u32>) {
        let Some(member) = self.roster.find_mut(id) else { return };
        let primary = member.slot;
        let Some(request) = member.protected.take() else { return };
        let groups = Groups::locate_backup(self, &request, primary, Some(id));
        let hinted = hint.filter(|slot| self.growth_on(*slot, primary, &request, &groups).is_some());
        let backup = hinted.or_else(|| self.find_backup_in(primary, &request, &groups));
        let found = backup.and_then(|slot| self.at(slot).map(|h| (slot, h.zone_at, filter::claim(h, &request))));
        if let Some(member) = self.roster.find_mut(id) {
            member.protected = Some(request);
            if let Some((slot, _, claim)) = found {
                (member.backup, member.backup_claim) = (slot, claim);
            }
        }
        if let Some((slot, zone, claim)) = found {
            let set_aside = self.reserve.add(zone, slot, primary, claim);
            self.change(slot, |host| host.set_aside = set_aside);
        }
    }

    pub(super) fn drop_backup(&mut self, id: InstanceId) {
        let Some(member) = self.roster.find_mut(id) else { return };
        let (backup, primary, claim) = (std::mem::replace(&mut member.backup, NIL), member.slot, member.backup_claim);
        let set_aside = self.reserve.remove(backup, primary, claim);
        self.change(backup, |host| host.set_aside = set_aside);
    }

    /// A host changed: who relied on it finds another backup if it can no longer keep its promise, or no longer suits.
    pub(super) fn check_backups(&mut self, slot: u32) {
        if !self.reserve.relied.contains_key(&slot) {
            return;
        }
        let keeps = self.at(slot).is_some_and(|h| h.usable() && fits(&h.set_aside, &h.free_for_recovery()));
        let mut lost = self.roster.backed_up_by(slot);
        lost.retain(|id| !keeps || !self.still_suits(*id, slot));
        self.back_up_anew(&lost);
    }

    /// A host is in another zone now: so are the backups of what it has.
    pub(super) fn check_backups_of(&mut self, slot: u32) {
        let mut lost = self.roster.on_slot(slot);
        lost.retain(|id| self.roster.find(*id).is_some_and(|m| m.backup != NIL && !self.still_suits(*id, m.backup)));
        self.back_up_anew(&lost);
    }

    fn still_suits(&self, id: InstanceId, backup: u32) -> bool {
        let Some(member) = self.roster.find(id) else { return false };
        let (Some(request), Some(host), Some(primary)) = (&member.protected, self.at(backup), self.at(member.slot))
        else {
            return false;
        };
        host.zone_at == primary.zone_at && filter::closed(host, request).is_none()
    }

    /// First all let go, then each looks anew: members that must go together can all move.
    fn back_up_anew(&mut self, ids: &[InstanceId]) {
        for id in ids {
            self.drop_backup(*id);
        }
        for id in ids {
            self.back_up(*id, None);
        }
    }

    /// Tries again for protected instances that have no backup. Answers those that still have none.
    pub fn retry_backups(&mut self) -> Vec<InstanceId> {
        let mut exposed = self.roster.exposed();
        exposed.retain(|id| {
            self.back_up(*id, None);
            self.roster.find(*id).is_some_and(|m| m.backup == NIL)
        });
        exposed
    }

    /// Where the instance would go if its host were lost.
    #[must_use]
    pub fn backup_of(&self, id: InstanceId) -> Option<HostId> {
        Some(self.at(self.roster.find(id)?.backup)?.id)
    }
}
