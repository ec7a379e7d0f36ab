//! Memory and time for the scheduler's inventory: hosts, and instances that later decisions depend on.

use crate::{packing::host_row, stats::round};
use anyhow::Context;
use clap::Args as ClapArgs;
use cluster_manager::scheduler::{
    GroupConstraint, GroupPolicy, GroupScope, GroupStrength, Inventory, Placed, Request, choose,
};
use domain::{InstanceId, PlacementGroupId, flavor::Size};
use serde_json::{Value, json};
use std::time::Instant;

#[derive(Debug, ClapArgs)]
pub struct Args {
    #[arg(long, default_value_t = 100_000)]
    hosts: usize,
    /// A tenth of them in groups of ten, a twentieth protected (N+1).
    #[arg(long, default_value_t = 1_000_000)]
    instances: usize,
}

pub fn run(args: &Args) -> anyhow::Result<Value> {
    let before = rss_mib()?;
    let capacity = Size { vcpus: 64, memory_mib: 256 << 10, disk_gib: 4096 };
    let claim = Size { vcpus: 4, memory_mib: 16 << 10, disk_gib: 100 };
    let per_host = args.instances.div_ceil(args.hosts.max(1)) as u32;
    let mut spent = 0.0;
    let mut inventory = Inventory::default();
    for at in 0..args.hosts {
        // A row as it comes from the database: a rack of forty, and the features of one of two machine models.
        let mut row = host_row(at, capacity);
        row.tags = [("rack".to_owned(), format!("r{}", at / 40)), ("model".to_owned(), format!("m{}", at % 2))].into();
        row.facts.cpu_features = (0..100 + at % 2).map(|n| format!("feature-{n}")).collect();
        row.facts.numa_nodes = 2;
        let n = per_host.min((args.instances - (at * per_host as usize).min(args.instances)) as u32);
        row.used = Size {
            vcpus: n * claim.vcpus,
            memory_mib: u64::from(n) * claim.memory_mib,
            disk_gib: u64::from(n) * claim.disk_gib,
        };
        let began = Instant::now();
        inventory.put_host(&row);
        spent += began.elapsed().as_secs_f64();
    }
    let plain = Request { size: claim, ..Request::default() };
    let protected = Request { protected: true, ..plain.clone() };
    let mut grouped = plain.clone();
    let began = Instant::now();
    for at in 0..args.instances {
        let id = InstanceId(uuid::Uuid::from_u128(1 << 100 | at as u128));
        let host_id = host_row(at / per_host as usize, capacity).id;
        let request = match at % 20 {
            0 => &protected,
            5 | 15 => {
                let group = PlacementGroupId(uuid::Uuid::from_u128((at / 100) as u128));
                let constraint = GroupConstraint {
                    group,
                    policy: GroupPolicy::AntiAffinity,
                    scope: GroupScope::Host,
                    strength: GroupStrength::Hard,
                };
                grouped.groups = vec![constraint];
                &grouped
            }
            _ => &plain,
        };
        inventory.add_instance(id, &Placed::of(host_id, claim), request);
    }
    spent += began.elapsed().as_secs_f64();
    anyhow::ensure!(choose(&mut inventory, &plain).is_some(), "there is room");
    let without_backup = inventory.retry_backups().len();
    let rss = rss_mib()?;
    Ok(json!({
        "bench": "inventory",
        "hosts": inventory.len(),
        "instances": inventory.tracked_instances(),
        "rss_mib": round(rss),
        "rss_before_mib": round(before),
        "load_ms": round(spent * 1000.0),
        "unprotected": without_backup,
    }))
}

fn rss_mib() -> anyhow::Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS in /proc/self/status")?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse().context("VmRSS")?;
    Ok(kib / 1024.0)
}
