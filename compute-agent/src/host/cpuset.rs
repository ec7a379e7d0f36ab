//! Chooses the host's threads for the vCPUs of an instance (pure), and binds processes to threads.
//!
//! An instance of a pinned flavor gets whole threads of one NUMA node, one for each vCPU, and no other instance's vCPUs run there. So the
//! QEMUs of other instances are kept off them: their threads may run on all threads that no instance is pinned to. Both are affinities of
//! threads, set from outside. The cpusets of control groups were rejected: on version 1 a child must get both its CPUs and its memory nodes
//! before anything can enter it, on version 2 the controller is often not delegated, and neither pins one vCPU to one thread.
//!
//! - Threads with high numbers are assigned first: interrupts and the kernel's own work gather at the low ones. Hyperthreads of one core have
//!   numbers far apart on most machines; that two instances share a core is accepted.
//! - An instance keeps its threads while it exists on this host, running or not, like its claim; the ledger records them.
//! - QEMU names its vCPUs' threads (`CPU 0/KVM`), so they are found without a query, also from outside its PID namespace.

use rustix::{
    io::Errno,
    process::Pid,
    thread::{CpuSet, sched_setaffinity},
};
use std::{collections::BTreeSet, fs, io};

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoThreads {
    #[error("this host has no NUMA node {node}")]
    Node { node: u32 },
    #[error("NUMA node {node} has {free} free threads, and {vcpus} vCPUs need one each")]
    Short { node: u32, free: usize, vcpus: u32 },
}

/// Reads a list of numbers as the kernel writes it: `0-3,8`. Any other text gives an empty list.
#[must_use]
pub fn parse_cpulist(text: &str) -> BTreeSet<u32> {
    let range = |part: &str| -> Option<std::ops::RangeInclusive<u32>> {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (from, to): (u32, u32) = (from.trim().parse().ok()?, to.trim().parse().ok()?);
        (to < CpuSet::MAX_CPU as u32).then_some(from..=to)
    };
    text.trim().split(',').filter_map(range).flatten().collect()
}

/// The threads of an instance's vCPUs, in the vCPUs' order: those that it has, if they are right, else others. `held` are the threads of
/// other instances.
pub fn choose(
    nodes: &[(u32, BTreeSet<u32>)],
    node: u32,
    vcpus: u32,
    has: &[u32],
    held: &BTreeSet<u32>,
) -> Result<Vec<u32>, NoThreads> {
    let (_, threads) = nodes.iter().find(|(id, _)| *id == node).ok_or(NoThreads::Node { node })?;
    let distinct: BTreeSet<u32> = has.iter().copied().collect();
    let right = has.len() == vcpus as usize
        && distinct.len() == has.len()
        && distinct.is_subset(threads)
        && distinct.is_disjoint(held);
    if right {
        return Ok(has.to_vec());
    }
    let free: Vec<u32> = threads.difference(held).copied().collect();
    if free.len() < vcpus as usize {
        return Err(NoThreads::Short { node, free: free.len(), vcpus });
    }
    Ok(free[free.len() - vcpus as usize..].to_vec())
}

/// The threads for instances that aren't pinned: all threads that no instance is pinned to. If there are none, all threads, because these
/// instances must run somewhere.
#[must_use]
pub fn shared(nodes: &[(u32, BTreeSet<u32>)], pinned: &BTreeSet<u32>) -> BTreeSet<u32> {
    let all: BTreeSet<u32> = nodes.iter().flat_map(|(_, threads)| threads).copied().collect();
    let left: BTreeSet<u32> = all.difference(pinned).copied().collect();
    if left.is_empty() { all } else { left }
}

/// Lets a process run only on these threads: all of its own threads, and those that they start later. A process that has ended is no error.
pub fn confine(pid: i32, threads: &BTreeSet<u32>) -> io::Result<()> {
    let set = cpu_set(threads.iter().copied());
    // Threads that are started in the meantime have the old or the new affinity of their parent, so this is repeated until none is new.
    let mut done = BTreeSet::new();
    loop {
        let fresh: Vec<i32> = tasks(pid)?.into_iter().filter(|tid| !done.contains(tid)).collect();
        if fresh.is_empty() {
            return Ok(());
        }
        for tid in fresh {
            bind(tid, &set)?;
            done.insert(tid);
        }
    }
}

/// Binds each vCPU of a QEMU to its thread, in the same order. Everything else of QEMU runs on the same threads.
pub fn pin_vcpus(pid: i32, threads: &[u32]) -> io::Result<()> {
    confine(pid, &threads.iter().copied().collect())?;
    for tid in tasks(pid)? {
        let Ok(name) = fs::read_to_string(format!("/proc/{pid}/task/{tid}/comm")) else { continue };
        if let Some(thread) = vcpu_of(&name).and_then(|at| threads.get(at)) {
            bind(tid, &cpu_set([*thread]))?;
        }
    }
    Ok(())
}

/// The index of the vCPU whose thread has this name: `CPU 3/KVM` and `CPU 3/TCG` belong to the fourth. A single thread for all vCPUs
/// (`ALL CPUs/TCG`) belongs to none.
fn vcpu_of(name: &str) -> Option<usize> {
    name.strip_prefix("CPU ")?.split_once('/')?.0.parse().ok()
}

