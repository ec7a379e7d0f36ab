//! Decisions in memory: the trace's mix of sizes against N hosts scattered full to 70 %, and one instance leaving for each that comes.
//! `per_s` counts the decision with its tentative claim, the start and the firm claim; `turns_per_s` also the leaving, of an instance
//! on a host at random (a cache miss after the other). Beside it: plain best fit that looks at every host, and the same with 1,000 hosts,
//! in turns with the large one so that what else the machine does hits both: `growth` is how much more a decision costs with N hosts.

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

/// Of the small cloud beside.
const SMALL: usize = 1000;
/// Decisions in a row in one of the two clouds.
const BLOCK: usize = 10_000;

pub fn run(args: &Args) -> anyhow::Result<Value> {
    let arrivals = trace::load(&args.trace, 1)?;
    let fits = arrivals.iter().filter(|a| a.vcpus <= args.host.vcpus && a.memory_mib <= args.host.memory_mib);
    let sizes: Vec<Size> = fits.map(|a| Size { vcpus: a.vcpus, memory_mib: a.memory_mib, disk_gib: 10 }).collect();
    let mut cloud = Cloud::fill(args.hosts, args.host, &sizes);
    let mut small = Cloud::fill(SMALL, args.host, &sizes);
    let scan_per_s = scan(&cloud.inventory, args.host, &sizes);
    // Prices, page faults.
    cloud.turns(&sizes, 2 * BLOCK);
    small.turns(&sizes, 2 * BLOCK);
    let (mut micros, mut ratios, mut seconds) = (Vec::with_capacity(args.requests), Vec::new(), 0.0);
    while micros.len() < args.requests {
        let began = Instant::now();
        let block = cloud.turns(&sizes, BLOCK.min(args.requests - micros.len()));
        seconds += began.elapsed().as_secs_f64();
        anyhow::ensure!(!block.is_empty(), "nothing fits any more");
        let beside = small.turns(&sizes, BLOCK);
        ratios.push(mean(&block) / mean(&beside));
        micros.extend(block);
    }
    let turns_per_s = micros.len() as f64 / seconds;
    let per_s = 1e6 / mean(&micros);
    let overcommitted = cloud.inventory.hosts().filter(|h| !fits_in(h.used, h.capacity)).count();
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
        "growth": round(Sample::new(ratios).percentile(50.0)),
        "refused": cloud.refused,
        "overcommitted": overcommitted,
        "scan_per_s": round(scan_per_s),
        "ratio_to_scan": round(per_s / scan_per_s),
    }))
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn fits_in(used: Size, capacity: Size) -> bool {
    used.vcpus <= capacity.vcpus && used.memory_mib <= capacity.memory_mib
}

struct Cloud {
    inventory: Inventory,
    held: Vec<Placed>,
    random: Seeded,
    request: Request,
    requested: usize,
    refused: usize,
}

impl Cloud {
    /// Scattered, as a cloud is after years of coming and going: instances on hosts at random, in the trace's order.
    fn fill(hosts: usize, host: HostSize, sizes: &[Size]) -> Self {
        let mut random = Seeded::new(1);
        let capacity = Size { vcpus: host.vcpus, memory_mib: host.memory_mib, disk_gib: 1 << 20 };
        let mut rows: Vec<_> = (0..hosts).map(|at| host_row(at, capacity)).collect();
        let target = hosts as u64 * u64::from(host.vcpus) * FILLED / 100;
        let (mut taken, mut held) = (0, Vec::new());
        for size in sizes.iter().cycle() {
            if taken >= target {
                break;
            }
            let row = &mut rows[random.below(hosts as u64) as usize];
            let used = Size {
                vcpus: row.used.vcpus + size.vcpus,
                memory_mib: row.used.memory_mib + size.memory_mib,
                disk_gib: row.used.disk_gib + size.disk_gib,
            };
            if fits_in(used, capacity) {
                row.used = used;
                taken += u64::from(size.vcpus);
                held.push(Placed::of(row.id, *size));
            }
        }
        Self { inventory: Inventory::new(&rows), held, random, request: Request::default(), requested: 0, refused: 0 }
    }

    /// What `count` decisions took, in microseconds.
    fn turns(&mut self, sizes: &[Size], count: usize) -> Vec<f64> {
        let mut micros = Vec::with_capacity(count);
        for _ in 0..count {
            let size = sizes[self.requested % sizes.len()];
            self.requested += 1;
            match self.turn(size) {
                Some(seconds) => micros.push(seconds * 1e6),
                None => self.refused += 1,
            }
        }
        micros
    }

    /// One comes, one leaves. The decision's and the claim's seconds; none: refused.
    fn turn(&mut self, size: Size) -> Option<f64> {
        let Self { inventory, held, random, request, .. } = self;
        request.size = size;
        let id = InstanceId(uuid::Uuid::from_u128(u128::MAX));
        let began = Instant::now();
        let placed = choose(inventory, request)?.placed;
        inventory.place_tentatively(id, &placed, request);
        inventory.confirm(placed.host_id, placed.claim);
        inventory.start_ends(placed.host_id, id);
        let seconds = began.elapsed().as_secs_f64();
        let at = random.below(held.len() as u64) as usize;
        let gone = std::mem::replace(&mut held[at], placed);
        inventory.release(gone.host_id, gone.claim);
        Some(seconds)
    }
}

/// Takes nothing: full hosts are passed over faster than others.
fn scan(inventory: &Inventory, host: HostSize, sizes: &[Size]) -> f64 {
    let ids: Vec<HostId> = inventory.hosts().map(|h| h.id).collect();
    let free: Vec<(u32, u64)> = inventory.hosts().map(|h| (h.free().vcpus, h.free().memory_mib)).collect();
    let began = Instant::now();
    let mut count = 0_usize;
    while began.elapsed().as_secs_f64() < SCAN_SECONDS {
        std::hint::black_box(best_fit(&free, host, sizes[count % sizes.len()]).map(|at| ids[at]));
        count += 1;
    }
    count as f64 / began.elapsed().as_secs_f64()
}
