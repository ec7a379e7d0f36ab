//! A refusal says what would have fitted, for every filter.

use super::*;
use domain::{PlacementGroupId, ProjectId, host::SharedPoolFacts};

fn refusal(inventory: &mut Inventory, request: &Request) -> (Vec<(Rejection, u32)>, String) {
    let decision = decide(inventory, request, NOW);
    assert_eq!(decision.placed, None, "{request:?}");
    let counted = decision.record.rejected.iter().map(|r| (r.filter, r.hosts)).collect();
    (counted, hint(&decision.record))
}

fn three() -> Vec<Host> {
    (1..=3).map(|n| host(n, size(8, 8192, 100))).collect()
}

#[test]
fn a_host_that_an_operator_closed_is_named_only_when_no_other_is() {
    let mut rows = three();
    rows[0].cordoned = true;
    rows[1].draining = true;
    rows[2].state = HostState::Disconnected;
    let mut inventory = Inventory::new(&rows);
    let (counted, hint) = refusal(&mut inventory, &sized(1, 512, 0));
    assert_eq!(counted, [(Rejection::Disconnected, 1), (Rejection::Cordoned, 2)]);
    assert_eq!(hint, "1 host has enough capacity but is disconnected");
    for row in &mut rows[..2] {
        (row.cordoned, row.draining) = (false, true);
    }
    let (_, hint) = refusal(&mut Inventory::new(&rows), &sized(1, 512, 0));
    assert_eq!(hint, "2 hosts have enough capacity but are draining");
    for row in &mut rows[..2] {
        (row.cordoned, row.draining) = (true, false);
    }
    let (_, hint) = refusal(&mut Inventory::new(&rows), &sized(1, 512, 0));
    assert_eq!(hint, "2 hosts have enough capacity but are cordoned");
    // What a tenant can change comes first.
    rows[1].cordoned = false;
    rows[1].zone = "other".to_owned();
    let here = Request { zone: Some("default".to_owned()), ..sized(1, 512, 0) };
    let (counted, hint) = refusal(&mut Inventory::new(&rows), &here);
    assert_eq!(counted, [(Rejection::Disconnected, 1), (Rejection::Cordoned, 1), (Rejection::Zone, 1)]);
    assert_eq!(hint, "1 host has enough capacity but is in another zone");
}

#[test]
fn a_host_lost_to_others_does_not_count_as_cordoned() {
    let mut rows = three();
    rows[2].cordoned = true;
    let mut inventory = Inventory::new(&rows);
    let twice_beaten = Request { avoid: vec![rows[0].id, rows[1].id], ..sized(1, 512, 0) };
    let (counted, hint) = refusal(&mut inventory, &twice_beaten);
    assert_eq!(counted, [(Rejection::Cordoned, 1), (Rejection::Contended, 2)]);
    assert_eq!(hint, "2 hosts have enough capacity but were taken or changed by others meanwhile");
}

#[test]
fn dedication_is_explained_from_both_sides() {
    let rows = three();
    let mut inventory = Inventory::new(&rows);
    let (mine, other) = (ProjectId::new(), ProjectId::new());
    let alone = Request { project: Some(mine), dedicated: true, ..sized(1, 512, 0) };
    let (counted, hint) = refusal(&mut inventory, &alone);
    assert_eq!(counted, [(Rejection::Dedicated, 3)]);
    assert_eq!(hint, "3 hosts have enough capacity but are not dedicated to the project");
    for row in &rows {
        inventory.set_policies(row.id, Policies { dedicated_to: Some(other), ..Policies::default() });
    }
    let (counted, hint) = refusal(&mut inventory, &Request { dedicated: false, ..alone });
    assert_eq!(counted, [(Rejection::Dedicated, 3)]);
    assert_eq!(hint, "3 hosts have enough capacity but are dedicated to others");
}

#[test]
fn tags_and_features_are_named_also_where_a_host_lacks_several() {
    let mut rows = three();
    for row in &mut rows {
        row.tags.insert("disk".into(), "hdd".into());
    }
    let mut inventory = Inventory::new(&rows);
    let gpu = || [("gpu".to_owned(), "a100".to_owned())].into();
    let (counted, hint) = refusal(&mut inventory, &Request { tags: gpu(), ..sized(1, 512, 0) });
    assert_eq!(
        (counted, hint.as_str()),
        (vec![(Rejection::Tags, 3)], "3 hosts have enough capacity but lack the tag gpu=a100")
    );
    let no_hdd = [("disk".to_owned(), "hdd".to_owned())];
    let (counted, hint) = refusal(&mut inventory, &Request { forbidden_tags: no_hdd.into(), ..sized(1, 512, 0) });
    assert_eq!(counted, [(Rejection::ForbiddenTags, 3)]);
    assert_eq!(hint, "3 hosts have enough capacity but have the forbidden tag disk=hdd");
    let both = Request { tags: gpu(), cpu_features: vec!["amx".to_owned()], ..sized(1, 512, 0) };
    let (_, hint) = refusal(&mut inventory, &both);
    assert_eq!(hint, "3 hosts have enough capacity but lack the tag gpu=a100 and lack the CPU feature amx");
    let (counted, _) = refusal(&mut inventory, &Request { cpu_features: vec!["amx".to_owned()], ..sized(1, 512, 0) });
    assert_eq!(counted, [(Rejection::CpuFeatures, 3)]);
    let pool = |id: &str| Request { pool: Some(id.to_owned()), ..sized(1, 512, 0) };
    let (counted, hint) = refusal(&mut inventory, &pool(""));
    assert_eq!(
        (counted, hint.as_str()),
        (vec![(Rejection::SharedPool, 3)], "3 hosts have enough capacity but lack a shared pool")
    );
    rows[1].facts.shared_pool = Some(SharedPoolFacts { id: "p".to_owned(), ..SharedPoolFacts::default() });
    inventory.put_host(&rows[1]);
    for id in ["", "p"] {
        assert_eq!(decide(&mut inventory, &pool(id), NOW).placed.expect("placed").host_id, rows[1].id);
    }
    let (counted, hint) = refusal(&mut inventory, &pool("q"));
    assert_eq!(counted, [(Rejection::SharedPool, 3)]);
    assert_eq!(hint, "3 hosts have enough capacity but lack the shared pool q");
}

