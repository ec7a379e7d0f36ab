//! The placed instances that later decisions depend on ([`crate::scheduler::members`]): what becomes known of them, and what that changes
//! on their hosts.

use super::Inventory;
use crate::scheduler::{
    bucket_trees::NIL,
    decision::Placed,
    host::{HostEntry, pinned_threads},
    members::PlacedInstance,
    request::Request,
};
use domain::{HostId, InstanceId, flavor::Size};

/// Changes what is pinned to a node of the host from one claim to another.
fn repin(host: &mut HostEntry, numa_node: Option<u8>, from: Size, to: Size) {
    let overcommit = host.overcommit_permille;
    if let Some(node) = numa_node.and_then(|at| host.numa.get_mut(usize::from(at))) {
        let (old, new) = (pinned_threads(from.vcpus, overcommit), pinned_threads(to.vcpus, overcommit));
        node.pinned_threads = node.pinned_threads.saturating_sub(old) + new;
        node.pinned_mib = node.pinned_mib.saturating_sub(from.memory_mib) + to.memory_mib;
    }
}

impl Inventory {
    /// Takes a place until its commit: the claim, the start, and what later decisions must know of the instance.
    pub fn place_tentatively(&mut self, id: InstanceId, placed: &Placed, request: &Request) {
        self.claim_tentatively(placed.host_id, placed.claim);
        self.start_begins(placed.host_id, id);
        if request.tracked() {
            self.add_instance(id, placed, request);
        }
    }

    /// The commit of the place failed.
    pub fn release_placement(&mut self, id: InstanceId, placed: &Placed) {
        self.release_tentative(placed.host_id, placed.claim);
        self.start_ends(placed.host_id, id);
        self.remove_instance(id);
    }

    /// The instance is on this host, or is about to be. Its claim isn't counted here. What was known of the instance is replaced.
    pub fn add_instance(&mut self, id: InstanceId, placed: &Placed, request: &Request) {
        self.remove_instance(id);
        let Some(slot) = self.slot_of(placed.host_id) else { return };
        self.instances.insert(id, PlacedInstance::new(slot, placed, request));
        let special = request.protected || request.preemptible.is_some();
        if special || placed.numa_node.is_some() {
            self.change(slot, |host| {
                if special {
                    host.special.push(id);
                }
                repin(host, placed.numa_node, Size::default(), placed.claim);
            });
        } else {
            self.note_change();
        }
        if request.protected {
            self.back_up(id, placed.backup.and_then(|host_id| self.slot_of(host_id)));
        }
    }

    /// The instance is gone, or was never committed.
    pub fn remove_instance(&mut self, id: InstanceId) {
        if self.instances.find(id).is_some_and(|instance| instance.backup != NIL) {
            self.drop_backup(id);
        }
        let Some(instance) = self.instances.remove(id) else { return };
        self.change(instance.slot, |host| {
            host.special.retain(|other| *other != id);
            repin(host, instance.numa_node, instance.claim, Size::default());
        });
    }

    /// The instances are being preempted, or no longer.
    pub fn set_being_preempted(&mut self, ids: &[InstanceId], being_preempted: bool) {
        for id in ids {
            if let Some(instance) = self.instances.find_mut(*id) {
                instance.being_preempted = being_preempted;
            }
        }
        self.note_change();
    }

    /// The instances that are being preempted on the host and still there.
    #[must_use]
    pub fn being_preempted_on(&self, host_id: HostId) -> Vec<InstanceId> {
        let special = self.find(host_id).map_or(&[][..], |host| &host.special);
        special.iter().copied().filter(|id| self.any_being_preempted(std::slice::from_ref(id))).collect()
    }

    /// Whether one of these is being preempted and still there.
    #[must_use]
    pub fn any_being_preempted(&self, ids: &[InstanceId]) -> bool {
        ids.iter().any(|id| self.instances.find(*id).is_some_and(|instance| instance.being_preempted))
    }

    /// The tracked instance claims `claim` on its host and requests `size` from now on, after a resize there; preemption and pinning count
    /// by that, and a protected one gets a backup for it. False: there is no such backup now, and it is without one.
    ///
    /// Its claim on the host is counted apart, as everywhere. Of an instance that isn't tracked, nothing depends on its size.
    pub fn resize(&mut self, id: InstanceId, size: Size, claim: Size) -> bool {
        let Some(instance) = self.instances.find(id) else { return true };
        let (slot, before, numa_node, backup) = (instance.slot, instance.claim, instance.numa_node, instance.backup);
        if backup != NIL {
            self.drop_backup(id);
        }
        let mut protected = false;
        if let Some(instance) = self.instances.find_mut(id) {
            instance.claim = claim;
            if let Some(request) = &mut instance.protected {
                request.size = size;
                protected = true;
            }
        }
        if numa_node.is_some() {
            self.change(slot, |host| repin(host, numa_node, before, claim));
        } else {
            self.note_change();
        }
        if protected {
            self.back_up(id, Some(backup));
        }
        !self.instances.find(id).is_some_and(PlacedInstance::lacks_backup)
    }

    /// Whether the tracked instance is pinned to a node that has less than is pinned to it.
    #[must_use]
    pub fn pinned_beyond_node(&self, id: InstanceId) -> bool {
        let overfull = |slot, node| self.at(slot).is_some_and(|host| host.node_overfull(node));
        let instance = self.instances.find(id);
        instance.is_some_and(|instance| instance.numa_node.is_some_and(|node| overfull(instance.slot, node)))
    }

    /// How many instances are tracked.
    #[must_use]
    pub fn tracked_instances(&self) -> usize {
        self.instances.len()
    }

    /// The host that a tracked instance is on.
    #[must_use]
    pub fn host_of(&self, id: InstanceId) -> Option<HostId> {
        Some(self.at(self.instances.find(id)?.slot)?.id)
    }
}
