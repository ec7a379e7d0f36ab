//! The backups of protected instances: finding, keeping and replacing them ([`crate::scheduler::reserve`]).

use super::Inventory;
use crate::scheduler::{
    bucket_trees::NIL,
    filter,
    groups::Groups,
    host::{fits, plus},
    index::CellKey,
    members::PlacedInstance,
    request::Request,
};
use domain::{HostId, InstanceId, flavor::Size, placement::GroupStrength};

/// Backups in use that are tried before a fresh host is.
const TRIED: usize = 64;

impl Inventory {
    /// What the host would have to reserve in addition for an instance that goes to `primary`; none: it can't.
    fn extra_reserve(&self, slot: u32, primary: u32, request: &Request, groups: &Groups) -> Option<Size> {
        let host = self.at(slot)?;
        let zone = self.at(primary)?.zone_at;
        if slot == primary || host.zone_at != zone || !host.usable() || filter::closed(host, request).is_some() {
            return None;
        }
        groups.violations(host, slot, &self.backup_scratch)?;
        let extra = self.reserve.extra(host, slot, primary, filter::claim(host, request))?;
        // What it reserves already counts too: a host that can't keep what it promised gets no further promise, not even of nothing.
        fits(&plus(host.recovery_reserved, extra), &host.free_for_recovery()).then_some(extra)
    }

    /// A host that could reserve capacity for an instance that goes to `primary`: of the backups in use, the one that must reserve least in
    /// addition; else a fresh one.
    pub(in crate::scheduler) fn find_backup(&mut self, primary: u32, request: &Request) -> Option<u32> {
        let groups = Groups::locate_backup(self, request, primary, None);
        self.find_backup_in(primary, request, &groups)
    }

    fn find_backup_in(&mut self, primary: u32, request: &Request, groups: &Groups) -> Option<u32> {
        let zone = self.at(primary)?.zone_at;
        let key = |slot: u32| {
            let extra = self.extra_reserve(slot, primary, request, groups)?;
            Some(((extra.memory_mib, extra.vcpus, extra.disk_gib, self.at(slot)?.id), slot))
        };
        if let Some(near) = groups.near(GroupStrength::Hard) {
            // It must be where the other members are or will be.
            let mut best = None;
            Groups::each_near(near, self, &self.backup_scratch, |slot| {
                best = [best, key(slot)].into_iter().flatten().min_by_key(|(key, _)| *key);
            });
            return best.map(|(_, slot)| slot);
        }
        let in_use = self.reserve.in_use(zone);
        let best = in_use.iter().rev().take(TRIED).filter_map(|slot| key(*slot)).min_by_key(|(key, _)| *key);
        if let Some((_, slot)) = best {
            return Some(slot);
        }
        let labels = self.label_bits(request);
        if labels.unsatisfiable {
            return None;
        }
        let Self { index, hosts, reserve, backup_scratch, .. } = self;
        let accepts = |slot: u32| {
            let host = hosts[slot as usize].as_ref();
            host.is_some_and(|host| {
                slot != primary
                    && filter::reject(host, request).is_none()
                    && groups.violations(host, slot, backup_scratch).is_some()
                    && reserve.extra(host, slot, primary, filter::claim(host, request)).is_some()
            })
        };
        let suits = |key: &CellKey| key.zone == zone && key.suits(&labels, request);
        index.best(request.size, suits, accepts).map(|found| found.slot)
    }

    /// Gives a protected instance its backup, if there is capacity for one. `hint` is where a decision found it.
    pub(super) fn back_up(&mut self, id: InstanceId, hint: Option<u32>) {
        let Some(instance) = self.instances.find_mut(id) else { return };
        let primary = instance.slot;
        let Some(request) = instance.protected.take() else { return };
        let groups = Groups::locate_backup(self, &request, primary, Some(id));
        let hinted = hint.filter(|slot| self.extra_reserve(*slot, primary, &request, &groups).is_some());
        let backup = hinted.or_else(|| self.find_backup_in(primary, &request, &groups));
        let found = backup.and_then(|slot| self.at(slot).map(|h| (slot, h.zone_at, filter::claim(h, &request))));
        if let Some(instance) = self.instances.find_mut(id) {
            instance.protected = Some(request);
            if let Some((slot, _, claim)) = found {
                (instance.backup, instance.backup_claim) = (slot, claim);
            }
        }
        if let Some((slot, zone, claim)) = found {
            let reserved = self.reserve.add(zone, slot, primary, claim);
            self.change(slot, |host| host.recovery_reserved = reserved);
        }
    }

    pub(super) fn drop_backup(&mut self, id: InstanceId) {
        let Some(instance) = self.instances.find_mut(id) else { return };
        let backup = std::mem::replace(&mut instance.backup, NIL);
        let (primary, claim) = (instance.slot, instance.backup_claim);
        let reserved = self.reserve.remove(backup, primary, claim);
        self.change(backup, |host| host.recovery_reserved = reserved);
    }

    /// A host changed: the instances that relied on it get another backup if it can no longer keep its promise, or no longer suits.
    pub(super) fn check_backups(&mut self, slot: u32) {
        if !self.reserve.relies_on(slot) {
            return;
        }
        let keeps = self.at(slot).is_some_and(|h| h.usable() && fits(&h.recovery_reserved, &h.free_for_recovery()));
        let mut lost = self.instances.select(|instance| instance.backup == slot);
        lost.retain(|id| !keeps || !self.still_suits(*id, slot));
        self.replace_backups(&lost);
    }

    /// A host is in another zone now, so its instances need backups there.
    pub(super) fn check_backups_of(&mut self, slot: u32) {
        let mut lost = self.instances.select(|instance| instance.slot == slot && instance.backup != NIL);
        lost.retain(|id| self.instances.find(*id).is_some_and(|instance| !self.still_suits(*id, instance.backup)));
        self.replace_backups(&lost);
    }

    fn still_suits(&self, id: InstanceId, backup: u32) -> bool {
        let Some(instance) = self.instances.find(id) else { return false };
        let (Some(request), Some(host), Some(primary)) = (&instance.protected, self.at(backup), self.at(instance.slot))
        else {
            return false;
        };
        host.zone_at == primary.zone_at && filter::closed(host, request).is_none()
    }

    /// First all are released, then each gets a new one: members that must go together can all move.
    fn replace_backups(&mut self, ids: &[InstanceId]) {
        for id in ids {
            self.drop_backup(*id);
        }
        for id in ids {
            self.back_up(*id, None);
        }
    }

    /// Tries again for protected instances that have no backup. Answers those that still have none.
    pub fn retry_backups(&mut self) -> Vec<InstanceId> {
        let mut without_backup = self.instances.select(PlacedInstance::lacks_backup);
        without_backup.retain(|id| {
            self.back_up(*id, None);
            self.instances.find(*id).is_some_and(PlacedInstance::lacks_backup)
        });
        without_backup
    }

    /// Where the instance would go if its host were lost.
    #[must_use]
    pub fn backup_of(&self, id: InstanceId) -> Option<HostId> {
        Some(self.at(self.instances.find(id)?.backup)?.id)
    }
}
