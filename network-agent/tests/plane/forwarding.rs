//! Who reaches whom.

use crate::rig::{Lab, TestPort, group, network, open_rules, root};
use domain::{NetworkId, SecurityGroupId};
use network_agent::model::state::Wiring;

#[tokio::test(flavor = "multi_thread")]
async fn neighbours_and_gateway_on_one_host_both_families() {
    if !root() {
        return;
    }
    let lab = Lab::new().await;
    let host = lab.host(1, Wiring::Veth).await;
    let (net, sg) = (NetworkId::new(), SecurityGroupId::new());
    let a = TestPort::new(1, &["10.0.0.5", "fd00::5"], &[sg]);
    let b = TestPort::new(2, &["10.0.0.6", "fd00::6"], &[sg]);
    host.send(&[
        network(net, 100, &["10.0.0.0/24", "fd00::/64"], &[], None),
        group(sg, 1, &open_rules()),
        a.local(net),
        b.local(net),
    ])
    .await;
    let (ga, gb) = (lab.static_guest(&host, net, &a), lab.static_guest(&host, net, &b));
    assert!(!ga.pings("10.0.0.6"), "a port that isn't handed over doesn't answer");
    host.acquire(&a).await;
    host.acquire(&b).await;
    for to in ["10.0.0.1", "10.0.0.6", "fd00::1", "fd00::6"] {
        ga.reaches(to);
    }
    gb.reaches("10.0.0.5");
    assert!(!ga.pings("10.0.0.77"), "an address that nobody has");
    host.host.release(b.id, b.instance, b.epoch).await.expect("released");
    assert!(!ga.pings("10.0.0.6"), "released: it no longer answers");
}

#[tokio::test(flavor = "multi_thread")]
async fn across_hosts_with_large_packets_and_tcp_and_the_same_range_twice() {
    if !root() {
        return;
    }
    let lab = Lab::new().await;
    let (h1, h2) = (lab.host(1, Wiring::Veth).await, lab.host(2, Wiring::Veth).await);
    let (red, blue, sg) = (NetworkId::new(), NetworkId::new(), SecurityGroupId::new());
    let cidrs = ["10.0.0.0/24", "fd00::/64"];
    let a = TestPort::new(1, &["10.0.0.5", "fd00::5"], &[sg]);
    let b = TestPort::new(2, &["10.0.0.6", "fd00::6"], &[sg]);
    // The same addresses in another network.
    let c = TestPort::new(3, &["10.0.0.5"], &[sg]);
    let d = TestPort::new(4, &["10.0.0.7"], &[sg]);
    let open = group(sg, 1, &open_rules());
    let (nr, nb) = (network(red, 100, &cidrs, &[], None), network(blue, 101, &cidrs, &[], None));
    h1.send(&[
        nr.clone(),
        nb.clone(),
        open.clone(),
        a.local(red),
        b.remote(red, &h2),
        c.local(blue),
        d.remote(blue, &h2),
    ])
    .await;
    h2.send(&[nr, nb, open, b.local(red), a.remote(red, &h1), d.local(blue), c.remote(blue, &h1)]).await;
    for (host, port) in [(&h1, &a), (&h2, &b), (&h1, &c), (&h2, &d)] {
        host.acquire(port).await;
    }
    let (ga, gb) = (lab.static_guest(&h1, red, &a), lab.static_guest(&h2, red, &b));
    let (gc, _gd) = (lab.static_guest(&h1, blue, &c), lab.static_guest(&h2, blue, &d));
    ga.reaches("10.0.0.6");
    ga.reaches("fd00::6");
    gb.reaches("fd00::5");
    gc.reaches("10.0.0.7");
    assert!(!ga.pings("10.0.0.7"), "the other network's instance is not seen");
    assert!(!gc.pings("10.0.0.6"), "nor the other way around");
    // The largest packet at the announced MTU passes whole, one more doesn't.
    assert!(ga.exec("ping -n -c 1 -W 2 -M do -s 1422 10.0.0.6").0);
    assert!(ga.exec("ping -n -c 1 -W 2 -M do -s 1402 fd00::6").0);
    assert!(!ga.exec("ping -n -c 1 -W 1 -M do -s 1423 10.0.0.6").0);
    // A megabyte of TCP.
    let listening = crate::rig::inside(&gb.ns, || std::net::TcpListener::bind("10.0.0.6:5001").expect("bound"))
        .join()
        .expect("thread");
    let sink = std::thread::spawn(move || {
        let (mut stream, _) = listening.accept().expect("accepted");
        std::io::copy(&mut stream, &mut std::io::sink()).expect("read")
    });
    crate::rig::inside(&ga.ns, || {
        let mut stream = std::net::TcpStream::connect("10.0.0.6:5001").expect("connected");
        std::io::Write::write_all(&mut stream, &vec![7; 1 << 20]).expect("sent");
    })
    .join()
    .expect("thread");
    assert_eq!(sink.join().expect("thread"), 1 << 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn peered_networks_reach_each_other_also_across_hosts_until_one_ends_it() {
    if !root() {
        return;
    }
    let lab = Lab::new().await;
    let (h1, h2) = (lab.host(1, Wiring::Veth).await, lab.host(2, Wiring::Veth).await);
    let (red, blue, sg) = (NetworkId::new(), NetworkId::new(), SecurityGroupId::new());
    let a = TestPort::new(1, &["10.1.0.5"], &[sg]);
    let b = TestPort::new(2, &["10.2.0.5"], &[sg]);
    let c = TestPort::new(3, &["10.2.0.6"], &[sg]);
    let open = group(sg, 1, &open_rules());
    let (nr, nb) =
        (network(red, 100, &["10.1.0.0/24"], &[blue], None), network(blue, 101, &["10.2.0.0/24"], &[red], None));
    h1.send(&[nr.clone(), nb.clone(), open.clone(), a.local(red), b.local(blue), c.remote(blue, &h2)]).await;
    h2.send(&[nr, nb, open, a.remote(red, &h1), b.remote(blue, &h1), c.local(blue)]).await;
    for (host, port) in [(&h1, &a), (&h1, &b), (&h2, &c)] {
        host.acquire(port).await;
    }
    let ga = lab.static_guest(&h1, red, &a);
    let _others = (lab.static_guest(&h1, blue, &b), lab.static_guest(&h2, blue, &c));
    ga.reaches("10.2.0.5");
    ga.reaches("10.2.0.6");
    let ended = crate::rig::network_at(2, blue, 101, &["10.2.0.0/24"], &[], None);
    h1.send(&[ended]).await;
    assert!(!ga.pings("10.2.0.5"), "peering takes both");
}
