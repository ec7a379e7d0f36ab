use super::{groups::constraint, *};
use proptest::prelude::*;
use std::collections::HashMap;

fn protected(vcpus: u32, memory_mib: u64) -> Request {
    Request { protected: true, ..sized(vcpus, memory_mib, 0) }
}

/// Whichever host is lost, its protected instances fit on their backups, all at once.
fn survives(inventory: &Inventory, running: &HashMap<InstanceId, (Placed, Request)>) -> Result<(), String> {
    for lost in inventory.hosts() {
        let mut need: HashMap<HostId, Size> = HashMap::new();
        for (id, (placed, request)) in running.iter().filter(|(_, (p, r))| r.protected && p.host_id == lost.id) {
            let Some(backup) = inventory.backup_of(*id) else { return Err(format!("{id} has no backup")) };
            let host = inventory.find(backup).expect("known");
            if backup == lost.id || host.zone != lost.zone || !host.usable() {
                return Err(format!("{id} on {} backed by {backup}", placed.host_id));
            }
            let sum = need.entry(backup).or_default();
            *sum = host::plus(*sum, host.claim_of(request.size));
        }
        for (backup, need) in need {
            let free = inventory.find(backup).expect("known").free_for_recovery();
            if !host::fits(&need, &free) {
                return Err(format!("{backup} has {free:?} for {need:?} of {}", lost.id));
            }
        }
    }
    Ok(())
}

#[test]
fn two_hosts_reserve_capacity_for_each_other() {
    let mut inventory = Inventory::new(&[host(1, size(4, 8192, 0)), host(2, size(4, 8192, 0))]);
    let mut placed = 0;
    while let Some(choice) = choose(&mut inventory, &protected(1, 512)) {
        inventory.place_tentatively(InstanceId::new(), &choice.placed, &protected(1, 512));
        placed += 1;
    }
    assert_eq!(placed, 4, "half of eight");
    let refused = decide(&mut inventory, &protected(1, 512), NOW);
    assert!(refused.record.rejected.iter().any(|r| r.filter == Rejection::Vcpus), "{:?}", refused.record);
    let plain = decide(&mut inventory, &sized(1, 512, 0), NOW);
    assert!(plain.placed.is_none(), "what is reserved is nobody else's");
}

#[test]
fn reserved_capacity_is_shared_because_one_host_is_lost_at_a_time() {
    let rows: Vec<Host> = (1..=5).map(|n| host(n, size(4, 8192, 0))).collect();
    let mut inventory = Inventory::new(&rows);
    let mut placed = 0;
    while let Some(choice) = choose(&mut inventory, &protected(2, 512)) {
        inventory.place_tentatively(InstanceId::new(), &choice.placed, &protected(2, 512));
        placed += 1;
    }
    assert_eq!(placed, 8, "four of five hosts full, one kept");
}

#[test]
fn a_lone_host_refuses_with_the_reason_and_the_zone_counts() {
    let mut rows = [host(1, size(8, 8192, 0)), host(2, size(8, 8192, 0))];
    rows[1].zone = "other".to_owned();
    let mut inventory = Inventory::new(&rows);
    let refused = decide(&mut inventory, &protected(1, 512), NOW);
    assert_eq!(
        refused.record.rejected.iter().map(|r| (r.filter, r.hosts)).collect::<Vec<_>>(),
        [(Rejection::Reserve, 2)]
    );
    assert!(
        refused.record.hint.starts_with("2 hosts have enough capacity, but no other could restart"),
        "{}",
        refused.record.hint
    );
}

#[test]
fn a_recovered_instance_gets_the_capacity_reserved_for_it() {
    let rows = [host(1, size(4, 8192, 0)), host(2, size(4, 8192, 0))];
    let mut inventory = Inventory::new(&rows);
    let request = protected(4, 1024);
    let placed = choose(&mut inventory, &request).expect("fits").placed;
    let id = InstanceId::new();
    inventory.place_tentatively(id, &placed, &request);
    let backup = inventory.backup_of(id).expect("backed");
    assert_eq!(Some(backup), placed.backup);
    inventory.set_state(placed.host_id, HostState::Disconnected);
    let again = Request { recovers: Some(id), ..request };
    let moved = choose(&mut inventory, &again).expect("the capacity was reserved").placed;
    assert_eq!(moved.host_id, backup);
    inventory.release_placement(id, &placed);
    inventory.place_tentatively(id, &moved, &again);
    assert_eq!(inventory.find(backup).expect("known").tentative.vcpus, 4);
    assert_eq!(inventory.retry_backups(), [id], "nobody is left to back it");
    inventory.set_state(placed.host_id, HostState::Up);
    assert_eq!(inventory.retry_backups(), []);
}

