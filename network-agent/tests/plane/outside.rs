//! To the outside and back: source NAT and floating IPs.

use crate::rig::{
    Lab, TestHost, TestPort, eventually, floating, group, network, open_rules, root, run, tombstone, uplink,
};
use domain::{FloatingIpId, NetworkId, SecurityGroupId};
use network_agent::{model::state::Wiring, nft::DropReason};
use proto::sync::v1 as sync;
use std::io::{Read, Write};

#[tokio::test(flavor = "multi_thread")]
async fn source_nat_out_and_a_floating_ip_in_that_moves() {
    if !root() {
        return;
    }
    let lab = Lab::new().await;
    let (h1, h2) = (lab.host(1, Wiring::Veth).await, lab.host(2, Wiring::Veth).await);
    let (net, sg) = (NetworkId::new(), SecurityGroupId::new());
    let a = TestPort::new(1, &["10.0.0.5"], &[sg]);
    let b = TestPort::new(2, &["10.0.0.6"], &[sg]);
    let open = group(sg, 1, &open_rules());
    let fip = FloatingIpId::new();
    let net_on = |n| network(net, 100, &["10.0.0.0/24"], &[], Some(uplink(n)));
    h1.send(&[net_on(11), open.clone(), a.local(net), b.remote(net, &h2)]).await;
    h2.send(&[net_on(12), open, b.local(net), a.remote(net, &h1)]).await;
    h1.acquire(&a).await;
    h2.acquire(&b).await;
    let (ga, gb) = (lab.static_guest(&h1, net, &a), lab.static_guest(&h2, net, &b));
    // Out: the outside knows no route to 10.0.0.0/24, so an answer means that the source was translated.
    ga.reaches("203.0.113.1");
    gb.reaches("203.0.113.1");
    let outside = |to: &str| run(&format!("ip netns exec {} ping -n -c 1 -W 1 {to}", lab.outside())).0;
    assert!(!outside("203.0.113.50"), "nobody's yet");
    h1.send(&[floating(fip, 1, net, &a, "203.0.113.50")]).await;
    eventually("the floating IP answers", || outside("203.0.113.50"));
    let neighbour = || run(&format!("ip -n {} neigh show 203.0.113.50", lab.outside())).1;
    assert!(neighbour().contains("02:00:00:00:02:0b"), "by the first host: {}", neighbour());
    // From the inside the floating IP is the source.
    let observed =
        crate::rig::inside(&lab.outside(), || std::net::TcpListener::bind("203.0.113.1:5000").expect("bound"));
    let listener = observed.join().expect("thread");
    let accepted = std::thread::spawn(move || listener.accept().expect("accepted").1.ip().to_string());
    crate::rig::inside(&ga.ns, || std::net::TcpStream::connect("203.0.113.1:5000").expect("connected"))
        .join()
        .expect("thread");
    assert_eq!(accepted.join().expect("thread"), "203.0.113.50");
    // A neighbour reaches it by its floating address too.
    gb.reaches("203.0.113.50");
    // Moved: the old host lets go, the new one announces; the outside's neighbour entry is overwritten, not asked for.
    h1.send(&[tombstone(fip.to_string(), sync::ObjectKind::FloatingIp, (1, 2))]).await;
    h2.send(&[floating(fip, 2, net, &b, "203.0.113.50")]).await;
    eventually("the floating IP answers from the other host", || {
        outside("203.0.113.50") && neighbour().contains("02:00:00:00:02:0c")
    });
    assert!(ga.pings("203.0.113.1"), "without its floating IP, by source NAT again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_released_floating_ip_cuts_its_sessions_and_protected_addresses_stay_out_of_reach() {
    if !root() {
        return;
    }
    let lab = Lab::new().await;
    let host = lab.protected_host(1, Wiring::Veth, "203.0.113.200/32").await;
    let (net, sg) = (NetworkId::new(), SecurityGroupId::new());
    let a = TestPort::new(1, &["10.0.0.5"], &[sg]);
    let fip = FloatingIpId::new();
    host.send(&[
        network(net, 100, &["10.0.0.0/24"], &[], Some(uplink(11))),
        group(sg, 1, &open_rules()),
        a.local(net),
        floating(fip, 1, net, &a, "203.0.113.50"),
    ])
    .await;
    host.acquire(&a).await;
    let ga = lab.static_guest(&host, net, &a);
    crate::rig::must(&format!("ip -n {} addr add 203.0.113.200/24 dev eth0", lab.outside()));
    ga.reaches("203.0.113.1");
    assert!(!ga.pings("203.0.113.200"), "a manager's address");
    assert!(host.drops(net, &a, DropReason::Protected).await > 0, "and counted");
    let outside = lab.outside();
    eventually("the protected machine may ask", || {
        run(&format!("ip netns exec {outside} ping -n -c 1 -W 1 -I 203.0.113.200 203.0.113.50")).0
    });
    // A session by the floating IP, both ends of it waiting.
    let listener = crate::rig::inside(&ga.ns, || std::net::TcpListener::bind("10.0.0.5:22").expect("bound"));
    let listener = listener.join().expect("thread");
    let connect = || std::net::TcpStream::connect("203.0.113.50:22").expect("connected");
    let mut session = crate::rig::inside(&lab.outside(), connect).join().expect("thread");
    let (mut served, _) = listener.accept().expect("accepted");
    served.set_read_timeout(Some(std::time::Duration::from_millis(700))).expect("set");
    let mut byte = [0];
    session.write_all(&[1]).expect("sent");
    served.read_exact(&mut byte).expect("it passes");
    host.send(&[tombstone(fip.to_string(), sync::ObjectKind::FloatingIp, (1, 2))]).await;
    session.write_all(&[2]).expect("sent");
    assert!(served.read_exact(&mut byte).is_err(), "nothing of the session passes any more");
    // The host's own addresses needn't be said.
    crate::rig::must(&format!("ip -n {} addr add 203.0.113.201/24 dev br-ext", host.ns));
    ga.reaches("203.0.113.201");
    let host = TestHost::restart(host.kill().await);
    host.settled().await;
    let known = host.drops(net, &a, DropReason::Protected).await;
    assert!(!ga.pings("203.0.113.201"), "the host's address");
    assert!(host.drops(net, &a, DropReason::Protected).await > known, "and counted");
    ga.reaches("203.0.113.1");
}
