//! What once was let in and no longer is: each way to let in less ends the sessions that it is about, and no others.

use crate::rig::{
    Guest, Lab, TestHost, TestPort, eventually, floating, group, inside, network, open_rules, out_rules, root, rule,
    tombstone, uplink,
};
use domain::{
    FloatingIpId, NetworkId, SecurityGroupId,
    network::{Direction, Ethertype, Match, PortRange, Protocol, Remote, SecurityRule},
};
use network_agent::model::state::Wiring;
use proto::sync::v1::{self as sync, DesiredObject};
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

const PORT: u16 = 2222;
/// For an answer that doesn't come.
const SILENCE: Duration = Duration::from_millis(700);

/// Answers each byte, to whoever connects.
pub fn echo(ns: &str, at: &str) {
    let addr = SocketAddr::new(at.parse().expect("address"), PORT);
    let listener = inside(ns, move || TcpListener::bind(addr).expect("bound")).join().expect("thread");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            std::thread::spawn(move || {
                let mut byte = [0];
                while stream.read_exact(&mut byte).is_ok() && stream.write_all(&byte).is_ok() {}
            });
        }
    });
}

pub struct Session(TcpStream);

impl Session {
    pub fn open(ns: &str, to: &str) -> Self {
        let addr = SocketAddr::new(to.parse().expect("address"), PORT);
        let connect = move || TcpStream::connect_timeout(&addr, crate::rig::TIMEOUT);
        let stream = inside(ns, connect).join().expect("thread").expect("connected");
        stream.set_read_timeout(Some(SILENCE)).expect("set");
        let mut session = Self(stream);
        assert!(session.answers(), "a session that is let in answers");
        session
    }

    pub fn answers(&mut self) -> bool {
        self.0.write_all(&[1]).is_ok() && self.0.read_exact(&mut [0]).is_ok()
    }

    /// It isn't ended at once where rules shrink often.
    pub fn ends(&mut self, why: &str) {
        eventually(&format!("a session ends: {why}"), || !self.answers());
    }
}

#[derive(Clone)]
struct Setup {
    server_rules: Vec<SecurityRule>,
    client_rules: Vec<SecurityRule>,
    server_groups: Vec<SecurityGroupId>,
    client_groups: Vec<SecurityGroupId>,
    server_group_exists: bool,
}

/// TCP in by `ports` from `remote`, in both families.
fn tcp_from(ports: [u16; 2], remote: impl Fn(Ethertype) -> Remote) -> Vec<SecurityRule> {
    let ports = Some(PortRange { first: ports[0], last: ports[1] });
    let matches = Match::Protocol { protocol: Protocol::Tcp, ports, icmp_type: None, icmp_code: None };
    let each = Ethertype::ALL.map(|family| rule(Direction::Ingress, family, matches, remote(family)));
    [out_rules(), each.to_vec()].concat()
}

