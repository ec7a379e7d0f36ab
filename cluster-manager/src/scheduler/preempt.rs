//! Which preemptible instances are preempted when there is no capacity otherwise: those of the host where the highest class that must go
//! is lowest, then where fewest go. This is a refusal's path, so it may examine every host that has any.
//!
//! Nobody is preempted for what wouldn't be placed then: a protected request needs a host whose loss another could bear, and a request
//! for pinned vCPUs preempts nobody, since what a node would have free afterwards isn't known.
//!
//! Instances that are being preempted already count as gone, and what their capacity is held for counts as there
//! ([`crate::placement::capacity_hold`]): nothing is promised twice.

use super::{
    decision::Preemption,
    filter,
    groups::Groups,
    host::{HostEntry, fits, minus, plus},
    inventory::Inventory,
    request::Request,
};
use domain::{HostId, InstanceId, flavor::Size};

/// None: preempting anybody wouldn't help, or the request's own class may preempt nobody.
#[must_use]
pub fn plan(inventory: &mut Inventory, request: &Request) -> Option<Preemption> {
    if request.pinned {
        return None;
    }
    let groups = Groups::locate(inventory, request);
    let candidates = inventory.hosts().filter(|host| !host.special.is_empty()).filter_map(|host| {
        let slot = inventory.slot_of(host.id)?;
        let closed = !host.usable()
            || filter::closed(host, request).is_some()
            || groups.violations(host, slot, &inventory.scratch).is_none();
        if closed { None } else { on_host(inventory, host, request) }
    });
    if !request.protected {
        return candidates.min_by_key(|(key, _)| *key).map(|(_, preemption)| preemption);
    }
    let mut ranked: Vec<(Rank, Preemption)> = candidates.collect();
    ranked.sort_unstable_by_key(|(key, _)| *key);
    let backed = |(_, preemption): (Rank, Preemption)| {
        let slot = inventory.slot_of(preemption.host_id)?;
        inventory.find_backup(slot, request).map(|_| preemption)
    };
    ranked.into_iter().find_map(backed)
}

type Rank = (u8, usize, u64, HostId);

fn on_host(inventory: &Inventory, host: &HostEntry, request: &Request) -> Option<(Rank, Preemption)> {
    let below = request.preemptible.map_or(u16::from(u8::MAX) + 1, u16::from);
    let mut candidates: Vec<(u8, std::cmp::Reverse<InstanceId>, Size)> = host
        .special
        .iter()
        .filter_map(|id| {
            let instance = inventory.instances.find(*id).filter(|instance| !instance.being_preempted)?;
            let class = instance.preemptible.filter(|class| u16::from(*class) < below)?;
            Some((class, std::cmp::Reverse(*id), instance.claim))
        })
        .collect();
    candidates.sort_unstable_by_key(|(class, id, _)| (*class, *id));
    let going = host.special.iter().filter_map(|id| inventory.instances.find(*id)).filter(|i| i.being_preempted);
    let mut freed = going.fold(Size::default(), |sum, instance| plus(sum, instance.claim));
    let need = filter::claim(host, request);
    let mut chosen = Vec::new();
    for (class, std::cmp::Reverse(id), claim) in candidates {
        if fits(&need, &host.free_after(freed)) {
            break;
        }
        freed = plus(freed, claim);
        chosen.push((class, id, claim));
    }
    // Instances of higher classes stay if lower ones turn out to be enough without them; so do small ones that a large one makes needless.
    for at in (0..chosen.len()).rev() {
        let without = minus(freed, chosen[at].2);
        if fits(&need, &host.free_after(without)) {
            freed = without;
            chosen.remove(at);
        }
    }
    let highest = chosen.iter().map(|(class, ..)| *class).max().unwrap_or(0);
    let memory: u64 = chosen.iter().map(|(.., claim)| claim.memory_mib).sum();
    let preempted: Vec<InstanceId> = chosen.into_iter().map(|(_, id, _)| id).collect();
    let helps = fits(&need, &host.free_after(freed)) && freed != Size::default();
    let rank = (highest, preempted.len(), memory, host.id);
    helps.then_some((rank, Preemption { host_id: host.id, claim: need, preempted }))
}
