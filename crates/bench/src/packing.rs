//! How many hosts a trace needs: the scheduler, plain best fit, first fit and what no policy can beat, over the same requests.
//! Hosts are opened when a request fits none of the open ones.

use crate::{
    stats::round,
    trace::{self, Arrival, HostSize},
};
use clap::Args as ClapArgs;
use cluster_manager::scheduler::{Inventory, Request, choose};
use domain::{
    HostId, Timestamp,
    flavor::Size,
    host::{Host, HostFacts, HostState, MemoryOverhead},
};
use serde_json::{Value, json};
use std::{cmp::Reverse, collections::BinaryHeap, path::PathBuf};

#[derive(Debug, ClapArgs)]
pub struct Args {
    /// The trace's directory.
    #[arg(long, default_value = "../shared/data/azure-v1")]
    trace: PathBuf,
    /// vCPUs x GiB of each host.
    #[arg(long, default_value = "40x90")]
    host: HostSize,
    /// Of the lifetimes' draw.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

pub fn run(args: &Args) -> anyhow::Result<Value> {
    let mut arrivals = trace::load(&args.trace, args.seed)?;
    arrivals.retain(|a| a.vcpus <= args.host.vcpus && a.memory_mib <= args.host.memory_mib);
    let used = replay(&arrivals, &mut Scheduler::new(args.host))?;
    let best = replay(&arrivals, &mut Scan { host: args.host, free: Vec::new(), pick: best_fit })?;
    let first = replay(&arrivals, &mut Scan { host: args.host, free: Vec::new(), pick: first_fit })?;
    let bound = lower_bound(&arrivals, args.host);
    Ok(json!({
        "bench": "packing",
        "host": format!("{}x{}", args.host.vcpus, args.host.memory_mib / 1024),
        "requests": arrivals.len(),
        "hosts_used": used,
        "best_fit": best,
        "first_fit": first,
        "lower_bound": bound,
        "ratio_to_best_fit": round(used as f64 / best as f64),
        "gap_closed": round((best as f64 - used as f64) / (best as f64 - bound as f64)),
    }))
}

/// Open hosts are numbers from 0.
trait Cluster {
    /// An open host with the room, which it takes.
    fn place(&mut self, size: Size) -> Option<usize>;
    fn open(&mut self) -> usize;
    fn leave(&mut self, host: usize, size: Size);
    fn hosts(&self) -> usize;
}

fn size_of(arrival: &Arrival) -> Size {
    Size { vcpus: arrival.vcpus, memory_mib: arrival.memory_mib, disk_gib: 0 }
}

/// Hosts ever opened.
fn replay(arrivals: &[Arrival], cluster: &mut impl Cluster) -> anyhow::Result<usize> {
    let mut leaving = BinaryHeap::new();
    for (at, arrival) in arrivals.iter().enumerate() {
        while let Some(Reverse((when, who, host))) = leaving.peek().copied()
            && when <= arrival.at
        {
            leaving.pop();
            let gone: &Arrival = &arrivals[who];
            cluster.leave(host, size_of(gone));
        }
        let size = size_of(arrival);
        let host = match cluster.place(size) {
            Some(host) => host,
            None => {
                let fresh = cluster.open();
                let host = cluster.place(size);
                anyhow::ensure!(host == Some(fresh), "a fresh host takes what fitted nowhere else: {host:?}");
                fresh
            }
        };
        if let Some(when) = arrival.leaves_at {
            leaving.push(Reverse((when, at, host)));
        }
    }
    Ok(cluster.hosts())
}

/// The most that was there at once, in whole hosts.
fn lower_bound(arrivals: &[Arrival], host: HostSize) -> usize {
    let mut leaving: BinaryHeap<Reverse<(u64, u32, u64)>> = BinaryHeap::new();
    let (mut vcpus, mut memory, mut most) = (0_u64, 0_u64, (0_u64, 0_u64));
    for arrival in arrivals {
        while let Some(Reverse((when, v, m))) = leaving.peek().copied()
            && when <= arrival.at
        {
            leaving.pop();
            (vcpus, memory) = (vcpus - u64::from(v), memory - m);
        }
        (vcpus, memory) = (vcpus + u64::from(arrival.vcpus), memory + arrival.memory_mib);
        most = (most.0.max(vcpus), most.1.max(memory));
        if let Some(when) = arrival.leaves_at {
            leaving.push(Reverse((when, arrival.vcpus, arrival.memory_mib)));
        }
    }
    most.0.div_ceil(u64::from(host.vcpus)).max(most.1.div_ceil(host.memory_mib)) as usize
}

/// The real one.
struct Scheduler {
    host: HostSize,
    inventory: Inventory,
    request: Request,
}

impl Scheduler {
    fn new(host: HostSize) -> Self {
        Self { host, inventory: Inventory::default(), request: Request::default() }
    }
}

pub fn host_row(at: usize, capacity: Size) -> Host {
    Host {
        id: HostId(uuid::Uuid::from_u128(at as u128)),
        name: format!("host-{at}"),
        zone: "default".to_owned(),
        tags: Default::default(),
        state: HostState::Up,
        cordoned: false,
        cordon_reason: String::new(),
        draining: false,
        dedicated_to: None,
        capacity,
        reported: capacity,
        accepted: capacity,
        offered: capacity,
        reserved: Size::default(),
        cpu_overcommit_permille: 1000,
        memory_overcommit_permille: 1000,
        disk_overcommit_permille: 1000,
        used: Size::default(),
        overhead: MemoryOverhead::default(),
        facts: HostFacts { threads: capacity.vcpus, ..HostFacts::default() },
        generation: 1,
        revision: 0,
        registered_at: Timestamp(0),
        state_changed_at: Timestamp(0),
        ledger: Default::default(),
    }
}

impl Cluster for Scheduler {
    fn place(&mut self, size: Size) -> Option<usize> {
        self.request.size = size;
        let placed = choose(&mut self.inventory, &self.request)?.placed;
        self.inventory.claim_tentatively(placed.host_id, placed.claim);
        self.inventory.confirm(placed.host_id, placed.claim);
        Some(placed.host_id.0.as_u128() as usize)
    }

