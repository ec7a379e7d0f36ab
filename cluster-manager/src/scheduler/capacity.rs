//! What still fits, for operators: how many more of each size a zone takes, and how many when any one host may be lost.
//!
//! Instances of one size: a host takes `s = min(free / claim)` of them, a zone the sum `S`. With N+1 each that is on a host must have a
//! place on the others: of `n` in all, `x` on the host, the rest of the zone has `S - s - (n - x)` places left, so `n <= S - s` for every
//! host: `S - max(s)` fit, and that many can be had by filling hosts evenly. Capacity that is reserved already is not counted twice: it
//! isn't free. Dedicated hosts are counted as such, and fit nothing for all.

use super::{
    host::{HostEntry, NumaNode, pinned_claim, plus},
    inventory::Inventory,
};
use domain::{
    capacity::{Fits, ZoneCapacity},
    flavor::{Pinning, Size},
    host::MemoryOverhead,
};
use std::{collections::BTreeMap, sync::Arc};

/// What is counted of a host. It is copied under the inventory's lock; the many sizes are counted outside it.
#[derive(Debug)]
pub struct HostCapacity {
    zone: Arc<str>,
    capacity: Size,
    used: Size,
    recovery_reserved: Size,
    free: Size,
    overhead: MemoryOverhead,
    overcommit_permille: u32,
    numa: Vec<NumaNode>,
    usable: bool,
    dedicated: bool,
}

impl HostCapacity {
    fn of(host: &HostEntry) -> Self {
        Self {
            zone: Arc::clone(&host.zone),
            capacity: host.capacity,
            used: plus(host.used, host.tentative),
            recovery_reserved: host.recovery_reserved,
            free: host.free(),
            overhead: host.overhead,
            overcommit_permille: host.overcommit_permille,
            numa: host.numa.clone(),
            usable: host.usable(),
            dedicated: host.policies.dedicated_to.is_some(),
        }
    }

    fn count(&self, size: Size, pinning: Pinning) -> u64 {
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
pub fn host_capacities(inventory: &Inventory) -> Vec<HostCapacity> {
    inventory.hosts().map(HostCapacity::of).collect()
}

/// The capacity of each zone, the sizes in the order of `sizes`.
#[must_use]
pub fn zone_capacities(hosts: &[HostCapacity], sizes: &[(Size, Pinning)]) -> Vec<ZoneCapacity> {
    let mut zones: BTreeMap<&str, ZoneCapacity> = BTreeMap::new();
    let mut largest: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for host in hosts {
        let zone = zones.entry(&host.zone).or_insert_with(|| ZoneCapacity {
            zone: host.zone.to_string(),
            fits: vec![Fits::default(); sizes.len()],
            ..ZoneCapacity::default()
        });
        let largest = largest.entry(&host.zone).or_insert_with(|| vec![0; sizes.len()]);
        zone.hosts += 1;
        zone.capacity = plus(zone.capacity, host.capacity);
        zone.used = plus(zone.used, host.used);
        zone.reserved = plus(zone.reserved, host.recovery_reserved);
        if host.dedicated {
            zone.dedicated_hosts += 1;
            continue;
        }
        if !host.usable {
            continue;
        }
        zone.open_hosts += 1;
        for ((size, fits), largest) in sizes.iter().zip(&mut zone.fits).zip(largest) {
            let here = host.count(size.0, size.1);
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
