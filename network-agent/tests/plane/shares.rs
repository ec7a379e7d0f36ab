//! What one instance can use up of what all share: neighbours, tracked flows, descriptors of the services.

use crate::rig::{Guest, Lab, TestHost, TestPort, eventually, group, inside, must, network, open_rules, root, uplink};
use domain::{NetworkId, SecurityGroupId, network::MacAddr};
use network_agent::{
    link::frame,
    model::{names, state::Wiring},
    nft::{DropReason, render::FLOWS_PER_PORT},
};
use proto::network::v1 as pb;
use std::{
    io::{Read, Write},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

const MANY: u16 = 500;

struct Two {
    _lab: Lab,
    host: TestHost,
    net: NetworkId,
    greedy: TestPort,
    guests: [Guest; 2],
}

async fn two(allowed: &[&str]) -> Two {
    let lab = Lab::new().await;
    let host = lab.host(1, Wiring::Veth).await;
    let (net, sg) = (NetworkId::new(), SecurityGroupId::new());
    let greedy = TestPort {
        allowed: allowed.iter().map(ToString::to_string).collect(),
        ..TestPort::new(1, &["10.0.0.5", "fd00::5"], &[sg])
    };
    let other = TestPort::new(2, &["10.0.0.6", "fd00::6"], &[sg]);
    host.send(&[
        network(net, 100, &["10.0.0.0/24", "fd00::/64"], &[], None),
        group(sg, 1, &open_rules()),
        greedy.local(net),
        other.local(net),
    ])
    .await;
    host.acquire(&greedy).await;
    host.acquire(&other).await;
    let guests = [lab.static_guest(&host, net, &greedy), lab.static_guest(&host, net, &other)];
    guests[0].reaches("10.0.0.6");
    guests[1].reaches("fd00::5");
    Two { _lab: lab, host, net, greedy, guests }
}

fn sum(parts: &[&[u8]]) -> u16 {
    let bytes = parts.concat();
    let pairs = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let folded: u32 = pairs.sum();
    !(((folded & 0xffff) + (folded >> 16)) as u16)
}

/// Asks who has the router's address, with the asker's own link-layer address.
fn solicitation(mac: MacAddr, from: Ipv6Addr, router: Ipv6Addr) -> Vec<u8> {
    let low = router.octets();
    let group =
        Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(low[13]), u16::from_be_bytes([low[14], low[15]]));
    let mut body = [&[135, 0, 0, 0, 0, 0, 0, 0][..], &router.octets(), &[1, 1], &mac.0].concat();
    let length = (body.len() as u16).to_be_bytes();
    let check = sum(&[&from.octets(), &group.octets(), &[0, 0], &length, &[0, 0, 0, 58], &body]);
    body[2..4].copy_from_slice(&check.to_be_bytes());
    let to = [0x33, 0x33, 0xff, low[13], low[14], low[15]];
    let header = [&[0x60, 0, 0, 0][..], &length, &[58, 255], &from.octets(), &group.octets()].concat();
    [&to[..], &mac.0, &[0x86, 0xdd], &header, &body].concat()
}

fn arp_request(mac: MacAddr, from: Ipv4Addr, router: Ipv4Addr) -> Vec<u8> {
    let head = [&[0xff; 6][..], &mac.0, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &mac.0, &from.octets()].concat();
    [&head[..], &[0; 6], &router.octets()].concat()
}

