//! Describes this host for the scheduler and the operator. Everything comes from `/proc`, `/sys` and two system calls; parsing is pure and
//! takes text.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use domain::host::HugepageFacts;
use serde::{Deserialize, Serialize};
use thiserror::Error;

#[derive(Debug, Error)]
#[error("{path} can't be read, so this host can't be described")]
pub struct FactsError {
    pub path: PathBuf,
    #[source]
    pub source: io::Error,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostFacts {
    pub hostname: String,
    /// The output of `uname -r`.
    pub kernel_release: String,
    pub boot_id: String,
    pub cpu: CpuFacts,
    pub numa_nodes: Vec<NumaNode>,
    /// All memory, including hugepages.
    pub memory_total_mib: u64,
    pub hugepages: Vec<HugepageFacts>,
}

/// How much of a machine's memory these hugepages take.
#[must_use]
pub fn hugepages_mib(pages: &[HugepageFacts]) -> u64 {
    pages.iter().map(|pages| pages.size_kib.saturating_mul(pages.total)).sum::<u64>() / 1024
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuFacts {
    pub vendor: String,
    pub model: String,
    /// The features, sorted.
    pub flags: Vec<String>,
    pub sockets: u32,
    /// The cores of all sockets together.
    pub cores: u32,
    /// The logical CPUs that are online.
    pub threads: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NumaNode {
    pub id: u32,
    /// The node's CPUs, as the kernel lists them: `0-3,8`.
    pub cpus: String,
    /// The node's memory without hugepages.
    pub memory_total_mib: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskSpace {
    pub total_bytes: u64,
    /// The space that is available to unprivileged users.
    pub available_bytes: u64,
}

fn read(path: &str) -> Result<String, FactsError> {
    fs::read_to_string(path).map_err(|source| FactsError { path: path.into(), source })
}

impl HostFacts {
    /// Reads all facts, which takes about a millisecond.
    pub fn gather() -> Result<Self, FactsError> {
        Ok(Self {
            hostname: read("/proc/sys/kernel/hostname")?.trim().to_owned(),
            kernel_release: kernel_release()?,
            boot_id: read("/proc/sys/kernel/random/boot_id")?.trim().to_owned(),
            cpu: parse_cpuinfo(&read("/proc/cpuinfo")?),
            numa_nodes: numa_nodes(Path::new("/sys/devices/system/node")),
            memory_total_mib: meminfo_mib(&read("/proc/meminfo")?, "MemTotal"),
            hugepages: hugepages(Path::new("/sys/kernel/mm/hugepages")),
        })
    }
}

/// The release of the running kernel, like `uname -r`.
pub fn kernel_release() -> Result<String, FactsError> {
    Ok(read("/proc/sys/kernel/osrelease")?.trim().to_owned())
}

/// The memory that could be allocated without swapping, by the kernel's own estimate.
pub fn memory_available_mib() -> Result<u64, FactsError> {
    Ok(meminfo_mib(&read("/proc/meminfo")?, "MemAvailable"))
}

/// The space of the file system that contains this directory.
pub fn disk_space(dir: &Path) -> Result<DiskSpace, FactsError> {
    let stat =
        rustix::fs::statvfs(dir).map_err(|errno| FactsError { path: dir.to_path_buf(), source: errno.into() })?;
    Ok(DiskSpace { total_bytes: stat.f_blocks * stat.f_frsize, available_bytes: stat.f_bavail * stat.f_frsize })
}

/// The time since boot, including suspended time. It is the only clock that leases are measured with.
pub fn boottime_now() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}

fn parse_cpuinfo(text: &str) -> CpuFacts {
    let mut facts = CpuFacts::default();
    let (mut sockets, mut cores) = (BTreeSet::new(), BTreeSet::new());
    for cpu in text.split("\n\n").filter(|block| !block.trim().is_empty()) {
        let field = |name: &str| {
            cpu.lines()
                .filter_map(|line| line.split_once(':'))
                .find(|(key, _)| key.trim() == name)
                .map(|(_, v)| v.trim())
        };
        if field("processor").is_none() {
            continue;
        }
        facts.threads += 1;
        let socket = field("physical id").unwrap_or("0");
        // Without a core id every logical CPU is a core of its own.
        let core = field("core id").or(field("processor")).unwrap_or("0");
        sockets.insert(socket.to_owned());
        cores.insert((socket.to_owned(), core.to_owned()));
        if facts.threads == 1 {
            facts.vendor = field("vendor_id").unwrap_or("unknown").to_owned();
            facts.model = field("model name").unwrap_or("unknown").to_owned();
            facts.flags = field("flags").unwrap_or("").split_ascii_whitespace().map(str::to_owned).collect();
            facts.flags.sort_unstable();
        }
    }
    facts.sockets = sockets.len() as u32;
    facts.cores = cores.len() as u32;
    facts
}

/// Reads a field of `/proc/meminfo` or of a node's `meminfo`, whose lines begin with `Node N`.
fn meminfo_mib(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.split_once(name)?.1.strip_prefix(':'));
    line.and_then(|rest| rest.split_ascii_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) / 1024
}

/// The hugepages in `/sys/kernel/mm/hugepages` or in a node's `hugepages`: the sizes of which there are any, smallest first.
#[must_use]
pub fn hugepages(dir: &Path) -> Vec<HugepageFacts> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let pages = entries.filter_map(Result::ok).filter_map(|entry| {
        let name = entry.file_name();
        let size_kib = name.to_str()?.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
        let count = |file: &str| fs::read_to_string(entry.path().join(file)).ok()?.trim().parse::<u64>().ok();
        Some(HugepageFacts { size_kib, total: count("nr_hugepages")?, free: count("free_hugepages")? })
    });
    let mut pages: Vec<HugepageFacts> = pages.filter(|pages| pages.total > 0).collect();
    pages.sort_unstable_by_key(|pages| pages.size_kib);
    pages
}

/// The NUMA nodes in `/sys/devices/system/node`, by id.
#[must_use]
pub fn numa_nodes(dir: &Path) -> Vec<NumaNode> {
    let Ok(entries) = fs::read_dir(dir) else { return vec![] };
    let mut nodes: Vec<NumaNode> = entries
        .flatten()
        .filter_map(|entry| {
            let id = entry.file_name().to_str()?.strip_prefix("node")?.parse().ok()?;
            let cpus = fs::read_to_string(entry.path().join("cpulist")).ok()?.trim().to_owned();
            let memory = fs::read_to_string(entry.path().join("meminfo")).ok()?;
            let in_hugepages = hugepages_mib(&hugepages(&entry.path().join("hugepages")));
            let memory_total_mib = meminfo_mib(&memory, "MemTotal").saturating_sub(in_hugepages);
            Some(NumaNode { id, cpus, memory_total_mib })
        })
        .collect();
    nodes.sort_unstable_by_key(|node| node.id);
    nodes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_are_counted_by_socket_core_and_thread() {
        let cpu = |n: u32, socket: u32, core: u32| {
            format!(
                "processor\t: {n}\nvendor_id\t: GenuineIntel\nmodel name\t: X\nphysical id\t: {socket}\ncore id\t: {core}\n\
                 flags\t\t: vmx fpu\n"
            )
        };
        let text = [cpu(0, 0, 0), cpu(1, 0, 0), cpu(2, 0, 1), cpu(3, 1, 0)].join("\n");
        let facts = parse_cpuinfo(&text);
        assert_eq!((facts.sockets, facts.cores, facts.threads), (2, 3, 4));
        assert_eq!(facts.flags, ["fpu", "vmx"]);
        let bare = parse_cpuinfo("processor\t: 0\n\nprocessor\t: 1\n\n");
        assert_eq!((bare.sockets, bare.cores, bare.threads), (1, 2, 2));
        assert_eq!(bare.vendor, "unknown");
    }

    #[test]
    fn memory_is_read_from_both_forms() {
        assert_eq!(meminfo_mib("MemFree: 1 kB\nMemTotal:       2097152 kB\n", "MemTotal"), 2048);
        assert_eq!(meminfo_mib("Node 0 MemTotal:  1048576 kB\n", "MemTotal"), 1024);
        assert_eq!(meminfo_mib("", "MemTotal"), 0);
    }

    #[test]
    fn hugepages_are_counted_by_size_and_subtracted_from_their_node() {
        let dir = tempfile::tempdir().expect("a directory");
        let put = |path: &str, text: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).and_then(|()| fs::write(path, text)).expect("written");
        };
        for (pages, total, free) in [("hugepages-1048576kB", "1\n", "0\n"), ("hugepages-2048kB", "512\n", "500\n")] {
            put(&format!("node3/hugepages/{pages}/nr_hugepages"), total);
            put(&format!("node3/hugepages/{pages}/free_hugepages"), free);
        }
        put("node3/hugepages/hugepages-64kB/nr_hugepages", "0\n");
        put("node3/hugepages/hugepages-64kB/free_hugepages", "0\n");
        put("node3/hugepages/hugepages-xkB/nr_hugepages", "9\n");
        put("node3/cpulist", "0-3\n");
        put("node3/meminfo", "Node 3 MemTotal:  4194304 kB\n");
        let pages = hugepages(&dir.path().join("node3/hugepages"));
        let small = HugepageFacts { size_kib: 2048, total: 512, free: 500 };
        assert_eq!(pages, [small, HugepageFacts { size_kib: 1_048_576, total: 1, free: 0 }]);
        assert_eq!(hugepages_mib(&pages), 2048);
        let node = NumaNode { id: 3, cpus: "0-3".to_owned(), memory_total_mib: 2048 };
        assert_eq!(numa_nodes(dir.path()), [node]);
        assert_eq!(hugepages(Path::new("/nonexistent")), []);
    }

    #[test]
    fn this_host_has_all_of_it() {
        let facts = HostFacts::gather().expect("readable");
        assert!(!facts.hostname.is_empty() && !facts.kernel_release.is_empty() && facts.boot_id.len() == 36);
        assert!(facts.cpu.threads >= facts.cpu.cores && facts.cpu.cores >= facts.cpu.sockets && facts.cpu.sockets > 0);
        assert!(facts.memory_total_mib >= memory_available_mib().expect("readable"));
        let space = disk_space(Path::new("/")).expect("readable");
        assert!(space.total_bytes >= space.available_bytes);
        assert!(disk_space(Path::new("/nonexistent")).is_err());
        let before = boottime_now();
        assert!(boottime_now() >= before);
    }
}
