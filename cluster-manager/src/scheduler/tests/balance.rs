//! Plans even out load, are worth their cost, and break nothing.

use super::{properties::check, *};
use crate::scheduler::{
    balance::{plan_balance, widest_gap},
    resident::{MoveLimits, Resident},
};
use domain::{PlacementGroupId, ProjectId, capacity::RebalancePlan};
use proptest::prelude::*;
use std::collections::HashSet;

const LIMITS: MoveLimits = MoveLimits { moves: 100, moves_per_host: 10 };

fn id(n: u128) -> HostId {
    HostId(uuid::Uuid::from_u128(n))
}

/// Each host has 10 vCPUs and 10 GiB, and runs instances of the given vCPUs and GiB.
fn rows(hosts: usize) -> Vec<Host> {
    let row = |n| Host { overhead: MemoryOverhead::default(), ..host(n as u128, size(10, 10 * 1024, 100)) };
    (1..=hosts).map(row).collect()
}

fn settle(inventory: &mut Inventory, residents: &mut Vec<Resident>, host_id: HostId, request: Request) {
    let id = InstanceId(uuid::Uuid::from_u128(100 + residents.len() as u128));
    inventory.place_tentatively(id, &Placed::of(host_id, request.size), &request);
    inventory.confirm(host_id, request.size);
    inventory.start_ends(host_id, id);
    residents.push(Resident { id, host_id, claim: request.size, numa_node: None, request, movable: true });
}

fn world(rows: &[Host], loads: &[&[(u32, u64)]], constraint: &Request) -> (Inventory, Vec<Resident>) {
    let (mut inventory, mut residents) = (Inventory::new(rows), Vec::new());
    for (row, load) in rows.iter().zip(loads) {
        for (vcpus, gib) in *load {
            let request = Request { size: size(*vcpus, gib * 1024, 1), ..constraint.clone() };
            settle(&mut inventory, &mut residents, row.id, request);
        }
    }
    (inventory, residents)
}

fn plan(loads: &[&[(u32, u64)]], tolerance: u32) -> RebalancePlan {
    let (mut inventory, residents) = world(&rows(loads.len()), loads, &Request::default());
    plan_balance(&mut inventory, &residents, LIMITS, tolerance)
}

#[test]
fn the_most_used_host_gives_to_the_least_used() {
    let result = plan(&[&[(4, 1), (3, 1), (2, 1)], &[(4, 1)], &[]], 100);
    let moves: Vec<_> = result.moves.iter().map(|m| (m.from, m.to)).collect();
    assert_eq!(moves, [(id(1), id(3))], "the four of them: 5, 4, 4 are within a tenth");
    assert_eq!((result.gap_before_permille, result.gap_after_permille), (900, 100));
    assert_eq!((result.memory_mib, result.disk_gib, result.freed.len()), (1024, 1, 0));
}

#[test]
fn what_is_even_enough_or_not_worth_its_memory_stays() {
    assert_eq!(plan(&[&[(2, 1), (2, 1)], &[(1, 1), (2, 1)]], 100).moves, [], "within the tolerance");
    assert_eq!(plan(&[&[(5, 5)], &[]], 0).moves, [], "the other way round is as uneven");
    assert_eq!(plan(&[&[(2, 4), (3, 1)], &[(2, 1)]], 0).moves, [], "four tenths copied for two tenths evened out");
    assert_eq!(plan(&[&[(2, 1), (5, 1)], &[(3, 1)]], 0).moves.len(), 1, "4 more even for 1 copied");
}

#[test]
fn one_move_at_most_each_and_no_more_than_allowed() {
    let (mut inventory, residents) = world(&rows(2), &[&[(1, 0); 10], &[]], &Request::default());
    let result = plan_balance(&mut inventory, &residents, MoveLimits { moves: 3, ..LIMITS }, 0);
    assert_eq!(result.moves.len(), 3);
    assert_eq!(result.gap_after_permille, 400);
}

