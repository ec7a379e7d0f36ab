//! The lab itself: machines that are apart but for their cables, lose their power at once, and leave nothing behind.

use crate::support::{not_run, until};
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

/// Each agent and where its manager listens.
const LINKS: [(&str, u16); 2] = [("compute-agent", 7481), ("network-agent", 7483)];

/// The HTTP that an agent speaks with a manager's port by its certificate.
fn call(lab: &Lab, host: &str, agent: &str, port: u16) -> anyhow::Result<String> {
    let line = format!(
        "cd /var/lib/iaas/host && curl --silent --show-error --http2 --noproxy '*' --max-time 10 --output /dev/null \
         --write-out '%{{http_version}}' --cacert ca.pem --cert {agent}.pem --key host.key https://10.60.0.2:{port}/"
    );
    lab.sh(host, &line)
}

/// What that port says to a caller of no certificate. It asks nothing: an alert could be lost to a reset otherwise.
fn call_as_nobody(lab: &Lab, host: &str, port: u16) -> anyhow::Result<String> {
    let line = format!(
        "timeout 10 openssl s_client -connect 10.60.0.2:{port} -CAfile /var/lib/iaas/host/ca.pem -alpn h2 -ign_eof -quiet \
         </dev/null 2>&1 || true"
    );
    lab.sh(host, &line)
}

fn sees_connected(lab: &Lab, host: &str) -> usize {
    let log = lab.log("manager", "control-plane");
    log.lines()
        .filter(|line| {
            line.contains("a host's agent connected") && line.contains("network-agent") && line.contains(host)
        })
        .count()
}

#[tokio::test]
async fn hosts_join_with_both_agents_over_mutual_tls() -> anyhow::Result<()> {
    if let Some(why) = Lab::unavailable() {
        not_run("hosts that join in the lab", why);
        return Ok(());
    }
    let lab = Lab::up(3, "tcg")?;
    let hosts = lab.ctl(["host", "list"])?;
    let tokens = lab.ctl(["host", "token", "list"])?;
    for name in ["host1", "host2", "host3"] {
        let all = hosts.as_array().into_iter().flatten();
        let host = all.clone().find(|host| host["name"] == name);
        ensure!(all.count() == 3 && host.is_some_and(|host| host["state"] == "up"), "{name} in {hosts}");
        let token = tokens.as_array().into_iter().flatten().find(|token| token["name"] == name);
        let used = token
            .is_some_and(|token| token["state"] == "used" && host.is_some_and(|host| host["id"] == token["host_id"]));
        ensure!(used, "{name} came by its token: {tokens}");
        until("the resource-manager knows the network-agent", async || {
            Ok((sees_connected(&lab, name) > 0).then_some(()))
        })
        .await?;
        for (agent, port) in LINKS {
            let version = call(&lab, name, agent, port)?;
            ensure!(version == "2", "{agent} of {name} speaks HTTP/2 with its manager: {version}");
            let refused = call_as_nobody(&lab, name, port)?;
            ensure!(refused.contains("certificate required"), "{port} asks for a certificate: {refused}");
        }
    }

    // It knows who it is: after a power loss it needs no token, and is the same host.
    let before = sees_connected(&lab, "host2");
    lab.power_off("host2")?;
    until("the host is seen to be away", async || {
        Ok((lab.ctl(["host", "show", "host2"])?["state"] == "disconnected").then_some(()))
    })
    .await?;
    lab.power_on("host2")?;
    until("both agents are back", async || {
        let up = lab.ctl(["host", "show", "host2"])?["state"] == "up";
        Ok((up && sees_connected(&lab, "host2") > before).then_some(()))
    })
    .await?;
    let after = lab.ctl(["host", "list"])?;
    let ids = |hosts: &serde_json::Value| -> BTreeSet<String> {
        hosts.as_array().into_iter().flatten().map(|host| host["id"].to_string()).collect()
    };
    ensure!(ids(&after) == ids(&hosts), "the same hosts: {after}");
    ensure!(lab.ctl(["host", "token", "list"])?.as_array().map(Vec::len) == Some(3), "no other token was made");
    lab.down()
}