fn block(family: Ethertype, v4: &str, v6: &str) -> Remote {
    Remote::Cidr(if family == Ethertype::Ipv4 { v4 } else { v6 }.parse().expect("cidr"))
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_lets_in_less_ends_its_sessions_and_no_others() {
    if !root() {
        return;
    }
    let lab = Lab::new().await;
    let host = lab.host(1, Wiring::Veth).await;
    let net = NetworkId::new();
    let [server, client, trusted, other, open] = std::array::from_fn(|_| SecurityGroupId::new());
    let a = TestPort::new(1, &["10.0.0.5", "fd00::5"], &[]);
    let b = TestPort::new(2, &["10.0.0.6", "fd00::6"], &[]);
    let c = TestPort::new(3, &["10.0.0.7", "fd00::7"], &[open]);
    let d = TestPort::new(4, &["10.0.0.8", "fd00::8"], &[open]);
    let base = Setup {
        server_rules: tcp_from([2000, 3000], |_| Remote::Any),
        client_rules: out_rules(),
        server_groups: vec![server],
        client_groups: vec![client],
        server_group_exists: true,
    };
    let by_block =
        Setup { server_rules: tcp_from([2000, 3000], |f| block(f, "10.0.0.0/24", "fd00::/64")), ..base.clone() };
    let by_group = Setup {
        server_rules: tcp_from([2000, 3000], |_| Remote::Group(trusted)),
        client_groups: vec![client, trusted],
        ..base.clone()
    };
    let udp = Match::Protocol { protocol: Protocol::Udp, ports: None, icmp_type: None, icmp_code: None };
    let for_udp: Vec<SecurityRule> =
        Ethertype::ALL.map(|family| rule(Direction::Ingress, family, udp, Remote::Any)).to_vec();
    let cases = [
        ("a rule is removed", &base, Setup { server_rules: out_rules(), ..base.clone() }),
        (
            "a rule is for fewer ports",
            &base,
            Setup { server_rules: tcp_from([2000, 2221], |_| Remote::Any), ..base.clone() },
        ),
        (
            "a rule is for another protocol",
            &base,
            Setup { server_rules: [out_rules(), for_udp].concat(), ..base.clone() },
        ),
        (
            "a rule is for another block",
            &by_block,
            Setup { server_rules: tcp_from([2000, 3000], |f| block(f, "10.0.0.6/31", "fd00::6/127")), ..base.clone() },
        ),
        ("a rule for what goes out is removed", &base, Setup { client_rules: vec![], ..base.clone() }),
        ("another group is on the port", &base, Setup { server_groups: vec![other], ..base.clone() }),
        ("no group is on the port", &base, Setup { server_groups: vec![], ..base.clone() }),
        ("the other end leaves the named group", &by_group, Setup { client_groups: vec![client], ..by_group.clone() }),
        (
            "another group is named",
            &by_group,
            Setup { server_rules: tcp_from([2000, 3000], |_| Remote::Group(other)), ..by_group.clone() },
        ),
        ("the group is deleted", &base, Setup { server_group_exists: false, ..base.clone() }),
    ];
    host.send(&[
        network(net, 100, &["10.0.0.0/24", "fd00::/64"], &[], None),
        group(open, 1, &open_rules()),
        group(trusted, 1, &[]),
        group(other, 1, &out_rules()),
        a.local(net),
        b.local(net),
        c.local(net),
        d.local(net),
    ])
    .await;
    for port in [&a, &b, &c, &d] {
        host.acquire(port).await;
    }
    let guests = [&a, &b, &c, &d].map(|port| lab.static_guest(&host, net, port));
    for (guest, port) in guests.iter().zip([&a, &b, &c, &d]) {
        port.addrs.iter().for_each(|addr| echo(&guest.ns, &addr.to_string()));
    }
    guests[2].reaches("10.0.0.8");
    guests[2].reaches("fd00::8");
    let mut generation = 1;
    let mut objects = |setup: &Setup| -> Vec<DesiredObject> {
        generation += 1;
        let of_server = if setup.server_group_exists {
            group(server, generation, &setup.server_rules)
        } else {
            tombstone(server.to_string(), sync::ObjectKind::SecurityGroup, (1, generation))
        };
        let client_port = TestPort { groups: setup.client_groups.clone(), generation, ..a.clone() };
        let server_port = TestPort { groups: setup.server_groups.clone(), generation, ..b.clone() };
        vec![of_server, group(client, generation, &setup.client_rules), client_port.local(net), server_port.local(net)]
    };
    for (name, before, after) in cases {
        host.send(&objects(before)).await;
        let mut sessions = ["10.0.0.6", "fd00::6"].map(|to| Session::open(&guests[0].ns, to));
        let mut witnesses = ["10.0.0.8", "fd00::8"].map(|to| Session::open(&guests[2].ns, to));
        host.send(&objects(&after)).await;
        for (family, session) in sessions.iter_mut().enumerate() {
            session.ends(&format!("{name}, family {family}"));
        }
        for (family, witness) in witnesses.iter_mut().enumerate() {
            assert!(witness.answers(), "{name}, family {family}: another's session has ended");
        }
        // What is let in again begins anew; the old one doesn't come back by its server's packets.
        host.send(&objects(before)).await;
        assert!(sessions.iter_mut().all(|session| !session.answers()), "{name}: a session came back");
    }
    // What lets in more, and what lets in less elsewhere, ends nothing.
    host.send(&objects(&base)).await;
    let mut session = Session::open(&guests[0].ns, "10.0.0.6");
    let more = [base.server_rules.clone(), open_rules()].concat();
    host.send(&objects(&Setup { server_rules: more, ..base.clone() })).await;
    host.send(&objects(&base)).await;
    assert!(session.answers());
}

async fn with_floating_ip(lab: &Lab) -> (TestHost, NetworkId, [TestPort; 2], [Guest; 2], FloatingIpId) {
    let host = lab.host(1, Wiring::Veth).await;
    let (net, sg, fip) = (NetworkId::new(), SecurityGroupId::new(), FloatingIpId::new());
    let ports = [TestPort::new(1, &["10.0.0.5"], &[sg]), TestPort::new(2, &["10.0.0.6"], &[sg])];
    host.send(&[
        network(net, 100, &["10.0.0.0/24"], &[], Some(uplink(11))),
        group(sg, 1, &open_rules()),
        ports[0].local(net),
        ports[1].local(net),
        floating(fip, 1, net, &ports[0], "203.0.113.50"),
    ])
    .await;
    host.acquire(&ports[0]).await;
    host.acquire(&ports[1]).await;
    let guests = [0, 1].map(|n| lab.static_guest(&host, net, &ports[n]));
    for (guest, port) in guests.iter().zip(&ports) {
        echo(&guest.ns, &port.addrs[0].to_string());
        guest.reaches("203.0.113.1");
    }
    (host, net, ports, guests, fip)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_floating_ip_that_moves_ends_its_sessions_both_ways_and_no_others() {
    if !root() {
        return;
    }
    let lab = Lab::new().await;
    let (host, net, ports, guests, fip) = with_floating_ip(&lab).await;
    let outside = Guest { ns: lab.outside() };
    echo(&outside.ns, "203.0.113.1");
    let mut inward = Session::open(&outside.ns, "203.0.113.50");
    let mut outward = Session::open(&guests[0].ns, "203.0.113.1");
    let mut witness = Session::open(&guests[1].ns, "203.0.113.1");
    let mut neighbours = Session::open(&guests[1].ns, "10.0.0.5");
    host.send(&[floating(fip, 2, net, &ports[1], "203.0.113.50")]).await;
    inward.ends("to the old instance");
    outward.ends("from the old instance by the floating IP");
    assert!(neighbours.answers() && witness.answers(), "by the router's address, and inside");
    let mut anew = Session::open(&outside.ns, "203.0.113.50");
    host.send(&[tombstone(fip.to_string(), sync::ObjectKind::FloatingIp, (2, 2))]).await;
    anew.ends("the floating IP is released");
    assert!(neighbours.answers() && witness.answers());
}
