//! Decisions in memory: the trace's mix of sizes against N hosts scattered full to 70 %, and one instance leaving for each that comes.
//! `per_s` counts the decision with its tentative claim, the start and the firm claim; `turns_per_s` also the leaving, of an instance
//! on a host at random (a cache miss after the other). Beside it: plain best fit that looks at every host.

use crate::{
    packing::{best_fit, host_row},
    stats::{Sample, round},
    trace::{self, HostSize, Seeded},
};
use clap::Args as ClapArgs;
use cluster_manager::scheduler::{Inventory, Placed, Request, choose};
use domain::{HostId, InstanceId, flavor::Size};
use serde_json::{Value, json};
use std::{path::PathBuf, time::Instant};

#[derive(Debug, ClapArgs)]
pub struct Args {
    #[arg(long, default_value_t = 100_000)]
    hosts: usize,
    #[arg(long, default_value_t = 1_000_000)]
    requests: usize,
    /// The directory of the trace that the sizes come from.
    #[arg(long, default_value = "../shared/data/azure-v1")]
    trace: PathBuf,
    /// vCPUs x GiB of each host.
    #[arg(long, default_value = "40x90")]
    host: HostSize,
}

/// The share of all vCPUs in use, in percent.
const FILLED: u64 = 70;
/// Seconds spent on the reference.
const SCAN_SECONDS: f64 = 2.0;

pub fn run(args: &Args) -> anyhow::Result<Value> {
    let arrivals = trace::load(&args.trace, 1)?;
    let fits = arrivals.iter().filter(|a| a.vcpus <= args.host.vcpus && a.memory_mib <= args.host.memory_mib);
    let sizes: Vec<Size> = fits.map(|a| Size { vcpus: a.vcpus, memory_mib: a.memory_mib, disk_gib: 10 }).collect();
    let mut random = Seeded::new(1);
    let mut held = Vec::new();
    let mut inventory = fill(args, &sizes, &mut random, &mut held);
    let scan_per_s = scan(&inventory, args.host, &sizes);
    let mut request = Request::default();
    // Orders of buckets, prices, page faults.
    for at in 0..20_000 {
        turn(&mut inventory, &mut request, sizes[at % sizes.len()], &mut held, &mut random);
    }
    let mut micros = Vec::with_capacity(args.requests);
    let mut refused = 0;
    let began = Instant::now();
    for at in 0..args.requests {
        match turn(&mut inventory, &mut request, sizes[at % sizes.len()], &mut held, &mut random) {
            Some(seconds) => micros.push(seconds * 1e6),
            None => refused += 1,
        }
    }
    let turns_per_s = args.requests as f64 / began.elapsed().as_secs_f64();
    let per_s = micros.len() as f64 * 1e6 / micros.iter().sum::<f64>();
    let over =
        inventory.hosts().filter(|h| h.used.vcpus > h.capacity.vcpus || h.used.memory_mib > h.capacity.memory_mib);
    let overcommitted = over.count();
    let sample = Sample::new(micros);
    Ok(json!({
        "bench": "placement",
        "hosts": args.hosts,
        "requests": args.requests,
        "per_s": round(per_s),
        "turns_per_s": round(turns_per_s),
        "p50_us": round(sample.percentile(50.0)),
        "p99_us": round(sample.percentile(99.0)),
        "p999_us": round(sample.percentile(99.9)),
        "refused": refused,
        "overcommitted": overcommitted,
        "scan_per_s": round(scan_per_s),
        "ratio_to_scan": round(per_s / scan_per_s),
    }))
}

/// One comes, one leaves. The decision's and the claim's seconds; none: refused.
fn turn(
    inventory: &mut Inventory,
    request: &mut Request,
    size: Size,
    held: &mut [Placed],
    random: &mut Seeded,
) -> Option<f64> {
    request.size = size;
    let id = InstanceId(uuid::Uuid::from_u128(u128::MAX));
    let began = Instant::now();
    let placed = choose(inventory, request)?.placed;
    inventory.hold(id, &placed, request);
    inventory.make_firm(placed.host_id, placed.claim);
    inventory.start_ends(placed.host_id, id);
    let seconds = began.elapsed().as_secs_f64();
    let at = random.below(held.len() as u64) as usize;
    let gone = std::mem::replace(&mut held[at], placed);
    inventory.unclaim(gone.host_id, gone.claim);
    Some(seconds)
}

/// Scattered, as a cloud is after years of coming and going: instances on hosts at random, in the trace's order.
fn fill(args: &Args, sizes: &[Size], random: &mut Seeded, held: &mut Vec<Placed>) -> Inventory {
    let capacity = Size { vcpus: args.host.vcpus, memory_mib: args.host.memory_mib, disk_gib: 1 << 20 };
    let mut rows: Vec<_> = (0..args.hosts).map(|at| host_row(at, capacity)).collect();
    let wanted = args.hosts as u64 * u64::from(args.host.vcpus) * FILLED / 100;
    let (mut taken, mut at) = (0, 0);
    while taken < wanted {
        let size = sizes[at % sizes.len()];
        at += 1;
        let row = &mut rows[random.below(args.hosts as u64) as usize];
        let used = &mut row.used;
        if used.vcpus + size.vcpus > capacity.vcpus || used.memory_mib + size.memory_mib > capacity.memory_mib {
            continue;
        }
        used.vcpus += size.vcpus;
        used.memory_mib += size.memory_mib;
        used.disk_gib += size.disk_gib;
        taken += u64::from(size.vcpus);
        held.push(Placed::of(row.id, size));
    }
    Inventory::new(&rows)
}

fn scan(inventory: &Inventory, host: HostSize, sizes: &[Size]) -> f64 {
    let ids: Vec<HostId> = inventory.hosts().map(|h| h.id).collect();
    let mut free: Vec<(u32, u64)> = inventory.hosts().map(|h| (h.free().vcpus, h.free().memory_mib)).collect();
    let began = Instant::now();
    let mut count = 0_usize;
    while began.elapsed().as_secs_f64() < SCAN_SECONDS {
        let size = sizes[count % sizes.len()];
        if let Some(at) = best_fit(&free, host, size) {
            free[at] = (free[at].0 - size.vcpus, free[at].1 - size.memory_mib);
            std::hint::black_box(ids[at]);
        }
        count += 1;
    }
    count as f64 / began.elapsed().as_secs_f64()
}
