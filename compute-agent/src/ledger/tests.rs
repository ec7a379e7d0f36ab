use super::{record::tests::full_entry, *};

fn desired(epoch: i64, generation: i64, deleted: bool) -> Desired {
    let mut desired = full_entry().desired;
    desired.version = Version { epoch, generation };
    desired.spec.deleted = deleted;
    desired
}

fn open(dir: &Path) -> Ledger {
    let (ledger, quarantined) = Ledger::open(dir, None).expect("opened");
    assert_eq!(quarantined, []);
    ledger
}

#[tokio::test]
async fn what_was_accepted_is_there_after_a_restart() {
    let dir = tempfile::tempdir().expect("dir");
    let ledger = open(dir.path());
    let (host_id, start) = (ledger.host_id(), ledger.host().start);
    let id = desired(1, 1, false).instance_id;
    let outcome = ledger.accept(vec![desired(1, 1, false)], 5).await.expect("accepted").outcomes;
    assert_eq!(outcome[0].decision, Decision::Take);
    ledger.record(id, |done| done.boot_seq = 7).await.expect("recorded");
    // The newer version keeps what was done; the revision's file is written behind it, in the order of submission.
    ledger.accept(vec![desired(1, 2, false)], 6).await.expect("accepted");
    ledger.record(id, |done| done.crash_count = 2).await.expect("recorded");
    drop(ledger);

    let ledger = open(dir.path());
    assert_eq!((ledger.host_id(), ledger.host().start, ledger.host().revision), (host_id, start + 1, 6));
    let held = ledger.held(id).expect("held");
    let Held::Live(entry) = &*held else { panic!("alive") };
    assert_eq!((entry.desired.version.generation, entry.done.boot_seq, entry.done.crash_count), (2, 7, 2));

    let refused = ledger.accept(vec![desired(1, 1, false)], 7).await.expect("answered").outcomes;
    assert_eq!(refused[0].decision, Decision::Refuse { held: Version { epoch: 1, generation: 2 } });
}

#[tokio::test]
async fn a_tombstone_is_kept_and_nothing_of_its_epoch_returns() {
    let dir = tempfile::tempdir().expect("dir");
    let ledger = open(dir.path());
    let command = desired(4, 9, true);
    let (id, version) = (command.instance_id, command.version);
    ledger.accept(vec![command], 1).await.expect("accepted");
    ledger.set_tombstone(id, Version { epoch: 4, generation: 8 }).await.expect("not this one");
    assert!(matches!(*ledger.held(id).expect("held"), Held::Live(_)));
    ledger.set_tombstone(id, version).await.expect("written");
    drop(ledger);
    let ledger = open(dir.path());
    assert!(matches!(*ledger.held(id).expect("held"), Held::Tombstone(_)));
    let outcomes = ledger.accept(vec![desired(4, 10, false)], 2).await.expect("answered").outcomes;
    assert!(matches!(outcomes[0].decision, Decision::Refuse { .. }));
    assert!(ledger.record(id, |_| ()).await.is_err(), "the dead do nothing");
}

#[tokio::test]
async fn damage_is_set_aside_and_said() {
    let dir = tempfile::tempdir().expect("dir");
    drop(open(dir.path()));
    let files = dir.path().join("ledger");
    let id = InstanceId::new();
    fs::write(files.join(format!("{id}.json")), b"{\"format\":1,").expect("written");
    fs::write(files.join(format!("{}.json", InstanceId::new())), b"{\"format\":2}").expect("written");
    let (ledger, quarantined) = Ledger::open(dir.path(), None).expect("opened all the same");
    assert_eq!(ledger.all().len(), 0);
    assert_eq!(quarantined.len(), 2);
    assert!(quarantined.iter().all(|q| q.path.exists() && q.path.starts_with(files.join("quarantine"))));
    drop(ledger);
    fs::write(files.join("host.json"), b"zzz").expect("written");
    assert!(matches!(Ledger::open(dir.path(), None), Err(LedgerError::Damaged { .. })), "never a new host by accident");
}

#[tokio::test]
async fn one_agent_a_ledger() {
    let dir = tempfile::tempdir().expect("dir");
    let ledger = open(dir.path());
    assert!(matches!(Ledger::open(dir.path(), None), Err(LedgerError::InUse { .. })));
    drop(ledger);
    open(dir.path());
}

