//! One process at a time leads a role, however the one before it ended, and what it commits after another began writes nothing.

use crate::{
    fixture::{Lab, T0},
    server,
};
use futures::future::join_all;
use std::{
    io::{BufRead, BufReader, Lines, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};
use store::{testing::of_term, *};

const CHILD: &str = "IAAS_STORE_TEST_ROLE_CHILD";
const ROLE: ManagerRole = ManagerRole::Cluster;
/// A wait that must end in a refusal, and one that must not.
const SHORT: Duration = Duration::from_millis(200);
const LONG: Duration = Duration::from_secs(60);

async fn process(url: &str, role_wait: Duration, lease_ttl: Duration) -> Store {
    Store::open(&StoreConfig { role_wait, lease_ttl, ..StoreConfig::new(url) }).await.expect("opens")
}

fn candidate(role: ManagerRole) -> Candidate {
    Candidate::new(role, "https://manager.example:7481")
}

async fn lead(store: &Store) -> Leadership {
    tokio::time::timeout(LONG, store.lead(&candidate(ROLE))).await.expect("in time").expect("it leads")
}

fn project(text: &str) -> Unit {
    let name = text.parse().expect("a name");
    Unit::new().op(ProjectInsert { id: domain::ProjectId::new(), name, description: String::new(), created_at: T0 })
}

async fn projects(lab: &Lab) -> i64 {
    server::scalar(&lab.db.database, "SELECT count(*) FROM project").await
}

fn is_not_leader(result: Result<(), CommitError>) -> bool {
    result.is_err_and(|error| error.not_leader() == Some(ROLE))
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sqlite_a_second_process_of_a_role_is_refused_and_told_who_holds_it() {
    for lab in Lab::each().await.into_iter().filter(|lab| !lab.on_postgres()) {
        let url = &lab.db.database.config.url;
        let opened = [process(url, SHORT, LONG).await, process(url, SHORT, LONG).await, process(url, LONG, LONG).await];
        let [first, second, later] = opened;
        assert_eq!(first.manager_lease_find(ROLE).await.expect("reads"), None);
        let leadership = lead(&first).await;
        let error = second.lead(&candidate(ROLE)).await.err().expect("it is held");
        let RoleError::Held { role, holder: Some(holder) } = &error else { panic!("{error}") };
        assert_eq!((*role, holder.pid, holder.term), (ROLE, std::process::id(), leadership.term()));
        let text = error.to_string();
        assert!(text.contains("cluster-manager") && text.contains(&holder.pid.to_string()), "{text}");
        assert!(text.contains(&holder.host) && !holder.host.is_empty(), "{text}");
        // Each role has a lock of its own.
        for other in [ManagerRole::Resource, ManagerRole::Storage] {
            second.lead(&candidate(other)).await.expect("free");
        }
        // The same process may not hold it twice either; and who waits gets it when it is given up.
        assert!(matches!(first.lead(&candidate(ROLE)).await, Err(RoleError::Held { .. })));
        let waiting = tokio::spawn(async move { lead(&later).await });
        let term = leadership.term();
        drop(leadership);
        assert!(waiting.await.expect("no panic").term() > term);
    }
}

/// A process of its own that leads.
struct Leader {
    child: Child,
    say: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Leader {
    fn start(test: &str, url: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this test"))
            .args([test, "--exact", "--nocapture"])
            .env(CHILD, url)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut leader = Self { say: child.stdin.take().expect("piped"), child, lines };
        assert_eq!(leader.answer("leads "), leader.child.id().to_string());
        leader
    }

    fn answer(&mut self, about: &str) -> String {
        self.lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| Some(line.split_once(about)?.1.to_owned()))
            .expect("it says so")
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().expect("kill runs").success());
    }

    fn end(mut self) {
        self.child.kill().expect("it was running");
        self.child.wait().expect("it ended");
    }
}

/// As the child: leads until it is killed, and commits a unit for each line that it reads.
async fn lead_for_ever(url: &str) {
    let store = process(url, LONG, Duration::from_secs(1)).await;
    let leadership = lead(&store).await;
    println!("leads {}", std::process::id());
    // The lease is renewed while a line is awaited.
    let mut lines = std::io::stdin().lines().map_while(Result::ok);
    while let Some(line) = tokio::task::block_in_place(|| lines.next()) {
        let committed = leadership.store.commit(project(&line)).await;
        println!("committed {}", if committed.is_ok() { "yes" } else { "no" });
        if is_not_leader(committed) {
            println!("leads no longer");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_is_free_when_its_leader_was_killed() {
    if let Ok(url) = std::env::var(CHILD) {
        return lead_for_ever(&url).await;
    }
    for lab in Lab::each().await {
        let url = &lab.db.database.config.url;
        let leader = Leader::start("role::a_role_is_free_when_its_leader_was_killed", url);
        let row = lab.manager_lease_find(ROLE).await.expect("reads").expect("there");
        assert_eq!(row.pid, leader.child.id());
        leader.end();
        let next = process(url, LONG, Duration::from_secs(1)).await;
        assert!(lead(&next).await.term() > row.term, "the role is free without its holder");
    }
}

/// On SQLite a paused process keeps its lock, and nobody succeeds it.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_leader_commits_that_was_paused_and_succeeded_is_refused() {
    if let Ok(url) = std::env::var(CHILD) {
        return lead_for_ever(&url).await;
    }
    for lab in Lab::each().await.into_iter().filter(Lab::on_postgres) {
        let url = &lab.db.database.config.url;
        let mut leader = Leader::start("role::what_a_leader_commits_that_was_paused_and_succeeded_is_refused", url);
        writeln!(leader.say, "before").expect("it reads");
        assert_eq!(leader.answer("committed "), "yes");
        leader.signal("STOP");
        let next = process(url, LONG, Duration::from_secs(1)).await;
        let leadership = lead(&next).await;
        writeln!(leader.say, "after").expect("it will read");
        leader.signal("CONT");
        assert_eq!(leader.answer("committed "), "no");
        leader.answer("leads no longer");
        leadership.store.commit(project("next")).await.expect("the successor leads");
        assert_eq!(projects(&lab).await, 2);
        leader.end();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unit_of_a_term_that_is_over_writes_nothing_and_holds_up_no_other_of_its_batch() {
    for lab in Lab::each().await {
        let leadership = lead(&lab).await;
        let resources = lab.lead(&candidate(ManagerRole::Resource)).await.expect("free");
        let handles: Vec<Store> = (0..60)
            .map(|number| match number % 4 {
                0 => of_term(&lab, ROLE, leadership.term() - 1),
                1 => leadership.store.clone(),
                2 => resources.store.clone(),
                _ => (*lab).clone(),
            })
            .collect();
        let units = handles.iter().enumerate().map(|(number, store)| store.commit(project(&format!("p{number}"))));
        for (number, result) in join_all(units).await.into_iter().enumerate() {
            assert_eq!(number % 4 == 0, is_not_leader(result.clone()), "{number}: {result:?}");
            assert_eq!(number % 4 == 0, result.is_err(), "{number}: {result:?}");
        }
        assert_eq!(projects(&lab).await, 45);
        // Who meets it leads no longer, also by its own account.
        server::execute(&lab.db.database, "UPDATE manager_lease SET term = term + 1").await;
        assert!(leadership.store.leads());
        assert!(is_not_leader(leadership.store.commit(project("late")).await));
        assert!(!leadership.store.leads());
        tokio::time::timeout(LONG, leadership.ended()).await.expect("it is told");
        assert_eq!(projects(&lab).await, 45);
        // It may lead again, under a later term.
        let term = leadership.term();
        drop(leadership);
        server::execute(&lab.db.database, "UPDATE manager_lease SET resigned = TRUE, renewals = renewals + 1").await;
        let again = lead(&lab).await;
        assert!(again.term() > term + 1);
        again.store.commit(project("again")).await.expect("it leads");
    }
}

/// The states of PostgreSQL's sessions that wait for a lock.
const WAITS: &str =
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";

#[tokio::test(flavor = "multi_thread")]
async fn a_takeover_waits_for_the_units_under_way_and_a_renewal_does_not() {
    for lab in Lab::each().await.into_iter().filter(Lab::on_postgres) {
        let database = &lab.db.database;
        let leadership = lead(&lab).await;
        leadership.store.commit(project("held")).await.expect("it leads");
        let id = lab.project_list(Page::first(1)).await.expect("reads").remove(0).id;
        // Somebody holds a row that the leader's unit needs: it is under way until that ends.
        let mut blocker = server::postgres(database).await;
        sqlx::raw_sql("BEGIN; SELECT 1 FROM project FOR UPDATE").execute(&mut blocker).await.expect("locks");
        let store = leadership.store.clone();
        let under_way = tokio::spawn(async move { store.commit(Unit::new().op(ProjectDelete { id })).await });
        while server::scalar(database, WAITS).await < 1 {
            tokio::task::yield_now().await;
        }
        let mut other = server::postgres(database).await;
        let takeover = tokio::spawn(async move {
            sqlx::raw_sql("UPDATE manager_lease SET term = term + 1").execute(&mut other).await.expect("takes over");
        });
        while server::scalar(database, WAITS).await < 2 {
            tokio::task::yield_now().await;
        }
        let renewals = "SELECT renewals FROM manager_lease";
        let before = server::scalar(database, renewals).await;
        sqlx::raw_sql("COMMIT").execute(&mut blocker).await.expect("released");
        under_way.await.expect("no panic").expect("it came before the takeover");
        takeover.await.expect("no panic");
        assert!(is_not_leader(leadership.store.commit(project("late")).await));
        assert_eq!(projects(&lab).await, 0);
        drop(leadership);

        // Renewals go on while units are under way.
        server::execute(database, "UPDATE manager_lease SET resigned = TRUE, renewals = renewals + 1").await;
        let leadership = lead(&lab).await;
        leadership.store.commit(project("held")).await.expect("it leads");
        let id = lab.project_list(Page::first(1)).await.expect("reads").remove(0).id;
        sqlx::raw_sql("BEGIN; SELECT 1 FROM project FOR UPDATE").execute(&mut blocker).await.expect("locks");
        let store = leadership.store.clone();
        let under_way = tokio::spawn(async move { store.commit(Unit::new().op(ProjectDelete { id })).await });
        while server::scalar(database, WAITS).await < 1 {
            tokio::task::yield_now().await;
        }
        let now = server::scalar(database, renewals).await;
        while server::scalar(database, renewals).await < now + 2 {
            tokio::task::yield_now().await;
        }
        assert!(now > before);
        sqlx::raw_sql("COMMIT").execute(&mut blocker).await.expect("released");
        under_way.await.expect("no panic").expect("it leads");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_session_ends_goes_on_and_one_that_cannot_renew_gives_up_by_its_own_clock() {
    for lab in Lab::each().await.into_iter().filter(Lab::on_postgres) {
        let database = &lab.db.database;
        let store = process(&database.config.url, LONG, Duration::from_secs(2)).await;
        let leadership = lead(&store).await;
        let end_session = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
            WHERE application_name = 'iaas-lease' AND datname = current_database()";
        while server::scalar(database, end_session).await == 0 {
            tokio::task::yield_now().await;
        }
        let renewals = "SELECT renewals FROM manager_lease";
        let before = server::scalar(database, renewals).await;
        while server::scalar(database, renewals).await < before + 2 {
            tokio::task::yield_now().await;
        }
        assert!(leadership.store.leads());
        let mut blocker = server::postgres(database).await;
        sqlx::raw_sql("BEGIN; SELECT 1 FROM manager_lease FOR UPDATE").execute(&mut blocker).await.expect("locks");
        tokio::time::timeout(LONG, leadership.ended()).await.expect("it gives up");
        assert!(!leadership.store.leads());
        assert!(is_not_leader(leadership.store.commit(project("late")).await), "it asks nobody");
        sqlx::raw_sql("COMMIT").execute(&mut blocker).await.expect("released");
        // Nobody took it meanwhile.
        let term = leadership.term();
        drop(leadership);
        assert!(lead(&store).await.term() > term);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_resigns_is_succeeded_at_once_by_a_standby_that_said_it_waits() {
    for lab in Lab::each().await.into_iter().filter(Lab::on_postgres) {
        let url = &lab.db.database.config.url;
        // Far longer than this test may take.
        let ttl = LONG * 60;
        let (first, second) = (process(url, LONG, ttl).await, process(url, LONG, ttl).await);
        let leadership = lead(&first).await;
        let standby = second.clone();
        let waiting = tokio::spawn(async move { lead(&standby).await });
        while second.manager_standby_list(T0).await.expect("reads").is_empty() {
            tokio::task::yield_now().await;
        }
        let expected = RoleState::Standby { leader: Some("https://manager.example:7481".to_owned()) };
        while second.role_states() != [(ROLE, expected.clone())] {
            tokio::task::yield_now().await;
        }
        let term = leadership.term();
        assert_eq!(first.role_states(), [(ROLE, RoleState::Leads { term })]);
        leadership.resign().await;
        let next = waiting.await.expect("no panic");
        assert!(next.term() > term);
        assert_eq!(second.manager_standby_list(T0).await.expect("reads"), []);
        assert_eq!(first.role_states(), [(ROLE, RoleState::Standby { leader: None })]);
    }
}
