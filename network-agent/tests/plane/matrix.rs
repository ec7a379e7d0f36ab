//! Who passes whom: every kind of source and of destination, behind every kind of rule, in both families and directions, with
//! packets.
//!
//! What a packet claims to be and what it is are two columns of a table; the oracle below reads that table and knows nothing of sets,
//! chains and links. All packets of a round are sent first. The round ends when all that must arrive did, and a while after that
//! nothing more came.

use crate::rig::{
    Lab, TIMEOUT, TestHost, TestPort, eventually, floating, group, inside, must, network, network_at, open_rules, root,
    rule, run, uplink,
};
use domain::{
    FloatingIpId, NetworkId, SecurityGroupId,
    network::{Direction, Ethertype, MacAddr, Match, Remote, SecurityRule},
};
use network_agent::model::state::{Wiring, vtep_mac};
use proto::network::v1 as pb;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

const PORT: u16 = 9000;
const RED_VNI: u32 = 100;
/// For what must not arrive, after all that must has.
const GRACE: Duration = Duration::from_millis(500);

/// Which remote end a rule names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum RuleKind {
    Group,
    Cidr,
    Any,
    None,
}

impl RuleKind {
    const ALL: [Self; 4] = [Self::Group, Self::Cidr, Self::Any, Self::None];

    fn rules(self, direction: Direction, trusted: SecurityGroupId) -> Vec<SecurityRule> {
        let of = |ethertype: Ethertype| {
            let cidr = if ethertype == Ethertype::Ipv4 { "10.0.0.0/24" } else { "fd00::/64" };
            let remote = match self {
                Self::Group => Remote::Group(trusted),
                Self::Cidr => Remote::Cidr(cidr.parse().expect("cidr")),
                Self::Any => Remote::Any,
                Self::None => return None,
            };
            Some(rule(direction, ethertype, Match::Any, remote))
        };
        Ethertype::ALL.into_iter().filter_map(of).collect()
    }
}

/// The far end of a packet.
#[derive(Debug, Clone, Copy)]
struct End {
    name: &'static str,
    /// It is who its address says, and there is a way between it and the port.
    honest: [bool; 2],
    /// Its port is in the group that rules name.
    member: bool,
    /// Its address lies in the block that rules name.
    inside: bool,
}

/// The verdict by the table alone; `family`: 0 for IPv4.
fn oracle(end: &End, kind: RuleKind, family: usize) -> bool {
    let matches = match kind {
        RuleKind::Group => end.member,
        RuleKind::Cidr => end.inside,
        RuleKind::Any => true,
        RuleKind::None => false,
    };
    end.honest[family] && matches
}

const BOTH: [bool; 2] = [true, true];
/// By a floating IP, which is IPv4.
const FIRST: [bool; 2] = [true, false];
const NEITHER: [bool; 2] = [false, false];

const fn end(name: &'static str, honest: [bool; 2], member: bool, inside: bool) -> End {
    End { name, honest, member, inside }
}

const SOURCES: [End; 19] = [
    end("member here", BOTH, true, true),
    end("stranger here", BOTH, false, true),
    end("member elsewhere", BOTH, true, true),
    end("stranger elsewhere", BOTH, false, true),
    end("member of a peered network", BOTH, true, false),
    end("peered network, forged", NEITHER, true, true),
    end("member of a peered network elsewhere", BOTH, true, false),
    end("other project", FIRST, false, false),
    end("other project, same address", NEITHER, true, true),
    end("other project, forged", NEITHER, true, true),
    end("outside", FIRST, false, false),
    end("outside, untranslated", NEITHER, false, false),
    end("outside, forged", NEITHER, true, true),
    // From 10.255.0.3, to which a member is bound: with its address, with an allowed one, and with one of a port that is elsewhere.
    end("tunnel", BOTH, true, true),
    end("tunnel, allowed", BOTH, false, false),
    end("tunnel, not held", NEITHER, true, true),
    // With the second host's address and MAC, from 10.255.0.3, and from an address that isn't of the fleet.
    end("tunnel, another host's MAC", NEITHER, true, true),
    end("tunnel, foreign", NEITHER, true, true),
    // As 10.255.0.3, but by the external network.
    end("tunnel, by another device", NEITHER, true, true),
];