#[derive(Debug, Clone)]
enum Op {
    Place(u32, u64, bool),
    Drop(usize),
    Down(usize),
    Up(usize),
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn any_one_host_can_be_lost(
        hosts in proptest::collection::vec((2_u32..16, 2048_u64..16_384, 0_u8..2), 1..8),
        ops in proptest::collection::vec(prop_oneof![
            6 => (1_u32..5, 64_u64..2048, any::<bool>()).prop_map(|(c, m, p)| Op::Place(c, m, p)),
            2 => any::<usize>().prop_map(Op::Drop),
            1 => any::<usize>().prop_map(Op::Down),
            1 => any::<usize>().prop_map(Op::Up),
        ], 1..60),
    ) {
        let rows: Vec<Host> = hosts.iter().enumerate().map(|(n, (c, m, zone))| {
            let mut row = host(n as u128 + 1, size(*c, *m, 0));
            row.zone = format!("z{zone}");
            row
        }).collect();
        let mut inventory = Inventory::new(&rows);
        let mut running: HashMap<InstanceId, (Placed, Request)> = HashMap::new();
        // Once a host is down, the zone may already be living on its reserve.
        let mut lost = false;
        for op in ops {
            match op {
                Op::Place(vcpus, memory_mib, p) => {
                    let request = Request { protected: p, ..sized(vcpus, memory_mib, 0) };
                    if let Some(choice) = choose(&mut inventory, &request) {
                        let id = InstanceId::new();
                        inventory.place_tentatively(id, &choice.placed, &request);
                        prop_assert!(!p || inventory.backup_of(id) == choice.placed.backup);
                        prop_assert!(!p || choice.placed.backup.is_some());
                        running.insert(id, (choice.placed, request));
                    }
                }
                Op::Drop(n) if !running.is_empty() => {
                    let mut ids: Vec<InstanceId> = running.keys().copied().collect();
                    ids.sort_unstable();
                    let id = ids[n % ids.len()];
                    let (placed, _) = running.remove(&id).expect("running");
                    inventory.release_placement(id, &placed);
                }
                Op::Down(n) => {
                    lost = true;
                    inventory.set_state(rows[n % rows.len()].id, HostState::Disconnected);
                }
                Op::Up(n) => inventory.set_state(rows[n % rows.len()].id, HostState::Up),
                Op::Drop(_) => {}
            }
            if !lost {
                prop_assert_eq!(survives(&inventory, &running), Ok(()));
            }
            for h in inventory.hosts() {
                let taken = host::plus(host::plus(h.used, h.tentative), h.recovery_reserved);
                prop_assert!(host::fits(&taken, &h.capacity), "{h:?}");
            }
        }
        for (id, (placed, _)) in running { inventory.release_placement(id, &placed); }
        for h in inventory.hosts() {
            prop_assert_eq!((h.tentative, h.recovery_reserved), (Size::default(), Size::default()));
        }
    }
}

#[test]
fn a_resize_takes_its_backup_along_or_is_refused() {
    let rows = [host(1, size(8, 8192, 0)), host(2, size(4, 8192, 0))];
    let mut inventory = Inventory::new(&rows);
    let (id, request) = (InstanceId::new(), protected(2, 1024));
    let placed = Placed::of(rows[0].id, inventory.find(rows[0].id).expect("known").claim_of(request.size));
    inventory.place_tentatively(id, &placed, &request);
    let recovery_reserved = |inventory: &Inventory| inventory.find(rows[1].id).expect("known").recovery_reserved;
    let claim = |inventory: &Inventory, size| inventory.find(rows[0].id).expect("known").claim_of(size);
    assert_eq!(recovery_reserved(&inventory).vcpus, 2);
    let four = claim(&inventory, size(4, 1024, 0));
    assert!(inventory.resize(id, size(4, 1024, 0), four));
    assert_eq!((recovery_reserved(&inventory), inventory.backup_of(id)), (four, Some(rows[1].id)));
    // The backup has four vCPUs in all.
    let six = claim(&inventory, size(6, 1024, 0));
    assert!(!inventory.resize(id, size(6, 1024, 0), six));
    assert_eq!((recovery_reserved(&inventory), inventory.backup_of(id)), (Size::default(), None));
    assert!(inventory.resize(id, size(4, 1024, 0), four), "back to what it was");
    assert_eq!(recovery_reserved(&inventory), four);
    let one = claim(&inventory, size(1, 512, 0));
    assert!(inventory.resize(id, size(1, 512, 0), one));
    assert_eq!(recovery_reserved(&inventory), one);
    inventory.remove_instance(id);
    assert_eq!(recovery_reserved(&inventory), Size::default());
    assert!(inventory.resize(id, size(6, 1024, 0), six), "nothing depends on one that isn't attached");
}

