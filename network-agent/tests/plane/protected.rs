//! The addresses of the fleet's hosts and managers, which no instance may reach.

use crate::{
    flows::{Session, echo},
    rig::{Lab, TestHost, TestPort, eventually, group, must, network, open_rules, protected, root, tombstone, uplink},
};
use domain::{NetworkId, SecurityGroupId};
use network_agent::{model::state::Wiring, nft::DropReason};
use proto::sync::v1 as sync;

#[tokio::test(flavor = "multi_thread")]
async fn no_instance_reaches_another_hosts_addresses_while_hosts_come_and_go_and_managers_are_away() {
    if !root() {
        return;
    }
    let lab = Lab::new().await;
    let (one, two) = (lab.host(1, Wiring::Veth).await, lab.host(2, Wiring::Veth).await);
    // The management addresses of another host, and the one of a manager, on the segment that instances lead to.
    must(&format!(
        "for n in 202 203; do ip -n {} addr add 203.0.113.$n/24 dev br-ext || exit 1; done && \
         ip -n {} addr add 203.0.113.210/24 dev eth0",
        two.ns,
        lab.outside()
    ));
    let (net, sg) = (NetworkId::new(), SecurityGroupId::new());
    let a = TestPort::new(1, &["10.0.0.5"], &[sg]);
    one.send(&[network(net, 100, &["10.0.0.0/24"], &[], Some(uplink(11))), group(sg, 1, &open_rules()), a.local(net)])
        .await;
    one.acquire(&a).await;
    let guest = lab.static_guest(&one, net, &a);
    let others = ["203.0.113.202", "203.0.113.203", "203.0.113.210"];
    for address in others.iter().chain(&["203.0.113.1"]) {
        guest.reaches(address);
    }
    let reached = || others.iter().copied().filter(|address| guest.pings(address)).collect::<Vec<_>>();

    // What began before ends with it, and nothing else does.
    for at in ["203.0.113.210", "203.0.113.1"] {
        echo(&lab.outside(), at);
    }
    let [mut cut, mut other] = ["203.0.113.210", "203.0.113.1"].map(|to| Session::open(&guest.ns, to));
    // Two neighbouring addresses of one block, by parts that come one after the other.
    one.send(&[protected("hosts-1", 2, &["203.0.113.202/32"])]).await;
    assert_eq!(reached(), others[1..]);
    one.send(&[protected("hosts-2", 3, &["203.0.113.203/32"]), protected("managers", 3, &["203.0.113.208/29"])]).await;
    assert_eq!(reached(), [""; 0]);
    cut.ends("its other end is protected");
    assert!(other.answers());
    assert!(one.drops(net, &a, DropReason::Protected).await >= 4);
    assert!(guest.pings("203.0.113.1"), "all else is reached");
    // A host leaves: its neighbour stays protected.
    one.send(&[tombstone("hosts-1".to_owned(), sync::ObjectKind::Protected, (0, 4))]).await;
    assert_eq!(reached(), others[..1]);

    // Without any manager, from its ledger.
    let one = TestHost::restart(one.kill().await);
    one.settled().await;
    eventually("the network is taken over", || guest.pings("203.0.113.1"));
    assert_eq!(reached(), others[..1]);
    // The first packet of a network that comes later meets them as well.
    let (later, b) = (NetworkId::new(), TestPort::new(2, &["10.0.0.5"], &[sg]));
    one.send(&[network(later, 101, &["10.0.0.0/24"], &[], Some(uplink(12))), b.local(later)]).await;
    one.acquire(&b).await;
    let guest = lab.static_guest(&one, later, &b);
    guest.reaches("203.0.113.1");
    assert!(!guest.pings("203.0.113.203") && !guest.pings("203.0.113.210"));
}