const DESTINATIONS: [End; 6] = [
    end("member here", BOTH, true, true),
    end("stranger here", BOTH, false, true),
    end("member elsewhere", BOTH, true, true),
    end("member of a peered network", BOTH, true, false),
    end("other project", FIRST, false, false),
    end("outside", BOTH, false, false),
];

/// Where a packet of the matrix starts.
enum Origin {
    /// A socket in a namespace, bound to an address.
    Socket { ns: String, from: IpAddr, to: IpAddr },
    /// A frame in VXLAN, made by hand.
    Tunnel { ns: String, outer: IpAddr, mac: MacAddr, from: IpAddr, to: IpAddr },
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("address")
}

fn send(origin: &Origin, token: u32) {
    let payload = token.to_be_bytes();
    match origin {
        Origin::Socket { ns, from, to } => {
            let (from, to) = (SocketAddr::new(*from, 0), SocketAddr::new(*to, PORT));
            let sent = inside(ns, move || {
                let socket = UdpSocket::bind(from).expect("the source address is there");
                // To an address that nobody has it may fail: then nothing arrives either.
                let _ = socket.send_to(&payload, to);
            });
            sent.join().expect("thread");
        }
        Origin::Tunnel { ns, outer, mac, from, to } => {
            let frame = tunnelled(*mac, *from, *to, &payload);
            let outer = SocketAddr::new(*outer, 0);
            let sent = inside(ns, move || {
                let socket = UdpSocket::bind(outer).expect("the outer address is there");
                socket.send_to(&frame, "10.255.0.1:4789").expect("sent");
            });
            sent.join().expect("thread");
        }
    }
}

fn checksum(parts: &[&[u8]]) -> u16 {
    let bytes = parts.concat();
    let mut sum: u32 =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// A datagram in a frame in VXLAN, as the sender's end of a tunnel would make it.
fn tunnelled(mac: MacAddr, from: IpAddr, to: IpAddr, payload: &[u8]) -> Vec<u8> {
    let length = (8 + payload.len()) as u16;
    let mut udp = [&4000u16.to_be_bytes()[..], &PORT.to_be_bytes(), &length.to_be_bytes(), &[0, 0], payload].concat();
    let (ethertype, header) = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let total = (20 + length).to_be_bytes();
            let mut header =
                [&[0x45, 0][..], &total, &[0, 1, 0, 0, 64, 17, 0, 0], &from.octets(), &to.octets()].concat();
            let sum = checksum(&[&header]);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            (0x0800u16, header)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let pseudo = [&from.octets()[..], &to.octets(), &u32::from(length).to_be_bytes(), &[0, 0, 0, 17]].concat();
            let sum = checksum(&[&pseudo, &udp]);
            udp[6..8].copy_from_slice(&sum.to_be_bytes());
            let length = length.to_be_bytes();
            (0x86dd, [&[0x60, 0, 0, 0][..], &length, &[17, 64], &from.octets(), &to.octets()].concat())
        }
        _ => panic!("one family"),
    };
    let vni = (RED_VNI << 8).to_be_bytes();
    let to_mac = vtep_mac(ip("10.255.0.1")).0;
    [&[8, 0, 0, 0][..], &vni, &to_mac, &mac.0, &ethertype.to_be_bytes(), &header, &udp].concat()
}

/// What arrives in one namespace.
struct Inbox {
    sockets: [UdpSocket; 2],
}

