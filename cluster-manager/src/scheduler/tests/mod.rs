//! The scheduler's promises, against a naive reference.

mod balance;
mod capacity;
mod consolidate;
mod explain;
mod groups;
mod preempt;
mod properties;
mod reference;
mod reserve;

use super::{explain::hint, *};
use domain::{
    HostId, InstanceId, Timestamp,
    explain::Rejection,
    flavor::Size,
    host::{Host, HostFacts, HostState, MemoryOverhead, NumaFacts},
};
use std::collections::BTreeMap;

const NOW: Timestamp = Timestamp(1_700_000_000_000);

pub(crate) fn host(n: u128, capacity: Size) -> Host {
    Host {
        id: HostId(uuid::Uuid::from_u128(n)),
        name: format!("host-{n}"),
        zone: "default".to_owned(),
        tags: BTreeMap::new(),
        state: HostState::Up,
        cordoned: false,
        cordon_reason: String::new(),
        draining: false,
        dedicated_to: None,
        capacity,
        reported: capacity,
        accepted: capacity,
        offered: capacity,
        reserved: Size::default(),
        cpu_overcommit_permille: 1000,
        memory_overcommit_permille: 1000,
        disk_overcommit_permille: 1000,
        used: Size::default(),
        overhead: MemoryOverhead { fixed_mib: 64, per_vcpu_mib: 2, per_gib_mib: 4 },
        facts: HostFacts { threads: capacity.vcpus, ..HostFacts::default() },
        generation: 1,
        revision: 0,
        registered_at: NOW,
        state_changed_at: NOW,
        ledger: Default::default(),
    }
}

fn size(vcpus: u32, memory_mib: u64, disk_gib: u64) -> Size {
    Size { vcpus, memory_mib, disk_gib }
}

fn sized(vcpus: u32, memory_mib: u64, disk_gib: u64) -> Request {
    Request { size: size(vcpus, memory_mib, disk_gib), ..Request::default() }
}

#[test]
fn filters_are_the_closed_enum_in_its_order() {
    for (i, filter) in filter::ORDER.into_iter().enumerate() {
        assert_eq!(filter as usize, i, "{filter:?}: the record's counts are indexed by it");
    }
    assert!(filter::ORDER.is_sorted());
}

#[test]
fn memory_counts_with_what_qemu_itself_takes() {
    let mut inventory = Inventory::new(&[host(1, size(4, 1024, 10))]);
    let refused = decide(&mut inventory, &sized(1, 1024, 0), NOW);
    assert!(refused.placed.is_none(), "1024 MiB for the guest leave nothing for its QEMU");
    assert_eq!(refused.record.rejected[0].filter, Rejection::Memory);
    assert_eq!(refused.record.nearest.expect("a host").lacks, size(0, 64 + 2 + 4, 0));
    let placed = decide(&mut inventory, &sized(1, 512, 0), NOW).placed.expect("fits");
    assert_eq!(placed.claim.memory_mib, 512 + 64 + 2 + 2);
}

#[test]
fn a_refusal_names_each_filter_once_and_what_is_missing() {
    let mut rows = vec![
        host(1, size(2, 8192, 100)),
        host(2, size(64, 512, 100)),
        host(3, size(64, 8192, 1)),
        host(4, size(64, 65536, 100)),
        host(5, size(64, 65536, 100)),
        host(6, size(64, 65536, 100)),
    ];
    rows[3].cordoned = true;
    rows[4].state = HostState::Disconnected;
    rows[5].zone = "other".to_owned();
    let mut inventory = Inventory::new(&rows);
    let request = Request { zone: Some("default".to_owned()), ..sized(4, 4096, 20) };
    let decision = decide(&mut inventory, &request, NOW);
    assert_eq!(decision.placed, None);
    assert_eq!(
        decision.record.summary,
        "none of 6 hosts can take it: 1 disconnected, 1 cordoned, 1 in another zone, 1 short of vCPUs, 1 short of memory, \
         1 short of disk"
    );
    let nearest = decision.record.nearest.clone().expect("one is nearest");
    assert_eq!((nearest.host_id, nearest.lacks), (Some(rows[0].id), size(2, 0, 0)), "least by share of the host");
    assert_eq!(
        hint(&decision.record),
        "1 host has enough capacity but is in another zone; would fit with 2 vCPUs less; choose a smaller size, delete other instances, or add a host"
    );
}

