//! The rules in the host's own namespace: whose tunnelled frames count. Packets that they stop are in the matrix.

use crate::rig::{Lab, TestHost, TestPort, eventually, group, must, network, open_rules, root, run};
use domain::{NetworkId, SecurityGroupId};
use network_agent::{
    model::{names, state::Wiring},
    nft::DropReason,
};

fn listed(host: &TestHost) -> String {
    run(&format!("ip netns exec {} nft -s list table inet {}", host.ns, names::underlay_table(&host.config.prefix))).1
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hosts_own_rules_follow_the_ports_and_come_back() {
    if !root() {
        return;
    }
    let lab = Lab::new().await;
    let host = lab.host(1, Wiring::Veth).await;
    let (net, sg) = (NetworkId::new(), SecurityGroupId::new());
    let a = TestPort::new(1, &["10.0.0.5"], &[sg]);
    let [b, c] = [TestPort::new(2, &["10.0.0.6"], &[sg]), TestPort::new(3, &["10.0.0.7"], &[sg])];
    let there = "10.255.0.3".parse().expect("ip");
    let element = "10.255.0.3 . 0x2760aff0003";
    host.send(&[network(net, 100, &["10.0.0.0/24"], &[], None), group(sg, 1, &open_rules()), a.local(net)]).await;
    let alone = listed(&host);
    assert!(alone.contains("udp dport 4789 jump tunnel") && !alone.contains("elements"), "{alone}");
    // A stranger's table beside it is nobody's business.
    must(&format!("ip netns exec {} nft add table inet strangers", host.ns));
    host.send(&[b.remote_at(net, there), c.remote_at(net, there)]).await;
    assert!(listed(&host).contains(element), "{}", listed(&host));
    host.send(&[b.gone()]).await;
    assert!(listed(&host).contains(element), "another port is bound there: {}", listed(&host));
    host.send(&[c.gone()]).await;
    assert!(!listed(&host).contains("elements"), "{}", listed(&host));
    // Flushed while the agent is away, and while it is there.
    host.send(&[TestPort { epoch: 2, ..b.clone() }.remote_at(net, there)]).await;
    let good = listed(&host);
    let (ns, mut config) = host.kill().await;
    must(&format!("ip netns exec {ns} nft flush ruleset"));
    config.audit_secs = 1;
    let host = TestHost::restart((ns, config));
    host.settled().await;
    assert_eq!(listed(&host), good);
    must(&format!("ip netns exec {} nft flush ruleset", host.ns));
    eventually("the audit puts it back", || listed(&host) == good);
    must(&format!(
        "ip netns exec {} nft flush chain inet {} tunnel",
        host.ns,
        names::underlay_table(&host.config.prefix)
    ));
    eventually("and what somebody emptied", || listed(&host) == good);
}

/// The network's own view: what is counted, and what a router elsewhere answers by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_router_elsewhere_may_say_what_it_cannot_deliver() {
    if !root() {
        return;
    }
    let lab = Lab::new().await;
    let (h1, h2) = (lab.host(1, Wiring::Veth).await, lab.host(2, Wiring::Veth).await);
    let (net, sg) = (NetworkId::new(), SecurityGroupId::new());
    let a = TestPort::new(1, &["10.0.0.5", "fd00::5"], &[sg]);
    let b = TestPort::new(2, &["10.0.0.6", "fd00::6"], &[sg]);
    let base = [network(net, 100, &["10.0.0.0/24", "fd00::/64"], &[], None), group(sg, 1, &open_rules())];
    h1.send(&[&base[..], &[a.local(net), b.remote(net, &h2)]].concat()).await;
    h2.send(&[&base[..], &[b.local(net), a.remote(net, &h1)]].concat()).await;
    h1.acquire(&a).await;
    h2.acquire(&b).await;
    let ga = lab.static_guest(&h1, net, &a);
    let _gb = lab.static_guest(&h2, net, &b);
    ga.reaches("10.0.0.6");
    ga.reaches("fd00::6");
    h2.host.release(b.id, b.instance, b.epoch).await.expect("released");
    let (good, said) = ga.exec("ping -n -c 1 -W 5 fd00::6");
    assert!(!good && said.contains("From fd00::1"), "{said}");
    let worker = h1.host.worker_of(net).expect("here");
    let drops = network_agent::drops::read(&worker).await.expect("worker").expect("listed");
    let spoofed = drops.iter().filter(|((link, reason), _)| link == names::VXLAN && *reason == DropReason::Spoof);
    assert_eq!(spoofed.count(), 0, "{drops:?}");
}