impl Inbox {
    fn new(ns: &str) -> Self {
        let open = |addr: &'static str| {
            let socket = inside(ns, move || UdpSocket::bind(addr).expect("bound")).join().expect("thread");
            socket.set_nonblocking(true).expect("set");
            socket
        };
        // A socket of IPv6 would take both families.
        let v4 = open("0.0.0.0:9000");
        must(&format!("ip netns exec {ns} sysctl -qw net.ipv6.bindv6only=1"));
        Self { sockets: [v4, open("[::]:9000")] }
    }

    /// Tokens and who they seem to be from.
    fn take(&self) -> Vec<(u32, IpAddr)> {
        let mut taken = Vec::new();
        for socket in &self.sockets {
            let mut buffer = [0; 4];
            while let Ok((4, from)) = socket.recv_from(&mut buffer) {
                taken.push((u32::from_be_bytes(buffer), from.ip()));
            }
        }
        taken
    }
}

/// All that arrived, once what must arrive did.
fn arrivals(inboxes: &[&Inbox], expected: &BTreeSet<u32>) -> BTreeMap<u32, IpAddr> {
    let (began, mut arrived, mut whole) = (Instant::now(), BTreeMap::new(), None::<Instant>);
    loop {
        arrived.extend(inboxes.iter().flat_map(|inbox| inbox.take()));
        if expected.iter().all(|token| arrived.contains_key(token)) {
            if whole.get_or_insert_with(Instant::now).elapsed() > GRACE {
                return arrived;
            }
        } else if began.elapsed() > TIMEOUT / 4 {
            return arrived;
        }
        std::thread::yield_now();
    }
}

struct World {
    lab: Lab,
    h1: TestHost,
    _h2: TestHost,
    trusted: SecurityGroupId,
    guarded: SecurityGroupId,
    /// By name, the namespace of each end that has one.
    namespaces: BTreeMap<&'static str, String>,
    victim: String,
}

fn with_v6(uplink: pb::Uplink, n: u8) -> pb::Uplink {
    let addresses = [uplink.addresses, vec![format!("2001:db8::{n}/64")]].concat();
    let gateways = [uplink.gateways, vec!["2001:db8::1".to_owned()]].concat();
    pb::Uplink { addresses, gateways, ..uplink }
}

