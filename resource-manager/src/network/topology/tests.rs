//! After any history, a host that was sent only what the changes affected knows exactly what a full look says it must.

use super::{Affected, ObjectKey, Rendered, RowChange, RowKey, Topology};
use crate::network::plan::uplink;
use domain::{
    ExternalNetworkId, FloatingIpId, HostId, InstanceId, NetworkId, PeeringId, PortId, ProjectId, RouterId,
    SecurityGroupId, SubnetId, Timestamp,
    network::{
        ExternalNetwork, ExternalSubnet, FixedIp, FloatingIp, MacAddr, Network, PROTECTED_PARTS, Peering, Port,
        PortOwner, PortState, PortStatus, ProtectedPart, RateLimit, Router, SecurityGroup, Subnet, SubnetSpec,
    },
};
use proptest::prelude::*;
use proto::sync::v1::desired_object::Object;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use store::{NetworkHostRow, UplinkRow};
use uuid::Uuid;

pub(crate) const T0: Timestamp = Timestamp(0);

/// Ids that say which.
fn id(kind: u8, number: u8) -> Uuid {
    let mut bytes = [0; 16];
    (bytes[0], bytes[15]) = (kind, number);
    Uuid::from_bytes(bytes)
}

pub(crate) fn host_id(n: u8) -> HostId {
    HostId(id(1, n))
}

pub(crate) fn network_id(n: u8) -> NetworkId {
    NetworkId(id(2, n))
}

pub(crate) fn port_id(n: u8) -> PortId {
    PortId(id(3, n))
}

pub(crate) fn group_id(n: u8) -> SecurityGroupId {
    SecurityGroupId(id(4, n))
}

fn floating_id(n: u8) -> FloatingIpId {
    FloatingIpId(id(5, n))
}

pub(crate) fn project() -> ProjectId {
    ProjectId(id(9, 0))
}

pub(crate) fn host(n: u8, mtu: u32) -> NetworkHostRow {
    NetworkHostRow {
        host_id: host_id(n),
        name: format!("host-{n}"),
        underlay_address: [192, 0, 2, n].into(),
        // Others with another MTU, as of a host that was set up anew.
        addresses: vec![[198, 51, (mtu / 100) as u8, n].into()],
        underlay_mtu: mtu,
        external_networks: vec!["public".into()],
        revision_limit: 0,
        last_seen_at: T0,
    }
}

pub(crate) fn network(n: u8, generation: i64) -> Network {
    Network {
        id: network_id(n),
        project_id: project(),
        name: format!("net-{n}").parse().expect("a name"),
        description: String::new(),
        vni: (100 + u32::from(n)).try_into().expect("a VNI"),
        mtu: None,
        generation,
        created_at: T0,
    }
}

pub(crate) fn subnet(n: u8) -> Subnet {
    Subnet {
        id: SubnetId(id(6, n)),
        project_id: project(),
        network_id: network_id(n),
        name: "a".parse().expect("a name"),
        spec: SubnetSpec {
            cidr: format!("10.{n}.0.0/24").parse().expect("a CIDR"),
            gateway: [10, n, 0, 1].into(),
            dns: vec![],
            allocation: vec![],
            host_routes: vec![],
        },
        dhcp: true,
        generation: 1,
        created_at: T0,
    }
}

/// A port of network `of`, bound where it is said.
pub(crate) fn port(n: u8, of: u8, on: Option<u8>, groups: &[u8], generation: i64) -> Port {
    Port {
        id: port_id(n),
        project_id: project(),
        network_id: network_id(of),
        name: None,
        mac: MacAddr::port([0, 0, 0, 0, n]),
        fixed_ips: vec![FixedIp { subnet_id: SubnetId(id(6, of)), address: [10, of, 0, 10 + n].into() }],
        allowed_addresses: vec![],
        security_group_ids: groups.iter().map(|g| group_id(*g)).collect(),
        rate_limit: RateLimit::default(),
        hostname: format!("vm-{n}"),
        state: PortState::Active,
        owner: on.map(|_| PortOwner { instance_id: InstanceId(id(7, n)), with_instance: true }),
        host_id: on.map(host_id),
        epoch: generation,
        instance_epoch: 1,
        metadata_digest: String::new(),
        expires_at: None,
        status: PortStatus::Down,
        status_reason: String::new(),
        generation,
        created_at: T0,
    }
}

pub(crate) fn group(n: u8, generation: i64) -> SecurityGroup {
    SecurityGroup {
        id: group_id(n),
        project_id: project(),
        name: format!("group-{n}").parse().expect("a name"),
        description: String::new(),
        rules: vec![],
        generation,
        created_at: T0,
    }
}

