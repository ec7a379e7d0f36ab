//! The lab itself: machines that are apart but for their cables, lose their power at once, and leave nothing behind.

use crate::support::not_run;
use anyhow::ensure;
use harness::{Cable, Lab};
use std::{collections::BTreeSet, fs, process::Command};

const MACHINES: [&str; 5] = ["fabric", "outside", "manager", "host1", "host2"];

/// The names of a machine's namespaces, as the kernel shows them.
fn namespaces(lab: &Lab, machine: &str) -> anyhow::Result<BTreeSet<String>> {
    let names = lab.sh(machine, "readlink /proc/self/ns/{pid,net,mnt,uts}")?;
    Ok(names.lines().map(str::to_owned).collect())
}

/// Of all processes that can be seen from here.
fn namespaces_in_use() -> BTreeSet<String> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let namespaces = processes.filter_map(|process| fs::read_dir(process.path().join("ns")).ok()).flatten().flatten();
    namespaces.filter_map(|ns| Some(fs::read_link(ns.path()).ok()?.to_string_lossy().into_owned())).collect()
}

/// Links of this machine that only a lab has.
fn lab_links() -> Vec<&'static str> {
    let names = ["underlay", "external", "ext0", "manager", "outside", "host1", "host1-x"];
    names.into_iter().filter(|name| fs::exists(format!("/sys/class/net/{name}")).unwrap_or(true)).collect()
}

fn control_groups(name: &str) -> anyhow::Result<String> {
    let found =
        Command::new("find").args(["/sys/fs/cgroup", "-maxdepth", "3", "-name", &format!("*{name}*")]).output()?;
    Ok(String::from_utf8_lossy(&found.stdout).into_owned())
}

/// Ends the lab, and looks for what it may have left.
fn ends_without_a_trace(lab: Lab) -> anyhow::Result<()> {
    let mut its_own = BTreeSet::new();
    for machine in MACHINES {
        its_own.append(&mut namespaces(&lab, machine)?);
    }
    ensure!(its_own.len() == 4 * MACHINES.len(), "machines share a namespace: {its_own:?}");
    let (name, dir) = (lab.name().to_owned(), lab.dir().to_owned());
    lab.down()?;
    let left: Vec<_> = its_own.intersection(&namespaces_in_use()).cloned().collect();
    ensure!(left.is_empty(), "processes are left in {left:?}");
    ensure!(!fs::exists(&dir)?, "{} is left", dir.display());
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    ensure!(!mounts.contains(&*dir.to_string_lossy()), "mounts are left: {mounts}");
    ensure!(lab_links().is_empty(), "links are left: {:?}", lab_links());
    let groups = control_groups(&name)?;
    ensure!(groups.is_empty(), "control groups are left: {groups}");
    Ok(())
}

#[test]
fn machines_are_joined_by_their_cables_and_end_at_once() -> anyhow::Result<()> {
    if let Some(why) = Lab::unavailable() {
        not_run("the machines of the lab", why);
        return Ok(());
    }
    let lab = Lab::bare(2)?;
    ensure!(lab_links().is_empty(), "the lab shows in this machine's links: {:?}", lab_links());
    let ping = |from: &str, to: &str| lab.exec(from, ["ping", "-c", "1", "-W", "5", to]);
    ping("host1", "10.60.0.12")?;
    ping("host1", "host2")?;
    ping("host2", "manager")?;
    ping("outside", "198.51.100.1")?;
    ensure!(lab.exec("host1", ["ping", "-c", "1", "-W", "1", "203.0.113.1"]).is_err(), "a host has no address outside");

    lab.cut("host1", Cable::Underlay)?;
    ensure!(lab.sh("host1", "cat /sys/class/net/eth0/carrier")?.trim() == "0");
    lab.heal("host1")?;
    ping("host1", "10.60.0.12")?;
    lab.cut_silently("host1", Cable::All)?;
    ensure!(lab.sh("host1", "cat /sys/class/net/eth0/carrier")?.trim() == "1", "a silent cut keeps the carrier");
    ensure!(lab.exec("host1", ["ping", "-c", "1", "-W", "1", "10.60.0.12"]).is_err(), "nothing passes a silent cut");
    lab.heal("host1")?;
    ping("host1", "10.60.0.12")?;

    // A process that would live on, in a namespace of its own as a guest's network is, and something on the disk.
    let lines = "echo kept >/var/lib/iaas/file; echo lost >/run/file; ip netns add inner
        setsid --fork ip netns exec inner sleep 1000 >/dev/null 2>&1";
    lab.sh("host2", lines)?;
    let before = namespaces(&lab, "host2")?;
    lab.power_off("host2")?;
    ensure!(before.is_disjoint(&namespaces_in_use()), "a process outlived its machine");
    ensure!(lab.sh("host2", "true").is_err_and(|error| error.to_string().contains("the machine host2 is off")));
    lab.script("power-on", ["--bare", "host2"])?;
    ensure!(lab.sh("host2", "cat /var/lib/iaas/file")?.trim() == "kept");
    ensure!(lab.sh("host2", "cat /run/file").is_err(), "memory outlived a power loss");
    ping("host1", "10.60.0.12")?;

    for (args, says) in [
        (["cut", "host3"], "it has: fabric outside manager host1 host2"),
        (["power-off", "nobody"], "has no machine 'nobody'"),
        (["service", "start"], "usage:"),
    ] {
        let refused = lab.script(args[0], [args[1]]).expect_err("nonsense");
        ensure!(refused.to_string().contains(says), "{args:?}: {refused}");
    }
    ends_without_a_trace(lab)
}
