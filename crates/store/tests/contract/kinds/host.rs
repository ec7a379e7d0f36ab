use crate::fixture::{Lab, T0, at, claim, first, host_upsert, name, release};
use domain::{
    HostId, InstanceId,
    flavor::Size,
    host::{FoundLedger, HostFacts, HostLedger, HostState},
};
use std::collections::BTreeMap;
use store::*;

async fn leases(lab: &Lab) {
    let take = ManagerLeaseTake {
        role: ManagerRole::Storage,
        term: 5,
        holder: "first".to_owned(),
        host: "rack-1".to_owned(),
        pid: 7,
        address: "https://rack-1:7482".to_owned(),
        renewals: 1,
        ttl_ms: 3000,
        led_since: T0,
        renewed_at: T0,
        resigned: false,
    };
    lab.one(take.clone()).await;
    // A later term is given once for what was read, and never a lower one.
    for refused in
        [take.clone(), ManagerLeaseTake { renewals: 2, ..take.clone() }, ManagerLeaseTake { term: 6, ..take.clone() }]
    {
        assert_eq!(lab.guard(refused).await, Guard::ManagerLease);
    }
    let second = ManagerLeaseTake { term: 6, renewals: 2, holder: "second".to_owned(), ..take };
    lab.one(second.clone()).await;
    assert_eq!(lab.guard(second).await, Guard::ManagerLease);
    let lease = lab.manager_lease_find(ManagerRole::Storage).await.expect("reads").expect("there");
    assert_eq!((lease.term, lease.holder.as_str(), lease.renewals), (6, "second", 2));
    assert_eq!(lab.manager_lease_list().await.expect("reads"), std::slice::from_ref(&lease));
    assert!(!lease.vacant(at(1)) && lease.vacant(at(60)));
    assert!(
        ManagerLease { resigned: true, ..lease.clone() }.vacant(T0)
            && !ManagerLease { ttl_ms: 0, ..lease }.vacant(at(60))
    );

    let standby = |id: &str, renewed_at| ManagerStandbyPut {
        id: id.to_owned(),
        role: ManagerRole::Storage,
        host: "rack-2".to_owned(),
        pid: 8,
        address: "https://rack-2:7482".to_owned(),
        since: T0,
        renewed_at,
    };
    let ids = async |since| -> Vec<String> {
        lab.manager_standby_list(since).await.expect("reads").into_iter().map(|standby| standby.id).collect()
    };
    for (id, renewed_at) in [("a", T0), ("b", T0), ("a", at(10)), ("c", at(20))] {
        lab.one(standby(id, renewed_at)).await;
    }
    assert_eq!(
        (ids(T0).await, ids(at(20)).await),
        (vec!["b".to_owned(), "a".to_owned(), "c".to_owned()], vec!["c".to_owned()])
    );
    lab.one(ManagerStandbyExpire { before: at(1) }).await;
    lab.one(ManagerStandbyDelete { id: "c".to_owned() }).await;
    assert_eq!(ids(T0).await, ["a"]);
}

