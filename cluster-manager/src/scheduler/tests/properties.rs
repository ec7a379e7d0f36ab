use super::*;
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Op {
    Place(Request),
    /// The commit of the n-th outstanding claim succeeds or fails.
    Settle(usize, bool),
    Delete(usize),
    Cordon(usize, bool),
    Up(usize, bool),
    Drain(usize, bool),
    Remove(usize),
    PutBack(usize),
    Started(usize),
}

fn any_request() -> impl Strategy<Value = Request> {
    let tag = |n: u8| [("k".to_owned(), format!("{}", n % 3))].into();
    let avoid = proptest::collection::vec(1_u128..12, 0..2);
    ((1_u32..8, 1_u64..4096, 0_u64..40), (0_u8..4, 0_u8..8, 0_u8..8, 0_u8..6), avoid).prop_map(
        move |((c, m, d), (zone, tags, forbidden, feature), avoid)| Request {
            size: size(c, m, d),
            zone: (zone < 3).then(|| format!("z{}", zone % 2)),
            tags: if tags < 3 { tag(tags) } else { BTreeMap::new() },
            forbidden_tags: if forbidden < 3 { tag(forbidden) } else { BTreeMap::new() },
            cpu_features: if feature < 2 { vec![format!("f{feature}")] } else { vec![] },
            avoid: avoid.into_iter().map(|n| HostId(uuid::Uuid::from_u128(n))).collect(),
            ..Request::default()
        },
    )
}

fn any_op() -> impl Strategy<Value = Op> {
    let n = any::<usize>;
    prop_oneof![
        8 => any_request().prop_map(Op::Place),
        4 => (n(), any::<bool>()).prop_map(|(n, ok)| Op::Settle(n, ok)),
        3 => n().prop_map(Op::Delete),
        1 => (n(), any::<bool>()).prop_map(|(n, on)| Op::Cordon(n, on)),
        1 => (n(), any::<bool>()).prop_map(|(n, on)| Op::Up(n, on)),
        1 => (n(), any::<bool>()).prop_map(|(n, on)| Op::Drain(n, on)),
        1 => n().prop_map(Op::Remove),
        1 => n().prop_map(Op::PutBack),
        1 => n().prop_map(Op::Started),
    ]
}

/// A host's capacity, then its zone, tag and features.
type Spec = ((u32, u64, u64), (u8, u8, u8));

fn rows(hosts: &[Spec]) -> Vec<Host> {
    let row = |(i, ((c, m, d), (zone, tag, feature))): (usize, &Spec)| {
        let mut row = host(i as u128 + 1, size(*c, *m, *d));
        row.zone = format!("z{}", zone % 2);
        row.tags.insert("k".into(), format!("{}", tag % 3));
        row.tags.insert("unrequested".into(), format!("{i}"));
        row.facts.cpu_features = (0..*feature % 3).map(|f| format!("f{f}")).collect();
        row
    };
    hosts.iter().enumerate().map(row).collect()
}

fn any_hosts() -> impl Strategy<Value = Vec<Spec>> {
    // There are few sizes, so that hosts share kinds, cells and buckets.
    let capacity =
        prop_oneof![Just((8, 16_384, 100)), Just((32, 32_768, 200)), (1_u32..32, 256_u64..32_768, 0_u64..200)];
    proptest::collection::vec((capacity, any::<(u8, u8, u8)>()), 1..12)
}