fn on(inventory: &mut Inventory, row: &Host, request: &Request, backup: Option<&Host>) -> InstanceId {
    let (id, claim) = (InstanceId::new(), inventory.find(row.id).expect("known").claim_of(request.size));
    let placed = Placed { backup: backup.map(|h| h.id), ..Placed::of(row.id, claim) };
    inventory.place_tentatively(id, &placed, request);
    id
}

#[test]
fn a_backup_that_lost_its_capacity_keeps_no_promise() {
    let mut rows = [host(1, size(4, 8192, 0)), host(2, size(4, 8192, 0)), host(3, size(8, 16_384, 0))];
    let mut inventory = Inventory::new(&rows);
    let request = protected(4, 1024);
    let [a, b] = [0, 1].map(|at| on(&mut inventory, &rows[at], &request, Some(&rows[2])));
    assert_eq!([a, b].map(|id| inventory.backup_of(id)), [Some(rows[2].id); 2]);
    // It has capacity for neither of them: what it reserved for the other is not free for one.
    rows[2].capacity = size(2, 16_384, 0);
    inventory.put_host(&rows[2]);
    assert_eq!([a, b].map(|id| inventory.backup_of(id)), [None; 2]);
    assert_eq!(inventory.retry_backups().len(), 2);
    assert!(choose(&mut inventory, &protected(1, 512)).is_none());
    rows[2].capacity = size(4, 16_384, 0);
    inventory.put_host(&rows[2]);
    assert_eq!(inventory.retry_backups(), []);
}

#[test]
fn a_backup_that_no_longer_suits_is_left() {
    let mut rows = [host(1, size(4, 8192, 0)), host(2, size(4, 8192, 0)), host(3, size(4, 8192, 0))];
    let mut inventory = Inventory::new(&rows);
    let id = on(&mut inventory, &rows[0], &protected(1, 512), Some(&rows[1]));
    rows[1].dedicated_to = Some(domain::ProjectId::new());
    inventory.put_host(&rows[1]);
    assert_eq!(inventory.backup_of(id), Some(rows[2].id));
    rows[2].zone = "other".to_owned();
    inventory.put_host(&rows[2]);
    assert_eq!(inventory.backup_of(id), None);
    rows[0].zone = "other".to_owned();
    inventory.put_host(&rows[0]);
    assert_eq!((inventory.retry_backups(), inventory.backup_of(id)), (vec![], Some(rows[2].id)));
    // The host moves alone: its backup is in another zone then.
    rows[0].zone = "third".to_owned();
    inventory.put_host(&rows[0]);
    assert_eq!(inventory.backup_of(id), None);
    assert_eq!(inventory.find(rows[2].id).expect("known").recovery_reserved, Size::default());
}

#[test]
fn the_loss_of_a_host_breaks_no_hard_group() {
    let apart = |n| Request {
        groups: vec![constraint(n, GroupPolicy::AntiAffinity, GroupScope::Host, GroupStrength::Hard)],
        ..protected(1, 512)
    };
    let rows: Vec<Host> = (1..=3).map(|n| host(n, size(8, 8192, 0))).collect();
    let mut inventory = Inventory::new(&rows[..2]);
    let first = choose(&mut inventory, &apart(1)).expect("placed").placed;
    inventory.place_tentatively(InstanceId::new(), &first, &apart(1));
    // The other host is where the first instance would restart.
    let refused = decide(&mut inventory, &apart(1), NOW);
    assert!(refused.placed.is_none() && refused.record.rejected.iter().any(|r| r.filter == Rejection::Group));
    assert!(choose(&mut inventory, &apart(2)).is_some(), "another group may");
    let mut inventory = Inventory::new(&rows);
    let mut hosts = Vec::new();
    for _ in 0..2 {
        let placed = choose(&mut inventory, &apart(1)).expect("two of three").placed;
        hosts.push((placed.host_id, placed.backup.expect("backed up")));
        inventory.place_tentatively(InstanceId::new(), &placed, &apart(1));
    }
    let [(a, backup), (b, other)] = hosts[..] else { panic!("{hosts:?}") };
    assert!(a != b && backup == other && backup != a && backup != b, "{hosts:?}");
    assert!(choose(&mut inventory, &apart(1)).is_none());
}

