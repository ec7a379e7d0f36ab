use super::*;
use domain::PlacementGroupId;
use proptest::prelude::*;

fn group(n: u128) -> PlacementGroupId {
    PlacementGroupId(uuid::Uuid::from_u128(n))
}

pub(super) fn constraint(n: u128, policy: GroupPolicy, scope: GroupScope, strength: GroupStrength) -> GroupConstraint {
    GroupConstraint { group: group(n), policy, scope, strength }
}

fn racked(n: u128, rack: &str, zone: &str) -> Host {
    let mut row = host(n, size(8, 16_384, 0));
    row.zone = zone.to_owned();
    if !rack.is_empty() {
        row.tags.insert("rack".into(), rack.into());
    }
    row
}

fn place(inventory: &mut Inventory, request: &Request) -> Option<u128> {
    let placed = decide(inventory, request, NOW).placed?;
    inventory.place_tentatively(InstanceId::new(), &placed, request);
    Some(placed.host_id.0.as_u128())
}

#[test]
fn ten_hosts_take_ten_of_an_anti_affinity_group() {
    let rows: Vec<Host> = (1..=10).map(|n| host(n, size(64, 65_536, 0))).collect();
    let mut inventory = Inventory::new(&rows);
    let request = Request {
        groups: vec![constraint(1, GroupPolicy::AntiAffinity, GroupScope::Host, GroupStrength::Hard)],
        ..sized(1, 512, 0)
    };
    let placed: Vec<Option<u128>> = (0..1000).map(|_| place(&mut inventory, &request)).collect();
    assert_eq!(placed.iter().flatten().count(), 10);
    let refused = decide(&mut inventory, &request, NOW);
    assert_eq!(
        refused.record.rejected.iter().map(|r| (r.filter, r.hosts)).collect::<Vec<_>>(),
        [(Rejection::Group, 10)]
    );
    assert_eq!(
        refused.record.hint,
        "10 hosts have enough capacity but are ruled out by the placement group; a soft policy would allow it"
    );
    let soft = Request {
        groups: vec![constraint(1, GroupPolicy::AntiAffinity, GroupScope::Host, GroupStrength::Soft)],
        ..sized(1, 512, 0)
    };
    assert!(place(&mut inventory, &soft).is_some());
}

#[test]
fn affinity_follows_the_first_and_soft_constraints_yield() {
    let rows = [racked(1, "a", "x"), racked(2, "a", "x"), racked(3, "b", "x"), racked(4, "", "y")];
    let mut inventory = Inventory::new(&rows);
    let near = |scope, strength| Request {
        groups: vec![constraint(1, GroupPolicy::Affinity, scope, strength)],
        ..sized(4, 1024, 0)
    };
    let by_rack = near(GroupScope::Rack, GroupStrength::Hard);
    assert_eq!(place(&mut inventory, &by_rack), Some(1));
    assert_eq!(place(&mut inventory, &by_rack), Some(1));
    assert_eq!(place(&mut inventory, &by_rack), Some(2), "same rack");
    assert_eq!(place(&mut inventory, &by_rack), Some(2));
    assert_eq!(place(&mut inventory, &by_rack), None, "the rack is full");
    assert_eq!(place(&mut inventory, &near(GroupScope::Zone, GroupStrength::Hard)), Some(3));
    assert_eq!(
        place(&mut inventory, &near(GroupScope::Host, GroupStrength::Soft)),
        Some(3),
        "where a member is, if there is capacity"
    );
    assert_eq!(place(&mut inventory, &near(GroupScope::Host, GroupStrength::Soft)), Some(4), "else anywhere");
    assert_eq!(place(&mut inventory, &near(GroupScope::Host, GroupStrength::Hard)), Some(4));
}

#[test]
fn too_many_constraints_are_refused_not_cut_off() {
    let mut inventory = Inventory::new(&[host(1, size(8, 8192, 0))]);
    let groups =
        (0..9).map(|n| constraint(n, GroupPolicy::AntiAffinity, GroupScope::Host, GroupStrength::Hard)).collect();
    assert_eq!(decide(&mut inventory, &Request { groups, ..sized(1, 512, 0) }, NOW).placed, None);
}

#[derive(Debug, Clone)]
enum Op {
    Place(Vec<GroupConstraint>, bool),
    Drop(usize),
    Lose(usize),
}

fn any_constraint() -> impl Strategy<Value = GroupConstraint> {
    (1_u128..4, any::<bool>(), 0..3, any::<bool>()).prop_map(|(n, near, scope, hard)| {
        // A group has one policy: its number says which.
        let policy = if n == 1 { GroupPolicy::Affinity } else { GroupPolicy::AntiAffinity };
        let scope = [GroupScope::Host, GroupScope::Rack, GroupScope::Zone][scope as usize];
        let _ = near;
        constraint(n, policy, scope, if hard { GroupStrength::Hard } else { GroupStrength::Soft })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn group_constraints_hold_after_any_interleaving(
        racks in proptest::collection::vec((0_u8..4, 0_u8..2), 1..10),
        ops in proptest::collection::vec(prop_oneof![
            6 => (proptest::collection::vec(any_constraint(), 0..3), any::<bool>()).prop_map(|(w, ok)| Op::Place(w, ok)),
            2 => any::<usize>().prop_map(Op::Drop),
            1 => any::<usize>().prop_map(Op::Lose),
        ], 1..60),
    ) {
        let rows: Vec<Host> = racks.iter().enumerate().map(|(n, (rack, zone))| {
            let rack = if *rack == 0 { String::new() } else { format!("r{rack}") };
            racked(n as u128 + 1, &rack, &format!("z{zone}"))
        }).collect();
        let mut inventory = Inventory::new(&rows);
        let mut members: Vec<(InstanceId, HostId, Vec<GroupConstraint>)> = Vec::new();
        let mut claims: std::collections::HashMap<InstanceId, Placed> = Default::default();
        for op in ops {
            match op {
                Op::Place(groups, ok) => {
                    let request = Request { groups: groups.clone(), ..sized(1, 512, 0) };
                    let expected = reference::candidates(&inventory, &request, &members);
                    let choice = choose(&mut inventory, &request);
                    prop_assert_eq!(choice.map(|c| c.score), expected.first().copied());
                    let Some(choice) = choice else { continue };
                    let id = InstanceId::new();
                    inventory.place_tentatively(id, &choice.placed, &request);
                    if ok {
                        members.push((id, choice.placed.host_id, groups));
                        claims.insert(id, choice.placed);
                    } else {
                        inventory.release_placement(id, &choice.placed);
                    }
                }
                Op::Drop(n) if !members.is_empty() => {
                    let (id, ..) = members.swap_remove(n % members.len());
                    inventory.release_placement(id, &claims[&id]);
                }
                Op::Lose(n) => {
                    let id = rows[n % rows.len()].id;
                    inventory.remove_host(id);
                    members.retain(|(_, host_id, _)| *host_id != id);
                }
                Op::Drop(_) => {}
            }
        }
        prop_assert_eq!(inventory.tracked_instances(), members.iter().filter(|(.., g)| !g.is_empty()).count());
    }
}