pub async fn walk(lab: &Lab) {
    leases(lab).await;
    let upsert = host_upsert("alpha");
    let alpha = upsert.id;
    lab.one(upsert.clone()).await;
    let host = lab.host_find(alpha).await.unwrap().unwrap();
    assert_eq!(host.capacity, Size { vcpus: 20, memory_mib: 20_000, disk_gib: 100 });
    assert_eq!(
        (host.facts.clone(), host.overhead, host.tags.clone()),
        (upsert.facts.clone(), upsert.overhead, upsert.tags.clone())
    );
    assert_eq!((host.generation, host.revision, host.used), (1, 0, Size::default()));
    let twin = HostUpsert { id: HostId::new(), ..upsert.clone() };
    assert_eq!(lab.constraint(twin).await, Constraint::HostName);

    let project = domain::ProjectId::new();
    let change = HostChange {
        id: alpha,
        expected_generation: 1,
        cordoned: true,
        cordon_reason: "new disk".into(),
        draining: false,
        dedicated_to: Some(project),
        zone: "b".into(),
        tags: BTreeMap::new(),
        cpu_overcommit_permille: 2000,
        memory_overcommit_permille: 1500,
        disk_overcommit_permille: 3000,
        reserved_vcpus: 1,
        reserved_memory_mib: 2_000,
        reserved_disk_gib: 20,
        accept_capacity: false,
    };
    lab.one(change.clone()).await;
    assert_eq!(lab.guard(change.clone()).await, Guard::HostGeneration);
    assert_eq!(lab.guard(claim(alpha)).await, Guard::HostCapacity, "it is cordoned");
    let host = lab.host_find(alpha).await.unwrap().unwrap();
    assert_eq!(host.capacity, Size { vcpus: 8, memory_mib: 27_000, disk_gib: 240 });
    assert_eq!((host.capacity, host.offered.vcpus), (host.placeable(), 5), "SQL and the domain count alike");
    // It registers again, with more threads: what the operator decided stays.
    let again = HostUpsert {
        threads: 7,
        memory_mib: 30_000,
        zone: "z".into(),
        at: at(5),
        facts: HostFacts { kernel: "6.12".into(), ..HostFacts::default() },
        ..upsert.clone()
    };
    lab.one(again).await;
    let host = lab.host_find(alpha).await.unwrap().unwrap();
    assert_eq!(host.capacity, Size { vcpus: 12, memory_mib: 42_000, disk_gib: 240 });
    assert_eq!(host.capacity, host.placeable());
    assert_eq!((host.zone.as_str(), host.cordoned, host.cordon_reason.as_str()), ("b", true, "new disk"));
    assert_eq!((host.generation, host.cpu_overcommit_permille, host.facts.kernel.as_str()), (2, 2000, "6.12"));
    assert_eq!((host.registered_at, host.state_changed_at), (T0, T0));
    assert_eq!((host.draining, host.dedicated_to), (false, Some(project)));
    lab.one(HostChange { expected_generation: 2, cordoned: false, draining: true, ..change.clone() }).await;
    assert_eq!(lab.guard(claim(alpha)).await, Guard::HostCapacity, "it is being emptied");
    // It comes back with less than is reserved: no room, and nothing below it.
    lab.one(HostUpsert { threads: 1, memory_mib: 1_000, disk_gib: 20, ..upsert.clone() }).await;
    let host = lab.host_find(alpha).await.unwrap().unwrap();
    assert_eq!((host.capacity, host.placeable()), (Size::default(), Size::default()));
    // An operator who read what it was before.
    lab.one(HostChange { expected_generation: 3, cordoned: false, dedicated_to: None, ..change.clone() }).await;
    assert_eq!(lab.host_find(alpha).await.unwrap().unwrap().capacity, Size::default(), "counted from what it has now");
    lab.one(HostChange {
        expected_generation: 4,
        cordoned: false,
        dedicated_to: None,
        memory_overcommit_permille: 1000,
        disk_overcommit_permille: 1000,
        reserved_vcpus: 0,
        reserved_memory_mib: 0,
        reserved_disk_gib: 0,
        ..change.clone()
    })
    .await;

    lab.one(HostStateSet { id: alpha, state: HostState::Disconnected, at: at(7) }).await;
    assert_eq!(lab.guard(claim(alpha)).await, Guard::HostCapacity, "it is not up");
    lab.one(HostStateSet { id: alpha, state: HostState::Disconnected, at: at(8) }).await;
    assert_eq!(lab.host_find(alpha).await.unwrap().unwrap().state_changed_at, at(7), "nothing changed the second time");
    lab.one(HostUpsert { at: at(9), ..upsert }).await;
    let host = lab.host_find(alpha).await.unwrap().unwrap();
    assert_eq!((host.state, host.state_changed_at, host.capacity.vcpus), (HostState::Up, at(9), 10));

    ledgers(lab, alpha).await;

    // Two claims in one unit are summed before they are checked.
    let half = HostClaim { host_id: alpha, generation: None, vcpus: 6, memory_mib: 0, disk_gib: 0 };
    assert!(matches!(
        lab.try_commit(Unit::new().op(half.clone()).op(half)).await,
        Err(CommitError::Guard(Guard::HostCapacity))
    ));
    lab.all(Unit::new().op(claim(alpha)).op(claim(alpha)).op(HostRevision { host_id: alpha })).await;
    let host = lab.host_find(alpha).await.unwrap().unwrap();
    assert_eq!((host.used.vcpus, host.used.disk_gib, host.revision), (4, 20, 3));
    assert_eq!(lab.guard(HostClaim { disk_gib: 81, ..claim(alpha) }).await, Guard::HostCapacity);
    assert_eq!(lab.guard(HostClaim { memory_mib: 19_000, ..claim(alpha) }).await, Guard::HostCapacity);
    assert_eq!(lab.guard(HostClaim { vcpus: 7, ..claim(alpha) }).await, Guard::HostCapacity);
    assert_eq!(lab.guard(claim(HostId::new())).await, Guard::HostCapacity);
    // Decided on what the operator has changed since; also beside one that knows better.
    let of = |generation| HostClaim { generation: Some(generation), ..claim(alpha) };
    let is = lab.host_find(alpha).await.unwrap().unwrap().generation;
    assert_eq!(lab.guard(of(is - 1)).await, Guard::HostCapacity);
    let both = Unit::new().op(of(is)).op(of(is - 1));
    assert!(matches!(lab.try_commit(both).await, Err(CommitError::Guard(Guard::HostCapacity))));
    lab.all(Unit::new().op(of(is)).op(claim(alpha))).await;
    lab.all(Unit::new().op(release(alpha)).op(release(alpha))).await;
    lab.all(Unit::new().op(release(alpha)).op(release(alpha))).await;
    let host = lab.host_find(alpha).await.unwrap().unwrap();
    assert_eq!((host.used, host.revision), (Size::default(), 9));
    assert_eq!(lab.constraint(release(alpha)).await, Constraint::UsedNotNegative);

    // Less room than is claimed: what is there stays, nothing new fits, and it can all be given back.
    lab.one(claim(alpha)).await;
    lab.one(HostChange { expected_generation: 5, cordoned: false, dedicated_to: None, reserved_vcpus: 5, ..change })
        .await;
    let host = lab.host_find(alpha).await.unwrap().unwrap();
    assert_eq!((host.capacity.vcpus, host.used.vcpus, host.beyond_capacity().vcpus), (0, 2, 2));
    assert_eq!(lab.guard(claim(alpha)).await, Guard::HostCapacity);
    lab.one(release(alpha)).await;

    acceptance(lab).await;

    let beta = lab.host("beta").await;
    assert_eq!(lab.host_find_by_name("beta").await.unwrap().unwrap().id, beta);
    assert_eq!(lab.host_find_by_name("gamma").await.unwrap(), None);
    assert_eq!(lab.host_list().await.unwrap().iter().map(|h| h.id).collect::<Vec<_>>(), [alpha, beta]);
    let page = Page { after: Some(alpha.to_string()), limit: 1 };
    assert_eq!(lab.host_list_page(page).await.unwrap()[0].id, beta);
    assert_eq!(lab.host_list_page(first(1)).await.unwrap()[0].name, name("alpha").as_str());

    let cpu = domain::cpu::CpuBaseline { model: "host".into(), features: vec!["avx".into()], ..Default::default() };
    for _ in 0..2 {
        lab.one(CpuBaselinePut { id: cpu.id(), document: cpu.clone() }).await;
    }
    assert_eq!(lab.cpu_baseline_list().await.unwrap(), [CpuBaselineRow { id: cpu.id(), document: cpu }]);

    let orphan =
        OrphanPut { host_id: beta, instance_id: InstanceId::new(), epoch: 3, detail: "?".into(), last_seen_at: T0 };
    lab.one(orphan.clone()).await;
    lab.one(OrphanPut { epoch: 4, last_seen_at: at(1), ..orphan.clone() }).await;
    let rows = lab.orphan_list_of_hosts(&[beta, alpha]).await.unwrap();
    assert_eq!(lab.orphan_list_of_hosts(&[alpha]).await.unwrap().len(), 0);
    assert_eq!(lab.orphan_count().await.unwrap(), 1);
    assert_eq!((rows.len(), rows[0].epoch, rows[0].last_seen_at), (1, 4, at(1)));
    lab.one(OrphanDelete { host_id: beta, instance_id: orphan.instance_id }).await;
    assert_eq!(lab.orphan_count().await.unwrap(), 0);
}

