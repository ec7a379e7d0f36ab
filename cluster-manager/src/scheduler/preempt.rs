//! Which preemptible instances give way when there is no room otherwise: on the host where the highest class that must go is lowest,
//! then where fewest go. A refusal's path: it may look at every host that has any.

use super::{
    filter,
    host::{HostEntry, fits, plus},
    inventory::Inventory,
    request::Request,
    roster::Groups,
};
use domain::{HostId, InstanceId, flavor::Size};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preemption {
    pub host_id: HostId,
    /// In the order in which they give way: lowest class first, newest first within one.
    pub gives_way: Vec<InstanceId>,
}

/// None: nobody could give way that would help, or the request's own class may push nobody.
#[must_use]
pub fn plan(inventory: &mut Inventory, request: &Request) -> Option<Preemption> {
    let groups = Groups::locate(inventory, request);
    let candidates = inventory.hosts().filter(|host| !host.special.is_empty()).filter_map(|host| {
        let slot = inventory.slot_of(host.id)?;
        let closed = !host.usable()
            || filter::closed(host, request).is_some()
            || groups.violations(host, slot, &inventory.scratch).is_none();
        if closed { None } else { on_host(inventory, host, request) }
    });
    candidates.min_by_key(|(key, _)| *key).map(|(_, preemption)| preemption)
}

type Rank = (u8, usize, u64, HostId);

fn on_host(inventory: &Inventory, host: &HostEntry, request: &Request) -> Option<(Rank, Preemption)> {
    let below = request.preemptible.map_or(u16::from(u8::MAX) + 1, u16::from);
    let mut yielding: Vec<(u8, std::cmp::Reverse<InstanceId>, Size)> = host
        .special
        .iter()
        .filter_map(|id| {
            let member = inventory.roster.find(*id)?;
            let class = member.preemptible.filter(|class| u16::from(*class) < below)?;
            Some((class, std::cmp::Reverse(*id), member.claim))
        })
        .collect();
    yielding.sort_unstable_by_key(|(class, id, _)| (*class, *id));
    let need = filter::claim(host, request);
    let (mut free, mut gives_way, mut highest, mut memory) = (host.free(), Vec::new(), 0, 0);
    for (class, std::cmp::Reverse(id), claim) in yielding {
        if fits(&need, &free) {
            break;
        }
        free = plus(free, claim);
        gives_way.push(id);
        highest = class;
        memory += claim.memory_mib;
    }
    let helps = fits(&need, &free) && !gives_way.is_empty();
    helps.then_some(((highest, gives_way.len(), memory, host.id), Preemption { host_id: host.id, gives_way }))
}