#[test]
fn a_remembered_refusal_is_forgotten_as_soon_as_something_changes() {
    let mut inventory = Inventory::new(&[host(1, size(2, 4096, 10))]);
    let placed = decide(&mut inventory, &sized(2, 1024, 0), NOW).placed.expect("fits");
    inventory.claim_tentatively(placed.host_id, placed.claim);
    assert_eq!(decide(&mut inventory, &sized(2, 1024, 0), NOW).placed, None);
    inventory.release_tentative(placed.host_id, placed.claim);
    let later = Timestamp(NOW.0 + 5);
    let decision = decide(&mut inventory, &sized(2, 1024, 0), later);
    assert_eq!((decision.placed, decision.record.at), (Some(placed), later));
}

#[test]
fn a_burst_is_spread_when_a_hosts_threads_are_busy_starting_others() {
    let mut inventory = Inventory::new(&[host(1, size(2, 65536, 0)), host(2, size(64, 65536, 0))]);
    let first = decide(&mut inventory, &sized(1, 128, 0), NOW).placed.expect("fits");
    assert_eq!(first.host_id, HostId(uuid::Uuid::from_u128(1)), "best fit");
    for _ in 0..2 {
        inventory.start_begins(first.host_id, InstanceId::new());
    }
    let next = decide(&mut inventory, &sized(1, 128, 0), NOW).placed.expect("fits");
    assert_eq!(next.host_id, HostId(uuid::Uuid::from_u128(2)));
}

#[test]
fn a_row_read_before_a_change_does_not_overwrite_it() {
    let row = host(1, size(8, 8192, 10));
    let mut inventory = Inventory::new(std::slice::from_ref(&row));
    let moment = inventory.moment(row.id).expect("known");
    let claim = size(1, 256, 0);
    inventory.claim_tentatively(row.id, claim);
    assert!(!inventory.refresh(moment, &row), "a claim is on its way");
    inventory.confirm(row.id, claim);
    assert!(!inventory.refresh(moment, &row), "the row is older");
    let moment = inventory.moment(row.id).expect("known");
    assert!(inventory.refresh(moment, &row));
    assert_eq!(inventory.find(row.id).expect("known").used, Size::default());
}

#[test]
fn a_refusal_says_which_constraint_stands_in_the_way() {
    let mut rows = vec![host(1, size(8, 8192, 0)), host(2, size(8, 8192, 0)), host(3, size(1, 8192, 0))];
    rows[0].tags.insert("disk".into(), "ssd".into());
    let mut inventory = Inventory::new(&rows);
    let gpu = Request { tags: [("gpu".to_owned(), "a100".to_owned())].into(), ..sized(2, 1024, 0) };
    let refused = decide(&mut inventory, &gpu, NOW);
    assert_eq!(refused.record.hint, "2 hosts have enough capacity but lack the tag gpu=a100");
    let feature = Request { cpu_features: vec!["avx512f".into()], ..sized(2, 1024, 0) };
    assert_eq!(
        decide(&mut inventory, &feature, NOW).record.hint,
        "2 hosts have enough capacity but lack the CPU feature avx512f"
    );
    let both = Request { tags: [("disk".to_owned(), "ssd".to_owned())].into(), ..feature };
    assert_eq!(
        decide(&mut inventory, &both, NOW).record.hint,
        "1 host has enough capacity but lacks the CPU feature avx512f"
    );
    inventory.set_policies(rows[0].id, Policies { draining: true, ..Policies::default() });
    let ssd = Request { tags: [("disk".to_owned(), "ssd".to_owned())].into(), ..sized(2, 1024, 0) };
    assert_eq!(decide(&mut inventory, &ssd, NOW).record.hint, "1 host has enough capacity but lacks the tag disk=ssd");
    let none = Request {
        forbidden_tags: [("disk".to_owned(), "ssd".to_owned())].into(),
        avoid: vec![rows[1].id],
        ..sized(2, 1024, 0)
    };
    let refused = decide(&mut inventory, &none, NOW);
    assert_eq!(refused.placed, None);
    inventory.set_policies(rows[0].id, Policies::default());
    let refused = decide(&mut inventory, &none, NOW);
    assert_eq!(
        refused.record.hint,
        "1 host has enough capacity but has the forbidden tag disk=ssd; would fit with 1 vCPU less; choose a smaller size, delete other instances, or add a host"
    );
}