async fn ledgers(lab: &Lab, id: HostId) {
    let said = |ledger: &str, start: i64, found: Option<&str>, known: [&str; 2]| HostLedgerSet {
        id,
        known_ledger_id: known[0].into(),
        known_found_ledger_id: known[1].into(),
        ledger_id: ledger.into(),
        ledger_start: start,
        found_ledger_id: found.map(str::to_owned),
        found_ledger_start: found.map(|_| 1),
    };
    lab.one(said("a", 7, None, ["", ""])).await;
    let accept = |found: &str| HostLedgerAccept { id, found_ledger_id: found.into() };
    assert_eq!(lab.guard(accept("a")).await, Guard::HostGeneration, "it isn't held");
    lab.one(said("a", 7, Some("b"), ["a", ""])).await;
    let ledger = || async { lab.host_find(id).await.unwrap().unwrap().ledger };
    let held =
        HostLedger { id: "a".into(), start: 7, start_floor: 0, found: Some(FoundLedger { id: "b".into(), start: 1 }) };
    assert_eq!(ledger().await, held);
    assert_eq!(lab.guard(accept("c")).await, Guard::HostGeneration, "it came with another one meanwhile");
    lab.one(accept("b")).await;
    let accepted = HostLedger { id: "b".into(), start: 1, start_floor: 8, found: None };
    assert_eq!(ledger().await, accepted);
    // What was decided before the loss was accepted doesn't undo that.
    assert_eq!(lab.guard(said("a", 7, Some("b"), ["a", "b"])).await, Guard::HostGeneration);
    assert_eq!(ledger().await, accepted);
    // Given up again before its agent numbered its start anew: the floor doesn't fall. An older copy of the same ledger changes no id.
    lab.one(said("b", 1, Some("d"), ["b", ""])).await;
    lab.one(accept("d")).await;
    lab.one(said("d", 1, Some("d"), ["d", ""])).await;
    lab.one(accept("d")).await;
    assert_eq!(lab.guard(said("d", 1, Some("d"), ["d", "d"])).await, Guard::HostGeneration);
    assert_eq!(ledger().await, HostLedger { id: "d".into(), start: 1, start_floor: 8, found: None });
}