#[tokio::test]
async fn a_write_that_fails_leaves_what_was() {
    let dir = tempfile::tempdir().expect("dir");
    let ledger = open(dir.path());
    let id = desired(1, 1, false).instance_id;
    ledger.accept(vec![desired(1, 1, false)], 1).await.expect("accepted");
    // Root ignores permissions; a directory in the way stops anyone.
    let in_the_way = dir.path().join("ledger").join(format!("{id}.json.half"));
    fs::create_dir(&in_the_way).expect("made");
    assert!(matches!(ledger.accept(vec![desired(1, 2, false)], 2).await, Err(LedgerError::Commit { .. })));
    assert_eq!(ledger.held(id).expect("held").version().generation, 1);
    fs::remove_dir(&in_the_way).expect("removed");
    let again = ledger.accept(vec![desired(1, 2, false)], 2).await.expect("accepted");
    assert_eq!(again.outcomes[0].decision, Decision::Take, "what failed was not half taken");
    assert_eq!(ledger.held(id).expect("held").version().generation, 2);
}

#[tokio::test]
async fn many_at_once_all_become_durable() {
    let dir = tempfile::tempdir().expect("dir");
    let ledger = Arc::new(open(dir.path()));
    let tasks: Vec<_> = (0..50)
        .map(|_| {
            let ledger = Arc::clone(&ledger);
            tokio::spawn(async move {
                let mut command = desired(1, 1, false);
                command.instance_id = InstanceId::new();
                ledger.accept(vec![command], 1).await
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no panic").expect("accepted");
    }
    drop(ledger);
    assert_eq!(open(dir.path()).all().len(), 50);
}

#[test]
fn a_new_ledger_takes_the_given_identity_and_an_old_one_refuses_another() {
    let dir = tempfile::tempdir().expect("dir");
    let (one, other) = (domain::HostId::new(), domain::HostId::new());
    assert_eq!(peek_host_id(dir.path()).expect("none yet"), None);
    let (ledger, _) = Ledger::open(dir.path(), Some(one)).expect("made");
    assert_eq!(ledger.host_id(), one);
    drop(ledger);
    assert_eq!(peek_host_id(dir.path()).expect("read"), Some(one));
    let refused = Ledger::open(dir.path(), Some(other));
    assert!(matches!(refused, Err(LedgerError::AnotherHost { held, given, .. }) if (held, given) == (one, other)));
    let (ledger, _) = Ledger::open(dir.path(), None).expect("opened");
    assert_eq!((ledger.host_id(), ledger.host().start), (one, 2), "a refusal counts no start");
}

#[tokio::test]
async fn tombstones_that_no_manager_needs_go_but_for_the_newest() {
    let dir = tempfile::tempdir().expect("dir");
    let ledger = open(dir.path());
    let many = RELEASED_KEPT + 20;
    let deletion = |n: usize| {
        let id = InstanceId(uuid::Uuid::from_u128(n as u128 + 1));
        Desired::deletion(id, Version { epoch: 1, generation: 2 }, String::new())
    };
    let deletions: Vec<Desired> = (0..many).map(deletion).collect();
    ledger.accept(deletions.clone(), 1).await.expect("accepted");
    for deleted in &deletions {
        ledger.set_tombstone(deleted.instance_id, deleted.version).await.expect("written");
    }
    // One that lives is never released, whatever a manager says; nor is one that the manager may still name.
    let live = desired(1, 1, false);
    ledger.accept(vec![live.clone()], 2).await.expect("accepted");
    ledger.release_tombstone(live.instance_id);
    assert_eq!(ledger.all().len(), many + 1);
    for deleted in deletions.iter().chain(&deletions) {
        ledger.release_tombstone(deleted.instance_id);
    }
    assert_eq!(ledger.all().len(), RELEASED_KEPT + 1);
    drop(ledger);
    let ledger = open(dir.path());
    assert_eq!(ledger.all().len(), RELEASED_KEPT + 1, "their files went too");
    assert!(matches!(ledger.held(live.instance_id).as_deref(), Some(Held::Live(_))));
}
