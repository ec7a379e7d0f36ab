//! Between tenants' instances: who reaches whom, who they say they are, and what the rules let pass.

use super::cloud::{Cloud, until};
use crate::support::guests;
use anyhow::ensure;

#[tokio::test(flavor = "multi_thread")]
async fn instances_of_a_network_reach_each_other_and_nobody_else() -> anyhow::Result<()> {
    let _guests = guests(3).await;
    let Some(cloud) = Cloud::up("networks between guests of two hosts")? else { return Ok(()) };
    // The default network, on two hosts; another with the same range and the same address.
    cloud.instance("a", "host1", "")?;
    cloud.instance("b", "host2", "")?;
    let (b4, b6) = (cloud.address("b", true)?, cloud.address("b", false)?);
    let default = cloud.ctl("network show default")?;
    let range = default["subnets"].as_array().into_iter().flatten().filter_map(|s| s["cidr"].as_str());
    let range: Vec<&str> = range.filter(|cidr| cidr.contains('.')).collect();
    cloud.ctl(&format!("network create red --subnet {} --external-network public", range[0]))?;
    cloud.instance("c", "host2", &format!("--network red,ip={b4}"))?;
    let (mut a, a_outside) = cloud.shell("a")?;
    let (mut b, _) = cloud.shell("b")?;
    let (mut c, _) = cloud.shell("c")?;

    ensure!(a.run("cat /sys/class/net/eth0/mtu")?.trim() == "1450", "the guest was told the path's MTU");
    for (what, command) in [
        ("a neighbour on another host", format!("ping -c 1 -W 10 {b4}")),
        ("packets as large as the MTU", format!("ping -c 1 -W 10 -s 1422 {b4}")),
        ("IPv6", format!("ping -6 -c 1 -W 10 {b6}")),
        ("large packets of IPv6", format!("ping -6 -c 1 -W 10 -s 1402 {b6}")),
        ("TCP, by its name", "timeout 20 wget -q -O - http://b/ | grep -qx b".to_owned()),
        ("TCP with much in it", format!("burn 1; timeout 20 wget -q -O /dev/null http://{b4}/")),
        ("the outside, by the router's address", "ping -c 1 -W 10 198.51.100.1".to_owned()),
    ] {
        a.run(&command).map_err(|error| error.context(what))?;
    }
    // The same address in another network is another instance, and neither network sees the other.
    ensure!(c.run("hostname")?.trim() == "c");
    let a4 = cloud.address("a", true)?;
    ensure!(!c.can(&format!("ping -c 1 -W 2 {a4}"))?, "networks with the same range see each other");
    ensure!(!c.can("nslookup a 2>/dev/null | grep -q ^Name:")?, "names of another network are told");

    // Neither hosts nor managers are reached, by whatever address.
    for address in ["10.60.0.11", "10.60.0.12", "10.60.0.2"] {
        ensure!(!a.can(&format!("ping -c 1 -W 2 {address}"))?, "{address} answers a guest");
        ensure!(!a.can(&format!("nc -w 2 {address} 7480 </dev/null"))?, "{address} lets a guest connect");
    }
    // Metadata is each one's own.
    for (shell, name) in [(&mut a, "a"), (&mut b, "b"), (&mut c, "c")] {
        let said = shell.run("timeout 20 wget -q -O - http://169.254.169.254/openstack/latest/meta_data.json")?;
        ensure!(
            said.contains(&format!("\"name\":\"{name}\"")) || said.contains(&format!("\"name\": \"{name}\"")),
            "{said}"
        );
    }

    forgers(&cloud, &mut a, &mut b, &b4)?;
    rules(&cloud, &mut a, &a_outside, &b4)?;
    nics(&cloud, &mut a)?;
    refusals(&cloud, &b4)?;
    cloud.lab.down()
}