fn tasks(pid: i32) -> io::Result<Vec<i32>> {
    let entries = match fs::read_dir(format!("/proc/{pid}/task")) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
        entries => entries?,
    };
    Ok(entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

fn cpu_set(threads: impl IntoIterator<Item = u32>) -> CpuSet {
    let mut set = CpuSet::new();
    threads.into_iter().filter(|n| (*n as usize) < CpuSet::MAX_CPU).for_each(|n| set.set(n as usize));
    set
}

fn bind(tid: i32, set: &CpuSet) -> io::Result<()> {
    match sched_setaffinity(Pid::from_raw(tid), set) {
        Err(Errno::SRCH) | Ok(()) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set(numbers: &[u32]) -> BTreeSet<u32> {
        numbers.iter().copied().collect()
    }

    fn two_nodes() -> Vec<(u32, BTreeSet<u32>)> {
        vec![(0, parse_cpulist("0-3,8-11")), (2, parse_cpulist("4-7"))]
    }

    #[test]
    fn lists_are_read_as_the_kernel_writes_them() {
        assert_eq!(parse_cpulist("0-3,8\n"), set(&[0, 1, 2, 3, 8]));
        assert_eq!(parse_cpulist("5"), set(&[5]));
        for bad in ["", "\n", "a-b", "3-", "0-4000000000", "-1"] {
            assert_eq!(parse_cpulist(bad), set(&[]), "{bad:?}");
        }
    }

    #[test]
    fn an_instance_keeps_what_it_has_unless_that_is_wrong() {
        let nodes = two_nodes();
        assert_eq!(choose(&nodes, 0, 2, &[], &set(&[])), Ok(vec![10, 11]), "from the top");
        assert_eq!(choose(&nodes, 0, 2, &[3, 1], &set(&[11])), Ok(vec![3, 1]));
        assert_eq!(choose(&nodes, 0, 2, &[3, 1], &set(&[1])), Ok(vec![10, 11]), "somebody else's");
        assert_eq!(choose(&nodes, 0, 1, &[3, 1], &set(&[])), Ok(vec![11]), "another size");
        assert_eq!(choose(&nodes, 2, 2, &[3, 1], &set(&[])), Ok(vec![6, 7]), "another node");
        assert_eq!(choose(&nodes, 2, 2, &[7, 7], &set(&[])), Ok(vec![6, 7]), "a damaged ledger");
        assert_eq!(choose(&nodes, 1, 1, &[], &set(&[])), Err(NoThreads::Node { node: 1 }));
        let short = NoThreads::Short { node: 2, free: 1, vcpus: 2 };
        assert_eq!(choose(&nodes, 2, 2, &[], &set(&[4, 5, 6])), Err(short));
    }

    #[test]
    fn the_others_share_what_is_left_or_all() {
        let nodes = two_nodes();
        assert_eq!(shared(&nodes, &set(&[0, 1, 2, 3, 8, 9, 10, 11])), set(&[4, 5, 6, 7]));
        assert_eq!(shared(&nodes, &(0..12).collect()).len(), 12);
    }

    proptest! {
        #[test]
        fn no_thread_is_assigned_twice(requests in prop::collection::vec((0_u32..3, 1_u32..5), 0..12)) {
            let nodes = two_nodes();
            let mut held = BTreeSet::new();
            for (node, vcpus) in requests {
                let Ok(given) = choose(&nodes, node, vcpus, &[], &held) else { continue };
                prop_assert_eq!(given.len(), vcpus as usize);
                let threads = &nodes.iter().find(|(id, _)| *id == node).expect("chosen of it").1;
                for thread in given {
                    prop_assert!(threads.contains(&thread) && held.insert(thread));
                }
            }
            prop_assert!(shared(&nodes, &held).is_disjoint(&held) || held.len() == 12);
        }
    }

    #[test]
    fn vcpus_are_found_by_their_threads_names() {
        for (name, at) in
            [("CPU 0/KVM\n", Some(0)), ("CPU 12/TCG\n", Some(12)), ("ALL CPUs/TCG\n", None), ("worker\n", None)]
        {
            assert_eq!(vcpu_of(name), at, "{name}");
        }
    }

    #[test]
    fn a_process_is_confined_with_all_its_threads_and_one_that_is_gone_is_no_error() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("started");
        let pid = i32::try_from(child.id()).expect("a pid");
        let allowed = || {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("there");
            let line = status.lines().find_map(|l| l.strip_prefix("Cpus_allowed_list:")).map(str::trim);
            parse_cpulist(line.unwrap_or_default())
        };
        let before = allowed();
        let one = before.iter().copied().take(1).collect();
        confine(pid, &one).expect("confined");
        assert_eq!(allowed(), one);
        confine(pid, &before).expect("let loose");
        assert_eq!(allowed(), before);
        child.kill().and_then(|()| child.wait()).expect("ended");
        confine(pid, &one).expect("nothing to do");
        pin_vcpus(pid, &[0]).expect("nothing to do");
    }
}
