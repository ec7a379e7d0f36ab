//! What this host is and has, for Hello and for heartbeats.

use crate::{
    adopt::Orphan,
    config::Config,
    disk::{overlay::supports_direct, pool::SharedPool},
    host::{
        cpuset::parse_cpulist,
        facts::{self, CpuFacts, HostFacts},
    },
    ledger::{Desired, Held, Version},
    qemu::{
        argv::{Accel, TCG_CPU, TCG_CPU_VENDOR},
        overhead::overhead_mib,
    },
    reconcile::{context::Context, hypervisor::Hypervisor},
};
use agent_kit::HostRecord;
use domain::{
    cpu::CpuBaseline,
    host::{MemoryOverhead, NumaFacts, SharedPoolFacts},
};
use proto::{
    agent::v1::{ComputeHost, ComputeStatistics},
    cluster::v1::Size,
    sync::v1 as pb,
};
use service_kit::error_chain;
use std::sync::atomic::Ordering;

#[derive(Debug, thiserror::Error)]
#[error("this host can't be described")]
pub struct InventoryError(#[source] facts::FactsError);

/// QEMU's own memory as the figures that the manager claims by.
#[must_use]
pub fn overhead(accel: &Accel) -> MemoryOverhead {
    let base = overhead_mib(accel, 0, 0);
    MemoryOverhead {
        fixed_mib: base,
        per_vcpu_mib: overhead_mib(accel, 1, 0) - base,
        per_gib_mib: overhead_mib(accel, 0, 1024) - base,
    }
}

/// What instances may take, before CPU overcommit.
#[must_use]
pub fn capacity(config: &Config, threads: u32, memory_total_mib: u64, disk_total_bytes: u64) -> Size {
    Size {
        vcpus: threads,
        memory_mib: memory_total_mib.saturating_sub(config.reserve_memory_mib),
        disk_gib: (disk_total_bytes >> 30).saturating_sub(config.reserve_disk_gib + config.image_cache_gib),
    }
}

/// The nodes that something can be pinned to. One without threads (memory alone) is none.
#[must_use]
pub fn numa(nodes: &[facts::NumaNode]) -> Vec<NumaFacts> {
    let node = |node: &facts::NumaNode| {
        let threads = u32::try_from(parse_cpulist(&node.cpus).len()).unwrap_or(u32::MAX);
        NumaFacts { id: node.id, threads, memory_mib: node.memory_total_mib }
    };
    nodes.iter().map(node).filter(|node| node.threads > 0).collect()
}

/// The CPU that guests see here. An emulated one is the same on every host; with KVM it is the host's own, less what is switched off.
#[must_use]
pub fn guest_cpu(accel: &Accel, host: &CpuFacts) -> CpuBaseline {
    let architecture = std::env::consts::ARCH.to_owned();
    match accel {
        Accel::Tcg { .. } => {
            CpuBaseline { architecture, vendor: TCG_CPU_VENDOR.to_owned(), model: TCG_CPU.to_owned(), features: vec![] }
        }
        Accel::Kvm { cpu_flags } => {
            // QEMU says `arch-capabilities=off` where the kernel says `arch_capabilities`.
            let off = |feature: &String| {
                cpu_flags.iter().any(|flag| flag.strip_suffix("=off").is_some_and(|f| f.replace('-', "_") == *feature))
            };
            CpuBaseline {
                architecture,
                vendor: host.vendor.clone(),
                model: "host".to_owned(),
                features: host.flags.iter().filter(|f| !off(f)).cloned().collect(),
            }
        }
    }
}

/// A host without a QEMU that will do says so, and has no room.
pub fn hello(
    context: &Context,
    hypervisor: Result<&Hypervisor, String>,
    orphans: &[Orphan],
) -> Result<pb::Hello, InventoryError> {
    let config = &context.config;
    let machine = HostFacts::gather().map_err(InventoryError)?;
    let space = facts::disk_space(&config.state_dir).map_err(InventoryError)?;
    let (accel, qemu_version, accelerator, accelerator_reason) = match &hypervisor {
        Ok(h) => {
            let why = match h.accel.accel {
                Accel::Kvm { .. } => String::new(),
                Accel::Tcg { .. } => h.accel.reason.clone(),
            };
            (h.accel.accel.clone(), h.qemu.version.to_string(), h.accel.accel.name().to_owned(), why)
        }
        Err(reason) => (Accel::TCG, String::new(), String::new(), reason.clone()),
    };
    // Guests get ordinary memory.
    let memory_mib = machine.memory_total_mib.saturating_sub(facts::hugepages_mib(&machine.hugepages));
    let mut capacity = capacity(config, machine.cpu.threads, memory_mib, space.total_bytes);
    if hypervisor.is_err() {
        capacity = Size { vcpus: 0, memory_mib: 0, disk_gib: 0 };
    }
    let overhead = overhead(&accel);
    let guest_cpu = hypervisor.as_ref().ok().map(|h| guest_cpu(&h.accel.accel, &machine.cpu));
    let facts = domain::host::HostFacts {
        cpu_model: machine.cpu.model,
        cpu_vendor: machine.cpu.vendor,
        cpu_features: machine.cpu.flags,
        architecture: std::env::consts::ARCH.into(),
        sockets: machine.cpu.sockets,
        cores: machine.cpu.cores,
        threads: machine.cpu.threads,
        numa_nodes: u32::try_from(machine.numa_nodes.len()).unwrap_or(u32::MAX),
        kernel: machine.kernel_release,
        qemu_version,
        accelerator,
        accelerator_reason,
        agent_version: env!("CARGO_PKG_VERSION").into(),
        numa: numa(&machine.numa_nodes),
        hugepages: machine.hugepages,
        guest_cpu,
        shared_pool: context.pool.as_ref().map(shared_pool),
    };
    let name = if config.host_name.is_empty() { machine.hostname } else { config.host_name.clone() };
    let HostRecord { host_id, start, revision } = context.ledger.host();
    Ok(pb::Hello {
        host_id: host_id.to_string(),
        name,
        start,
        revision,
        ledger_id: context.ledger.id().to_string(),
        holdings: holdings(context, orphans),
        host: Some(pb::hello::Host::Compute(ComputeHost {
            zone: config.zone.clone(),
            capacity: Some(capacity),
            cpu_overcommit_permille: config.cpu_overcommit_permille,
            facts_json: serde_json::to_string(&facts).unwrap_or_default(),
            overhead_fixed_mib: overhead.fixed_mib,
            overhead_per_vcpu_mib: overhead.per_vcpu_mib,
            overhead_per_gib_mib: overhead.per_gib_mib,
            disk_full: context.disk_full(),
        })),
    })
}

/// The shared pool, if this host can use it, or why it can't.
fn shared_pool(pool: &SharedPool) -> SharedPoolFacts {
    let refused = |reason: String| {
        tracing::error!(
            reason,
            "this host gets no instance with a disk in the shared pool until its agent is started again"
        );
        SharedPoolFacts { reason, ..SharedPoolFacts::default() }
    };
    let id = match pool.id() {
        Ok(id) => id.to_string(),
        Err(error) => return refused(error_chain(&error)),
    };
    match supports_direct(pool.dir()) {
        Ok(true) => {}
        Ok(false) => {
            let dir = pool.dir().display();
            return refused(format!("files in {dir} can't be opened past the page cache (O_DIRECT)"));
        }
        Err(error) => return refused(error_chain(&error)),
    }
    match facts::disk_space(pool.dir()) {
        Ok(space) => SharedPoolFacts {
            id,
            reason: String::new(),
            total_gib: space.total_bytes >> 30,
            free_gib: space.available_bytes >> 30,
        },
        Err(error) => refused(error_chain(&error)),
    }
}

fn holdings(context: &Context, orphans: &[Orphan]) -> Vec<pb::Holding> {
    let holding = |instance_id: domain::InstanceId, Version { epoch, generation }, tombstone| pb::Holding {
        kind: pb::ObjectKind::Instance.into(),
        id: instance_id.to_string(),
        epoch,
        generation,
        tombstone,
        ..pb::Holding::default()
    };
    let in_ledger = |held: &Held| {
        let plain = holding(held.instance_id(), held.version(), matches!(held, Held::Tombstone(_)));
        match held {
            Held::Live(entry) => {
                let Desired { digest, spec, .. } = &entry.desired;
                pb::Holding { digest: *digest, root_seq: spec.root_seq, boot_seq: spec.boot_seq, ..plain }
            }
            Held::Tombstone(_) => plain,
        }
    };
    let held = context.ledger.all();
    // An orphan that the manager has given to this host meanwhile is none any more; one that runs is no tombstone, whatever is held.
    let live = |id| matches!(context.ledger.held(id).as_deref(), Some(Held::Live(_)));
    let orphans: Vec<&Orphan> = orphans.iter().filter(|orphan| !live(orphan.instance_id)).collect();
    let known = held.iter().filter(|h| !orphans.iter().any(|o| o.runs && o.instance_id == h.instance_id()));
    known
        .map(|h| in_ledger(h))
        .chain(
            orphans
                .iter()
                .filter(|o| o.runs || context.ledger.held(o.instance_id).is_none())
                .map(|o| holding(o.instance_id, o.version, false)),
        )
        .collect()
}

/// For people and metrics; zero where it can't be read.
#[must_use]
pub fn statistics(context: &Context) -> ComputeStatistics {
    let running =
        context.ledger.all().iter().filter(|h| matches!(&***h, Held::Live(e) if e.done.process.is_some())).count();
    let statistics = ComputeStatistics {
        disk_free_bytes: facts::disk_space(&context.config.state_dir).map_or(0, |space| space.available_bytes),
        memory_available_mib: facts::memory_available_mib().unwrap_or(0),
        instances_running: u32::try_from(running).unwrap_or(u32::MAX),
        starts_in_progress: context.starts_in_progress.load(Ordering::Relaxed),
        disk_full: context.disk_full(),
    };
    metrics::gauge!("iaas_host_instances_running").set(f64::from(statistics.instances_running));
    metrics::gauge!("iaas_host_starts_in_progress").set(f64::from(statistics.starts_in_progress));
    metrics::gauge!("iaas_host_disk_free_bytes").set(statistics.disk_free_bytes as f64);
    metrics::gauge!("iaas_host_memory_available_bytes").set((statistics.memory_available_mib << 20) as f64);
    statistics
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qemu::overhead::overhead_mib;

    #[test]
    fn the_figures_say_what_the_model_says() {
        for accel in [Accel::TCG, Accel::Kvm { cpu_flags: vec![] }] {
            let figures = overhead(&accel);
            for (vcpus, memory_mib) in [(1, 128), (4, 1024), (32, 65_536), (3, 1500)] {
                let size = domain::flavor::Size { vcpus, memory_mib, disk_gib: 0 };
                assert_eq!(figures.claim_mib(size) - memory_mib, overhead_mib(&accel, vcpus, memory_mib), "{size:?}");
            }
        }
    }

    #[test]
    fn guests_see_the_emulated_cpu_or_the_hosts_less_what_is_off() {
        let flags = ["arch_capabilities", "avx", "sse2"].map(str::to_owned).to_vec();
        let host = CpuFacts { vendor: "GenuineIntel".into(), flags, ..CpuFacts::default() };
        let emulated = guest_cpu(&Accel::TCG, &host);
        assert_eq!(emulated, guest_cpu(&Accel::TCG, &CpuFacts::default()), "the same on every host");
        assert!(emulated.model.starts_with("EPYC-v1,"), "{emulated:?}");
        let kvm = guest_cpu(&Accel::Kvm { cpu_flags: vec!["arch-capabilities=off".into()] }, &host);
        assert_eq!((kvm.model.as_str(), kvm.features.as_slice()), ("host", &["avx".to_owned(), "sse2".to_owned()][..]));
        assert!(kvm.may_run(&guest_cpu(&Accel::Kvm { cpu_flags: vec![] }, &host)) && !kvm.may_run(&emulated));
    }

    #[test]
    fn nodes_with_threads_are_reported_by_the_hosts_numbers() {
        let node = |id, cpus: &str| facts::NumaNode { id, cpus: cpus.into(), memory_total_mib: 1000 };
        let reported = numa(&[node(0, "0-3,8"), node(1, ""), node(8, "4-7")]);
        assert_eq!(reported.iter().map(|n| (n.id, n.threads)).collect::<Vec<_>>(), [(0, 5), (8, 4)]);
    }

    #[test]
    fn the_reserve_is_never_sold() {
        let config = Config { reserve_memory_mib: 1000, reserve_disk_gib: 5, image_cache_gib: 10, ..Config::default() };
        let size = capacity(&config, 4, 8000, 100 << 30);
        assert_eq!((size.vcpus, size.memory_mib, size.disk_gib), (4, 7000, 85));
        assert_eq!(capacity(&config, 4, 10, 0).memory_mib, 0);
    }
}
