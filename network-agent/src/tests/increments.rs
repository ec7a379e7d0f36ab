//! Whatever happens in whatever order: the model that follows port by port is the reference, and plans the same.

use super::{DB, NET, WEB, host, network, port, rule, tcp};
use crate::{
    host::tracked::TrackedState,
    model::{
        DesiredState,
        incremental::{Change, Model, Scope},
        object::{FloatingIp, Key, Network, Object, Port, Protected, SecurityGroup},
        state::{HostFacts, NsState, namespace_state},
    },
    plan::plan,
    service::view::View,
};
use domain::{
    FloatingIpId, NetworkId, PortId,
    network::{Cidr, Direction, Match, ProtectedPart, Remote, merge_blocks},
};
use proptest::prelude::*;
use std::{collections::BTreeSet, net::IpAddr, sync::Arc};
use uuid::Uuid;

const PEER: NetworkId = NetworkId(Uuid::from_u128(0x0192_0000_0000_7000_8000_0000_0000_0002));

#[derive(Debug, Clone)]
enum Event {
    Port { n: u8, peer: bool, remote: Option<u8>, groups: u8, addr: u8, block: u8, limited: bool },
    NoPort(u8),
    Acquired(u8, bool),
    Group { web: bool, rules: u8 },
    NoGroup(bool),
    Floating { n: u8, port: u8, addr: u8 },
    NoFloating(u8),
    Network { peered: bool, v6: bool, uplink: bool },
    Peer { peered: bool },
    Protected { part: u8, blocks: u8 },
}

fn event() -> impl Strategy<Value = Event> {
    let placed = (2u8..12, any::<bool>(), proptest::option::of(1u8..3), 0u8..4, 2u8..14, 0u8..5, any::<bool>());
    let placed = placed.prop_map(|(n, peer, remote, groups, addr, block, limited)| Event::Port {
        n,
        peer: peer && n > 8,
        remote,
        groups,
        addr,
        block,
        limited,
    });
    prop_oneof![
        8 => placed,
        3 => (2u8..12).prop_map(Event::NoPort),
        6 => (2u8..12, any::<bool>()).prop_map(|(n, acquired)| Event::Acquired(n, acquired)),
        3 => (any::<bool>(), 0u8..8).prop_map(|(web, rules)| Event::Group { web, rules }),
        1 => any::<bool>().prop_map(Event::NoGroup),
        2 => (0u8..3, 2u8..12, 2u8..14).prop_map(|(n, port, addr)| Event::Floating { n, port, addr }),
        1 => (0u8..3).prop_map(Event::NoFloating),
        1 => any::<[bool; 3]>().prop_map(|[peered, v6, uplink]| Event::Network { peered, v6, uplink }),
        1 => any::<bool>().prop_map(|peered| Event::Peer { peered }),
        2 => (0u8..3, 0u8..4).prop_map(|(part, blocks)| Event::Protected { part, blocks }),
    ]
}

fn floating_id(n: u8) -> FloatingIpId {
    FloatingIpId(Uuid::from_u128(900 + u128::from(n)))
}

fn own_network(peered: bool, v6: bool, uplink: bool) -> Network {
    let mut own = network();
    own.subnets.truncate(if v6 { 2 } else { 1 });
    own.uplink = own.uplink.filter(|_| uplink);
    Network { peers: if peered { BTreeSet::from([PEER]) } else { BTreeSet::new() }, ..own }
}

fn peer_network(peered: bool) -> Network {
    let peers = if peered { BTreeSet::from([NET]) } else { BTreeSet::new() };
    let mut peer = Network { id: PEER, peers, uplink: None, ..network() };
    peer.subnets.truncate(1);
    peer.subnets[0].cidr = "10.9.0.0/24".parse().expect("cidr");
    peer
}

fn groups_rules(bits: u8) -> Vec<domain::network::SecurityRule> {
    let all = [
        rule(Direction::Ingress, tcp(80, 90), Remote::Any),
        rule(Direction::Ingress, tcp(22, 22), Remote::Group(WEB)),
        rule(Direction::Egress, Match::Any, Remote::Group(DB)),
    ];
    all.into_iter().enumerate().filter(|(at, _)| bits & (1 << at) != 0).map(|(_, rule)| rule).collect()
}

fn some_port(n: u8, groups: u8, addr: u8, block: u8, remote: Option<u8>) -> Port {
    let groups = [WEB, DB].into_iter().enumerate().filter(|(at, _)| groups & (1 << at) != 0).map(|(_, g)| g);
    let mut port = port(n, &groups.collect::<Vec<_>>(), false);
    // Addresses and blocks collide: a moved address arrives before its old port is gone.
    port.fixed_ips =
        [format!("10.0.0.{addr}"), format!("fd00::{addr}")].iter().map(|a| a.parse().expect("ip")).collect();
    let blocks: [&[&str]; 5] =
        [&[], &["10.0.0.7/32"], &["10.1.0.0/16", "10.1.2.0/24"], &["0.0.0.0/0"], &["fd00:1::/64"]];
    port.allowed = blocks[usize::from(block)].iter().map(|b| b.parse::<Cidr>().expect("cidr")).collect();
    if let Some(on) = remote {
        let underlay: IpAddr = format!("10.255.0.{}", on + 1).parse().expect("ip");
        port.binding = crate::model::object::Binding::Remote { underlay };
    }
    port
}

