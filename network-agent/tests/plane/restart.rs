//! Ends and beginnings: an agent that dies in the middle, one that is restarted under traffic, and what is left when all is gone.

use crate::rig::{Lab, TestHost, TestPort, group, must, network, open_rules, root, run, tombstone};
use domain::{NetworkId, SecurityGroupId, network::MacAddr};
use network_agent::model::{names, state::Wiring};
use proto::sync::v1 as sync;
use std::net::{IpAddr, Ipv4Addr};

fn many(count: u16, sg: SecurityGroupId) -> Vec<TestPort> {
    (0..count)
        .map(|n| {
            let [high, low] = (n + 10).to_be_bytes();
            TestPort {
                addrs: vec![IpAddr::V4(Ipv4Addr::new(10, 0, high, low))],
                mac: MacAddr([2, 0, 0, 1, high, low]),
                hostname: format!("vm{n}"),
                ..TestPort::new(0, &[], &[sg])
            }
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_programming_two_hundred_ports_it_converges_and_leaves_nothing() {
    if !root() {
        return;
    }
    let lab = Lab::new().await;
    let mut host = lab.host(1, Wiring::Tap).await;
    let (net, sg) = (NetworkId::new(), SecurityGroupId::new());
    let ports = many(200, sg);
    let mut objects = vec![network(net, 100, &["10.0.0.0/16"], &[], None), group(sg, 1, &open_rules())];
    objects.extend(ports.iter().map(|port| port.local(net)));
    host.host.accept(objects, 1).await.expect("taken");
    // Ended after a little more of the work each time.
    for _ in 0..3 {
        let observed = host.host.worker_of(net).is_some();
        if !observed {
            let mut changes = host.host.signal.changes();
            let _ = tokio::time::timeout(std::time::Duration::from_millis(300), changes.changed()).await;
        }
        host = TestHost::restart(host.kill().await);
    }
    host.settled().await;
    let tenant = host.tenant(net);
    let taps = |tenant: &str| must(&format!("ip -n {tenant} -o link")).lines().filter(|l| l.contains(": t")).count();
    assert_eq!(taps(&tenant), 200);
    for port in &ports {
        host.acquire(port).await;
    }
    let routes = must(&format!("ip -n {tenant} route"));
    assert_eq!(routes.lines().filter(|l| l.contains(" dev t")).count(), 200, "{routes}");
    // Half of them go while the agent is away; once it is there again, it removes exactly those.
    let (gone, kept) = ports.split_at(100);
    host.send(&gone.iter().map(TestPort::gone).collect::<Vec<_>>()).await;
    assert_eq!(taps(&tenant), 100);
    let rules = must(&format!("ip netns exec {tenant} nft list map inet iaas port_in"));
    assert!(gone.iter().all(|port| !rules.contains(&names::port_link(port.id))));
    assert!(kept.iter().all(|port| rules.contains(&names::port_link(port.id))));
    host.send(&[tombstone(net.to_string(), sync::ObjectKind::Network, (1, 2))]).await;
    assert!(!std::path::Path::new("/run/netns").join(&tenant).exists(), "the namespace is gone");
    assert!(host.host.orphans().expect("listed").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_loses_no_packet_and_heals_what_others_changed() {
    if !root() {
        return;
    }
    let lab = Lab::new().await;
    let host = lab.host(1, Wiring::Veth).await;
    let (net, sg) = (NetworkId::new(), SecurityGroupId::new());
    let a = TestPort::new(1, &["10.0.0.5"], &[sg]);
    let b = TestPort::new(2, &["10.0.0.6"], &[sg]);
    host.send(&[
        network(net, 100, &["10.0.0.0/24"], &[], None),
        group(sg, 1, &open_rules()),
        a.local(net),
        b.local(net),
    ])
    .await;
    host.acquire(&a).await;
    host.acquire(&b).await;
    let (ga, _gb) = (lab.static_guest(&host, net, &a), lab.static_guest(&host, net, &b));
    ga.reaches("10.0.0.6");
    let tenant = host.tenant(net);
    let pinging = crate::rig::inside(&ga.ns, || run("ping -n -q -c 300 -i 0.005 -W 2 10.0.0.6").1);
    // Meanwhile: the agent is killed, somebody removes a route, a neighbour's rule and adds an address; it starts again.
    let stopped = host.kill().await;
    must(&format!("ip -n {tenant} addr add 10.99.99.99/32 dev lo"));
    must(&format!("ip -n {tenant} route add unreachable 10.98.0.0/16 proto 0x99"));
    let host = TestHost::restart(stopped);
    host.settled().await;
    let said = pinging.join().expect("thread");
    assert!(said.contains("300 received"), "{said}");
    assert!(!must(&format!("ip -n {tenant} addr show dev lo")).contains("10.99.99.99"));
    assert!(!must(&format!("ip -n {tenant} route")).contains("10.98.0.0"));
}
