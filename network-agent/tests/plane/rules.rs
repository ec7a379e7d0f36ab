//! What passes and what doesn't.

use crate::rig::{Guest, Lab, TestPort, eventually, group, inside, network, open_rules, out_rules, root, tcp_in};
use domain::{NetworkId, SecurityGroupId};
use network_agent::{model::state::Wiring, nft::DropReason};
use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    time::Duration,
};

fn connects(guest: &Guest, to: &'static str) -> bool {
    inside(&guest.ns, move || {
        TcpStream::connect_timeout(&to.parse().expect("address"), Duration::from_millis(700)).is_ok()
    })
    .join()
    .expect("thread")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_opens_and_closes_and_its_sessions_with_it() {
    if !root() {
        return;
    }
    let lab = Lab::new().await;
    let host = lab.host(1, Wiring::Veth).await;
    let (net, client, server) = (NetworkId::new(), SecurityGroupId::new(), SecurityGroupId::new());
    let a = TestPort::new(1, &["10.0.0.5"], &[client]);
    let b = TestPort::new(2, &["10.0.0.6"], &[server]);
    let closed = group(server, 1, &out_rules());
    let opened = [out_rules(), vec![tcp_in(22)]].concat();
    host.send(&[
        network(net, 100, &["10.0.0.0/24"], &[], None),
        group(client, 1, &out_rules()),
        closed,
        a.local(net),
        b.local(net),
    ])
    .await;
    host.acquire(&a).await;
    host.acquire(&b).await;
    let (ga, gb) = (lab.static_guest(&host, net, &a), lab.static_guest(&host, net, &b));
    ga.reaches("10.0.0.1");
    let listener = inside(&gb.ns, || TcpListener::bind("10.0.0.6:22").expect("bound")).join().expect("thread");
    let echo = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("accepted");
        let mut byte = [0];
        while stream.read_exact(&mut byte).is_ok() {
            stream.write_all(&byte).expect("echoed");
        }
    });
    assert!(!connects(&ga, "10.0.0.6:22"), "closed");
    assert!(host.drops(net, &b, DropReason::SecurityGroup).await > 0, "and counted");
    host.send(&[group(server, 2, &opened)]).await;
    let mut session = inside(&ga.ns, || TcpStream::connect("10.0.0.6:22").expect("open")).join().expect("thread");
    session.set_read_timeout(Some(Duration::from_millis(700))).expect("set");
    let mut answers = |byte: u8| {
        session.write_all(&[byte]).expect("sent");
        session.read_exact(&mut [0]).is_ok()
    };
    assert!(answers(1));
    host.send(&[group(server, 3, &out_rules())]).await;
    assert!(!connects(&ga, "10.0.0.6:22"), "closed again");
    assert!(!answers(2), "also for what was open");
    // By membership: who is in the client's group may.
    let members = domain::network::Remote::Group(client);
    let by_group = domain::network::SecurityRule { remote: members, ..tcp_in(22) };
    host.send(&[group(server, 4, &[out_rules(), vec![by_group]].concat())]).await;
    assert!(connects(&ga, "10.0.0.6:22"), "a member of the named group");
    let moved = TestPort { groups: vec![server], generation: 2, ..a.clone() };
    host.send(&[moved.local(net)]).await;
    assert!(!connects(&ga, "10.0.0.6:22"), "no longer a member");
    drop(session);
    drop(echo);
}