fn happen(tracked: &mut TrackedState, event: &Event) {
    match *event {
        Event::Port { n, peer, remote, groups, addr, block, limited } => {
            let mut port = some_port(n, groups, addr, block, remote);
            port.network_id = if peer { PEER } else { NET };
            port.to_instance_bps = if limited { 8_000_000 * u64::from(addr) } else { 0 };
            tracked.put(Key::Port(port.id), Some(Object::Port(port)));
        }
        Event::NoPort(n) => {
            tracked.set_acquired(super::port_id(n), false);
            tracked.put(Key::Port(super::port_id(n)), None);
        }
        Event::Acquired(n, acquired) => tracked.set_acquired(super::port_id(n), acquired),
        Event::Group { web, rules } => {
            let id = if web { WEB } else { DB };
            let group = SecurityGroup { id, rules: groups_rules(rules) };
            tracked.put(Key::SecurityGroup(id), Some(Object::SecurityGroup(group)));
        }
        Event::NoGroup(web) => {
            tracked.put(Key::SecurityGroup(if web { WEB } else { DB }), None);
        }
        Event::Floating { n, port, addr } => {
            let floating = FloatingIp {
                id: floating_id(n),
                network_id: NET,
                port_id: super::port_id(port),
                address: [203, 0, 113, 50 + n].into(),
                fixed_ip: [10, 0, 0, addr].into(),
            };
            tracked.put(Key::FloatingIp(floating.id), Some(Object::FloatingIp(floating)));
        }
        Event::NoFloating(n) => {
            tracked.put(Key::FloatingIp(floating_id(n)), None);
        }
        Event::Network { peered, v6, uplink } => {
            tracked.put(Key::Network(NET), Some(Object::Network(own_network(peered, v6, uplink))));
        }
        Event::Protected { part, blocks } => {
            let part = ProtectedPart::Hosts(part);
            let hosts = |n| format!("10.255.0.{n}/32").parse().expect("cidr");
            let blocks: BTreeSet<Cidr> = (0..blocks).map(hosts).collect();
            let object = (!blocks.is_empty()).then_some(Object::Protected(Protected { part, blocks }));
            tracked.put(Key::Protected(part), object);
        }
        Event::Peer { peered } => {
            tracked.put(Key::Network(PEER), Some(Object::Network(peer_network(peered))));
        }
    }
}

fn reference(desired_state: &DesiredState, facts: &HostFacts) -> NsState {
    namespace_state(desired_state, &desired_state.networks[&NET], facts)
}

/// What each service would find.
fn answers(view: &View) -> impl PartialEq + std::fmt::Debug + use<> {
    let mut links: Vec<(String, PortId)> = view.in_use().map(|(link, port)| (link.clone(), port.id)).collect();
    links.sort();
    let addrs: Vec<IpAddr> = (0..20u8).map(|n| IpAddr::from([10, 0, 0, n])).collect();
    let by_address: Vec<_> = addrs.iter().map(|addr| view.by_address(*addr).map(|port| port.id)).collect();
    let floating: Vec<_> = addrs.iter().map(|addr| view.floating_of(*addr)).collect();
    let names: Vec<_> = (0..20).map(|n| view.addresses_of(&format!("vm{n}"))).collect();
    (links, by_address, floating, names)
}

proptest! {
    #[test]
    fn the_model_follows_the_reference(rounds in proptest::collection::vec(proptest::collection::vec(event(), 1..4), 1..24)) {
        let mut facts = host();
        let mut tracked = TrackedState::new(DesiredState::default());
        happen(&mut tracked, &Event::Network { peered: true, v6: true, uplink: true });
        happen(&mut tracked, &Event::Peer { peered: true });
        happen(&mut tracked, &Event::Group { web: true, rules: 7 });
        let (desired_state, _) = tracked.take(NET);
        let mut model = Model::new(&desired_state, &desired_state.networks[&NET], &facts);
        let mut view = View::new(&desired_state, &desired_state.networks[&NET]);
        let mut known = reference(&desired_state, &facts);
        prop_assert_eq!(model.whole(), known.clone());
        for events in rounds {
            for event in &events {
                happen(&mut tracked, event);
            }
            let (desired_state, affected) = tracked.take(NET);
            facts.protected = Arc::new(merge_blocks(desired_state.protected()));
            let network = Arc::clone(&desired_state.networks[&NET]);
            let ports = affected.ports();
            let scope = if affected.all { Scope::All } else { Scope::Ports(&ports) };
            let Change { before, after } = model.update(&desired_state, &network, &facts, scope);
            let now = reference(&desired_state, &facts);
            let by_reference = plan(&now, &known, Some(&known.rules));
            prop_assert_eq!(plan(&after, &before, Some(&before.rules)), by_reference);
            prop_assert_eq!(model.whole(), now.clone());
            let bound: BTreeSet<IpAddr> = desired_state.ports.values().filter_map(|port| port.underlay()).collect();
            prop_assert_eq!(desired_state.remote_hosts().collect::<BTreeSet<_>>(), bound);
            view.update(&desired_state, &network, scope);
            prop_assert_eq!(answers(&view), answers(&View::new(&desired_state, &network)));
            known = now;
        }
    }
}
