//! `iaas-bench takeover`: two processes of each manager over PostgreSQL, simulated hosts, and concurrent creates. The leaders of all roles are killed
//! (SIGKILL); measured is the time from then until a create is answered again. Then everything must be there once, and no host have been taken
//! for lost.

use crate::stats::{Sample, round};
use anyhow::{Context, ensure};
use domain::Timestamp;
use harness::{Pairs, Rest};
use reqwest::Method;
use serde_json::{Value, json};
use service_kit::leader::LeaderTarget;
use std::{
    collections::HashSet,
    path::PathBuf,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use store::{ManagerRole, Store, StoreConfig};
use tokio::sync::Mutex;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(long, default_value_t = 5)]
    runs: usize,
    #[arg(long, default_value_t = 100)]
    hosts: usize,
    #[arg(long, default_value_t = 64)]
    concurrency: usize,
    /// A server on which this may make databases, as in postgres://user@host/postgres. Default: the environment's IAAS_TEST_POSTGRES_URL.
    #[arg(long)]
    postgres: Option<String>,
    #[arg(long, default_value = "/var/tmp")]
    dir: PathBuf,
}

/// Creates go on before and after the kill for so long.
const BEFORE: Duration = Duration::from_secs(3);
const AFTER: Duration = Duration::from_secs(5);
/// A takeover that takes longer has failed.
const TIMEOUT: Duration = Duration::from_secs(60);

pub async fn run(args: Args) -> anyhow::Result<Value> {
    let (mut gaps, mut lost, mut doubled, mut false_lost) = (Vec::new(), 0, 0, 0);
    for run in 0..args.runs {
        let outcome = one_run(&args).await?;
        let Outcome { gap_s, .. } = outcome;
        eprintln!("run {}: {gap_s:.2} s, {} creates answered", run + 1, outcome.answered);
        gaps.push(gap_s);
        lost += outcome.lost;
        doubled += outcome.doubled;
        false_lost += outcome.false_lost;
    }
    let longest = gaps.iter().copied().fold(0.0, f64::max);
    Ok(json!({
        "bench": "takeover",
        "gap_s_p50": round(Sample::new(gaps).percentile(50.0)),
        "gap_s_max": round(longest),
        "lost": lost,
        "doubled": doubled,
        "false_lost": false_lost,
    }))
}

struct Outcome {
    gap_s: f64,
    answered: usize,
    lost: usize,
    doubled: usize,
    false_lost: usize,
}

/// A database of its own on the server, dropped at the end.
struct Database {
    server: String,
    name: String,
}

impl Database {
    fn create(server: &str) -> anyhow::Result<Self> {
        let name = format!("iaas_bench_{}", uuid::Uuid::new_v4().simple());
        psql(server, &format!("CREATE DATABASE {name}"))?;
        Ok(Self { server: server.to_owned(), name })
    }

    fn url(&self) -> String {
        let base = self.server.rsplit_once('/').map_or(self.server.as_str(), |(base, _)| base);
        format!("{base}/{}", self.name)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if let Err(error) = psql(&self.server, &format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name)) {
            eprintln!("the database {} is left behind: {error}", self.name);
        }
    }
}

fn psql(server: &str, sql: &str) -> anyhow::Result<()> {
    let done = Command::new("psql").args(["--quiet", "--no-psqlrc", server, "--command", sql]).output();
    let done = done.context("psql is needed")?;
    ensure!(done.status.success(), "psql: {}", String::from_utf8_lossy(&done.stderr));
    Ok(())
}

async fn one_run(args: &Args) -> anyhow::Result<Outcome> {
    let server = args.postgres.clone().or_else(|| std::env::var("IAAS_TEST_POSTGRES_URL").ok());
    let database = Database::create(&server.context("name a PostgreSQL server with --postgres")?)?;
    let mut pairs = Pairs::start(&args.dir, &database.url()).await?;
    let store = Store::open(&StoreConfig::new(database.url())).await?;
    let cluster = LeaderTarget { urls: pairs.cluster_urls(), tls: None, lookup: None }.target();
    let capacity = domain::flavor::Size { vcpus: 4096, memory_mib: 16 << 20, disk_gib: 1 << 20 };
    let fleet = sim::SimFleet::start(&cluster, args.hosts, capacity)?;
    fleet.connected().await;
    let rest = pairs.login("bench").await?;
    rest.kernel_image("none", crate::stack::kernel_like(), b"070701".repeat(100), "").await?;
    let outcome = creates_over_a_takeover(args, &rest, &store, &mut pairs).await?;
    let false_lost = hosts_taken_for_lost(&store, &fleet).await?;
    ensure!(fleet.world.violations().is_empty(), "{:?}", fleet.world.violations());
    let started = usize::try_from(fleet.world.starts_so_far())?;
    fleet.stop().await;
    store.close().await;
    let doubled = outcome.doubled + started.saturating_sub(outcome.made);
    let Made { gap_s, answered, lost, .. } = outcome;
    Ok(Outcome { gap_s, answered, lost, doubled, false_lost })
}

