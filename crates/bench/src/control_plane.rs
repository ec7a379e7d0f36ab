//! `iaas-bench control-plane`: creates over REST, durable, until the caller knows that the instance runs; then deletes, until it knows that
//! nothing is left. The hosts are simulated and answer at once, so what is measured is ours.

use crate::{
    stack::Stack,
    stats::{Sample, round},
};
use anyhow::ensure;
use futures::{StreamExt, stream};
use reqwest::Method;
use serde_json::{Value, json};
use std::{
    fs::OpenOptions,
    io::{Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(long, default_value_t = 100)]
    hosts: usize,
    #[arg(long, default_value_t = 2000)]
    creates: usize,
    #[arg(long, default_value_t = 64)]
    concurrency: usize,
    /// An empty database, as in postgres://user@host/name. Default: SQLite.
    #[arg(long)]
    postgres: Option<String>,
    /// The disk to measure on.
    #[arg(long, default_value = "/var/tmp")]
    dir: PathBuf,
}

pub async fn run(args: Args) -> anyhow::Result<Value> {
    let fsyncs = raw_fsyncs_per_s(&args.dir)?;
    let stack = Stack::start(&args.dir, args.postgres.as_deref(), args.hosts).await?;
    // The first requests pay for connections, statement caches and page faults.
    create_and_delete(&stack, "warm", args.concurrency, args.concurrency).await?;
    let before = stack.store.counters();
    let began = Instant::now();
    let (creates, deletes) = create_and_delete(&stack, "vm", args.creates, args.concurrency).await?;
    let spent = began.elapsed().as_secs_f64();
    let commits = stack.store.counters().commits - before.commits;
    let leaks = stack.store.leak_report().await?;
    for leak in &leaks {
        eprintln!("leak: {leak:?}");
    }
    stack.stop().await?;
    let sample = Sample::new(creates.millis);
    Ok(json!({
        "bench": "control-plane",
        "creates_per_s": round(args.creates as f64 / creates.seconds),
        "deletes_per_s": round(args.creates as f64 / deletes.seconds),
        "create_ms_p50": round(sample.percentile(50.0)),
        "create_ms_p99": round(sample.percentile(99.0)),
        "commits_per_s": round(commits as f64 / spent),
        "fsync_per_s_raw": round(fsyncs),
        "leaks": leaks.len(),
    }))
}

struct Phase {
    seconds: f64,
    millis: Vec<f64>,
}

async fn create_and_delete(
    stack: &Stack,
    prefix: &str,
    count: usize,
    concurrency: usize,
) -> anyhow::Result<(Phase, Phase)> {
    let body = |i: usize| json!({"name": format!("{prefix}-{i}"), "image": "none", "vcpus": 1, "memory_mib": 128, "disk_gib": 1});
    let creates = phase(count, concurrency, |i| {
        let (rest, body) = (stack.rest.clone(), body(i));
        async move {
            let made = rest.call(Method::POST, "/v1/instances?wait=running&timeout=60s", Some(&body)).await?;
            ensure!(made["state"] == "running", "not running: {made}");
            Ok(())
        }
    })
    .await?;
    let deletes = phase(count, concurrency, |i| {
        let (rest, path) = (stack.rest.clone(), format!("/v1/instances/{prefix}-{i}?wait=deleted&timeout=60s"));
        async move { rest.call(Method::DELETE, &path, None).await.map(|_| ()) }
    })
    .await?;
    Ok((creates, deletes))
}

async fn phase<F, Fut>(count: usize, concurrency: usize, one: F) -> anyhow::Result<Phase>
where
    F: Fn(usize) -> Fut,
    Fut: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let began = Instant::now();
    let mut calls = stream::iter((0..count).map(|i| {
        let call = one(i);
        async move {
            let began = Instant::now();
            let joined = tokio::spawn(call).await;
            joined.map_err(anyhow::Error::from).flatten().map(|()| began.elapsed().as_secs_f64() * 1000.0)
        }
    }))
    .buffer_unordered(concurrency);
    let mut millis = Vec::with_capacity(count);
    while let Some(one) = calls.next().await {
        millis.push(one?);
    }
    Ok(Phase { seconds: began.elapsed().as_secs_f64(), millis })
}

/// How many 4 KiB overwrites with fdatasync the disk does a second, one after the other: the reference for commits.
fn raw_fsyncs_per_s(dir: &Path) -> anyhow::Result<f64> {
    let path = dir.join(format!("iaas-bench-fsync.{}", std::process::id()));
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).open(&path)?;
    let began = Instant::now();
    let mut count = 0u32;
    while began.elapsed() < Duration::from_secs(1) {
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&[0x5a; 4096])?;
        file.sync_data()?;
        count += 1;
    }
    let rate = f64::from(count) / began.elapsed().as_secs_f64();
    drop(file);
    std::fs::remove_file(&path)?;
    Ok(rate)
}
