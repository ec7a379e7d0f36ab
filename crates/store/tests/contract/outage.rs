//! A database that is locked, full, stopped, or cut off: commits wait, then go on; nothing is lost and nothing counts twice.

use crate::{
    fixture::{Lab, T0, claim, name},
    server::{self, Blocker, Server, Wire},
};
use domain::{HostId, ProjectId, UserId};
use sqlx::postgres::PgConnectOptions;
use std::{future::Future, process::Command, str::FromStr, sync::atomic::Ordering, time::Duration};
use store::{
    testing::{TestDatabase, TestStore},
    *,
};

fn project(called: &str) -> Unit {
    Unit::new().op(ProjectInsert {
        id: ProjectId::new(),
        name: name(called),
        description: String::new(),
        created_at: T0,
    })
}

/// Tries until it is so; the harness ends a test that waits for ever.
async fn until<F: Future<Output = bool>>(mut so: impl FnMut() -> F) {
    while !so().await {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_outwaits_a_locked_database() {
    for lab in Lab::each().await {
        let blocker = Blocker::hold(&lab.db.database).await;
        let store = lab.db.store.clone();
        let commit = tokio::spawn(async move { store.commit(project("patient")).await });
        until(async || lab.ping().await.is_err()).await;
        assert!(!commit.is_finished());
        blocker.release().await;
        commit.await.expect("no panic").expect("commits after all");
        until(async || lab.ping().await.is_ok()).await;
        assert!(lab.project_find_by_name("patient").await.unwrap().is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timeout_ends_in_unavailable_and_the_writer_lives() {
    for database in TestDatabase::each().await {
        let store = database.open_waiting(Duration::from_millis(300)).await;
        let blocker = Blocker::hold(&database).await;
        let results = futures::future::join_all((0..5).map(|i| store.commit(project(&format!("late-{i}"))))).await;
        for result in results {
            assert!(matches!(result, Err(CommitError::Unavailable(_))), "{result:?}");
        }
        blocker.release().await;
        store.commit(project("after")).await.expect("commits");
        let there: Vec<String> =
            store.project_list(Page::first(10)).await.unwrap().iter().map(|p| p.name.to_string()).collect();
        assert_eq!(there, ["after"], "what was refused isn't there");
        store.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_server_is_waited_for() {
    let Some(server) = Server::start() else { return };
    let store = Store::open(&StoreConfig::new(server.url())).await.expect("opens");
    store.commit(project("before")).await.expect("commits");
    server.down();
    let commits: Vec<_> = (0..20)
        .map(|i| {
            let store = store.clone();
            tokio::spawn(async move { store.commit(project(&format!("during-{i}"))).await })
        })
        .collect();
    until(async || store.ping().await.is_err()).await;
    assert!(matches!(store.project_find_by_name("before").await, Err(ReadError::Unavailable(_))));
    assert!(commits.iter().all(|commit| !commit.is_finished()));
    server.up();
    for commit in commits {
        commit.await.expect("no panic").expect("commits after all");
    }
    until(async || store.ping().await.is_ok()).await;
    assert_eq!(store.project_list(Page::first(100)).await.expect("reads").len(), 21);
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_is_lost_counts_once() {
    let Some(database) = TestDatabase::postgres().await else { return };
    let direct = PgConnectOptions::from_str(&database.config.url).expect("a URL");
    let (host, port) = (direct.get_host().to_owned(), direct.get_port());
    let socket = direct.get_socket().cloned().or_else(|| host.starts_with('/').then(|| host.clone().into()));
    let wire = Wire::to(host, port, socket).await;
    let user = direct.get_username();
    let name = direct.get_database().expect("named");
    let url = format!("postgres://{user}@127.0.0.1:{}/{name}?sslmode=disable", wire.port);
    let lab = Lab {
        db: TestStore { store: Store::open(&StoreConfig::new(url)).await.expect("opens"), database },
        covered: Default::default(),
    };
    let host: HostId = lab.host("counted").await;
    for round in 1..=3u32 {
        wire.lose_next_commit.store(true, Ordering::SeqCst);
        lab.one(claim(host)).await;
        assert!(!wire.lose_next_commit.load(Ordering::SeqCst), "the answer was lost on the way");
        let used = lab.host_find(host).await.unwrap().unwrap().used;
        assert_eq!(used.vcpus, 2 * round, "the claim counts once, and its caller was told the truth");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn deadlocked_writers_try_again() {
    for lab in Lab::each().await.into_iter().filter(Lab::on_postgres) {
        let (a, b) = (lab.project("first").await, lab.project("second").await);
        let rename = |id, called: &str| {
            Unit::new().op(ProjectUpdate { id, expected_generation: 1, name: name(called), description: String::new() })
        };
        // Someone else locks b, then wants a, which our transaction holds while it wants b.
        let mut other = server::Blocker::none(&lab.db.database).await;
        other
            .run(&format!("SET deadlock_timeout = '60s'; BEGIN; SELECT 1 FROM project WHERE id = '{b}' FOR UPDATE"))
            .await;
        let mut both = rename(a, "one");
        both.push(ProjectUpdate { id: b, expected_generation: 1, name: name("two"), description: String::new() });
        let store = lab.db.store.clone();
        let ours = tokio::spawn(async move { store.commit(both).await });
        let blocked =
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
        until(async || server::scalar(&lab.db.database, blocked).await == 1).await;
        other.run(&format!("SELECT 1 FROM project WHERE id = '{a}' FOR UPDATE; ROLLBACK")).await;
        ours.await.expect("no panic").expect("commits after the deadlock");
        assert_eq!(lab.project_find(b).await.unwrap().unwrap().generation, 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_unavailable_and_space_brings_it_back() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mount = |arguments: &[&str]| Command::new("mount").args(arguments).arg(directory.path()).status();
    if !mount(&["-t", "tmpfs", "-o", "size=2m", "none"]).is_ok_and(|status| status.success()) {
        println!("not run: full disk: a small tmpfs can't be mounted here (it needs root)");
        return;
    }
    let _unmount = Unmount(directory.path());
    let url = format!("sqlite://{}/iaas.db", directory.path().display());
    let store = Store::open(&StoreConfig::new(url)).await.expect("opens");
    let big = |i: u32| {
        let description = "x".repeat(100_000);
        let id = ProjectId::new();
        Unit::new().op(ProjectInsert { id, name: name(&format!("p-{i}")), description, created_at: T0 })
    };
    let mut stored = 0;
    let failure = loop {
        match store.commit(big(stored)).await {
            Ok(()) => stored += 1,
            Err(error) => break error,
        }
        assert!(stored < 50, "the disk never filled");
    };
    assert!(matches!(failure, CommitError::Unavailable(_)) && failure.disk_full(), "{failure:?}");
    let there = store.project_list(Page::first(100)).await.expect("reads go on").len();
    assert_eq!(there, usize::try_from(stored).expect("few"), "all that was answered is there, and no more");
    assert!(mount(&["-o", "remount,size=16m"]).expect("mount runs").success());
    store.commit(big(stored)).await.expect("with space it goes on");
    store.close().await;
}

/// What can be taken of the file system is taken.
fn fill(directory: &std::path::Path) {
    use std::io::Write;
    let junk = directory.join("junk");
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(junk).expect("the junk opens");
    for piece in [1 << 20, 1 << 12, 1usize] {
        while file.write_all(&vec![1; piece]).is_ok() {}
    }
}

fn free_bytes(directory: &std::path::Path) -> u64 {
    let stat = rustix::fs::statvfs(directory).expect("a file system");
    stat.f_bavail * stat.f_frsize
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_takes_deletions_and_logins_and_the_store_opens_on_it() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mount = |arguments: &[&str]| Command::new("mount").args(arguments).arg(directory.path()).status();
    if !mount(&["-t", "tmpfs", "-o", "size=64m", "none"]).is_ok_and(|status| status.success()) {
        println!("not run: full disk: a small tmpfs can't be mounted here (it needs root)");
        return;
    }
    let _unmount = Unmount(directory.path());
    let reserve = directory.path().join("iaas.db-reserve");
    let reserved = || std::fs::metadata(&reserve).map_or(0, |m| m.len());
    let url = format!("sqlite://{}/iaas.db", directory.path().display());
    let config = StoreConfig { reserve_bytes: 64 << 20, ..StoreConfig::new(url) };
    let store = Store::open(&config).await.expect("opens");
    assert_eq!(reserved(), 2 << 20, "the reserve takes at most 1/32 of the disk");
    let user = UserId::new();
    let admin = UserInsert {
        id: user,
        name: name("admin"),
        password_hash: "$argon2id$".into(),
        system_admin: true,
        enabled: true,
        created_at: T0,
    };
    store.commit(Unit::new().op(admin)).await.expect("a user");
    let numbered = |n: u32| {
        Unit::new().op(ProjectInsert {
            id: ProjectId::new(),
            name: name(&format!("p-{n}")),
            description: "x".repeat(2000),
            created_at: T0,
        })
    };
    for n in 0..400 {
        store.commit(numbered(n)).await.expect("there is room");
    }
    store.ping().await.expect("ready");
    fill(directory.path());
    let login = |n: u32| {
        let token = RefreshTokenInsert {
            secret_hash: format!("{n}"),
            family: format!("{n}"),
            user_id: user,
            expires_at: T0,
            created_at: T0,
        };
        Unit::new().op(token).op(crate::fixture::audit(None, "login"))
    };
    let mut n = 1000;
    // The log may still have room of its own.
    let refused = loop {
        n += 1;
        match store.commit(numbered(n)).await {
            Ok(()) => assert!(n < 60_000, "the disk never filled"),
            Err(error) => break error,
        }
    };
    assert!(refused.disk_full(), "{refused:?}");
    let mut projects = store.project_list(Page::first(100_000)).await.expect("reads go on");
    for round in 0..20 {
        store.commit(login(round)).await.expect("a login works");
        let project = projects.pop().expect("many");
        store.commit(Unit::new().op(ProjectDelete { id: project.id })).await.expect("a deletion works");
        n += 1;
        let refused = store.commit(numbered(n)).await.expect_err("nothing new");
        assert!(refused.disk_full(), "{refused:?}");
    }
    let audited = store.commit(Unit::new().op(crate::fixture::audit(None, "denied"))).await.expect_err("it only tells");
    assert!(audited.disk_full());
    assert!(store.ping().await.is_err_and(|error| error.disk_full()), "readiness says it");
    // Closing folds the log into the file and frees its room; somebody takes that too.
    store.close().await;
    fill(directory.path());
    assert!(free_bytes(directory.path()) < 4096);
    let store = Store::open(&config).await.expect("it opens on a full disk");
    assert_eq!(store.project_list(Page::first(100_000)).await.expect("reads").len(), projects.len());
    fill(directory.path());
    for _ in 0..20 {
        let project = projects.pop().expect("many");
        store.commit(Unit::new().op(ProjectDelete { id: project.id })).await.expect("a deletion works");
    }
    assert!(store.commit(project("new")).await.is_err_and(|error| error.disk_full()));
    std::fs::remove_file(directory.path().join("junk")).expect("an administrator makes room");
    until(async || store.commit(project("new")).await.is_ok()).await;
    store.ping().await.expect("ready again");
    assert_eq!(reserved(), 2 << 20, "the reserve is whole again");
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_of_the_server_is_said_as_such() {
    let Some(database) = TestDatabase::postgres().await else { return };
    let store = database.open().await;
    let mut other = server::Blocker::none(&database).await;
    other
        .run(
            "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100'; END $$;
             CREATE TRIGGER full_disk BEFORE INSERT ON project FOR EACH ROW EXECUTE FUNCTION full_disk()",
        )
        .await;
    let refused = store.commit(project("new")).await.expect_err("the server's disk is full");
    assert!(matches!(refused, CommitError::Unavailable(_)) && refused.disk_full(), "{refused:?}");
    assert!(store.ping().await.is_err_and(|error| error.disk_full()), "readiness says it");
    other.run("DROP TRIGGER full_disk ON project").await;
    store.commit(project("new")).await.expect("with space it goes on");
    store.ping().await.expect("ready again");
    store.close().await;
}

struct Unmount<'a>(&'a std::path::Path);

impl Drop for Unmount<'_> {
    fn drop(&mut self) {
        let status = Command::new("umount").arg("-l").arg(self.0).status();
        if !status.is_ok_and(|status| status.success()) {
            eprintln!("{} is still mounted", self.0.display());
        }
    }
}
