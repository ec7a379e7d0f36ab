//! Plans free hosts, keep every constraint, move nothing twice and nothing in vain.

use super::*;
use crate::scheduler::{
    consolidate::plan_consolidation,
    resident::{MoveLimits, Resident},
};
use domain::{PlacementGroupId, cpu::CpuBaseline};
use proptest::prelude::*;
use std::{collections::HashSet, sync::Arc};

const LIMITS: MoveLimits = MoveLimits { moves: 100, moves_per_host: 10 };

/// Each host has 8 vCPUs, and runs instances of the given vCPUs.
fn world(loads: &[&[u32]], constraint: &Request) -> (Inventory, Vec<Resident>) {
    let rows: Vec<Host> = (1..=loads.len())
        .map(|n| Host { overhead: MemoryOverhead::default(), ..host(n as u128, size(8, 8 * 1024, 100)) })
        .collect();
    let mut inventory = Inventory::new(&rows);
    let mut residents = Vec::new();
    for (row, load) in rows.iter().zip(loads) {
        for vcpus in *load {
            let id = InstanceId(uuid::Uuid::from_u128(100 + residents.len() as u128));
            let request = Request { size: size(*vcpus, 512, 1), ..constraint.clone() };
            let placed = Placed::of(row.id, request.size);
            inventory.place_tentatively(id, &placed, &request);
            inventory.confirm(row.id, placed.claim);
            residents.push(Resident {
                id,
                host_id: row.id,
                claim: request.size,
                numa_node: None,
                request,
                movable: true,
            });
        }
    }
    (inventory, residents)
}

fn plan(loads: &[&[u32]], limits: MoveLimits) -> domain::capacity::RebalancePlan {
    let (inventory, residents) = world(loads, &Request::default());
    plan_consolidation(inventory, &residents, limits)
}

fn id(n: u128) -> HostId {
    HostId(uuid::Uuid::from_u128(n))
}

#[test]
fn the_emptiest_host_is_emptied_and_its_cost_named() {
    let result = plan(&[&[4, 1, 1], &[1, 1], &[]], LIMITS);
    assert_eq!((result.freed.as_slice(), result.moves.len()), (&[id(2)][..], 2));
    assert!(result.moves.iter().all(|m| m.from == id(2) && m.to == id(1)), "never to the empty one: {result:?}");
    assert_eq!((result.memory_mib, result.disk_gib), (1024, 2));
}

#[test]
fn nothing_moves_without_a_freed_host_or_beyond_its_worth() {
    assert_eq!(plan(&[&[6], &[6]], LIMITS).moves, [], "neither fits on the other");
    assert_eq!(plan(&[&[4, 3], &[1, 1]], LIMITS).moves, [], "half a host is nothing");
    let few = MoveLimits { moves_per_host: 1, ..LIMITS };
    assert_eq!(plan(&[&[2, 2], &[1, 1]], few).moves, []);
    let none = MoveLimits { moves: 1, ..LIMITS };
    assert_eq!(plan(&[&[2, 2], &[1, 1]], none).moves, []);
}

#[test]
fn a_running_guest_only_goes_where_its_cpu_is() {
    let cpu = |features: &[&str]| CpuBaseline {
        model: "host".into(),
        features: features.iter().map(|f| (*f).to_owned()).collect(),
        ..CpuBaseline::default()
    };
    let moves = |target: Option<CpuBaseline>, baseline: Option<CpuBaseline>| {
        let constraint = Request { baseline: baseline.map(Arc::new), ..Request::default() };
        let (mut inventory, residents) = world(&[&[2, 2], &[1]], &constraint);
        let mut row = Host { overhead: MemoryOverhead::default(), ..host(1, size(8, 8 * 1024, 100)) };
        row.facts.guest_cpu = target;
        inventory.put_host(&row);
        plan_consolidation(inventory, &residents, LIMITS).moves.iter().filter(|m| m.to == id(1)).count()
    };
    let booted_on = Some(cpu(&["avx", "avx2"]));
    assert_eq!(moves(Some(cpu(&["avx", "avx2", "avx512f"])), booted_on.clone()), 1, "more is no harm");
    assert_eq!(moves(Some(cpu(&["avx"])), booted_on.clone()), 0, "avx2 would be lost");
    assert_eq!(moves(None, booted_on), 0, "nobody knows what is there");
    assert_eq!(moves(None, None), 1, "placed before baselines were kept");
}

#[test]
fn groups_and_states_hold_a_host_back() {
    let apart = GroupConstraint {
        group: PlacementGroupId::new(),
        policy: GroupPolicy::AntiAffinity,
        scope: GroupScope::Host,
        strength: GroupStrength::Hard,
    };
    let (inventory, residents) = world(&[&[1], &[1]], &Request { groups: vec![apart], ..Request::default() });
    assert_eq!(plan_consolidation(inventory, &residents, LIMITS).moves, []);
    let (inventory, mut residents) = world(&[&[4], &[1]], &Request::default());
    residents.iter_mut().for_each(|r| r.movable = false);
    assert_eq!(plan_consolidation(inventory, &residents, LIMITS).moves, []);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_planned_fits(loads in prop::collection::vec(prop::collection::vec(1_u32..5, 0..4), 1..12)) {
        let loads: Vec<Vec<u32>> = loads.into_iter().map(|mut l| { while l.iter().sum::<u32>() > 8 { l.pop(); } l }).collect();
        let borrowed: Vec<&[u32]> = loads.iter().map(Vec::as_slice).collect();
        let result = plan(&borrowed, LIMITS);
        let mut used: std::collections::BTreeMap<HostId, i64> =
            (1..).zip(&loads).map(|(n, l)| (id(n), l.iter().map(|v| i64::from(*v)).sum())).collect();
        let (_, residents) = world(&borrowed, &Request::default());
        let mut moved = HashSet::new();
        for m in &result.moves {
            let resident = residents.iter().find(|r| r.id == m.instance_id).expect("it is there");
            prop_assert!(moved.insert(m.instance_id), "twice");
            prop_assert_eq!(resident.host_id, m.from);
            *used.get_mut(&m.from).expect("known") -= i64::from(resident.claim.vcpus);
            *used.get_mut(&m.to).expect("known") += i64::from(resident.claim.vcpus);
        }
        for (host, used) in &used {
            prop_assert!((0..=8).contains(used), "{host}: {used}");
            prop_assert!(!result.freed.contains(host) || *used == 0);
        }
    }
}
