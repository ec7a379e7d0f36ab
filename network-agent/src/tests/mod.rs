//! Tests of the pure parts: goldens of what is rendered and planned, properties of the differences.

mod answers;
mod goldens;
mod increments;
mod properties;

use crate::{
    model::{
        DesiredState,
        object::{Binding, FloatingIp, Metadata, Network, Object, Port, SecurityGroup, Subnet, Uplink, Version},
        state::{HostFacts, Wiring},
    },
    service::view::View,
};
use domain::{
    FloatingIpId, InstanceId, NetworkId, PortId, SecurityGroupId, SubnetId,
    network::{Direction, Ethertype, MacAddr, Match, PortRange, Protocol, Remote, SecurityRule},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use uuid::Uuid;

pub const NET: NetworkId = NetworkId(Uuid::from_u128(0x0192_0000_0000_7000_8000_0000_0000_0001));
pub const WEB: SecurityGroupId = SecurityGroupId(Uuid::from_u128(0x0192_0000_0000_7000_8000_0000_0000_00a1));
pub const DB: SecurityGroupId = SecurityGroupId(Uuid::from_u128(0x0192_0000_0000_7000_8000_0000_0000_00a2));

pub fn port_id(n: u8) -> PortId {
    PortId(Uuid::from_u128(0x0192_0000_0000_7000_8000_0000_0000_0100 + u128::from(n)))
}

pub fn host() -> HostFacts {
    HostFacts {
        underlay: "10.255.0.1".parse().expect("ip"),
        vxlan_port: 4789,
        external: BTreeMap::from([("public".into(), "br-ext".into())]),
        protected: Arc::new(BTreeSet::from(["192.168.0.0/16".parse().expect("cidr")])),
        wiring: Wiring::Tap,
        tap_owner_uid: 600_000,
    }
}

pub fn network() -> Network {
    let subnet = |n: u128, cidr: &str, gateway: &str| Subnet {
        id: SubnetId(Uuid::from_u128(n)),
        cidr: cidr.parse().expect("cidr"),
        gateway: gateway.parse().expect("ip"),
        dns: vec![],
        host_routes: vec![],
        dhcp: true,
    };
    Network {
        id: NET,
        project_id: "p".into(),
        name: "net".into(),
        vni: 100.try_into().expect("vni"),
        mtu: 1450,
        gateway_mac: MacAddr([2, 0, 0x5e, 0, 0, 1]),
        subnets: vec![subnet(1, "10.0.0.0/24", "10.0.0.1"), subnet(2, "fd00::/64", "fd00::1")],
        dns_domain: "p.internal".into(),
        peers: BTreeSet::new(),
        uplink: Some(Uplink {
            external_network: "public".into(),
            addresses: vec![("203.0.113.11".parse().expect("ip"), 24)],
            gateways: vec!["203.0.113.1".parse().expect("ip")],
            source_nat: true,
            mac: MacAddr([2, 0, 0, 0, 2, 11]),
        }),
    }
}

pub fn port(n: u8, groups: &[SecurityGroupId], remote: bool) -> Port {
    let metadata = Metadata {
        instance_name: format!("vm{n}"),
        ssh_keys: vec![("me".into(), "ssh-ed25519 AAAA".into())],
        ..Metadata::default()
    };
    let instance_id = InstanceId(Uuid::from_u128(0x0192_0000_0000_7000_8000_0000_0000_0200 + u128::from(n)));
    Port {
        id: port_id(n),
        version: Version { epoch: 1, generation: 1 },
        network_id: NET,
        mac: MacAddr([2, 0, 0, 0, 1, n]),
        fixed_ips: BTreeSet::from([
            format!("10.0.0.{n}").parse().expect("ip"),
            format!("fd00::{n}").parse().expect("ip"),
        ]),
        allowed: BTreeSet::new(),
        groups: groups.iter().copied().collect(),
        binding: if remote {
            Binding::Remote { underlay: "10.255.0.2".parse().expect("ip") }
        } else {
            Binding::Local { instance_id, metadata: Box::new(metadata) }
        },
        to_instance_bps: 0,
        from_instance_bps: 0,
        hostname: format!("vm{n}"),
    }
}

pub fn rule(direction: Direction, matches: Match, remote: Remote) -> SecurityRule {
    SecurityRule { direction, ethertype: Ethertype::Ipv4, matches, remote }
}

pub fn tcp(first: u16, last: u16) -> Match {
    let ports = Some(PortRange { first, last });
    Match::Protocol { protocol: Protocol::Tcp, ports, icmp_type: None, icmp_code: None }
}

/// Two ports here (the first acquired), one elsewhere, two groups, a floating IP.
pub fn desired_state() -> DesiredState {
    let mut desired_state = DesiredState::default();
    let ping = Match::Protocol { protocol: Protocol::Icmp, ports: None, icmp_type: Some(8), icmp_code: None };
    let web = vec![
        rule(Direction::Ingress, tcp(80, 90), Remote::Any),
        rule(Direction::Ingress, ping, Remote::Cidr("10.0.0.0/8".parse().expect("cidr"))),
        rule(Direction::Egress, Match::Any, Remote::Any),
    ];
    let db = vec![rule(Direction::Ingress, tcp(5432, 5432), Remote::Group(WEB))];
    desired_state.put(Object::Network(network()));
    desired_state.put(Object::SecurityGroup(SecurityGroup { id: WEB, rules: web }));
    desired_state.put(Object::SecurityGroup(SecurityGroup { id: DB, rules: db }));
    let limited = Port { from_instance_bps: 80_000_000, ..port(5, &[WEB], false) };
    desired_state.put(Object::Port(limited));
    let wide = Port { allowed: BTreeSet::from(["10.1.0.0/16".parse().expect("cidr")]), ..port(6, &[WEB, DB], false) };
    desired_state.put(Object::Port(wide));
    desired_state.put(Object::Port(port(7, &[WEB], true)));
    desired_state.put(Object::FloatingIp(FloatingIp {
        id: FloatingIpId(Uuid::from_u128(9)),
        network_id: NET,
        port_id: port_id(5),
        address: "203.0.113.50".parse().expect("ip"),
        fixed_ip: "10.0.0.5".parse().expect("ip"),
    }));
    desired_state.acquired.insert(port_id(5));
    desired_state
}

pub fn view() -> View {
    let desired_state = desired_state();
    View::new(&desired_state, &Arc::clone(&desired_state.networks[&NET]))
}