#[test]
fn a_success_names_the_best_candidates_and_large_inventories_count_by_cells() {
    let mut rows: Vec<Host> = (1..=600).map(|n| host(n, size(8, 8192, 0))).collect();
    for row in &mut rows[..100] {
        row.zone = "other".into();
    }
    for row in &mut rows[100..110] {
        row.cordoned = true;
    }
    for row in &mut rows[110..130] {
        row.state = HostState::Disconnected;
    }
    for row in &mut rows[130..200] {
        row.tags.insert("disk".into(), "ssd".into());
    }
    let mut inventory = Inventory::new(&rows);
    let request = Request {
        zone: Some("default".into()),
        tags: [("disk".to_owned(), "ssd".to_owned())].into(),
        ..sized(2, 1024, 0)
    };
    let decision = decide(&mut inventory, &request, NOW);
    let counts: Vec<(Rejection, u32)> = decision.record.rejected.iter().map(|r| (r.filter, r.hosts)).collect();
    assert_eq!(
        counts,
        [(Rejection::Disconnected, 20), (Rejection::Cordoned, 10), (Rejection::Zone, 100), (Rejection::Tags, 400)]
    );
    assert_eq!((decision.record.candidates, decision.record.hosts_considered), (70, 600));
    let best: Vec<HostId> = decision.record.best.iter().map(|c| c.host_id).collect();
    assert_eq!(best, [rows[130].id, rows[131].id, rows[132].id], "equal scores: by id");
    assert_eq!(decision.placed.map(|p| p.host_id), Some(rows[130].id));
    assert!(decision.record.redacted().best.is_empty());
}

#[test]
fn dedicated_hosts_are_for_their_project_alone() {
    let rows = [host(1, size(8, 8192, 0)), host(2, size(8, 8192, 0))];
    let mut inventory = Inventory::new(&rows);
    let (mine, other) = (domain::ProjectId::new(), domain::ProjectId::new());
    inventory.set_policies(rows[0].id, Policies { dedicated_to: Some(mine), ..Policies::default() });
    let by = |project, dedicated| Request { project: Some(project), dedicated, ..sized(1, 512, 0) };
    let at = |inventory: &mut Inventory, request: &Request| decide(inventory, request, NOW).placed.map(|p| p.host_id);
    assert_eq!(at(&mut inventory, &by(mine, true)), Some(rows[0].id));
    assert_eq!(at(&mut inventory, &by(other, false)), Some(rows[1].id));
    assert_eq!(at(&mut inventory, &by(other, true)), None);
    assert_eq!(at(&mut inventory, &sized(1, 512, 0)), Some(rows[1].id));
}

#[test]
fn what_is_reserved_for_the_operator_stays_free() {
    let row = host(1, size(4, 8192, 0));
    let mut inventory = Inventory::new(std::slice::from_ref(&row));
    inventory.set_policies(row.id, Policies { reserved: size(2, 0, 0), ..Policies::default() });
    assert!(decide(&mut inventory, &sized(3, 512, 0), NOW).placed.is_none());
    assert!(decide(&mut inventory, &sized(2, 512, 0), NOW).placed.is_some());
}

