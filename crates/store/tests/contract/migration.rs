//! Opening: once, again, by many at once, and on a database that is not ours to touch.

use crate::{fixture::Lab, server};
use futures::future::join_all;
use store::{testing::TestDatabase, *};

#[tokio::test(flavor = "multi_thread")]
async fn opening_again_keeps_everything() {
    for database in TestDatabase::each().await {
        let store = database.open().await;
        let id = domain::ProjectId::new();
        let project = ProjectInsert {
            id,
            name: "kept".parse().expect("a name"),
            description: String::new(),
            created_at: domain::Timestamp(0),
        };
        store.commit(Unit::new().op(project)).await.expect("commits");
        store.ping().await.expect("works");
        let handle = store.clone();
        store.close().await;
        assert!(matches!(handle.commit(Unit::new().op(ProjectDelete { id })).await, Err(CommitError::Unavailable(_))));
        assert!(matches!(handle.ping().await, Err(ReadError::Unavailable(_))));
        assert!(matches!(handle.project_find(id).await, Err(ReadError::Unavailable(_))));
        let store = database.open().await;
        assert!(store.project_find(id).await.expect("reads").is_some());
        store.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_processes_may_open_a_fresh_database_at_once() {
    for database in TestDatabase::each().await {
        let stores = join_all((0..8).map(|_| Store::open(&database.config))).await;
        let stores: Vec<Store> = stores.into_iter().map(|store| store.expect("opens")).collect();
        for store in &stores {
            store.ping().await.expect("works");
        }
        join_all(stores.into_iter().map(Store::close)).await;
        let versions = server::scalar(&database, "SELECT count(*) FROM schema_version").await;
        assert_eq!(versions, SCHEMA_VERSION, "each migration was applied once");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_schema_is_refused() {
    for database in TestDatabase::each().await {
        database.open().await.close().await;
        let newer = SCHEMA_VERSION + 1;
        let sql = format!("INSERT INTO schema_version (version, checksum, applied_at) VALUES ({newer}, 'x', 0)");
        server::execute(&database, &sql).await;
        match Store::open(&database.config).await {
            Err(OpenError::NewerSchema { found, known }) => assert_eq!((found, known), (newer, SCHEMA_VERSION)),
            other => panic!("opened: {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_migration_is_refused() {
    for database in TestDatabase::each().await {
        database.open().await.close().await;
        server::execute(&database, "UPDATE schema_version SET checksum = 'other' WHERE version = 1").await;
        assert!(matches!(Store::open(&database.config).await, Err(OpenError::ChangedMigration { version: 1 })));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_that_fails_leaves_nothing() {
    for database in TestDatabase::each().await {
        // A table of a name that the first migration makes near its end.
        server::execute(&database, "CREATE TABLE audit (x BIGINT)").await;
        assert!(matches!(Store::open(&database.config).await, Err(OpenError::Migration { version: 1, .. })));
        server::execute(&database, "DROP TABLE audit").await;
        let store = database.open().await;
        store.ping().await.expect("works");
        store.close().await;
    }
}

#[tokio::test]
async fn what_is_no_database_is_said_so() {
    let open = |url: &str| {
        let config = StoreConfig::new(url);
        async move { Store::open(&config).await.expect_err("not a database") }
    };
    assert!(matches!(open("mysql://root:secret@localhost/x").await, OpenError::Scheme { scheme } if scheme == "mysql"));
    assert!(matches!(open("postgres://user@host:notaport/x").await, OpenError::Url(_)));
    assert!(matches!(open("sqlite:///proc/none/iaas.db").await, OpenError::File { .. }));
    assert!(matches!(open("postgres://nobody@127.0.0.1:1/x").await, OpenError::Unavailable(_)));
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("text");
    std::fs::write(&path, "this is no database, although it is as long as the header of one would be: ".repeat(20))
        .expect("written");
    assert!(matches!(open(&format!("sqlite://{}", path.display())).await, OpenError::Unusable(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sqlite_file_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let lab = Lab::each().await.remove(0);
    lab.project("secret").await;
    let path = lab.db.database.config.url.strip_prefix("sqlite://").expect("the first is SQLite").to_owned();
    for suffix in ["", "-wal", "-shm"] {
        let mode = std::fs::metadata(format!("{path}{suffix}")).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{path}{suffix}");
    }
}
