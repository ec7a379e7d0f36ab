use super::{decide::Request, filter, inventory::HostEntry, *};
use domain::{
    HostId, InstanceId, Timestamp,
    explain::Rejection,
    flavor::Size,
    host::{Host, HostFacts, HostState, MemoryOverhead},
};
use proptest::prelude::*;
use std::collections::BTreeMap;

const NOW: Timestamp = Timestamp(1_700_000_000_000);

fn host(n: u128, capacity: Size) -> Host {
    Host {
        id: HostId(uuid::Uuid::from_u128(n)),
        name: format!("host-{n}"),
        zone: "default".to_owned(),
        tags: BTreeMap::new(),
        state: HostState::Up,
        cordoned: false,
        cordon_reason: String::new(),
        capacity,
        cpu_overcommit_permille: 1000,
        used: Size::default(),
        overhead: MemoryOverhead { fixed_mib: 64, per_vcpu_mib: 2, per_gib_mib: 4 },
        facts: HostFacts { threads: capacity.vcpus, ..HostFacts::default() },
        generation: 1,
        revision: 0,
        registered_at: NOW,
        state_changed_at: NOW,
    }
}

fn size(vcpus: u32, memory_mib: u64, disk_gib: u64) -> Size {
    Size { vcpus, memory_mib, disk_gib }
}

fn ask(vcpus: u32, memory_mib: u64, disk_gib: u64) -> Request {
    Request { size: size(vcpus, memory_mib, disk_gib), ..Request::default() }
}

/// The same policy in the most naive words: sort all hosts that pass, take the first.
fn reference(inventory: &Inventory, request: &Request) -> Option<HostId> {
    let mut fits: Vec<(u32, u64, HostId)> = Vec::new();
    for h in inventory.hosts() {
        let need = h.overhead.claim_mib(request.size);
        let free_cpu = i64::from(h.capacity.vcpus) - i64::from(h.used.vcpus) - i64::from(h.tentative.vcpus);
        let free_mem = h.capacity.memory_mib as i64 - h.used.memory_mib as i64 - h.tentative.memory_mib as i64;
        let free_disk = h.capacity.disk_gib as i64 - h.used.disk_gib as i64 - h.tentative.disk_gib as i64;
        let left = (
            free_cpu - i64::from(request.size.vcpus),
            free_mem - need as i64,
            free_disk - request.size.disk_gib as i64,
        );
        if !h.up || h.cordoned || left.0 < 0 || left.1 < 0 || left.2 < 0 {
            continue;
        }
        let share = |left: i64, of: u64| (left as u64 * 1000).checked_div(of).unwrap_or(1000);
        let scarcest = share(left.0, u64::from(h.capacity.vcpus))
            .min(share(left.1, h.capacity.memory_mib))
            .min(share(left.2, h.capacity.disk_gib));
        fits.push((h.starts_in_progress() / h.threads, scarcest, h.id));
    }
    fits.sort_unstable();
    fits.first().map(|f| f.2)
}

fn within_capacity(h: &HostEntry) -> bool {
    h.used.vcpus + h.tentative.vcpus <= h.capacity.vcpus
        && h.used.memory_mib + h.tentative.memory_mib <= h.capacity.memory_mib
        && h.used.disk_gib + h.tentative.disk_gib <= h.capacity.disk_gib
}

#[derive(Debug, Clone)]
enum Op {
    Place(Size),
    /// The n-th outstanding claim's commit succeeds, or fails.
    Settle(usize, bool),
    Delete(usize),
    Cordon(usize, bool),
    Up(usize, bool),
    Started(usize),
}

fn any_op() -> impl Strategy<Value = Op> {
    let small = (1_u32..8, 1_u64..4096, 0_u64..40).prop_map(|(c, m, d)| Op::Place(size(c, m, d)));
    prop_oneof![
        6 => small,
        4 => (any::<usize>(), any::<bool>()).prop_map(|(n, ok)| Op::Settle(n, ok)),
        3 => any::<usize>().prop_map(Op::Delete),
        1 => (any::<usize>(), any::<bool>()).prop_map(|(n, on)| Op::Cordon(n, on)),
        1 => (any::<usize>(), any::<bool>()).prop_map(|(n, on)| Op::Up(n, on)),
        1 => any::<usize>().prop_map(Op::Started),
    ]
}