pub fn check(inventory: &Inventory) -> Result<(), TestCaseError> {
    for h in inventory.hosts() {
        let taken = host::plus(host::plus(h.used, h.tentative), h.recovery_reserved);
        prop_assert!(host::fits(&taken, &h.capacity), "{h:?}");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn any_sequence_stays_within_capacity_and_agrees_with_the_reference(
        hosts in any_hosts(),
        ops in proptest::collection::vec(any_op(), 1..80),
    ) {
        let mut rows = rows(&hosts);
        let mut inventory = Inventory::new(&rows);
        let mut pending: Vec<(Placed, InstanceId)> = Vec::new();
        let mut confirmed: Vec<(Placed, InstanceId)> = Vec::new();
        for op in ops {
            match op {
                Op::Place(request) => {
                    let expected = reference::candidates(&inventory, &request, &[]);
                    let first = decide(&mut inventory, &request, NOW);
                    let again = decide(&mut inventory, &request, NOW);
                    prop_assert_eq!(&first, &again, "the same inventory gives the same decision");
                    prop_assert_eq!(first.placed.map(|p| p.host_id), expected.first().map(|s| s.host_id));
                    let counted: u32 = first.record.rejected.iter().map(|r| r.hosts).sum();
                    prop_assert_eq!(counted + first.record.candidates, first.record.hosts_considered);
                    prop_assert_eq!(first.record.candidates as usize, expected.len());
                    let best: Vec<HostId> = first.record.best.iter().map(|c| c.host_id).collect();
                    let three: Vec<HostId> = expected.iter().take(3).map(|s| s.host_id).collect();
                    prop_assert_eq!(best, three);
                    if let Some(placed) = first.placed {
                        let id = InstanceId::new();
                        inventory.place_tentatively(id, &placed, &request);
                        pending.push((placed, id));
                    } else {
                        prop_assert!(!first.record.summary.is_empty() && !first.record.hint.is_empty());
                    }
                }
                Op::Settle(n, ok) if !pending.is_empty() => {
                    let (placed, id) = pending.swap_remove(n % pending.len());
                    if ok {
                        inventory.confirm(placed.host_id, placed.claim);
                        confirmed.push((placed, id));
                    } else {
                        inventory.release_placement(id, &placed);
                    }
                }
                Op::Delete(n) if !confirmed.is_empty() => {
                    let (placed, id) = confirmed.swap_remove(n % confirmed.len());
                    inventory.release(placed.host_id, placed.claim);
                    inventory.start_ends(placed.host_id, id);
                }
                Op::Cordon(n, cordoned) => {
                    let at = n % rows.len();
                    rows[at].cordoned = cordoned;
                    if inventory.find(rows[at].id).is_some() {
                        inventory.put_host(&rows[at]);
                    }
                }
                Op::Up(n, up) => {
                    let state = if up { HostState::Up } else { HostState::Held };
                    inventory.set_state(rows[n % rows.len()].id, state);
                }
                Op::Drain(n, draining) => {
                    inventory.set_policies(rows[n % rows.len()].id, Policies { draining, ..Policies::default() });
                }
                Op::Remove(n) => {
                    let id = rows[n % rows.len()].id;
                    inventory.remove_host(id);
                    pending.retain(|(placed, _)| placed.host_id != id);
                    confirmed.retain(|(placed, _)| placed.host_id != id);
                }
                Op::PutBack(n) => inventory.put_host(&rows[n % rows.len()]),
                Op::Started(n) if !confirmed.is_empty() => {
                    let (placed, id) = confirmed[n % confirmed.len()];
                    inventory.start_ends(placed.host_id, id);
                }
                Op::Settle(..) | Op::Delete(_) | Op::Started(_) => {}
            }
            check(&inventory)?;
        }
        // When all is settled and deleted, nothing is left behind.
        for (placed, id) in pending { inventory.release_placement(id, &placed); }
        for (placed, _) in confirmed { inventory.release(placed.host_id, placed.claim); }
        for h in inventory.hosts() {
            prop_assert_eq!((h.used, h.tentative), (Size::default(), Size::default()));
        }
    }

    #[test]
    fn equal_inventories_decide_alike_however_they_came_to_be(
        hosts in any_hosts(),
        first in any_request(),
        claims in proptest::collection::vec((any::<usize>(), 1_u32..4, 1_u64..1024), 0..20),
        requests in proptest::collection::vec(any_request(), 1..10),
    ) {
        let rows = rows(&hosts);
        let mut straight = Inventory::new(&rows);
        let mut reversed = Inventory::default();
        // The hosts come in another order, one came and went, and a tag was requested sooner: nothing of that matters.
        let gone = host(999, size(8, 8192, 10));
        reversed.put_host(&gone);
        for row in rows.iter().rev() { reversed.put_host(row); }
        decide(&mut reversed, &first, NOW);
        reversed.remove_host(gone.id);
        for (n, vcpus, memory_mib) in claims {
            let row = &rows[n % rows.len()];
            let claim = size(vcpus, memory_mib, 0);
            if host::fits(&claim, &straight.find(row.id).expect("known").free()) {
                for inventory in [&mut straight, &mut reversed] {
                    inventory.claim_tentatively(row.id, claim);
                    inventory.confirm(row.id, claim);
                }
            }
        }
        for request in requests {
            prop_assert_eq!(decide(&mut straight, &request, NOW), decide(&mut reversed, &request, NOW));
        }
    }
}
