//! `iaas-bench api`: reading one instance, and a page of 100 out of many, as a tenant would.

use crate::{
    stack::Stack,
    stats::{Sample, round},
};
use anyhow::{Context, ensure};
use futures::{StreamExt, stream};
use reqwest::Method;
use serde_json::{Value, json};
use std::{path::PathBuf, time::Instant};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(long, default_value_t = 10_000)]
    instances: usize,
    #[arg(long, default_value_t = 5000)]
    gets: usize,
    #[arg(long, default_value_t = 1000)]
    lists: usize,
    #[arg(long, default_value_t = 4)]
    concurrency: usize,
    #[arg(long, default_value = "/var/tmp")]
    dir: PathBuf,
}

const BATCH: usize = 100;

pub async fn run(args: Args) -> anyhow::Result<Value> {
    let stack = Stack::start(&args.dir, None, 100).await?;
    for batch in 0..args.instances.div_ceil(BATCH) {
        let body = json!({"name": format!("b{batch}"), "count": BATCH, "image": "none", "vcpus": 1, "memory_mib": 128, "disk_gib": 1});
        stack.rest.call(Method::POST, "/v1/instances", Some(&body)).await?;
    }
    let (ids, cursors) = walk(&stack, args.instances).await?;
    let gets =
        timed(&stack, args.gets, args.concurrency, |i| format!("/v1/instances/{}", ids[i * 7919 % ids.len()])).await?;
    let lists = timed(&stack, args.lists, args.concurrency, |i| cursors[i * 7919 % cursors.len()].clone()).await?;
    stack.stop().await?;
    Ok(json!({
        "bench": "api",
        "get_ms_p50": round(gets.percentile(50.0)),
        "get_ms_p99": round(gets.percentile(99.0)),
        "list100_ms_p50": round(lists.percentile(50.0)),
        "list100_ms_p99": round(lists.percentile(99.0)),
    }))
}

/// All ids, and the path of every page: reading only first pages would measure a cache.
async fn walk(stack: &Stack, expected: usize) -> anyhow::Result<(Vec<String>, Vec<String>)> {
    let (mut ids, mut pages) = (Vec::new(), Vec::new());
    let mut path = "/v1/instances?limit=100".to_owned();
    loop {
        let page = stack.rest.call(Method::GET, &path, None).await?;
        let items = page["items"].as_array().context("no items")?;
        ids.extend(items.iter().filter_map(|i| i["id"].as_str().map(str::to_owned)));
        if items.len() == 100 {
            pages.push(path);
        }
        match page["next_cursor"].as_str() {
            Some(cursor) => path = format!("/v1/instances?limit=100&cursor={cursor}"),
            None => break,
        }
    }
    ensure!(ids.len() >= expected, "{} instances listed, {expected} made", ids.len());
    Ok((ids, pages))
}

async fn timed(
    stack: &Stack,
    count: usize,
    concurrency: usize,
    path: impl Fn(usize) -> String,
) -> anyhow::Result<Sample> {
    let calls = (0..count).map(|i| {
        let (rest, path) = (stack.rest.clone(), path(i));
        async move {
            let began = Instant::now();
            let (status, body) = rest.send(Method::GET, &path, None).await?;
            ensure!(status.is_success() && !body.is_empty(), "GET {path}: {status}");
            Ok(began.elapsed().as_secs_f64() * 1000.0)
        }
    });
    let results: Vec<anyhow::Result<f64>> = stream::iter(calls).buffer_unordered(concurrency).collect().await;
    Ok(Sample::new(results.into_iter().collect::<anyhow::Result<_>>()?))
}