#[test]
fn pinned_vcpus_get_whole_threads_of_one_node() {
    let mut row = host(1, size(32, 65_536, 0));
    // It has 16 threads with two vCPUs on each, and two nodes of eight.
    row.cpu_overcommit_permille = 2000;
    row.facts.threads = 16;
    let node = |id| NumaFacts { id, threads: 8, memory_mib: 32_768 };
    row.facts.numa = vec![node(0), node(4)];
    let mut inventory = Inventory::new(std::slice::from_ref(&row));
    let pinned = |vcpus| Request { pinned: true, ..sized(vcpus, 1024, 0) };
    let nine = decide(&mut inventory, &pinned(9), NOW);
    assert_eq!(nine.record.rejected[0].filter, Rejection::Pinning, "no node has nine threads");
    let mut nodes = Vec::new();
    for _ in 0..3 {
        let request = pinned(4);
        let placed = decide(&mut inventory, &request, NOW).placed.expect("fits");
        assert_eq!(placed.claim.vcpus, 8, "four whole threads");
        inventory.place_tentatively(InstanceId::new(), &placed, &request);
        nodes.push(placed.numa_node);
    }
    assert_eq!(nodes, [Some(0), Some(0), Some(1)], "the fuller node first");
    let request = pinned(4);
    let last = decide(&mut inventory, &request, NOW).placed.expect("fits");
    let id = InstanceId::new();
    inventory.place_tentatively(id, &last, &request);
    assert!(decide(&mut inventory, &pinned(1), NOW).placed.is_none());
    inventory.release_placement(id, &last);
    assert_eq!(decide(&mut inventory, &request, NOW).placed, Some(last));
    // The host registers again with its nodes in another order: what is pinned stays where it is.
    row.facts.numa.reverse();
    inventory.put_host(&row);
    let host = inventory.find(row.id).expect("there");
    let pinned: Vec<_> = host.numa.iter().map(|node| (node.id, node.pinned_threads)).collect();
    assert_eq!(pinned, [(4, 4), (0, 8)]);
    assert_eq!((host.node_at(4), host.node_at(1)), (Some(0), None));
}

#[test]
fn a_host_that_reports_no_nodes_pins_nothing_and_memory_of_a_node_is_not_overcommitted() {
    let silent = host(1, size(32, 65_536, 0));
    let mut inventory = Inventory::new(std::slice::from_ref(&silent));
    let pinned = |memory_mib| Request { pinned: true, ..sized(1, memory_mib, 0) };
    let refused = decide(&mut inventory, &pinned(512), NOW);
    assert_eq!(refused.record.rejected[0].filter, Rejection::Pinning);
    let mut reporting = host(1, size(32, 65_536, 0));
    reporting.facts.numa = vec![NumaFacts { id: 0, threads: 32, memory_mib: 2_048 }];
    inventory.put_host(&reporting);
    assert!(decide(&mut inventory, &pinned(2_048), NOW).placed.is_none(), "its QEMU takes some too");
    assert!(decide(&mut inventory, &pinned(1_024), NOW).placed.is_some());
    assert!(decide(&mut inventory, &sized(1, 4_096, 0), NOW).placed.is_some(), "what isn't pinned uses all nodes");
}

#[test]
fn a_batch_is_all_or_nothing_or_as_many_as_fit() {
    let mut inventory = Inventory::new(&[host(1, size(2, 8192, 0)), host(2, size(2, 8192, 0))]);
    let ids: Vec<InstanceId> = (0..5).map(|_| InstanceId::new()).collect();
    let none = decide_batch(&mut inventory, &sized(1, 512, 0), &ids, Fill::AllOrNothing, NOW);
    assert_eq!((none.placed.len(), none.found, none.refused.is_some()), (0, 4, true));
    assert!(inventory.hosts().all(|h| h.tentative == Size::default() && h.starts_in_progress() == 0));
    let mut some = decide_batch(&mut inventory, &sized(1, 512, 0), &ids, Fill::AsManyAsFit, NOW);
    assert_eq!((some.placed.len(), some.refused.is_some()), (4, true));
    some.release(&mut inventory);
    assert!(inventory.hosts().all(|h| h.tentative == Size::default()));
}

#[test]
fn tags_that_nobody_requests_keep_hosts_in_one_cell() {
    let rows: Vec<Host> = (1..=50)
        .map(|n| {
            let mut row = host(n, size(8, 8192, 0));
            row.tags = [("name".to_owned(), format!("h{n}")), ("disk".to_owned(), format!("{}", n % 2))].into();
            row
        })
        .collect();
    let mut inventory = Inventory::new(&rows);
    assert_eq!(inventory.index.cells().count(), 1);
    let ssd = Request { tags: [("disk".to_owned(), "1".to_owned())].into(), ..sized(1, 512, 0) };
    assert!(decide(&mut inventory, &ssd, NOW).placed.is_some());
    assert_eq!(inventory.index.cells().count(), 2);
}