/// The port of the matrix is 10.0.0.5 and fd00::5 in `red`, on the first host, with the floating IP 203.0.113.50.
async fn world() -> World {
    let lab = Lab::new().await;
    let (h1, h2) = (lab.host(1, Wiring::Veth).await, lab.host(2, Wiring::Veth).await);
    let [red, green, blue] = [(); 3].map(|()| NetworkId::new());
    let [trusted, open, guarded, foreign] = [(); 4].map(|()| SecurityGroupId::new());
    let cidrs = ["10.0.0.0/24", "fd00::/64"];
    let anything = || vec!["0.0.0.0/0".to_owned(), "::/0".to_owned()];
    let victim = TestPort::new(5, &["10.0.0.5", "fd00::5"], &[guarded]);
    let member = TestPort::new(6, &["10.0.0.6", "fd00::6"], &[trusted, open]);
    let stranger = TestPort::new(7, &["10.0.0.7", "fd00::7"], &[open]);
    let far_member = TestPort::new(8, &["10.0.0.8", "fd00::8"], &[trusted, open]);
    let far_stranger = TestPort::new(9, &["10.0.0.9", "fd00::9"], &[open]);
    // On a host that has no agent, but an address of the fleet: 10.255.0.3.
    let by_hand = TestPort {
        allowed: vec!["192.0.2.0/24".to_owned(), "2001:db8:9::/48".to_owned()],
        ..TestPort::new(10, &["10.0.0.10", "fd00::a"], &[trusted])
    };
    let peered = TestPort { allowed: anything(), ..TestPort::new(11, &["10.9.0.5", "fd09::5"], &[trusted, open]) };
    let far_peered = TestPort::new(12, &["10.9.0.6", "fd09::6"], &[trusted, open]);
    let same = TestPort::new(13, &["10.0.0.6", "fd00::6"], &[foreign]);
    let forger = TestPort { allowed: anything(), ..TestPort::new(14, &["10.0.0.14", "fd00::e"], &[foreign]) };
    let translated = TestPort::new(15, &["10.0.0.15", "fd00::f"], &[foreign]);
    let red_here = network(red, RED_VNI, &cidrs, &[green], Some(with_v6(uplink(11), 11)));
    let green_here = network(green, 101, &["10.9.0.0/24", "fd09::/64"], &[red], None);
    let walled = pb::Uplink { source_nat: false, ..with_v6(uplink(12), 12) };
    let groups = [(trusted, vec![]), (open, open_rules()), (guarded, vec![]), (foreign, open_rules())];
    let groups: Vec<_> = groups.iter().map(|(id, rules)| group(*id, 1, rules)).collect();
    let elsewhere = [&far_member, &far_stranger];
    let mut here = vec![red_here.clone(), green_here.clone(), network(blue, 102, &cidrs, &[], Some(walled))];
    here.extend(groups.clone());
    here.extend([&victim, &member, &stranger].map(|port| port.local(red)));
    here.extend(elsewhere.map(|port| port.remote(red, &h2)));
    here.push(by_hand.remote_at(red, ip("10.255.0.3")));
    here.extend([peered.local(green), far_peered.remote(green, &h2)]);
    here.extend([&same, &forger, &translated].map(|port| port.local(blue)));
    here.push(floating(FloatingIpId::new(), 1, red, &victim, "203.0.113.50"));
    here.push(floating(FloatingIpId::new(), 1, blue, &translated, "203.0.113.60"));
    h1.send(&here).await;
    let mut there = vec![network(red, RED_VNI, &cidrs, &[green], None), green_here];
    there.extend(groups);
    there.extend([&victim, &member, &stranger].map(|port| port.remote(red, &h1)));
    there.extend(elsewhere.map(|port| port.local(red)));
    there.extend([peered.remote(green, &h1), far_peered.local(green)]);
    h2.send(&there).await;
    let mut namespaces = BTreeMap::new();
    for (host, network, port, name) in [
        (&h1, red, &victim, "victim"),
        (&h1, red, &member, "member here"),
        (&h1, red, &stranger, "stranger here"),
        (&h2, red, &far_member, "member elsewhere"),
        (&h2, red, &far_stranger, "stranger elsewhere"),
        (&h1, green, &peered, "member of a peered network"),
        (&h2, green, &far_peered, "member of a peered network elsewhere"),
        (&h1, blue, &same, "other project, same address"),
        (&h1, blue, &forger, "other project, forged"),
        (&h1, blue, &translated, "other project"),
    ] {
        host.acquire(port).await;
        namespaces.insert(name, lab.static_guest(host, network, port).ns);
    }
    for forger in ["other project, forged", "member of a peered network"] {
        let ns = &namespaces[forger];
        must(&format!("ip -n {ns} addr add 10.0.0.6/32 dev lo && ip -n {ns} addr add fd00::6/128 dev lo nodad"));
    }
    let (outside, rogue, fabric) = (lab.outside(), lab.ns("rogue"), lab.ns("fab"));
    let host = &h1.ns;
    let router = MacAddr([2, 0, 0, 0, 2, 11]).link_local();
    must(&format!(
        "ip -n {outside} addr add 2001:db8::1/64 dev eth0 nodad && \
         ip -n {outside} addr add 10.0.0.6/32 dev lo && ip -n {outside} addr add fd00::6/128 dev lo nodad && \
         ip -n {outside} route add 10.0.0.5/32 via 203.0.113.11 && \
         ip -n {outside} route add fd00::5/128 via {router} dev eth0 && \
         ip -n {host} addr add 203.0.113.201/24 dev br-ext && \
         ip -n {outside} addr add 10.255.0.3/32 dev lo && \
         ip -n {outside} route add 10.255.0.1/32 via 203.0.113.201 && \
         ip netns add {rogue} && ip -n {fabric} link add ur type veth peer name un0 netns {rogue} && \
         ip -n {fabric} link set ur master br0 up && ip -n {rogue} link set un0 up && \
         ip -n {rogue} addr add 10.255.0.3/24 dev un0 && ip -n {rogue} addr add 10.255.0.99/24 dev un0"
    ));
    namespaces.insert("outside", outside);
    namespaces.insert("tunnel", rogue);
    let victim = namespaces.remove("victim").expect("there");
    World { lab, h1, _h2: h2, trusted, guarded, namespaces, victim }
}