fn external() -> ExternalNetwork {
    ExternalNetwork {
        id: ExternalNetworkId(id(8, 0)),
        name: "public".parse().expect("a name"),
        description: String::new(),
        subnets: vec![ExternalSubnet {
            cidr: "203.0.113.0/24".parse().expect("a CIDR"),
            gateway: [203, 0, 113, 1].into(),
            allocation: vec![],
        }],
        generation: 1,
        created_at: T0,
    }
}

fn router(n: u8, generation: i64) -> Router {
    Router {
        id: RouterId(id(10, n)),
        project_id: project(),
        name: format!("router-{n}").parse().expect("a name"),
        network_id: network_id(n),
        external_network_id: external().id,
        source_nat: generation % 2 == 1,
        generation,
        created_at: T0,
    }
}

fn uplink(of: u8, on: u8) -> UplinkRow {
    UplinkRow {
        network_id: network_id(of),
        host_id: host_id(on),
        external_network_id: external().id,
        addresses: vec![format!("203.0.113.{}/24", 10 * of + on)],
        mac: MacAddr::port([1, 0, 0, of, on]),
    }
}

fn floating(n: u8, port: Option<u8>, generation: i64) -> FloatingIp {
    FloatingIp {
        id: floating_id(n),
        project_id: project(),
        external_network_id: external().id,
        address: [203, 0, 113, 100 + n].into(),
        description: String::new(),
        port_id: port.map(port_id),
        fixed_ip: port.map(|p| [10, 0, 0, p].into()),
        generation,
        created_at: T0,
    }
}

fn peering(one: u8, two: u8) -> Peering {
    Peering {
        id: PeeringId(id(11, one * 16 + two)),
        project_id: project(),
        name: format!("peering-{one}-{two}").parse().expect("a name"),
        network_id: network_id(one),
        peer_network_id: network_id(two),
        generation: 1,
        created_at: T0,
    }
}

/// The topology, and what each host knows by the affected objects alone.
#[derive(Default)]
struct World {
    topology: Topology,
    known: HashMap<HostId, BTreeMap<ObjectKey, Rendered>>,
}

impl World {
    fn apply(&mut self, change: RowChange) -> Vec<Affected> {
        let affected = self.topology.apply(change);
        for (host_id, key) in &affected {
            let known = self.known.entry(*host_id).or_default();
            match self.topology.render(*host_id, *key) {
                Some(rendered) => known.insert(*key, rendered),
                None => known.remove(key),
            };
        }
        affected
    }

    fn must_know(&self, host_id: HostId) -> BTreeMap<ObjectKey, Rendered> {
        let keys = self.topology.objects_for_host(host_id);
        keys.into_iter().filter_map(|key| Some((key, self.topology.render(host_id, key)?))).collect()
    }
}

#[test]
fn a_host_knows_its_networks_all_of_their_ports_and_no_others() {
    let mut world = World::default();
    for row in [
        RowChange::Host(host(1, 1500)),
        RowChange::Host(host(2, 1500)),
        RowChange::Network(network(1, 1)),
        RowChange::Network(network(2, 1)),
        RowChange::Subnet(subnet(1)),
        RowChange::Port(port(1, 1, Some(1), &[1], 1)),
        RowChange::Port(port(2, 1, Some(2), &[1], 1)),
        RowChange::Port(port(3, 2, Some(2), &[], 1)),
        RowChange::Port(port(4, 1, None, &[1], 1)),
        RowChange::SecurityGroup(group(1, 1)),
    ] {
        world.apply(row);
    }
    let one = world.must_know(host_id(1));
    let keys: Vec<ObjectKey> = one.keys().copied().collect();
    assert_eq!(
        keys,
        [
            ObjectKey::Protected(ProtectedPart::Hosts(1)),
            ObjectKey::Protected(ProtectedPart::Hosts(2)),
            ObjectKey::Network(network_id(1)),
            ObjectKey::SecurityGroup(group_id(1)),
            ObjectKey::Port(port_id(1)),
            ObjectKey::Port(port_id(2))
        ]
    );
    let Object::Port(there) = &one[&ObjectKey::Port(port_id(2))].object else { panic!("a port") };
    assert_eq!(there.binding, Some(proto::network::v1::port::Binding::RemoteUnderlay("192.0.2.2".into())));
    assert_eq!(one[&ObjectKey::Port(port_id(1))].instance_id, Some(InstanceId(id(7, 1))));
    let Object::Network(net) = &one[&ObjectKey::Network(network_id(1))].object else { panic!("a network") };
    assert_eq!((net.mtu, net.subnets.len(), net.uplink.is_some()), (1450, 1, false));
    // The last port leaves: all of it goes.
    world.apply(RowChange::Port(port(1, 1, None, &[1], 2)));
    let protected = |key: &ObjectKey| matches!(key, ObjectKey::Protected(_));
    assert!(world.must_know(host_id(1)).keys().all(protected));
    assert!(world.known[&host_id(1)].keys().all(protected));
}