struct Made {
    gap_s: f64,
    answered: usize,
    /// Instances that there are.
    made: usize,
    lost: usize,
    doubled: usize,
}

async fn creates_over_a_takeover(args: &Args, rest: &Rest, store: &Store, pairs: &mut Pairs) -> anyhow::Result<Made> {
    let (next, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let answered: Arc<Mutex<Vec<(String, Timestamp, Instant)>>> = Arc::default();
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..args.concurrency {
        let (rest, next, over, answered) = (rest.clone(), next.clone(), over.clone(), answered.clone());
        workers.spawn(async move {
            while !over.load(Ordering::Relaxed) {
                let name = format!("vm-{}", next.fetch_add(1, Ordering::Relaxed));
                let made_at = create(&rest, &name).await?;
                answered.lock().await.push((name, made_at, Instant::now()));
            }
            anyhow::Ok(())
        });
    }
    tokio::time::sleep(BEFORE).await;
    ensure!(!answered.lock().await.is_empty(), "no create was answered before the kill");
    let leases = store.manager_lease_list().await?;
    ensure!(leases.len() == ManagerRole::ALL.len(), "not every role is led: {leases:?}");
    let (killed, killed_at) = (Instant::now(), Timestamp::now());
    pairs.kill(leases.iter().map(|lease| lease.pid))?;
    // The first answer about an instance that was made after the kill: what was made before it is answered by the gateway alone, when it is repeated.
    let gap_s = loop {
        ensure!(killed.elapsed() < TIMEOUT, "no create is answered {} s after the kill", TIMEOUT.as_secs());
        let first =
            answered.lock().await.iter().filter(|(_, made_at, _)| *made_at > killed_at).map(|(.., at)| *at).min();
        match first {
            Some(at) => break (at - killed).as_secs_f64(),
            None => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    };
    tokio::time::sleep(AFTER).await;
    over.store(true, Ordering::Relaxed);
    while let Some(ended) = workers.join_next().await {
        ended??;
    }
    let names: HashSet<String> = answered.lock().await.iter().map(|(name, ..)| name.clone()).collect();
    let listed = until_all_run(rest, names.len()).await?;
    let there: HashSet<&String> = listed.iter().collect();
    Ok(Made {
        gap_s,
        answered: names.len(),
        made: listed.len(),
        lost: names.iter().filter(|name| !there.contains(name)).count(),
        doubled: listed.len() - there.len() + there.iter().filter(|name| !names.contains(**name)).count(),
    })
}

/// Repeats until it is answered, each time under the same idempotency key; when the instance was made.
async fn create(rest: &Rest, name: &str) -> anyhow::Result<Timestamp> {
    let body = json!({"name": name, "image": "none", "vcpus": 1, "memory_mib": 128, "disk_gib": 1, "networks": []});
    let first = Instant::now();
    loop {
        let (status, answer) = rest.answer_once(Method::POST, "/v1/instances", &body, name).await?;
        match status {
            200..300 => {
                let made_at = answer["created_at"].as_str().context("no created_at")?;
                return made_at.parse().map_err(|_| anyhow::anyhow!("{made_at} is no time"));
            }
            503 | 504 if first.elapsed() < TIMEOUT => tokio::time::sleep(Duration::from_millis(50)).await,
            _ => anyhow::bail!("create {name}: {status} {answer}"),
        }
    }
}

/// The names of all instances, once all of them run.
async fn until_all_run(rest: &Rest, expected: usize) -> anyhow::Result<Vec<String>> {
    let began = Instant::now();
    loop {
        let (mut names, mut running) = (Vec::new(), 0);
        let mut path = "/v1/instances?limit=500".to_owned();
        loop {
            let page = rest.get(&path).await?;
            for item in page["items"].as_array().context("no items")? {
                running += usize::from(item["state"] == "running");
                names.extend(item["name"].as_str().map(str::to_owned));
            }
            match page["next_cursor"].as_str() {
                Some(cursor) => path = format!("/v1/instances?limit=500&cursor={cursor}"),
                None => break,
            }
        }
        if running == names.len() && running >= expected {
            return Ok(names);
        }
        ensure!(began.elapsed() < TIMEOUT, "{running} of {} instances run, {expected} were answered", names.len());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn hosts_taken_for_lost(store: &Store, fleet: &sim::SimFleet) -> anyhow::Result<usize> {
    let mut lost = 0;
    for host in &fleet.hosts {
        let events = store.event_of_object(&host.id().to_string(), 0, 1000).await?;
        lost += usize::from(events.iter().any(|event| event.kind == "host.disconnected"));
    }
    Ok(lost)
}