fn send_all(guest: &Guest, frames: Vec<Vec<u8>>) {
    inside(&guest.ns, move || {
        let socket = frame::open().expect("a raw socket");
        let index = nix::net::if_::if_nametoindex("eth0").expect("index");
        for bytes in frames {
            frame::send(&socket, index, &bytes).expect("sent");
        }
    })
    .join()
    .expect("thread");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_adds_few_neighbours_however_many_addresses_it_speaks_with() {
    if !root() {
        return;
    }
    let Two { _lab, host, net, greedy, guests } = two(&["10.9.0.0/16", "fd00:9::/64"]).await;
    let tenant = host.tenant(net);
    let link = names::port_link(greedy.id);
    let count = || {
        let entries = |v6: &str| must(&format!("ip -n {tenant} {v6} neigh show dev {link} nud all")).lines().count();
        entries("") + entries("-6")
    };
    let before = count();
    let router: Ipv6Addr = "fd00::1".parse().expect("address");
    type Packet<'a> = Box<dyn Fn(u16) -> Vec<u8> + 'a>;
    let kinds: [(&str, Packet<'_>); 3] = [
        ("link-local", Box::new(|n| solicitation(greedy.mac, Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 7, n), router))),
        ("allowed, IPv6", Box::new(|n| solicitation(greedy.mac, Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, n), router))),
        (
            "allowed, IPv4",
            Box::new(|n| {
                let [high, low] = n.to_be_bytes();
                arp_request(greedy.mac, Ipv4Addr::new(10, 9, high, low), Ipv4Addr::new(10, 0, 0, 1))
            }),
        ),
    ];
    for (kind, make) in kinds {
        let known = count();
        send_all(&guests[0], (1..=MANY).map(make).collect());
        // The kernel has taken in what was sent before an answer that was asked for after it.
        guests[0].reaches("10.0.0.1");
        let added = count().saturating_sub(known);
        assert!(added <= 100, "{kind}: {added} neighbours of {MANY}");
    }
    let dropped = host.drops(net, &greedy, DropReason::Spoof).await + host.drops(net, &greedy, DropReason::Rate).await;
    assert!(dropped > u64::from(MANY), "and what is dropped is counted: {dropped}, before {before}");
    guests[1].reaches("fd00::5");
    guests[1].reaches("10.0.0.5");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_may_choose_its_link_local_address() {
    if !root() {
        return;
    }
    let Two { _lab, guests, .. } = two(&[]).await;
    let gateway: MacAddr = crate::rig::GATEWAY_MAC.parse().expect("mac");
    let router = format!("{}%eth0", gateway.link_local());
    guests[0].must("ip -6 addr flush dev eth0 scope link");
    guests[0].must("ip addr add fe80::1:2:3:4/64 dev eth0 nodad");
    // The one that it had before is forgotten first.
    eventually("it speaks with its own", || guests[0].pings(&router));
}

/// Each address of the external network that somebody sends to is a neighbour that the kernel looks for, whether anybody has it or not.
#[tokio::test(flavor = "multi_thread")]
async fn an_instance_has_few_neighbours_looked_for_outside_however_many_addresses_it_sends_to() {
    if !root() {
        return;
    }
    let lab = Lab::new().await;
    let host = lab.host(1, Wiring::Veth).await;
    let (net, sg) = (NetworkId::new(), SecurityGroupId::new());
    let [greedy, other] = [5, 6].map(|n| TestPort::new(n, &[&format!("10.0.0.{n}")], &[sg]));
    let wide = pb::Uplink { addresses: vec!["203.0.113.11/16".into()], ..uplink(11) };
    host.send(&[
        network(net, 100, &["10.0.0.0/24"], &[], Some(wide)),
        group(sg, 1, &open_rules()),
        greedy.local(net),
        other.local(net),
    ])
    .await;
    host.acquire(&greedy).await;
    host.acquire(&other).await;
    let guests = [&greedy, &other].map(|port| lab.static_guest(&host, net, port));
    guests[0].reaches("203.0.113.1");
    let scan = || {
        inside(&guests[0].ns, || {
            let socket = UdpSocket::bind("0.0.0.0:0").expect("bound");
            for n in 0..MANY {
                let to = Ipv4Addr::from(u32::from(Ipv4Addr::new(203, 0, 1, 1)) + u32::from(n));
                // What is dropped, and an answer that the host can't be reached, are no error of the sender's.
                let _ = socket.send_to(b"anybody?", SocketAddr::from((to, 9)));
            }
        })
        .join()
        .expect("thread");
        // The kernel has taken in what was sent before an answer that was asked for after it.
        guests[0].reaches("203.0.113.1");
    };
    let tenant = host.tenant(net);
    let count = || must(&format!("ip -n {tenant} neigh show dev {} nud all", names::UPLINK)).lines().count();
    let before = count();
    scan();
    let added = count().saturating_sub(before);
    assert!((1..=100).contains(&added), "{added} neighbours of {MANY}");
    assert!(host.drops(net, &greedy, DropReason::Rate).await > 0);
    assert!(guests[1].pings("203.0.113.1"), "another instance notices nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instances_flows_are_limited_and_anothers_begin() {
    if !root() {
        return;
    }
    let Two { _lab, host, net, greedy, guests } = two(&[]).await;
    let tenant = host.tenant(net);
    let tracked = || -> u32 {
        let read = || std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count");
        inside(&tenant, read).join().expect("thread").expect("readable").trim().parse().expect("a number")
    };
    let mut round = 0;
    let mut send_many = || {
        round += 1;
        let source = SocketAddr::from(([10, 0, 0, 5], 20_000 + round));
        let send = move || {
            let socket = UdpSocket::bind(source).expect("bound");
            for port in 1..=10_000u16 {
                // What the other end refuses comes back as an error of the next one.
                let _ = socket.send_to(b"x", ("10.0.0.6", port));
            }
        };
        inside(&guests[0].ns, send).join().expect("thread");
    };
    eventually("it has as many as it may", || {
        send_many();
        tracked() >= FLOWS_PER_PORT
    });
    send_many();
    let most = tracked();
    // Besides: what the test itself began, and what the other end says of itself.
    assert!(most <= FLOWS_PER_PORT + 500, "{most} flows");
    assert!(host.drops(net, &greedy, DropReason::Rate).await > 0, "and counted");
    guests[1].reaches("10.0.0.1");
    assert!(guests[1].pings("fd00::5"), "another port's flows begin");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_holds_connections_to_the_services_leaves_others_theirs() {
    if !root() {
        return;
    }
    let Two { _lab, guests, .. } = two(&[]).await;
    let connect = |to: &str| {
        let to: SocketAddr = to.parse().expect("address");
        move || TcpStream::connect_timeout(&to, Duration::from_secs(5))
    };
    let mut held = Vec::new();
    for to in ["169.254.169.254:80", "10.0.0.1:53"] {
        for _ in 0..150 {
            held.extend(inside(&guests[0].ns, connect(to)).join().expect("thread"));
        }
    }
    assert!(held.len() >= 32, "it gets its share");
    let mut stream =
        inside(&guests[1].ns, connect("169.254.169.254:80")).join().expect("thread").expect("another connects");
    stream.set_read_timeout(Some(crate::rig::TIMEOUT)).expect("set");
    stream.write_all(b"GET /latest/meta-data/hostname HTTP/1.0\r\n\r\n").expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    assert!(answer.contains("200 OK") && answer.contains("vm2"), "{answer}");
    // Those beyond the share were closed at once.
    let closed = held.iter_mut().filter_map(|stream| {
        stream.set_read_timeout(Some(Duration::from_millis(1))).expect("set");
        match stream.read(&mut [0]) {
            Ok(0) => Some(()),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Some(()),
            Ok(_) | Err(_) => None,
        }
    });
    assert!(closed.count() >= 200);
}