fn blocks(known: &BTreeMap<ObjectKey, Rendered>, part: ProtectedPart) -> Vec<String> {
    let Some(rendered) = known.get(&ObjectKey::Protected(part)) else { return vec![] };
    let Object::Protected(protected) = &rendered.object else { panic!("protected addresses") };
    protected.blocks.clone()
}

#[test]
fn a_host_that_joins_changes_or_goes_is_one_object_for_each_host() {
    let mut world = World::default();
    // Two of them share a part.
    let hosts = [1, 2, 2 + PROTECTED_PARTS, 3];
    let part = |n: u8| ProtectedPart::of_host(host_id(n));
    assert_eq!(part(2), part(2 + PROTECTED_PARTS));
    for n in hosts {
        world.apply(RowChange::Host(host(n, 1500)));
    }
    let first = blocks(&world.known[&host_id(1)], part(2));
    assert_eq!(first, ["192.0.2.2/32", "192.0.2.66/32", "198.51.15.2/32", "198.51.15.66/32"]);
    let everyone = |affected: Vec<Affected>, part: ProtectedPart| {
        let affected: BTreeSet<Affected> = affected.into_iter().collect();
        assert_eq!(affected, hosts.iter().map(|n| (host_id(*n), ObjectKey::Protected(part))).collect());
    };
    everyone(world.apply(RowChange::Host(NetworkHostRow { addresses: vec![], ..host(2, 1500) })), part(2));
    assert_eq!(blocks(&world.known[&host_id(3)], part(2)), ["192.0.2.2/32", "192.0.2.66/32", "198.51.15.66/32"]);
    let again = NetworkHostRow { addresses: vec![], revision_limit: 9, ..host(2, 1500) };
    assert!(world.apply(RowChange::Host(again)).is_empty(), "a message more is no news");
    world.apply(RowChange::Gone(RowKey::Host(host_id(2))));
    assert!(world.known[&host_id(2)].is_empty());
    assert_eq!(blocks(&world.known[&host_id(1)], part(2)), ["192.0.2.66/32", "198.51.15.66/32"]);
    world.apply(RowChange::Gone(RowKey::Host(host_id(2 + PROTECTED_PARTS))));
    assert!(!world.known[&host_id(1)].contains_key(&ObjectKey::Protected(part(2))), "the last of its part");

    let managers = BTreeSet::from(["10.1.0.0/24".parse().expect("a block")]);
    let affected: BTreeSet<Affected> = world.topology.protect(managers.clone()).into_iter().collect();
    assert_eq!(affected, [1, 3].map(|n| (host_id(n), ObjectKey::Protected(ProtectedPart::Managers))).into());
    assert!(world.topology.protect(managers).is_empty());
    assert_eq!(blocks(&world.must_know(host_id(3)), ProtectedPart::Managers), ["10.1.0.0/24"]);
}

#[test]
fn an_older_row_or_one_after_its_end_changes_nothing() {
    let mut topology = Topology::default();
    topology.apply(RowChange::Network(network(1, 5)));
    topology.apply(RowChange::Network(network(1, 4)));
    assert_eq!(topology.network(network_id(1)).map(|n| n.generation), Some(5));
    topology.apply(RowChange::Gone(RowKey::Network(network_id(1))));
    topology.apply(RowChange::Network(network(1, 6)));
    assert!(topology.network(network_id(1)).is_none());
}

#[test]
fn what_a_host_reports_affects_nobody() {
    let mut world = World::default();
    world.apply(RowChange::Host(host(1, 1500)));
    world.apply(RowChange::Network(network(1, 1)));
    world.apply(RowChange::Port(port(1, 1, Some(1), &[], 1)));
    let reported = Port { status: PortStatus::Active, ..port(1, 1, Some(1), &[], 1) };
    assert!(world.apply(RowChange::Port(reported)).is_empty());
    assert_eq!(world.topology.port(port_id(1)).map(|p| p.status), Some(PortStatus::Active));
}

