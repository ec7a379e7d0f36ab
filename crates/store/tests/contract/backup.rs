//! A copy of a database in use is whole, is one moment's, and opens.

use crate::fixture::{T0, name};
use domain::ProjectId;
use std::os::unix::fs::PermissionsExt;
use store::{
    testing::{TestDatabase, TestStore},
    *,
};

fn pair(n: u32) -> Unit {
    ["a", "b"].iter().fold(Unit::new(), |unit, half| {
        let name = name(&format!("{half}-{n}"));
        unit.op(ProjectInsert { id: ProjectId::new(), name, description: "x".repeat(500), created_at: T0 })
    })
}

async fn names(store: &Store) -> Vec<String> {
    store.project_list(Page::first(100_000)).await.expect("reads").iter().map(|p| p.name.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_a_database_in_use_has_what_was_answered_and_no_half_of_a_unit() {
    let db = TestStore::sqlite().await;
    let directory = tempfile::tempdir().expect("a directory");
    db.commit(pair(0)).await.expect("commits");
    // All of it is still in the log.
    let young = directory.path().join("young.db");
    let copied = db.backup_to(&young).await.expect("copies");
    assert_eq!(copied.schema_version, SCHEMA_VERSION);
    let metadata = std::fs::metadata(&young).expect("it is there");
    assert_eq!((metadata.len(), metadata.permissions().mode() & 0o777), (copied.size_bytes, 0o600));
    let writer = db.store.clone();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let writing = tokio::spawn(async move {
        tokio::pin!(stopped);
        let mut n = 1;
        loop {
            writer.commit(pair(n)).await.expect("commits go on");
            n += 1;
            if stopped.try_recv().is_ok() {
                return n;
            }
        }
    });
    for copy in 0..5 {
        let answered = names(&db.store).await;
        let path = directory.path().join(format!("{copy}.db"));
        db.backup_to(&path).await.expect("copies");
        let restored = Store::open(&StoreConfig::new(format!("sqlite://{}", path.display()))).await.expect("it opens");
        let there = names(&restored).await;
        assert!(answered.iter().all(|name| there.contains(name)), "what was answered before is in the copy");
        let halves = |half: &str| there.iter().filter(|name| name.starts_with(half)).count();
        assert_eq!(halves("a-"), halves("b-"), "no unit is there by half");
        restored.commit(pair(1_000_000)).await.expect("it takes changes");
        restored.close().await;
    }
    stop.send(()).expect("it still writes");
    assert!(writing.await.expect("no panic") > 1);
    let left = std::fs::read_dir(directory.path()).expect("a list").filter_map(|entry| {
        entry.expect("readable").file_name().into_string().ok().filter(|name| name.ends_with(".partial"))
    });
    assert_eq!(left.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_replaces_nothing_and_a_leftover_is_no_hindrance() {
    let db = TestStore::sqlite().await;
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("one.db");
    std::fs::write(directory.path().join("one.db.partial"), b"of a killed process").expect("written");
    db.backup_to(&path).await.expect("copies");
    let before = std::fs::read(&path).expect("the copy");
    db.commit(pair(1)).await.expect("commits");
    let taken = db.backup_to(&path).await.expect_err("the name is taken");
    assert!(matches!(taken, BackupError::Io { .. }), "{taken:?}");
    assert_eq!(std::fs::read(&path).expect("the copy"), before);
    let nowhere = db.backup_to(&directory.path().join("none/one.db")).await.expect_err("no directory");
    assert!(matches!(nowhere, BackupError::Io { .. }), "{nowhere:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_is_copied_by_its_own_tools() {
    let Some(database) = TestDatabase::postgres().await else { return };
    let store = database.open().await;
    let directory = tempfile::tempdir().expect("a directory");
    let refused = store.backup_to(&directory.path().join("x.db")).await.expect_err("it isn't ours");
    assert!(matches!(refused, BackupError::NotSqlite));
    assert_eq!(std::fs::read_dir(directory.path()).expect("a list").count(), 0);
    store.close().await;
}