#[tokio::test(flavor = "multi_thread")]
async fn forgers_are_dropped_and_counted() {
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
    host.acquire(&a).await;
    host.acquire(&b).await;
    let (ga, _gb) = (lab.static_guest(&host, net, &a), lab.static_guest(&host, net, &b));
    ga.reaches("10.0.0.6");
    ga.reaches("fd00::6");
    let mut known = host.drops(net, &a, DropReason::Spoof).await;
    // Another's address, of both families.
    ga.must("ip addr add 10.0.0.99/32 dev eth0");
    ga.must("ip addr add fd00::99/128 dev eth0 nodad");
    for command in ["ping -n -c 1 -W 1 -I 10.0.0.99 10.0.0.6", "ping -n -c 1 -W 1 -I fd00::99 fd00::6"] {
        assert!(!ga.exec(command).0, "{command}");
        let now = host.drops(net, &a, DropReason::Spoof).await;
        assert!(now > known, "{command} is counted");
        known = now;
    }
    // Another MAC, with the right address.
    ga.must("ip link set eth0 address 02:00:00:00:01:77");
    ga.must("ip neigh replace 10.0.0.6 lladdr 02:00:5e:00:00:01 dev eth0 nud permanent");
    assert!(!ga.exec("ping -n -c 1 -W 1 -I 10.0.0.5 10.0.0.6").0);
    assert!(host.drops(net, &a, DropReason::Spoof).await > known);
    ga.must(&format!("ip link set eth0 address {}", a.mac));
    // An answer of a DHCP server, and a router's advertisement.
    inside(&ga.ns, || {
        let socket = std::net::UdpSocket::bind("10.0.0.5:67").expect("bound");
        socket.send_to(b"a lease", "10.0.0.6:68").expect("sent");
    })
    .join()
    .expect("thread");
    assert!(host.drops(net, &a, DropReason::DhcpServer).await > 0);
    inside(&ga.ns, || {
        let socket = network_agent::link::packet_info::router_socket().expect("socket");
        let index = nix::net::if_::if_nametoindex("eth0").expect("index");
        let all_nodes = "[ff02::1]:0".parse().expect("address");
        let mut advertisement = vec![0; 16];
        advertisement[0] = 134;
        eventually("the guest has a link-local address", || {
            network_agent::link::packet_info::send(&socket, &advertisement, all_nodes, index, None).is_ok()
        });
    })
    .join()
    .expect("thread");
    let began = std::time::Instant::now();
    while host.drops(net, &a, DropReason::RouterAdvertisement).await == 0 {
        assert!(began.elapsed() < crate::rig::TIMEOUT, "the advertisement is counted");
    }
    // What isn't for guests on the router itself.
    assert!(!connects(&ga, "10.0.0.1:22"));
    assert!(host.drops(net, &a, DropReason::Host).await > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_limit_holds_and_changes_in_place() {
    if !root() {
        return;
    }
    let lab = Lab::new().await;
    let host = lab.host(1, Wiring::Veth).await;
    let (net, sg) = (NetworkId::new(), SecurityGroupId::new());
    // Less than its own burst passes in the time of the test: what is beyond the burst is dropped.
    let a = TestPort { rate: 8_000, ..TestPort::new(1, &["10.0.0.5"], &[sg]) };
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
    let (ga, gb) = (lab.static_guest(&host, net, &a), lab.static_guest(&host, net, &b));
    ga.reaches("10.0.0.6");
    const DATAGRAMS: usize = 600;
    let flood = |guest: &Guest| {
        inside(&guest.ns, || {
            let socket = std::net::UdpSocket::bind("10.0.0.5:0").expect("bound");
            for _ in 0..DATAGRAMS {
                let _ = socket.send_to(&[0; 1400], "10.0.0.6:9");
            }
        })
        .join()
        .expect("thread");
    };
    let receiver = inside(&gb.ns, || std::net::UdpSocket::bind("10.0.0.6:9").expect("bound")).join().expect("thread");
    flood(&ga);
    let over = host.drops(net, &a, DropReason::Rate).await;
    assert!((300..=DATAGRAMS as u64).contains(&over), "256 KiB pass, the rest doesn't: {over}");
    let freed = TestPort { rate: 0, generation: 2, ..a.clone() };
    host.send(&[freed.local(net)]).await;
    flood(&ga);
    assert_eq!(host.drops(net, &a, DropReason::Rate).await, over, "without a limit nothing more is dropped");
    let limited = TestPort { rate: 16_000, generation: 3, ..a.clone() };
    host.send(&[limited.local(net)]).await;
    let changed = TestPort { rate: 32_000, generation: 4, ..a.clone() };
    host.send(&[changed.local(net)]).await;
    drop(receiver);
}