#[test]
fn pinned_instances_and_those_in_between_states_stay() {
    let (mut inventory, residents) =
        world(&rows(2), &[&[(2, 1), (2, 1)], &[]], &Request { pinned: true, ..Request::default() });
    assert_eq!(plan_balance(&mut inventory, &residents, LIMITS, 0).moves, []);
    let (mut inventory, mut residents) = world(&rows(2), &[&[(2, 1), (2, 1)], &[]], &Request::default());
    residents.iter_mut().for_each(|r| r.movable = false);
    assert_eq!(plan_balance(&mut inventory, &residents, LIMITS, 0).moves, []);
}

#[test]
fn closed_hosts_other_zones_and_other_dedications_take_no_part() {
    let loads: &[&[(u32, u64)]] = &[&[(2, 1), (2, 1)], &[]];
    let change: [fn(&mut Host); 5] = [
        |row| row.cordoned = true,
        |row| row.draining = true,
        |row| row.state = HostState::Disconnected,
        |row| row.zone = "other".to_owned(),
        |row| row.dedicated_to = Some(ProjectId(uuid::Uuid::from_u128(1))),
    ];
    for (at, change) in change.iter().enumerate() {
        let mut rows = rows(2);
        change(&mut rows[1]);
        let (mut inventory, residents) = world(&rows, loads, &Request::default());
        let result = plan_balance(&mut inventory, &residents, LIMITS, 0);
        assert_eq!((result.moves.len(), result.gap_before_permille), (0, 0), "change {at}");
    }
}

#[test]
fn tags_and_groups_hold() {
    let mut tagged = rows(3);
    tagged[0].tags.insert("disk".into(), "ssd".into());
    tagged[2].tags.insert("disk".into(), "ssd".into());
    let constraint = Request { tags: [("disk".to_owned(), "ssd".to_owned())].into(), ..Request::default() };
    let (mut inventory, residents) = world(&tagged, &[&[(3, 1), (3, 1)], &[], &[(1, 1)]], &constraint);
    let result = plan_balance(&mut inventory, &residents, LIMITS, 0);
    assert_eq!(result.moves.iter().map(|m| m.to).collect::<Vec<_>>(), [id(3)], "not to the empty one");

    // The first two hosts have one member each, and the members must be apart.
    let mut constraint = GroupConstraint {
        group: PlacementGroupId::new(),
        policy: GroupPolicy::AntiAffinity,
        scope: GroupScope::Host,
        strength: GroupStrength::Hard,
    };
    for strength in [GroupStrength::Hard, GroupStrength::Soft] {
        constraint.strength = strength;
        let rows = rows(2);
        let (mut inventory, mut residents) = world(&rows, &[&[], &[]], &Request::default());
        let member = Request { groups: vec![constraint], ..sized(2, 1024, 1) };
        settle(&mut inventory, &mut residents, id(1), member.clone());
        settle(&mut inventory, &mut residents, id(2), member);
        settle(&mut inventory, &mut residents, id(1), sized(6, 6 * 1024, 1));
        assert_eq!(plan_balance(&mut inventory, &residents, LIMITS, 0).moves, [], "{strength:?}");
    }
}

#[test]
fn reserved_capacity_is_not_taken() {
    // Host 2 reserves its capacity for what runs on 1, and 3 is small.
    let mut rows = rows(3);
    rows[2].capacity = size(1, 1024, 100);
    let (mut inventory, residents) =
        world(&rows, &[&[(4, 1), (4, 1)], &[], &[]], &Request { protected: true, ..Request::default() });
    let reserved = inventory.find(id(2)).expect("known").recovery_reserved;
    assert_eq!(reserved.vcpus, 8);
    let result = plan_balance(&mut inventory, &residents, LIMITS, 0);
    // Four of the eight vCPUs move there; the other four stay reserved, and host 1 reserves capacity for those that moved.
    assert_eq!(result.moves.iter().map(|m| (m.from, m.to)).collect::<Vec<_>>(), [(id(1), id(2))]);
    assert_eq!(result.gap_after_permille, 400);
}

type Spec = (Vec<(u32, u64, u8)>, (u32, u64, u8));

