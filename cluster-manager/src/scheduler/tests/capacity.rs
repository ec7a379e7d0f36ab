//! What is said to fit does fit, and no more.

use super::*;
use crate::scheduler::{
    capacity::{host_capacities, zone_capacities},
    host::Policies,
};
use domain::{capacity::Fits, flavor::Pinning, host::NumaFacts};

fn row(n: u128, vcpus: u32) -> Host {
    Host { overhead: MemoryOverhead::default(), ..host(n, size(vcpus, u64::from(vcpus) * 1024, 100)) }
}

/// How many instances the scheduler really places.
fn placed(rows: &[Host], request: &Request) -> u64 {
    let mut inventory = Inventory::new(rows);
    let mut count = 0;
    while let Some(at) = decide(&mut inventory, request, NOW).placed {
        inventory.place_tentatively(InstanceId(uuid::Uuid::from_u128(1000 + u128::from(count))), &at, request);
        count += 1;
    }
    count
}

#[test]
fn it_is_what_the_scheduler_places() {
    for vcpus in [&[4_u32, 4, 4][..], &[8, 4, 2], &[16, 1], &[5]] {
        let rows: Vec<Host> = vcpus.iter().zip(1..).map(|(vcpus, n)| row(n, *vcpus)).collect();
        let zones = zone_capacities(
            &host_capacities(&Inventory::new(&rows)),
            &[size(1, 1024, 0), size(2, 512, 0)].map(|size| (size, Pinning::None)),
        );
        for (fits, size) in zones[0].fits.iter().zip([size(1, 1024, 0), size(2, 512, 0)]) {
            let request = Request { size, ..Request::default() };
            assert_eq!(fits.now, placed(&rows, &request), "{vcpus:?} {size:?}");
            // The scheduler fills hosts one by one, so it may refuse a little earlier.
            let protected = placed(&rows, &Request { protected: true, ..request });
            assert!(protected <= fits.with_one_host_lost, "{protected} of {fits:?} on {vcpus:?}");
        }
    }
}

#[test]
fn closed_and_dedicated_hosts_fit_nothing_and_zones_are_apart() {
    let mut rows: Vec<Host> = (1..=5).map(|n| row(n, 4)).collect();
    rows[3].zone = "b".to_owned();
    rows[1].cordoned = true;
    let mut inventory = Inventory::new(&rows);
    inventory
        .set_policies(rows[2].id, Policies { dedicated_to: Some(domain::ProjectId::new()), ..Policies::default() });
    let zones = zone_capacities(
        &host_capacities(&inventory),
        &[size(1, 1, 0), size(0, 0, 0)].map(|size| (size, Pinning::None)),
    );
    let shown: Vec<_> = zones.iter().map(|z| (z.zone.as_str(), z.hosts, z.open_hosts, z.dedicated_hosts)).collect();
    assert_eq!(shown, [("b", 1, 1, 0), ("default", 4, 2, 1)]);
    assert_eq!(zones[1].fits[0], Fits { now: 8, with_one_host_lost: 4 });
    assert_eq!(zones[0].fits[0], Fits { now: 4, with_one_host_lost: 0 });
    assert_eq!(zones[0].fits[1], Fits::default(), "of nothing there is no number");
    assert_eq!(zones[1].capacity.vcpus, 16);
}

#[test]
fn pinned_sizes_are_counted_by_node() {
    let mut row = row(1, 8);
    let node = |id| NumaFacts { id, threads: 4, memory_mib: 8 * 1024 };
    row.facts.numa = vec![node(0), node(1)];
    let sizes = [(size(3, 512, 0), Pinning::None), (size(3, 512, 0), Pinning::Numa), (size(5, 512, 0), Pinning::Numa)];
    let zones = zone_capacities(&host_capacities(&Inventory::new(&[row])), &sizes);
    let fits: Vec<u64> = zones[0].fits.iter().map(|fits| fits.now).collect();
    assert_eq!(fits, [2, 2, 0], "no node has five threads");
}
