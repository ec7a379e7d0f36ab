//! What still fits, for operators: how many more of each size a zone takes, and how many when any one host may be lost.
//!
//! Instances of one size: a host takes `s = min(free / claim)` of them, a zone the sum `S`. With N+1 each that is on a host must have a
//! place on the others: of `n` in all, `x` on the host, the rest of the zone has `S - s - (n - x)` places left, so `n <= S - s` for every
//! host: `S - max(s)` fit, and that many can be had by filling hosts evenly. Room that is set aside already is not counted twice: it is
//! no free room. Dedicated hosts are counted as such, and fit nothing for all.

use super::{
    filter,
    host::{HostEntry, NumaNode, plus},
    inventory::Inventory,
    request::Request,
};
use domain::{
    capacity::{Fits, ZoneCapacity},
    flavor::{Pinning, Size},
};
use std::collections::BTreeMap;

/// By zone, sizes in the order in which they are asked for.
#[must_use]
pub fn capacity(inventory: &Inventory, sizes: &[(Size, Pinning)]) -> Vec<ZoneCapacity> {
    let mut zones: BTreeMap<&str, ZoneCapacity> = BTreeMap::new();
    let mut largest: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for host in inventory.hosts() {
        let zone = zones.entry(&host.zone).or_insert_with(|| ZoneCapacity {
            zone: host.zone.to_string(),
            fits: vec![Fits::default(); sizes.len()],
            ..ZoneCapacity::default()
        });
        let largest = largest.entry(&host.zone).or_insert_with(|| vec![0; sizes.len()]);
        zone.hosts += 1;
        zone.capacity = plus(zone.capacity, host.capacity);
        zone.used = plus(zone.used, plus(host.used, host.tentative));
        zone.set_aside = plus(zone.set_aside, host.set_aside);
        if host.policies.dedicated_to.is_some() {
            zone.dedicated_hosts += 1;
            continue;
        }
        if !host.usable() {
            continue;
        }
        zone.open_hosts += 1;
        for ((size, fits), largest) in sizes.iter().zip(&mut zone.fits).zip(largest) {
            let here = places(host, size.0, size.1);
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

fn places(host: &HostEntry, size: Size, pinning: Pinning) -> u64 {
    let request = Request { size, pinned: pinning == Pinning::Numa, ..Request::default() };
    let (free, claim) = (host.free(), filter::claim(host, &request));
    let of = |free: u64, claim: u64| free.checked_div(claim).unwrap_or(u64::MAX);
    let fits = of(u64::from(free.vcpus), u64::from(claim.vcpus))
        .min(of(free.memory_mib, claim.memory_mib))
        .min(of(free.disk_gib, claim.disk_gib));
    let on_nodes = || -> u64 {
        let here = |node: &NumaNode| {
            let threads = node.threads.saturating_sub(node.pinned_threads);
            of(u64::from(threads), u64::from(size.vcpus))
                .min(of(node.memory_mib.saturating_sub(node.pinned_mib), claim.memory_mib))
        };
        host.numa.iter().map(here).fold(0, u64::saturating_add)
    };
    match fits {
        u64::MAX => 0,
        fits if request.pinned => fits.min(on_nodes()),
        fits => fits,
    }
}