#[test]
fn a_group_that_rules_hosts_out_is_named_and_the_nearest_host_is_one_that_it_allows() {
    let mut rows = three();
    rows[2].capacity.memory_mib = 1024;
    let mut inventory = Inventory::new(&rows);
    let group = PlacementGroupId::new();
    let constraint = GroupConstraint {
        group,
        policy: GroupPolicy::AntiAffinity,
        scope: GroupScope::Host,
        strength: GroupStrength::Hard,
    };
    let request = Request { groups: vec![constraint], ..sized(1, 2048, 0) };
    for _ in 0..2 {
        let placed = decide(&mut inventory, &request, NOW).placed.expect("fits");
        inventory.place_tentatively(InstanceId::new(), &placed, &request);
    }
    let decision = decide(&mut inventory, &request, NOW);
    assert_eq!(decision.record.nearest.map(|n| (n.host_id, n.lacks)), Some((Some(rows[2].id), size(0, 1098, 0))));
    let (counted, hint) = refusal(&mut inventory, &request);
    assert_eq!(counted, [(Rejection::Group, 2), (Rejection::Memory, 1)]);
    assert_eq!(
        hint,
        "2 hosts have enough capacity but are ruled out by the placement group; a soft policy would allow it; would fit with \
         1098 MiB less memory; choose a smaller size, delete other instances, or add a host"
    );
}

#[test]
fn what_is_short_is_explained_as_what_to_request_less_of() {
    let full = |capacity: Size| Inventory::new(&[host(1, capacity)]);
    let less = "; choose a smaller size, delete other instances, or add a host";
    let refused = |capacity: Size, request: &Request| refusal(&mut full(capacity), request);
    let (counted, hint) = refused(size(4, 65_536, 10), &sized(6, 1024, 0));
    assert_eq!((counted, hint), (vec![(Rejection::Vcpus, 1)], format!("would fit with 2 vCPUs less{less}")));
    // 64 MiB, 2 MiB a vCPU and 4 MiB a GiB are QEMU's own.
    let (counted, hint) = refused(size(4, 2048 + 82, 10), &sized(1, 4096, 0));
    assert_eq!((counted, hint), (vec![(Rejection::Memory, 1)], format!("would fit with 2 GiB less memory{less}")));
    let (counted, hint) = refused(size(4, 65_536, 10), &sized(1, 1024, 30));
    assert_eq!((counted, hint), (vec![(Rejection::Disk, 1)], format!("would fit with 20 GiB less disk{less}")));
    let (_, hint) = refused(size(4, 65_536, 10), &sized(5, 1024, 30));
    assert_eq!(hint, format!("would fit with 1 vCPU less and 20 GiB less disk{less}"));
    // Nothing would be left of the request.
    let (_, hint) = refused(size(4, 100, 10), &sized(1, 512, 0));
    assert_eq!(hint, "the nearest host lacks 480 MiB of memory; delete other instances, or add a host");
}

#[test]
fn a_node_that_is_too_small_for_pinned_vcpus_and_a_missing_reserve_are_named() {
    let mut row = host(1, size(16, 65_536, 0));
    row.facts.numa_nodes = 2;
    let pinned = Request { pinned: true, ..sized(9, 1024, 0) };
    let (counted, hint) = refusal(&mut Inventory::new(&[row]), &pinned);
    assert_eq!(counted, [(Rejection::Pinning, 1)]);
    assert_eq!(hint, "1 host has enough capacity but is without a NUMA node that has enough free threads and memory");
    let mut rows = three();
    rows[2].cordoned = true;
    let protected = Request { protected: true, ..sized(8, 4096, 0) };
    let mut inventory = Inventory::new(&rows);
    let placed = decide(&mut inventory, &protected, NOW).placed.expect("the other one backs it");
    inventory.place_tentatively(InstanceId::new(), &placed, &protected);
    let small = Request { protected: true, ..sized(1, 512, 0) };
    let (counted, _) = refusal(&mut inventory, &small);
    assert_eq!(counted, [(Rejection::Cordoned, 1), (Rejection::Vcpus, 2)], "what is reserved is not free");
    let (counted, hint) = refusal(&mut Inventory::new(&rows[..1]), &small);
    assert_eq!(counted, [(Rejection::Reserve, 1)]);
    assert!(hint.starts_with("1 host has enough capacity, but no other could restart the instance"), "{hint}");
    let (_, hint) = refusal(&mut Inventory::new(&[]), &small);
    assert_eq!(hint, "register a host: start its compute-agent");
}
