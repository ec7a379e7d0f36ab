//! An address that one of several ports has at a time: its port may send from it, and no other may (docs/adr, virtual IPs).

use crate::rig::{Guest, Lab, TestHost, TestPort, eventually, group, inside, network, open_rules, root};
use domain::{NetworkId, SecurityGroupId};
use network_agent::{model::state::Wiring, nft::DropReason};
use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
};

const VIRTUAL: [&str; 2] = ["10.0.0.100", "fd00::100"];
const PORT: u16 = 8080;

/// A member has the addresses whether it holds them or not, and says its name to whoever connects.
fn member(guest: &Guest, name: &'static str) {
    guest.must(&format!("ip addr add {}/32 dev lo", VIRTUAL[0]));
    guest.must(&format!("ip addr add {}/128 dev lo", VIRTUAL[1]));
    let (ready, listening) = std::sync::mpsc::channel();
    // The thread ends with the process.
    drop(inside(&guest.ns, move || {
        let listener = TcpListener::bind(("::", PORT)).expect("bound");
        ready.send(()).expect("awaited");
        for stream in listener.incoming() {
            let _ = stream.and_then(|mut stream| stream.write_all(name.as_bytes()));
        }
    }));
    listening.recv().expect("it listens");
}

/// Who answers at the address.
fn holder(client: &Guest, address: &'static str) -> String {
    let exchange = move || -> std::io::Result<String> {
        let timeout = std::time::Duration::from_secs(1);
        let mut stream =
            TcpStream::connect_timeout(&(address.parse::<std::net::IpAddr>().expect("ip"), PORT).into(), timeout)?;
        stream.set_read_timeout(Some(timeout))?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    inside(&client.ns, exchange).join().expect("thread").unwrap_or_default()
}

fn pings_from(guest: &Guest, source: &str, to: &str) -> bool {
    guest.exec(&format!("ping -n -c 1 -W 1 -I {source} {to}")).0
}

fn with_the_address(port: &TestPort, generation: i64, holds: bool) -> TestPort {
    let allowed = if holds { VIRTUAL.map(str::to_owned).to_vec() } else { Vec::new() };
    TestPort { generation, allowed, ..port.clone() }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_moves_is_answered_by_its_new_holder_and_the_old_one_is_not_believed_even_if_its_host_is_not_told()
 {
    if !root() {
        return;
    }
    let lab = Lab::new().await;
    let hosts = [lab.host(1, Wiring::Veth).await, lab.host(2, Wiring::Veth).await, lab.host(3, Wiring::Veth).await];
    let (net, sg) = (NetworkId::new(), SecurityGroupId::new());
    let ports = [
        TestPort::new(1, &["10.0.0.5", "fd00::5"], &[sg]),
        TestPort::new(2, &["10.0.0.6", "fd00::6"], &[sg]),
        TestPort::new(3, &["10.0.0.7", "fd00::7"], &[sg]),
    ];
    // What a host is told: all ports, of which one holds the address.
    let view = |at: usize, generation: i64, holds: usize| -> Vec<_> {
        let observed = ports.iter().enumerate().map(|(of, port)| {
            let port = with_the_address(port, generation, of == holds);
            if of == at { port.local(net) } else { port.remote(net, &hosts[of]) }
        });
        observed.collect()
    };
    for (at, host) in hosts.iter().enumerate() {
        let subnets = ["10.0.0.0/24", "fd00::/64"];
        let first = vec![network(net, 100, &subnets, &[], None), group(sg, 1, &open_rules())];
        host.send(&[first, view(at, 1, 0)].concat()).await;
        host.acquire(&ports[at]).await;
    }
    let guest = |at: usize| lab.static_guest(&hosts[at], net, &ports[at]);
    let (old, new, client) = (guest(0), guest(1), guest(2));
    member(&old, "old");
    member(&new, "new");
    let answered_by = |name: &str| VIRTUAL.iter().all(|address| holder(&client, address) == name);
    eventually("the holder answers in both families", || answered_by("old"));
    for (source, to) in VIRTUAL.iter().zip(["10.0.0.7", "fd00::7"]) {
        eventually("the holder may send from it", || pings_from(&old, source, to));
        assert!(!pings_from(&new, source, to), "who doesn't hold {source} may not");
    }

    // The old holder's host is cut off from its managers: the others are told alone.
    hosts[1].send(&view(1, 2, 1)).await;
    hosts[2].send(&view(2, 2, 1)).await;
    eventually("the new holder answers", || answered_by("new"));
    for (source, to) in VIRTUAL.iter().zip(["10.0.0.7", "fd00::7"]) {
        assert!(pings_from(&new, source, to), "the new holder may send from {source}");
        assert!(!pings_from(&old, source, to), "what comes from the old holder's host with {source} is dropped");
    }
    old.reaches("10.0.0.7");
    assert!(answered_by("new"), "the old holder's packets change nothing");

    // Once it hears of it, it stops its own.
    hosts[0].send(&view(0, 2, 1)).await;
    let spoofed = spoofs(&hosts[0], net, &ports[0]).await;
    assert!(!pings_from(&old, VIRTUAL[0], "10.0.0.7"));
    assert!(spoofs(&hosts[0], net, &ports[0]).await > spoofed, "it is dropped where it was sent");
    eventually("the old holder reaches the new one by the address", || {
        // It has the address itself; without it, it is like every other guest.
        old.exec(&format!("ip addr del {}/32 dev lo", VIRTUAL[0]));
        holder(&old, VIRTUAL[0]) == "new"
    });
}

async fn spoofs(host: &TestHost, net: NetworkId, port: &TestPort) -> u64 {
    host.drops(net, port, DropReason::Spoof).await
}