#[test]
fn members_that_must_be_together_restart_together() {
    let together = Request {
        groups: vec![constraint(1, GroupPolicy::Affinity, GroupScope::Host, GroupStrength::Hard)],
        ..protected(2, 512)
    };
    let mut rows = [host(1, size(8, 8192, 0)), host(2, size(4, 8192, 0)), host(3, size(8, 8192, 0))];
    rows[2].cordoned = true;
    let mut inventory = Inventory::new(&rows);
    let on_first = [0; 2].map(|_| on(&mut inventory, &rows[0], &together, None));
    let backups = |inventory: &Inventory| on_first.map(|id| inventory.backup_of(id));
    assert_eq!(backups(&inventory), [Some(rows[1].id); 2]);
    // A third one would need capacity where the others would go.
    assert!(choose(&mut inventory, &together).is_none());
    rows[2].cordoned = false;
    inventory.put_host(&rows[2]);
    rows[1].cordoned = true;
    inventory.put_host(&rows[1]);
    assert_eq!(backups(&inventory), [Some(rows[2].id); 2], "both moved");
    assert_eq!(choose(&mut inventory, &together).and_then(|c| c.placed.backup), Some(rows[2].id));
}

#[test]
fn zones_of_one_host_do_not_hide_a_larger_one() {
    let mut rows: Vec<Host> = (1..=12).map(|n| host(n, size(4, 8192, 0))).collect();
    for (at, row) in rows.iter_mut().enumerate() {
        row.zone = format!("z{}", at.min(10));
        // These are tight, so they are tried first.
        row.used = if at < 10 { size(3, 7000, 0) } else { Size::default() };
    }
    let mut inventory = Inventory::new(&rows);
    let choice = choose(&mut inventory, &protected(1, 512)).expect("the last zone has two hosts");
    assert!([rows[10].id, rows[11].id].contains(&choice.placed.host_id));
}

#[test]
fn an_older_row_and_one_that_is_ahead_are_not_taken_over() {
    let mut row = host(1, size(4, 8192, 0));
    (row.generation, row.used) = (3, size(2, 1024, 0));
    let mut inventory = Inventory::new(std::slice::from_ref(&row));
    let older = Host { generation: 2, dedicated_to: Some(domain::ProjectId::new()), ..row.clone() };
    let moment = |inventory: &Inventory| inventory.moment(row.id).expect("known");
    assert!(!inventory.refresh(moment(&inventory), &older));
    assert_eq!(inventory.find(row.id).expect("known").policies.dedicated_to, None);
    let freed = Host { used: size(1, 512, 0), ..row.clone() };
    inventory.release_begins(row.id);
    assert!(!inventory.refresh(moment(&inventory), &freed), "memory will count it by itself");
    inventory.release(row.id, size(1, 512, 0));
    inventory.release_ends(row.id);
    assert!(inventory.refresh(moment(&inventory), &freed));
    assert_eq!(inventory.find(row.id).expect("known").used, freed.used);
}

#[test]
fn what_uncommitted_claims_take_may_become_free() {
    let rows = [host(1, size(4, 8192, 0)), host(2, size(4, 8192, 0))];
    let mut inventory = Inventory::new(&rows);
    let (four, request) = (size(4, 1024, 0), sized(1, 512, 0));
    rows.iter().for_each(|row| inventory.claim_tentatively(row.id, four));
    assert!(choose(&mut inventory, &request).is_none() && inventory.may_yet_fit(&request));
    assert!(!inventory.may_yet_fit(&sized(5, 512, 0)), "no host is that large");
    inventory.confirm(rows[0].id, four);
    assert!(inventory.may_yet_fit(&request));
    inventory.confirm(rows[1].id, four);
    assert!(!inventory.may_yet_fit(&request), "all of it is there to stay");
}