#[derive(Debug, Clone)]
enum Move {
    Host(u8, u32),
    Network(u8),
    Subnet(u8),
    Port { n: u8, of: u8, on: Option<u8>, groups: Vec<u8> },
    Group(u8),
    Router(u8),
    Uplink(u8, u8),
    Floating(u8, Option<u8>),
    Peering(u8, u8),
    End(u8, u8),
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        (0..3u8, prop_oneof![Just(1500u32), Just(1400), Just(9000)]).prop_map(|(n, mtu)| Move::Host(n, mtu)),
        (0..3u8).prop_map(Move::Network),
        (0..3u8).prop_map(Move::Subnet),
        (0..6u8, 0..3u8, proptest::option::of(0..3u8), proptest::collection::vec(0..3u8, 0..2))
            .prop_map(|(n, of, on, groups)| Move::Port { n, of, on, groups }),
        (0..6u8, 0..3u8, proptest::option::of(0..3u8), proptest::collection::vec(0..3u8, 0..2))
            .prop_map(|(n, of, on, groups)| Move::Port { n, of, on, groups }),
        (0..3u8).prop_map(Move::Group),
        (0..3u8).prop_map(Move::Router),
        (0..3u8, 0..3u8).prop_map(|(of, on)| Move::Uplink(of, on)),
        (0..3u8, proptest::option::of(0..6u8)).prop_map(|(n, port)| Move::Floating(n, port)),
        (0..2u8, 1..3u8).prop_filter("two", |(a, b)| a < b).prop_map(|(a, b)| Move::Peering(a, b)),
        (0..9u8, 0..6u8).prop_map(|(kind, n)| Move::End(kind, n)),
    ];
    proptest::collection::vec(one, 0..60)
}

proptest! {
    #[test]
    fn what_changes_affect_is_what_a_full_look_finds(moves in moves()) {
        let mut world = World::default();
        world.apply(RowChange::ExternalNetwork(external()));
        for n in 0..3 {
            world.apply(RowChange::Host(host(n, 1500)));
            world.apply(RowChange::Network(network(n, 1)));
        }
        // Nothing has a router yet, so no uplink is missing.
        let mut scope = uplink::Scope::default();
        // A port stays in its network.
        let mut home: HashMap<u8, u8> = HashMap::new();
        for (at, one) in moves.into_iter().enumerate() {
            let generation = i64::try_from(at).expect("few") + 2;
            let change = match one {
                Move::Host(n, mtu) => RowChange::Host(host(n, mtu)),
                Move::Network(n) => RowChange::Network(network(n, generation)),
                Move::Subnet(n) => RowChange::Subnet(subnet(n)),
                Move::Port { n, of, on, groups } => {
                    let of = *home.entry(n).or_insert(of);
                    RowChange::Port(port(n, of, on, &groups, generation))
                }
                Move::Group(n) => RowChange::SecurityGroup(group(n, generation)),
                Move::Router(n) => RowChange::Router(router(n, generation)),
                Move::Uplink(of, on) => RowChange::Uplink(uplink(of, on)),
                Move::Floating(n, port) => RowChange::FloatingIp(floating(n, port, generation)),
                Move::Peering(a, b) => RowChange::Peering(peering(a, b)),
                Move::End(0, n) => RowChange::Gone(RowKey::Port(port_id(n))),
                Move::End(8, n) => RowChange::Gone(RowKey::Host(host_id(n % 3))),
                Move::End(1, n) => RowChange::Gone(RowKey::Subnet(SubnetId(id(6, n % 3)))),
                Move::End(2, n) => RowChange::Gone(RowKey::Router(router(n % 3, 1).id)),
                Move::End(3, n) => RowChange::Gone(RowKey::FloatingIp(floating_id(n % 3))),
                Move::End(4, n) => RowChange::Gone(RowKey::Uplink((network_id(n % 3), host_id(n / 2)))),
                Move::End(5, n) => RowChange::Gone(RowKey::SecurityGroup(group_id(n % 3))),
                Move::End(6, n) => RowChange::Gone(RowKey::Peering(peering(0, 1 + n % 2).id)),
                Move::End(_, _) => RowChange::Gone(RowKey::Peering(peering(1, 2).id)),
            };
            scope.add(uplink::Scope::of(&world.topology, &change));
            world.apply(change);
            let looked_at = |scope: &uplink::Scope| -> BTreeSet<String> {
                uplink::steps(&world.topology, scope).iter().map(|step| format!("{step:?}")).collect()
            };
            prop_assert_eq!(looked_at(&scope), looked_at(&uplink::Scope::All), "after move {}", at);
            for n in 0..3 {
                let by_changes = world.known.get(&host_id(n)).cloned().unwrap_or_default();
                prop_assert_eq!(by_changes, world.must_know(host_id(n)), "host {} after move {}", n, at);
            }
        }
    }
}