    fn open(&mut self) -> usize {
        let at = self.inventory.len();
        let capacity = Size { vcpus: self.host.vcpus, memory_mib: self.host.memory_mib, disk_gib: 0 };
        self.inventory.put_host(&host_row(at, capacity));
        at
    }

    fn leave(&mut self, host: usize, size: Size) {
        self.inventory.release(HostId(uuid::Uuid::from_u128(host as u128)), size);
    }

    fn hosts(&self) -> usize {
        self.inventory.len()
    }
}

/// vCPUs and MiB free of a host.
pub type Free = (u32, u64);

/// What a policy without an index does: look at each.
struct Scan {
    host: HostSize,
    free: Vec<Free>,
    pick: fn(&[Free], HostSize, Size) -> Option<usize>,
}

fn first_fit(free: &[Free], _: HostSize, size: Size) -> Option<usize> {
    free.iter().position(|(v, m)| *v >= size.vcpus && *m >= size.memory_mib)
}

/// The host with the least left, in shares of a host summed over both resources.
pub fn best_fit(free: &[Free], host: HostSize, size: Size) -> Option<usize> {
    let left = |(v, m): Free| {
        u128::from(v - size.vcpus) * u128::from(host.memory_mib)
            + u128::from(m - size.memory_mib) * u128::from(host.vcpus)
    };
    let fits = free.iter().enumerate().filter(|(_, (v, m))| *v >= size.vcpus && *m >= size.memory_mib);
    fits.min_by_key(|(_, free)| left(**free)).map(|(at, _)| at)
}

impl Cluster for Scan {
    fn place(&mut self, size: Size) -> Option<usize> {
        let at = (self.pick)(&self.free, self.host, size)?;
        self.free[at].0 -= size.vcpus;
        self.free[at].1 -= size.memory_mib;
        Some(at)
    }

    fn open(&mut self) -> usize {
        self.free.push((self.host.vcpus, self.host.memory_mib));
        self.free.len() - 1
    }

    fn leave(&mut self, host: usize, size: Size) {
        self.free[host].0 += size.vcpus;
        self.free[host].1 += size.memory_mib;
    }

    fn hosts(&self) -> usize {
        self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_open_hosts_only_when_they_must() {
        let one = |at, leaves_at, vcpus| Arrival { at, leaves_at, vcpus, memory_mib: 1024 };
        let arrivals = [one(0, Some(300), 4), one(0, None, 4), one(300, None, 4), one(300, None, 2)];
        let host = HostSize { vcpus: 8, memory_mib: 8192 };
        assert_eq!(lower_bound(&arrivals, host), 2);
        assert_eq!(replay(&arrivals, &mut Scheduler::new(host)).expect("replayed"), 2);
        let mut scan = Scan { host, free: Vec::new(), pick: best_fit };
        assert_eq!(replay(&arrivals, &mut scan).expect("replayed"), 2);
        assert_eq!(scan.free, [(0, 6144), (6, 7168)]);
    }
}
