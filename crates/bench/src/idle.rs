//! `iaas-bench idle`: what `iaasd all` costs when there are no requests.

use crate::stats::round;
use anyhow::Context;
use harness::Server;
use serde_json::{Value, json};
use std::{path::PathBuf, time::Duration};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// How long it is watched, after it has settled for 5 s.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    #[arg(long, default_value = "/var/tmp")]
    dir: PathBuf,
}

pub async fn run(args: Args) -> anyhow::Result<Value> {
    // The first start makes the database, the keys and the admin; the second is the start that counts.
    let mut server = Server::start(&args.dir, "").await?;
    server.terminate()?;
    server.restart().await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let before = cpu_ticks(server.pid())?;
    tokio::time::sleep(Duration::from_secs(args.seconds)).await;
    let ticks = cpu_ticks(server.pid())? - before;
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid()))?;
    let field = |name: &str| -> anyhow::Result<f64> {
        let line = status.lines().find(|l| l.starts_with(name)).with_context(|| format!("no {name} in /proc"))?;
        Ok(line.split_ascii_whitespace().nth(1).context("a number")?.parse()?)
    };
    let (rss_kib, threads) = (field("VmRSS:")?, field("Threads:")?);
    let start = server.start;
    server.stop()?;
    // USER_HZ is 100 on every Linux architecture this runs on.
    let percent = ticks as f64 / 100.0 / args.seconds as f64 * 100.0;
    Ok(json!({
        "bench": "idle",
        "rss_mib": round(rss_kib / 1024.0),
        "cpu_percent": round(percent),
        "threads": threads,
        "start_ms": round(start.as_secs_f64() * 1000.0),
    }))
}

/// User and system time of a process, in ticks.
fn cpu_ticks(pid: u32) -> anyhow::Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name may hold spaces: fields are counted from the last parenthesis. utime and stime are the 14th and 15th of all.
    let rest = stat.rsplit_once(')').context("a stat line")?.1;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    Ok(fields.get(11).context("utime")?.parse::<u64>()? + fields.get(12).context("stime")?.parse::<u64>()?)
}
