//! Which preemptible instances give way when there is no room otherwise: on the host where the highest class that must go is lowest,
//! then where fewest go. A refusal's path: it may look at every host that has any.
//!
//! Nobody gives way for what wouldn't be placed then: a protected request needs a host whose loss another could bear, and one that is
//! pinned makes nobody give way, since what a node would have free afterwards isn't known.
//!
//! Those that give way already count as gone, and what their room is held for as there (`room.rs`): none is promised twice.

use super::{
    filter,
    host::{HostEntry, fits, minus, plus},
    inventory::Inventory,
    request::Request,
    roster::Groups,
};
use domain::{HostId, InstanceId, flavor::Size};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preemption {
    pub host_id: HostId,
    /// What it would take there.
    pub claim: Size,
    /// In the order in which they give way: lowest class first, newest first within one. Empty: those that do already are enough.
    pub preempted: Vec<InstanceId>,
}

/// None: nobody could give way that would help, or the request's own class may push nobody.
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
    let mut yielding: Vec<(u8, std::cmp::Reverse<InstanceId>, Size)> = host
        .special
        .iter()
        .filter_map(|id| {
            let member = inventory.roster.find(*id).filter(|member| !member.leaving)?;
            let class = member.preemptible.filter(|class| u16::from(*class) < below)?;
            Some((class, std::cmp::Reverse(*id), member.claim))
        })
        .collect();
    yielding.sort_unstable_by_key(|(class, id, _)| (*class, *id));
    let leave = host.special.iter().filter_map(|id| inventory.roster.find(*id)).filter(|member| member.leaving);
    let mut leaving = leave.fold(Size::default(), |sum, member| plus(sum, member.claim));
    let need = filter::claim(host, request);
    let mut chosen = Vec::new();
    for (class, std::cmp::Reverse(id), claim) in yielding {
        if fits(&need, &host.free_after(leaving)) {
            break;
        }
        leaving = plus(leaving, claim);
        chosen.push((class, id, claim));
    }
    // Those of higher classes stay if lower ones turn out to be enough without them; then small ones that a large one makes needless.
    for at in (0..chosen.len()).rev() {
        let without = minus(leaving, chosen[at].2);
        if fits(&need, &host.free_after(without)) {
            leaving = without;
            chosen.remove(at);
        }
    }
    let highest = chosen.iter().map(|(class, ..)| *class).max().unwrap_or(0);
    let memory: u64 = chosen.iter().map(|(.., claim)| claim.memory_mib).sum();
    let preempted: Vec<InstanceId> = chosen.into_iter().map(|(_, id, _)| id).collect();
    let helps = fits(&need, &host.free_after(leaving)) && leaving != Size::default();
    let rank = (highest, preempted.len(), memory, host.id);
    helps.then_some((rank, Preemption { host_id: host.id, claim: need, preempted }))
}
