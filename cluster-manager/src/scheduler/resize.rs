//! A resize on the instance's own host, as far as later decisions depend on it: what it takes there (preemption and pinning count by
//! it), and the room its backup keeps for it (N+1, [`super::reserve`]). Its claim on the host is counted apart, as everywhere.

use super::{inventory::Inventory, roster::pinned_threads, sets::NIL};
use domain::{InstanceId, flavor::Size};

impl Inventory {
    /// The attached instance is pinned to a node that has less than is pinned to it.
    #[must_use]
    pub fn pinned_beyond_node(&self, id: InstanceId) -> bool {
        let member = self.roster.find(id);
        let overfull = |slot, node| self.at(slot).is_some_and(|host| host.node_overfull(node));
        member.is_some_and(|member| member.numa_node.is_some_and(|node| overfull(member.slot, node)))
    }

    /// The attached instance takes `claim` on its host and asks for `size` from now on; a protected one has room for that on a backup.
    /// False: there is no such backup now, and it is without one.
    ///
    /// Of an instance that isn't attached, nothing depends on its size.
    pub fn resize(&mut self, id: InstanceId, size: Size, claim: Size) -> bool {
        let Some(member) = self.roster.find(id) else { return true };
        let (slot, before, numa_node, backup) = (member.slot, member.claim, member.numa_node, member.backup);
        if backup != NIL {
            self.drop_backup(id);
        }
        let mut protected = false;
        if let Some(member) = self.roster.find_mut(id) {
            member.claim = claim;
            if let Some(request) = &mut member.protected {
                request.size = size;
                protected = true;
            }
        }
        if numa_node.is_some() {
            self.change(slot, |host| {
                let overcommit = host.overcommit_permille;
                if let Some(node) = numa_node.and_then(|at| host.numa.get_mut(usize::from(at))) {
                    let (old, new) =
                        (pinned_threads(before.vcpus, overcommit), pinned_threads(claim.vcpus, overcommit));
                    node.pinned_threads = node.pinned_threads.saturating_sub(old) + new;
                    node.pinned_mib = node.pinned_mib.saturating_sub(before.memory_mib) + claim.memory_mib;
                }
            });
        } else {
            self.clear_refusals();
        }
        if protected {
            self.back_up(id, Some(backup));
        }
        !protected || self.roster.find(id).is_some_and(|member| member.backup != NIL)
    }
}
