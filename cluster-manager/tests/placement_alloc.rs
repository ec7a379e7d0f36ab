//! A decision with its claim allocates nothing once its shape is known: counted by the allocator itself, in a process of its own.

use cluster_manager::scheduler::{GroupConstraint, GroupPolicy, GroupScope, GroupStrength, Inventory, Request, choose};
use domain::{
    HostId, InstanceId, PlacementGroupId, Timestamp,
    flavor::Size,
    host::{Host, HostFacts, HostState, MemoryOverhead},
};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    // While a thread ends its locals are gone; nobody counts then.
    let _ = ALLOCATIONS.try_with(|n| n.set(n.get() + 1));
}

// SAFETY: every call is handed to the system's allocator as it is; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise for `layout` is the one that System asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: `at` came from System by `alloc` or `realloc` above, with this layout.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: `at` came from System with this layout; the caller promises a valid `size`.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn host(n: u128) -> Host {
    let capacity = Size { vcpus: 64, memory_mib: 262_144, disk_gib: 4096 };
    Host {
        id: HostId(uuid::Uuid::from_u128(n)),
        name: format!("host-{n}"),
        zone: format!("z{}", n % 3),
        tags: [("disk".to_owned(), format!("{}", n % 2))].into(),
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
        used: Size { vcpus: n as u32 % 40, memory_mib: (n as u64 % 100) * 1024, disk_gib: 0 },
        overhead: MemoryOverhead { fixed_mib: 64, per_vcpu_mib: 2, per_gib_mib: 4 },
        facts: HostFacts { threads: 64, ..HostFacts::default() },
        generation: 1,
        revision: 0,
        registered_at: Timestamp(0),
        state_changed_at: Timestamp(0),
        ledger: Default::default(),
    }
}

fn turn(inventory: &mut Inventory, request: &Request) {
    let placed = choose(inventory, request).expect("there is capacity").placed;
    let id = InstanceId(uuid::Uuid::from_u128(7));
    inventory.claim_tentatively(placed.host_id, placed.claim);
    inventory.start_begins(placed.host_id, id);
    inventory.confirm(placed.host_id, placed.claim);
    inventory.start_ends(placed.host_id, id);
    inventory.release(placed.host_id, placed.claim);
}

#[test]
fn a_decision_of_a_known_shape_allocates_nothing() {
    let rows: Vec<Host> = (1..=3000).map(host).collect();
    let mut inventory = Inventory::new(&rows);
    let constraint = GroupConstraint {
        group: PlacementGroupId(uuid::Uuid::from_u128(1)),
        policy: GroupPolicy::AntiAffinity,
        scope: GroupScope::Host,
        strength: GroupStrength::Hard,
    };
    let requests: Vec<Request> = (0..48_u32)
        .map(|n| Request {
            size: Size { vcpus: 1 + n % 8, memory_mib: 1024 * u64::from(1 + n % 5), disk_gib: 10 },
            zone: (n % 2 == 0).then(|| format!("z{}", n % 3)),
            tags: if n % 5 == 0 { [("disk".to_owned(), "1".to_owned())].into() } else { Default::default() },
            groups: if n % 7 == 0 { vec![constraint] } else { Vec::new() },
            ..Request::default()
        })
        .collect();
    // Prices change meanwhile: sorting the buckets again is the hot path too.
    for at in 0..40_000 {
        turn(&mut inventory, &requests[at % requests.len()]);
    }
    let before = ALLOCATIONS.get();
    for at in 0..40_000 {
        turn(&mut inventory, &requests[at % requests.len()]);
    }
    let spent = ALLOCATIONS.get() - before;
    assert_eq!(spent, 0);
}
