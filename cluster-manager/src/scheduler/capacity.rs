//! What still fits, for operators: how many more of each size a zone takes, and how many when any one host may be lost.
//!
//! Instances of one size: a host takes `s = min(free / claim)` of them, a zone the sum `S`. With N+1 each that is on a host must have a
//! place on the others: of `n` in all, `x` on the host, the rest of the zone has `S - s - (n - x)` places left, so `n <= S - s` for every
//! host: `S - max(s)` fit, and that many can be had by filling hosts evenly. Room that is set aside already is not counted twice: it is
//! no free room. Dedicated hosts are counted as such, and fit nothing for all.

use super::{
    host::{HostEntry, NumaNode, plus},
    inventory::Inventory,
    roster::pinned_claim,
};
use domain::{
    capacity::{Fits, ZoneCapacity},
    flavor::{Pinning, Size},
    host::MemoryOverhead,
};
use std::{collections::BTreeMap, sync::Arc};

/// What is looked at of a host. Taken under the inventory's lock; the many sizes are counted outside it.
#[derive(Debug)]
pub struct Room {
    zone: Arc<str>,
    capacity: Size,
    used: Size,
    set_aside: Size,
    free: Size,
    overhead: MemoryOverhead,
    overcommit_permille: u32,
    numa: Vec<NumaNode>,
    usable: bool,
    dedicated: bool,
}

impl Room {
    fn of(host: &HostEntry) -> Self {
        Self {
            zone: Arc::clone(&host.zone),
            capacity: host.capacity,
            used: plus(host.used, host.tentative),
            set_aside: host.set_aside,
            free: host.free(),
            overhead: host.overhead,
            overcommit_permille: host.overcommit_permille,
            numa: host.numa.clone(),
            usable: host.usable(),
            dedicated: host.policies.dedicated_to.is_some(),
        }
    }

    fn places(&self, size: Size, pinning: Pinning) -> u64 {
        let pinned = pinning == Pinning::Numa;
        let vcpus = if pinned { pinned_claim(size.vcpus, self.overcommit_permille) } else { size.vcpus };
        let memory_mib = self.overhead.claim_mib(size);
        let of = |free: u64, claim: u64| free.checked_div(claim).unwrap_or(u64::MAX);
        let fits = of(u64::from(self.free.vcpus), u64::from(vcpus))
            .min(of(self.free.memory_mib, memory_mib))
            .min(of(self.free.disk_gib, size.disk_gib));
        let on_node = |node: &NumaNode| {
            let threads = node.threads.saturating_sub(node.pinned_threads);
            of(u64::from(threads), u64::from(size.vcpus))
                .min(of(node.memory_mib.saturating_sub(node.pinned_mib), memory_mib))
        };
        match fits {
            u64::MAX => 0,
            fits if pinned => fits.min(self.numa.iter().map(on_node).fold(0, u64::saturating_add)),
            fits => fits,
        }
    }
}

#[must_use]
pub fn rooms(inventory: &Inventory) -> Vec<Room> {
    inventory.hosts().map(Room::of).collect()
}

/// By zone, sizes in the order in which they are asked for.
#[must_use]
pub fn capacity(rooms: &[Room], sizes: &[(Size, Pinning)]) -> Vec<ZoneCapacity> {
    let mut zones: BTreeMap<&str, ZoneCapacity> = BTreeMap::new();
    let mut largest: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for room in rooms {
        let zone = zones.entry(&room.zone).or_insert_with(|| ZoneCapacity {
            zone: room.zone.to_string(),
            fits: vec![Fits::default(); sizes.len()],
            ..ZoneCapacity::default()
        });
        let largest = largest.entry(&room.zone).or_insert_with(|| vec![0; sizes.len()]);
        zone.hosts += 1;
        zone.capacity = plus(zone.capacity, room.capacity);
        zone.used = plus(zone.used, room.used);
        zone.set_aside = plus(zone.set_aside, room.set_aside);
        if room.dedicated {
            zone.dedicated_hosts += 1;
            continue;
        }
        if !room.usable {
            continue;
        }
        zone.open_hosts += 1;
        for ((size, fits), largest) in sizes.iter().zip(&mut zone.fits).zip(largest) {
            let here = room.places(size.0, size.1);
            fits.now += here;
            *largest = here.max(*largest);
        }
    }
    for (zone, largest) in zones.values_mut().zip(largest.values()) {
        for (fits, largest) in zone.fits.iter_mut().zip(largest) {
            fits.with_one_host_lost = fits.now - largest;
        }
    }
    zones.into_values().collect()
}