proptest! {
    #[test]
    fn any_sequence_stays_within_capacity_and_agrees_with_the_reference(
        hosts in proptest::collection::vec((1_u32..32, 256_u64..32_768, 0_u64..200), 1..12),
        ops in proptest::collection::vec(any_op(), 1..80),
    ) {
        let rows: Vec<Host> =
            hosts.iter().enumerate().map(|(i, (c, m, d))| host(i as u128 + 1, size(*c, *m, *d))).collect();
        let mut inventory = Inventory::new(&rows);
        let mut pending: Vec<(Placed, InstanceId)> = Vec::new();
        let mut firm: Vec<(Placed, InstanceId)> = Vec::new();
        for op in ops {
            match op {
                Op::Place(size) => {
                    let request = Request { size, ..Request::default() };
                    let expected = reference(&inventory, &request);
                    let first = decide(&mut inventory, &request, NOW);
                    let again = decide(&mut inventory, &request, NOW);
                    prop_assert_eq!(&first, &again, "the same inventory gives the same decision");
                    prop_assert_eq!(first.placed.map(|p| p.host_id), expected);
                    let counted: u32 = first.record.rejected.iter().map(|r| r.hosts).sum();
                    prop_assert_eq!(counted + first.record.candidates, first.record.hosts_considered);
                    if let Some(placed) = first.placed {
                        let id = InstanceId::new();
                        inventory.claim_tentatively(placed.host_id, placed.claim);
                        inventory.start_begins(placed.host_id, id);
                        pending.push((placed, id));
                    } else {
                        prop_assert!(first.record.nearest.is_some() && !first.record.summary.is_empty());
                    }
                }
                Op::Settle(n, ok) if !pending.is_empty() => {
                    let (placed, id) = pending.swap_remove(n % pending.len());
                    if ok {
                        inventory.make_firm(placed.host_id, placed.claim);
                        firm.push((placed, id));
                    } else {
                        inventory.give_back(placed.host_id, placed.claim);
                        inventory.start_ends(placed.host_id, id);
                    }
                }
                Op::Delete(n) if !firm.is_empty() => {
                    let (placed, id) = firm.swap_remove(n % firm.len());
                    inventory.unclaim(placed.host_id, placed.claim);
                    inventory.start_ends(placed.host_id, id);
                }
                Op::Cordon(n, cordoned) => {
                    let mut row = rows[n % rows.len()].clone();
                    row.cordoned = cordoned;
                    inventory.put_host(&row);
                }
                Op::Up(n, up) => inventory.set_up(rows[n % rows.len()].id, up),
                Op::Started(n) if !firm.is_empty() => {
                    let (placed, id) = firm[n % firm.len()];
                    inventory.start_ends(placed.host_id, id);
                }
                Op::Settle(..) | Op::Delete(_) | Op::Started(_) => {}
            }
            for h in inventory.hosts() {
                prop_assert!(within_capacity(h), "{h:?}");
            }
        }
        // When all is settled and deleted, nothing is left behind.
        for (placed, _) in pending { inventory.give_back(placed.host_id, placed.claim); }
        for (placed, _) in firm { inventory.unclaim(placed.host_id, placed.claim); }
        for h in inventory.hosts() {
            prop_assert_eq!((h.used, h.tentative), (Size::default(), Size::default()));
        }
    }
}

#[test]
fn filters_are_the_closed_enum_in_its_order() {
    for (i, filter) in filter::ORDER.into_iter().enumerate() {
        assert_eq!(filter as usize, i, "{filter:?}: the record's counts are indexed by it");
    }
    assert!(filter::ORDER.is_sorted());
}

#[test]
fn memory_counts_with_qemus_own() {
    let mut inventory = Inventory::new(&[host(1, size(4, 1024, 10))]);
    let refused = decide(&mut inventory, &ask(1, 1024, 0), NOW);
    assert!(refused.placed.is_none(), "1024 MiB for the guest leave nothing for its QEMU");
    assert_eq!(refused.record.rejected[0].filter, Rejection::Memory);
    assert_eq!(refused.record.nearest.expect("a host").lacks, size(0, 64 + 2 + 4, 0));
    let placed = decide(&mut inventory, &ask(1, 512, 0), NOW).placed.expect("fits");
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
    let request = Request { zone: Some("default".to_owned()), ..ask(4, 4096, 20) };
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
        decide::hint(&decision.record),
        "the nearest host lacks 2 vCPUs; ask for less, delete something, or add a host"
    );
}

#[test]
fn a_remembered_refusal_is_forgotten_as_soon_as_something_changes() {
    let mut inventory = Inventory::new(&[host(1, size(2, 4096, 10))]);
    let placed = decide(&mut inventory, &ask(2, 1024, 0), NOW).placed.expect("fits");
    inventory.claim_tentatively(placed.host_id, placed.claim);
    assert_eq!(decide(&mut inventory, &ask(2, 1024, 0), NOW).placed, None);
    inventory.give_back(placed.host_id, placed.claim);
    let later = Timestamp(NOW.0 + 5);
    let decision = decide(&mut inventory, &ask(2, 1024, 0), later);
    assert_eq!((decision.placed, decision.record.at), (Some(placed), later));
}

#[test]
fn a_burst_is_spread_when_a_hosts_threads_are_busy_starting_others() {
    let mut inventory = Inventory::new(&[host(1, size(2, 65536, 0)), host(2, size(64, 65536, 0))]);
    let first = decide(&mut inventory, &ask(1, 128, 0), NOW).placed.expect("fits");
    assert_eq!(first.host_id, HostId(uuid::Uuid::from_u128(1)), "best fit");
    for _ in 0..2 {
        inventory.start_begins(first.host_id, InstanceId::new());
    }
    let next = decide(&mut inventory, &ask(1, 128, 0), NOW).placed.expect("fits");
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
    inventory.make_firm(row.id, claim);
    assert!(!inventory.refresh(moment, &row), "the row is older");
    let moment = inventory.moment(row.id).expect("known");
    assert!(inventory.refresh(moment, &row));
    assert_eq!(inventory.find(row.id).expect("known").used, Size::default());
}