fn any_world() -> impl Strategy<Value = Vec<Spec>> {
    let instance = (1_u32..5, 0_u64..5, 0_u8..8);
    let spec = (prop::collection::vec(instance, 0..8), (4_u32..12, 4_u64..12, any::<u8>()));
    prop::collection::vec(spec, 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_plan_breaks_nothing_and_each_move_improves(specs in any_world(), tolerance in 0_u32..300) {
        let group = PlacementGroupId(uuid::Uuid::from_u128(5));
        let apart = GroupConstraint { group, policy: GroupPolicy::AntiAffinity, scope: GroupScope::Host, strength: GroupStrength::Hard };
        let rows: Vec<Host> = (1..).zip(&specs).map(|(n, (_, (vcpus, gib, kind)))| {
            let mut row = host(n, size(*vcpus, gib * 1024, 100));
            row.zone = format!("z{}", kind % 2);
            row.cordoned = kind % 11 == 0;
            row
        }).collect();
        let build = || {
            let (mut inventory, mut residents) = (Inventory::new(&rows), Vec::new());
            for (row, (instances, _)) in rows.iter().zip(&specs) {
                for (vcpus, gib, constraint) in instances {
                    let mut request = Request { protected: *constraint == 1, ..sized(*vcpus, gib * 1024, 1) };
                    if *constraint == 2 { request.groups = vec![apart]; }
                    // An instance is only there if a decision would have placed it there.
                    if let Some(choice) = choose::choose_on(&mut inventory, &request, row.id) {
                        let id = InstanceId(uuid::Uuid::from_u128(100 + residents.len() as u128));
                        inventory.place_tentatively(id, &choice.placed, &request);
                        inventory.confirm(row.id, choice.placed.claim);
                        let claim = choice.placed.claim;
                        residents.push(Resident { id, host_id: row.id, claim, numa_node: None, request, movable: *constraint != 3 });
                    }
                }
            }
            (inventory, residents)
        };
        let (before, residents) = build();
        let mut inventory = build().0;
        prop_assert!(inventory.retry_backups().is_empty());
        let result = plan_balance(&mut inventory, &residents, LIMITS, tolerance);
        let again = plan_balance(&mut build().0, &residents, LIMITS, tolerance);
        prop_assert_eq!(&result, &again, "the same world, the same plan");
        prop_assert_eq!(result.gap_before_permille, widest_gap(&before));
        prop_assert!(result.freed.is_empty() && result.gap_after_permille <= result.gap_before_permille);

        let mut used: BTreeMap<HostId, Size> = before.hosts().map(|h| (h.id, h.used)).collect();
        let mut moved = HashSet::new();
        for step in &result.moves {
            let resident = residents.iter().find(|r| r.id == step.instance_id).expect("it is there");
            prop_assert!(moved.insert(step.instance_id), "twice");
            prop_assert!(resident.movable && resident.host_id == step.from && step.from != step.to);
            let (source, target) = (before.find(step.from).expect("known"), before.find(step.to).expect("known"));
            prop_assert!(source.zone == target.zone && source.usable() && target.usable());
            let load = |used: &BTreeMap<HostId, Size>, h: &HostEntry| {
                let used = used[&h.id];
                (used.vcpus * 1000 / h.capacity.vcpus).max((used.memory_mib * 1000 / h.capacity.memory_mib) as u32)
            };
            let (from, to) = (load(&used, source), load(&used, target));
            prop_assert!(from > to + tolerance, "{} {}", from, to);
            used.insert(step.from, host::minus(used[&step.from], resident.claim));
            used.insert(step.to, host::plus(used[&step.to], filter::claim(target, &resident.request)));
            prop_assert!(load(&used, source).max(load(&used, target)) < from, "the busier is less busy");
        }
        check(&inventory)?;
        prop_assert!(inventory.retry_backups().is_empty(), "protected instances stay so");
        for h in inventory.hosts() {
            prop_assert_eq!(h.used, used[&h.id]);
        }
        let apart = residents.iter().filter(|r| !r.request.groups.is_empty());
        let places: Vec<HostId> = apart.map(|r| inventory.host_of(r.id).expect("attached")).collect();
        prop_assert_eq!(places.iter().collect::<HashSet<_>>().len(), places.len(), "apart");
    }
}
