//! With the managers gone, what guests have of the network goes on; and so with the agents.

use super::cloud::{Cloud, until};
use crate::support::guests;
use anyhow::ensure;

#[tokio::test(flavor = "multi_thread")]
async fn guests_keep_leases_names_metadata_and_rules_without_managers_and_agents() -> anyhow::Result<()> {
    let _guests = guests(2).await;
    let Some(cloud) = Cloud::up("networks without their managers")? else { return Ok(()) };
    cloud.instance("a", "host1", "")?;
    cloud.instance("b", "host2", "")?;
    let b4 = cloud.address("b", true)?;
    let (mut a, _) = cloud.shell("a")?;
    cloud.lab.service("kill", "manager", "control-plane")?;

    let goes_on = |a: &mut super::shell::Shell| -> anyhow::Result<()> {
        a.run("udhcpc -n -q -i eth0 -t 5 -s /bin/true")?;
        a.run("timeout 20 wget -q -O - http://b/ | grep -qx b")?;
        a.run("timeout 20 wget -q -O - http://169.254.169.254/openstack/latest/meta_data.json | grep -q '\"a\"'")?;
        a.run(&format!("ping -c 1 -W 10 {b4}"))?;
        ensure!(!a.can("ping -c 1 -W 2 10.60.0.11")?, "the rules are gone");
        Ok(())
    };
    goes_on(&mut a)?;
    // The agent of a host dies and comes back with nobody to ask: its ledger is enough.
    cloud.lab.service("kill", "host1", "network-agent")?;
    a.run(&format!("ping -c 3 -W 10 {b4}"))?;
    cloud.lab.service("start", "host1", "network-agent")?;
    until("the agent serves again", || {
        a.can("timeout 5 wget -q -O /dev/null http://169.254.169.254/latest/meta-data/")
    })?;
    goes_on(&mut a)?;

    cloud.lab.service("start", "manager", "control-plane")?;
    until("the managers are back", || Ok(cloud.ctl("instance list").is_ok()))?;
    until("both hosts are up", || {
        let hosts = cloud.ctl("host list")?;
        Ok(hosts.as_array().is_some_and(|hosts| hosts.iter().all(|host| host["state"] == "up")))
    })?;
    cloud.instance("c", "host1", "")?;
    let c4 = cloud.address("c", true)?;
    until("a new neighbour is reached", || a.can(&format!("ping -c 1 -W 5 {c4}")))?;
    cloud.lab.down()
}