impl World {
    fn ns(&self, name: &str) -> String {
        self.namespaces[name].clone()
    }

    /// Towards the port, as this end would send it.
    fn origin(&self, name: &str, family: usize) -> Origin {
        let of = |v4: &str, v6: &str| ip([v4, v6][family]);
        let private = of("10.0.0.5", "fd00::5");
        // The outside and other projects know the floating IP; there is none of IPv6.
        let public = of("203.0.113.50", "fd00::5");
        let claimed = of("10.0.0.6", "fd00::6");
        let socket = |at: &str, from: IpAddr, to: IpAddr| Origin::Socket { ns: self.ns(at), from, to };
        match name {
            "member here" => socket(name, of("10.0.0.6", "fd00::6"), private),
            "stranger here" => socket(name, of("10.0.0.7", "fd00::7"), private),
            "member elsewhere" => socket(name, of("10.0.0.8", "fd00::8"), private),
            "stranger elsewhere" => socket(name, of("10.0.0.9", "fd00::9"), private),
            "member of a peered network" => socket(name, of("10.9.0.5", "fd09::5"), private),
            "member of a peered network elsewhere" => socket(name, of("10.9.0.6", "fd09::6"), private),
            "peered network, forged" => socket("member of a peered network", claimed, private),
            "other project" => socket(name, of("10.0.0.15", "fd00::f"), public),
            "other project, same address" | "other project, forged" => socket(name, claimed, public),
            "outside" => socket(name, of("203.0.113.1", "2001:db8::1"), public),
            "outside, untranslated" => socket("outside", of("203.0.113.1", "2001:db8::1"), private),
            "outside, forged" => socket("outside", claimed, public),
            "tunnel" => self.tunnel("10.255.0.3", "10.255.0.3", of("10.0.0.10", "fd00::a"), private),
            "tunnel, allowed" => self.tunnel("10.255.0.3", "10.255.0.3", of("192.0.2.9", "2001:db8:9::9"), private),
            "tunnel, not held" => self.tunnel("10.255.0.3", "10.255.0.3", claimed, private),
            "tunnel, another host's MAC" => self.tunnel("10.255.0.3", "10.255.0.2", of("10.0.0.8", "fd00::8"), private),
            "tunnel, by another device" => Origin::Tunnel {
                ns: self.ns("outside"),
                outer: ip("10.255.0.3"),
                mac: vtep_mac(ip("10.255.0.3")),
                from: of("10.0.0.10", "fd00::a"),
                to: private,
            },
            "tunnel, foreign" => self.tunnel("10.255.0.99", "10.255.0.2", of("10.0.0.8", "fd00::8"), private),
            name => panic!("{name} has no way to send"),
        }
    }

    fn tunnel(&self, outer: &str, speaks_for: &str, from: IpAddr, to: IpAddr) -> Origin {
        Origin::Tunnel { ns: self.ns("tunnel"), outer: ip(outer), mac: vtep_mac(ip(speaks_for)), from, to }
    }

    fn address(name: &str, family: usize) -> IpAddr {
        let [v4, v6] = match name {
            "member here" => ["10.0.0.6", "fd00::6"],
            "stranger here" => ["10.0.0.7", "fd00::7"],
            "member elsewhere" => ["10.0.0.8", "fd00::8"],
            "member of a peered network" => ["10.9.0.5", "fd09::5"],
            "other project" => ["203.0.113.60", "fd00::f"],
            "outside" => ["203.0.113.1", "2001:db8::1"],
            name => panic!("{name} has no address"),
        };
        ip([v4, v6][family])
    }
}

