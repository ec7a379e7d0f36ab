//! Tests that pinned guests have threads of their own, and the others are kept off them, whatever happens to the agent.

use crate::{
    rig::{Host, TestInstance, eventually},
    stand_in::machine,
};
use compute_agent::host::{cpuset::parse_cpulist, facts};
use domain::host::HostFacts;
use proto::cluster::v1::InstanceState as S;
use std::{collections::BTreeSet, fs, path::Path};

fn allowed(status: &Path) -> BTreeSet<u32> {
    let text = fs::read_to_string(status).unwrap_or_default();
    let list = text.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    parse_cpulist(list.unwrap_or_default())
}

/// The threads of the instance's QEMU: their names, and the host's threads that each may run on.
fn threads(host: &Host, instance: &TestInstance) -> Vec<(String, BTreeSet<u32>)> {
    let Some(qemu) = host.qemu(instance) else { return vec![] };
    let tasks = fs::read_dir(format!("/proc/{}/task", qemu.pid)).into_iter().flatten().flatten();
    let one = |task: fs::DirEntry| {
        let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        (name.trim().to_owned(), allowed(&task.path().join("status")))
    };
    tasks.map(one).collect()
}

fn vcpus(host: &Host, instance: &TestInstance) -> Vec<BTreeSet<u32>> {
    threads(host, instance).into_iter().filter(|(name, _)| name.starts_with("CPU ")).map(|(_, on)| on).collect()
}

async fn all_on(host: &Host, instance: &TestInstance, on: &BTreeSet<u32>) {
    let what = format!("{} runs on {on:?}", instance.desired.name);
    eventually(&what, || {
        let threads = threads(host, instance);
        (!threads.is_empty() && threads.iter().all(|(_, is)| is == on)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pinned_guest_has_its_threads_alone_and_keeps_them() {
    let nodes = facts::numa_nodes(Path::new("/sys/devices/system/node"));
    let Some(node) = nodes.first().filter(|node| parse_cpulist(&node.cpus).len() >= 2) else {
        println!("not run: a pinned guest: this machine has no NUMA node with two threads");
        return;
    };
    let Some(mut host) = Host::start(2).await else { return };
    let facts: HostFacts = serde_json::from_str(&machine(&host.manager.hellos()[0]).facts_json).expect("facts");
    let reported = facts.numa.iter().find(|reported| reported.id == node.id).expect("the node is told");
    assert_eq!(reported.threads as usize, parse_cpulist(&node.cpus).len());
    assert!(reported.memory_mib > 0 && facts.guest_cpu.is_some_and(|cpu| cpu.model.starts_with("EPYC")));

    let all: BTreeSet<u32> = nodes.iter().flat_map(|node| parse_cpulist(&node.cpus)).collect();
    let (mut pinned, plain) = (TestInstance::tiny(&host, "pinned"), TestInstance::tiny(&host, "plain"));
    host.reach(&plain, S::Running).await;
    all_on(&host, &plain, &all).await;
    pinned.desired.numa_node = Some(node.id);
    host.reach(&pinned, S::Running).await;
    let own = vcpus(&host, &pinned);
    assert_eq!((own.len(), own[0].len()), (1, 1), "one thread for the one vCPU: {own:?}");
    assert!(own[0].is_subset(&parse_cpulist(&node.cpus)));
    let rest: BTreeSet<u32> = all.difference(&own[0]).copied().collect();
    all_on(&host, &plain, &rest).await;
    let maps = fs::read_to_string(format!("/proc/{}/numa_maps", host.qemu(&pinned).expect("runs").pid));
    let policies = ["prefer", "prefer (many)"].map(|policy| format!("{policy}:{}", node.id));
    let preferred = maps.is_ok_and(|maps| policies.iter().any(|policy| maps.contains(policy)));
    assert!(preferred, "its memory comes from its node");

    // The next agent reads from the ledger who has what.
    host.kill_agent().await;
    host.start_agent().await;
    let start = host.manager.hellos().last().expect("hello").start;
    for instance in [&pinned, &plain] {
        let adopted = move |r: &crate::stand_in::Report| r.start == start && r.converged;
        host.manager.report(&instance.id(), "adopted", adopted).await;
    }
    assert_eq!(vcpus(&host, &pinned), own);
    all_on(&host, &plain, &rest).await;

    // A new QEMU gets the same.
    let qemu = host.qemu(&pinned).expect("runs");
    qemu.kill().await.expect("killed");
    let again = |r: &crate::stand_in::Report| r.crash_count == 1 && r.state() == S::Running && r.converged;
    host.manager.report(&pinned.id(), "restarted", again).await;
    assert_eq!(vcpus(&host, &pinned), own);

    pinned.delete();
    host.reach(&pinned, S::Deleted).await;
    all_on(&host, &plain, &all).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_does_not_have_is_reported_and_never_started_elsewhere() {
    let Some(host) = Host::start(1).await else { return };
    let (mut nowhere, mut large) = (TestInstance::tiny(&host, "nowhere"), TestInstance::tiny(&host, "large"));
    nowhere.desired.numa_node = Some(4_000);
    let node = facts::numa_nodes(Path::new("/sys/devices/system/node")).first().map_or(0, |node| node.id);
    large.desired.numa_node = Some(node);
    large.change(|spec| spec.size.as_mut().expect("a size").vcpus = 200);
    host.manager.set_all_desired(&[nowhere.desired.clone(), large.desired.clone()]);
    for (instance, says) in [(&nowhere, "no NUMA node 4000"), (&large, "200 vCPUs need one each")] {
        let said = move |r: &crate::stand_in::Report| r.reason.contains(says) || r.step.contains(says);
        host.manager.report(&instance.id(), says, said).await;
        assert_eq!(host.qemu(instance), None);
    }
}
