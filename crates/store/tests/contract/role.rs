//! One process per role: a second one is refused, and gets the role when the first is gone, however that ended.

use crate::{fixture::Lab, server};
use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    time::Duration,
};
use store::*;

const CHILD: &str = "IAAS_STORE_TEST_ROLE_CHILD";
const ROLE: ManagerRole = ManagerRole::Cluster;
/// A wait that must end in a refusal, and one that must not.
const SHORT: Duration = Duration::from_millis(200);
const LONG: Duration = Duration::from_secs(60);

async fn process(url: &str, role_wait: Duration) -> Store {
    Store::open(&StoreConfig { role_wait, ..StoreConfig::new(url) }).await.expect("opens")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_of_a_role_is_refused_and_told_who_holds_it() {
    for lab in Lab::each().await {
        let url = &lab.db.database.config.url;
        let (first, second, later) = (process(url, SHORT).await, process(url, SHORT).await, process(url, LONG).await);
        assert_eq!(first.role_holder_find(ROLE).await.expect("reads"), None);
        let hold = first.role_hold(ROLE).await.expect("free");
        let error = second.role_hold(ROLE).await.err().expect("it is held");
        let RoleError::Held { role, holder: Some(holder) } = &error else { panic!("{error}") };
        assert_eq!((*role, holder.pid), (ROLE, std::process::id()));
        let text = error.to_string();
        assert!(text.contains("cluster-manager") && text.contains(&holder.pid.to_string()), "{text}");
        assert!(text.contains(&holder.host) && !holder.host.is_empty(), "{text}");
        // Each role has a lock of its own.
        let others = [ManagerRole::Resource, ManagerRole::Storage];
        for other in others {
            second.role_hold(other).await.expect("free");
        }
        // The same process may not hold it twice either; and who waits gets it when it is given up.
        assert!(matches!(first.role_hold(ROLE).await, Err(RoleError::Held { .. })));
        let waiting = tokio::spawn(async move { later.role_hold(ROLE).await.map(|hold| (hold, later)) });
        drop(hold);
        waiting.await.expect("no panic").expect("it was given up");
    }
}

/// As the child: holds the role until it is killed.
async fn hold_for_ever(url: &str) {
    let store = process(url, LONG).await;
    let _hold = store.role_hold(ROLE).await.expect("free");
    println!("holds {}", std::process::id());
    std::future::pending().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_is_free_when_its_holder_was_killed() {
    if let Ok(url) = std::env::var(CHILD) {
        return hold_for_ever(&url).await;
    }
    for lab in Lab::each().await {
        let url = &lab.db.database.config.url;
        let mut child = Command::new(std::env::current_exe().expect("this test"))
            .args(["role::a_role_is_free_when_its_holder_was_killed", "--exact", "--nocapture"])
            .env(CHILD, url)
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines().map_while(Result::ok);
        let pid = lines.find_map(|line| Some(line.split_once("holds ")?.1.to_owned())).expect("it holds the role");
        let RoleError::Held { holder: Some(holder), .. } =
            process(url, SHORT).await.role_hold(ROLE).await.err().expect("held")
        else {
            panic!("held by somebody")
        };
        assert_eq!(holder.pid.to_string(), pid);
        child.kill().expect("it was running");
        child.wait().expect("it ended");
        process(url, LONG).await.role_hold(ROLE).await.expect("its lock went with it");
    }
}

/// PostgreSQL alone can lose a session whose process lives.
#[tokio::test(flavor = "multi_thread")]
async fn a_holder_that_loses_its_session_takes_the_role_again_or_is_told_who_was_faster() {
    for lab in Lab::each().await.into_iter().filter(Lab::on_postgres) {
        let database = &lab.db.database;
        let url = &database.config.url;
        let end_session = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
            WHERE application_name = 'iaas-role' AND datname = current_database()";
        let held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
        let first = process(url, LONG).await;
        let hold = first.role_hold(ROLE).await.expect("free");
        assert_eq!(server::scalar(database, end_session).await, 1);
        while server::scalar(database, held).await == 0 {
            tokio::task::yield_now().await;
        }
        assert!(matches!(process(url, SHORT).await.role_hold(ROLE).await, Err(RoleError::Held { .. })), "taken again");
        // Another one that is in line gets it at the moment in which the session is lost.
        let mut other = server::postgres(database).await;
        let key = 0x6961_6173_0000_0001_i64;
        let in_line = tokio::spawn(async move {
            sqlx::query("SELECT pg_advisory_lock($1)").bind(key).execute(&mut other).await.expect("locks");
            other
        });
        let waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
        while server::scalar(database, waits).await == 0 {
            tokio::task::yield_now().await;
        }
        server::scalar(database, end_session).await;
        let _other = in_line.await.expect("no panic");
        let holder = RoleHolderPut { role: ROLE, host: "elsewhere".to_owned(), pid: 1, started_at: crate::fixture::T0 };
        lab.one(holder).await;
        tokio::time::timeout(LONG, hold.lost()).await.expect("the first is told");
    }
}