/// What one forges reaches nobody, and is counted.
fn forgers(cloud: &Cloud, a: &mut super::shell::Shell, b: &mut super::shell::Shell, b4: &str) -> anyhow::Result<()> {
    let (b6, nic) = (cloud.address("b", false)?, cloud.ctl("instance show b")?["nics"][0].clone());
    let b_mac = nic["mac"].as_str().unwrap_or_default().to_owned();
    let a6 = a.run("ip -6 addr show dev eth0 scope link | grep -o 'fe80[^/]*'")?.trim().to_owned();
    b.run("sniff eth0 15000 >/tmp/sniffed & sleep 1")?;
    for forged in [
        format!("forge udp eth0 --from 10.9.9.9 --to {b4}"),
        format!("forge ping eth0 --from 10.9.9.9 --to {b4}"),
        format!("forge ping eth0 --from {b4} --to {b4} --from-mac 02:66:00:00:00:01"),
        format!("forge ping eth0 --from fd00:bad::9 --to {b6}"),
        format!("forge arp eth0 --op reply --from {b4} --to {b4} --from-mac 02:66:00:00:00:01"),
        format!("forge dhcp-offer eth0 --from {b4} --your 10.9.9.9 --client {b_mac}"),
        format!("forge dhcp6-advertise eth0 --from {a6}"),
        format!("forge ra eth0 --from {a6} --prefix fd00:bad::"),
        format!("forge na eth0 --from {a6} --target {b6} --from-mac 02:66:00:00:00:01"),
    ] {
        a.run(&forged)?;
    }
    a.run(&format!("ping -c 1 -W 10 {b4}"))?;
    let received = b.run("sleep 1; cat /tmp/sniffed")?;
    ensure!(!received.trim().is_empty(), "the sniffer hears nothing at all");
    for sign in ["10.9.9.9", "02:66:00:00:00:01", "fd00:bad"] {
        ensure!(!received.contains(sign), "a forged packet arrived: {received}");
    }
    let port = cloud.ctl("instance show a")?["nics"][0]["port_id"].as_str().unwrap_or_default().to_owned();
    until("forged packets are counted, by what they were", || {
        let drops = cloud.ctl(&format!("port traffic {port}"))?["drops"].clone();
        let counted = |reason: &str| drops[reason].as_u64().is_some_and(|packets| packets > 0);
        Ok(["spoof", "dhcp_server", "router_advertisement"].into_iter().all(counted))
    })?;
    Ok(())
}

/// A group closes SSH to some while the session of another stays; a session that no rule lets in any more ends.
fn rules(cloud: &Cloud, a: &mut super::shell::Shell, a_outside: &str, b4: &str) -> anyhow::Result<()> {
    let open = format!("nc -w 5 {b4} 22 </dev/null | grep -q SSH");
    ensure!(a.can(&open)?, "SSH is open to neighbours");
    let ingress = || -> anyhow::Result<Vec<String>> {
        let shown = cloud.ctl("security-group show default")?;
        let rules = shown["rules"].as_array().into_iter().flatten();
        let rules = rules.filter(|rule| rule["direction"] == "ingress" && rule["ethertype"] == "ipv4");
        Ok(rules.filter_map(|rule| rule["id"].as_str().map(str::to_owned)).collect())
    };
    let before = ingress()?;
    ensure!(!before.is_empty(), "the group has rules");
    // This one lets in who isn't a neighbour, and so the session that these commands are typed in.
    cloud.ctl("security-group rule add default --protocol tcp --port 22 --remote 128.0.0.0/1")?;
    cloud.ctl(&format!("security-group rule remove default {}", before.join(" ")))?;
    until("a removed rule cuts new connections", || Ok(!a.can(&open)?))?;
    ensure!(a.run("echo still here")?.trim() == "still here", "an allowed session was cut");
    cloud.ctl(&format!("security-group rule remove default {}", ingress()?.join(" ")))?;
    until("a session that no rule lets in any more ends", || Ok(a.run("true").is_err()))?;
    cloud.ctl("security-group rule add default --protocol tcp --port 22")?;
    *a = cloud.shell_at(a_outside)?;
    until("a new rule lets new connections in", || a.can(&open))?;
    Ok(())
}

/// A NIC comes and goes while the instance runs.
fn nics(cloud: &Cloud, a: &mut super::shell::Shell) -> anyhow::Result<()> {
    cloud.ctl("network create green --subnet 10.77.0.0/24")?;
    let with = cloud.ctl("instance attach a --network green --wait running --timeout 60s")?;
    let port = with["nics"][1]["port_id"].as_str().unwrap_or_default().to_owned();
    until("the new NIC has its address", || a.can("ip -4 addr show dev eth1 | grep -q 10.77.0."))?;
    a.run("ping -c 1 -W 10 10.77.0.1")?;
    cloud.ctl(&format!("instance detach a --port {port} --wait running --timeout 60s"))?;
    until("the NIC is gone", || Ok(!a.can("ip link show dev eth1")?))?;
    until("its port is gone", || Ok(cloud.ctl(&format!("port show {port}")).is_err()))?;
    // The address rests.
    let address = with["nics"][1]["addresses"][0].as_str().unwrap_or_default().to_owned();
    cloud.refused(&format!("port create again --network green --ip {address}"), "address_quarantined")
}

fn refusals(cloud: &Cloud, taken: &str) -> anyhow::Result<()> {
    for (line, code) in [
        (format!("port create p --network default --ip {taken}"), "address_taken"),
        ("port create p --network default --ip 192.0.2.1".to_owned(), "address_outside_subnet"),
        ("subnet create s --network green --cidr 10.77.0.0/25".to_owned(), "overlap"),
        ("subnet create s --network green --cidr 10.77.0.0/33".to_owned(), "cidr"),
        ("network delete default".to_owned(), "in_use"),
        ("floating-ip create --address 192.0.2.1".to_owned(), "address_outside_subnet"),
    ] {
        cloud.refused(&line, code)?;
    }
    Ok(())
}