/// What a host reports is offered as far as it was accepted.
async fn acceptance(lab: &Lab) {
    let size = |vcpus, memory_mib, disk_gib| Size { vcpus, memory_mib, disk_gib };
    for (accept_first, accept_later, first, grown) in [
        (true, true, size(5, 20_000, 100), size(9, 30_000, 100)),
        (true, false, size(5, 20_000, 100), size(5, 20_000, 100)),
        (false, false, Size::default(), Size::default()),
    ] {
        let called = format!("accepts-{accept_first}-{accept_later}");
        let upsert = HostUpsert { accept_first, accept_later, cpu_overcommit_permille: 1000, ..host_upsert(&called) };
        let now = async || lab.host_find(upsert.id).await.unwrap().unwrap();
        lab.one(upsert.clone()).await;
        assert_eq!((now().await.offered, now().await.capacity), (first, first));
        lab.one(HostUpsert { threads: 9, memory_mib: 30_000, ..upsert.clone() }).await;
        let host = now().await;
        assert_eq!((host.offered, host.capacity, host.placeable()), (grown, grown, grown));
        assert_eq!(host.reported, size(9, 30_000, 100));
        assert_eq!(host.unaccepted() == Size::default(), accept_later);
        // Less than was accepted, and as before.
        lab.one(HostUpsert { threads: 2, memory_mib: 1000, disk_gib: 10, ..upsert.clone() }).await;
        assert_eq!(now().await.offered, if accept_first { size(2, 1000, 10) } else { Size::default() });
        lab.one(HostUpsert { threads: 9, memory_mib: 30_000, ..upsert.clone() }).await;
        assert_eq!(now().await.offered.vcpus == 9, accept_later);
        lab.one(HostChange {
            id: upsert.id,
            expected_generation: 1,
            cordoned: false,
            cordon_reason: String::new(),
            draining: false,
            dedicated_to: None,
            zone: "a".into(),
            tags: BTreeMap::new(),
            cpu_overcommit_permille: 1000,
            memory_overcommit_permille: 1000,
            disk_overcommit_permille: 1000,
            reserved_vcpus: 1,
            reserved_memory_mib: 0,
            reserved_disk_gib: 0,
            accept_capacity: true,
        })
        .await;
        let host = now().await;
        assert_eq!((host.offered, host.accepted, host.unaccepted()), (host.reported, host.reported, Size::default()));
        assert_eq!((host.capacity, host.placeable()), (size(8, 30_000, 100), size(8, 30_000, 100)));
        lab.one(HostDelete { id: upsert.id, expected_generation: 2 }).await;
    }
}