/// What was expected and isn't so.
fn wrong(cases: &BTreeMap<u32, (String, bool)>, arrived: &BTreeMap<u32, IpAddr>) -> Vec<String> {
    let verdict = |passes: bool| if passes { "passes" } else { "is dropped" };
    cases
        .iter()
        .filter(|(token, (_, expected))| arrived.contains_key(token) != *expected)
        .map(|(_, (name, expected))| format!("{name}: {}, but {} is right", verdict(!expected), verdict(*expected)))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_source_meets_every_kind_of_rule() {
    if !root() {
        return;
    }
    let world = world().await;
    let victim = Inbox::new(&world.victim);
    let inboxes: BTreeMap<&str, Inbox> =
        DESTINATIONS.iter().map(|end| (end.name, Inbox::new(&world.namespaces[end.name]))).collect();
    let (mut token, mut generation, mut bad, mut passed) = (0, 1, Vec::new(), BTreeMap::new());
    for kind in RuleKind::ALL {
        generation += 1;
        let rules = Direction::ALL.into_iter().flat_map(|direction| kind.rules(direction, world.trusted));
        world.h1.send(&[group(world.guarded, generation, &rules.collect::<Vec<_>>())]).await;
        let mut cases = BTreeMap::new();
        let mut case = |direction: Direction, end: &End, family: usize| {
            token += 1;
            let expected = oracle(end, kind, family);
            let name = format!("{direction:?}, {}, {kind:?}, IPv{}", end.name, [4, 6][family]);
            cases.insert(token, (name, expected));
            let (count, passes) = passed.entry(direction.as_str()).or_insert((0, 0));
            *count += 1;
            *passes += usize::from(expected);
            token
        };
        for family in [0, 1] {
            for end in &SOURCES {
                send(&world.origin(end.name, family), case(Direction::Ingress, end, family));
            }
            for end in &DESTINATIONS {
                let from = ip(["10.0.0.5", "fd00::5"][family]);
                let to = World::address(end.name, family);
                let origin = Origin::Socket { ns: world.victim.clone(), from, to };
                send(&origin, case(Direction::Egress, end, family));
            }
        }
        let expected = cases.iter().filter(|(_, (_, passes))| *passes).map(|(token, _)| *token).collect();
        let all: Vec<&Inbox> = inboxes.values().chain([&victim]).collect();
        bad.extend(wrong(&cases, &arrivals(&all, &expected)));
    }
    assert!(bad.is_empty(), "{} of {token} are wrong:\n{}", bad.len(), bad.join("\n"));
    // (cases, of which pass): an empty table would prove nothing.
    assert_eq!(passed, BTreeMap::from([("ingress", (152, 38)), ("egress", (48, 23))]));
    drop(world.lab);
}

/// What leaves a network, as the machine outside sees it.
#[tokio::test(flavor = "multi_thread")]
async fn only_translated_sources_leave() {
    if !root() {
        return;
    }
    let lab = Lab::new().await;
    let host = lab.host(1, Wiring::Veth).await;
    let (net, sg) = (NetworkId::new(), SecurityGroupId::new());
    let plain = TestPort::new(5, &["10.0.0.5", "fd00::5"], &[sg]);
    let floats = TestPort::new(6, &["10.0.0.6", "fd00::6"], &[sg]);
    let allowed = vec!["0.0.0.0/0".to_owned(), "::/0".to_owned()];
    let wide = TestPort { allowed, ..TestPort::new(7, &["10.0.0.7", "fd00::7"], &[sg]) };
    let net_with = |generation: i64, source_nat: bool| {
        let uplink = pb::Uplink { source_nat, ..with_v6(uplink(11), 11) };
        network_at(generation, net, 100, &["10.0.0.0/24", "fd00::/64"], &[], Some(uplink))
    };
    let mut objects = vec![net_with(1, true), group(sg, 1, &open_rules())];
    objects.extend([&plain, &floats, &wide].map(|port| port.local(net)));
    objects.push(floating(FloatingIpId::new(), 1, net, &floats, "203.0.113.50"));
    host.send(&objects).await;
    let mut guests = BTreeMap::new();
    for (name, port) in [("plain", &plain), ("floats", &floats), ("wide", &wide)] {
        host.acquire(port).await;
        guests.insert(name, lab.static_guest(&host, net, port).ns);
    }
    let forged =
        ["10.0.0.6", "198.51.100.9", "10.0.0.99", "203.0.113.11", "203.0.113.50", "2001:db8:7::9", "2001:db8::11"];
    for (name, addrs) in [("wide", &forged[..]), ("plain", &["198.51.100.9", "2001:db8:7::9"][..])] {
        for addr in addrs {
            let nodad = if addr.contains(':') { "nodad" } else { "" };
            must(&format!("ip -n {} addr add {addr} dev lo {nodad}", guests[name]));
        }
    }
    must(&format!("ip -n {} addr add 2001:db8::1/64 dev eth0 nodad", lab.outside()));
    let outside = Inbox::new(&lab.outside());
    // (who, its source, what the outside sees with source NAT and without).
    let router = Some(["203.0.113.11", "2001:db8::11"]);
    let cases: [(&str, &str, [Option<&str>; 2]); 14] = [
        ("plain", "10.0.0.5", [router.map(|r| r[0]), None]),
        ("plain", "fd00::5", [router.map(|r| r[1]), None]),
        ("plain", "198.51.100.9", [None, None]),
        ("plain", "2001:db8:7::9", [None, None]),
        ("floats", "10.0.0.6", [Some("203.0.113.50"); 2]),
        ("floats", "fd00::6", [router.map(|r| r[1]), None]),
        ("wide", "10.0.0.7", [router.map(|r| r[0]), None]),
        ("wide", "198.51.100.9", [router.map(|r| r[0]), None]),
        // The address that a floating IP of another port stands for.
        ("wide", "10.0.0.6", [None, None]),
        ("wide", "10.0.0.99", [router.map(|r| r[0]), None]),
        ("wide", "2001:db8:7::9", [router.map(|r| r[1]), None]),
        // The router's own, and another port's floating IP.
        ("wide", "203.0.113.11", [None, None]),
        ("wide", "203.0.113.50", [None, None]),
        ("wide", "2001:db8::11", [None, None]),
    ];
    let (mut token, mut received) = (0, 0);
    for (at, source_nat) in [true, false].into_iter().enumerate() {
        host.send(&[net_with(2 + at as i64, source_nat)]).await;
        let mut expected = BTreeMap::new();
        let mut names = BTreeMap::new();
        for (who, from, leaves) in &cases {
            token += 1;
            let from = ip(from);
            let to = ip(if from.is_ipv4() { "203.0.113.1" } else { "2001:db8::1" });
            names.insert(token, format!("{who} from {from}, source NAT {source_nat}"));
            expected.extend(leaves[at].map(|source| (token, ip(source))));
            send(&Origin::Socket { ns: guests[who].clone(), from, to }, token);
        }
        let arrived = arrivals(&[&outside], &expected.keys().copied().collect());
        for (token, name) in &names {
            assert_eq!(arrived.get(token), expected.get(token), "{name}");
        }
        received += arrived.len();
        // Replies of connections from elsewhere: from the outside, and from a neighbour by the floating IP.
        for (from, ns) in [("outside", lab.outside()), ("plain", guests["plain"].clone())] {
            let ping = format!("ip netns exec {ns} ping -n -c 1 -W 1 203.0.113.50");
            eventually(&format!("{from} reaches the floating IP, source NAT {source_nat}"), || run(&ping).0);
        }
    }
    assert_eq!((token, received), (28, 9));
}
