//! What no request may say is refused by this service, whoever calls it: the api-gateway checks the form of what people write, and no rule
//! is kept there alone.

use crate::support::{World, subnet_create};
use domain::{
    ErrorKind, ExternalNetworkId, FloatingIpId, NetworkId, PeeringId, PortId, SecurityGroupId, SecurityRuleId,
    SubnetId,
    network::{
        Change, Cidr, Direction, Ethertype, ExternalNetwork, ExternalNetworkPatch, ExternalSubnet, FloatingIp,
        FloatingTarget, MacAddr, Match, Network, NetworkObject, NewExternalNetwork, NewFloatingIp, NewNetwork,
        NewPeering, NewPort, NewSecurityGroup, NewSubnet, Peering, Port, PortPatch, PortRange, Protocol, RateLimit,
        Remote, SecurityGroup, SecurityGroupRule, SecurityRule, Subnet, SubnetSpec,
    },
};

fn block(text: &str) -> Cidr {
    text.parse().expect("a CIDR")
}

fn new_port(network_id: NetworkId, allowed: &[&str]) -> NewPort {
    NewPort {
        id: PortId::new(),
        network_id,
        name: format!("p{}", PortId::new().0.simple()).parse().expect("a name"),
        mac: None,
        fixed_ips: vec![],
        allowed_addresses: allowed.iter().copied().map(block).collect(),
        any_address: false,
        security_group_ids: None,
        rate_limit: RateLimit::default(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_from_outside_a_ports_network_take_an_administrator_to_allow() {
    for world in World::each().await {
        world.defaults().await;
        let network_id = world.network("blue").await;
        world.subnet(network_id, "v4", "10.1.0.0/24", "10.1.0.1").await;
        world.subnet(network_id, "v6", "fd01::/64", "fd01::1").await;
        let inside = new_port(network_id, &["10.1.0.128/25", "fd01::5/128"]);
        let NetworkObject::Port(port) = world.apply(Change::create::<Port>(inside)).await else { panic!("a port") };
        let change = |allowed: &[&str], any_address| {
            let allowed_addresses = Some(allowed.iter().copied().map(block).collect());
            Change::update::<Port>(port.id, PortPatch { allowed_addresses, any_address, ..PortPatch::default() })
        };
        for wide in ["0.0.0.0/0", "::/0", "10.1.0.0/16", "10.2.0.7/32", "fd01::/63", "203.0.113.50/32"] {
            let create = Change::create::<Port>(new_port(network_id, &[wide]));
            for (request, field) in
                [(create, "allowed_addresses/0"), (change(&["10.1.0.9/32", wide], false), "allowed_addresses/1")]
            {
                let problem = world.refused(request).await;
                assert_eq!(
                    (problem.kind, problem.errors[0].field.as_str()),
                    (ErrorKind::PermissionDenied, field),
                    "{wide}"
                );
            }
        }
        world
            .apply(Change::create::<Port>(NewPort { any_address: true, ..new_port(network_id, &["0.0.0.0/0"]) }))
            .await;
        world.apply(change(&["0.0.0.0/0"], true)).await;
        // What was granted stays until it is given up.
        world.apply(change(&["0.0.0.0/0", "10.1.0.9/32"], false)).await;
        world.apply(change(&["10.1.0.9/32"], false)).await;
        assert_eq!(world.refused(change(&["0.0.0.0/0"], false)).await.kind, ErrorKind::PermissionDenied);
    }
}

fn protocol(protocol: Protocol, ports: Option<(u16, u16)>, icmp: (Option<u8>, Option<u8>)) -> Match {
    let ports = ports.map(|(first, last)| PortRange { first, last });
    Match::Protocol { protocol, ports, icmp_type: icmp.0, icmp_code: icmp.1 }
}

/// The bounds that `domain::validate::network` has for others to call, and the case below that breaks each.
const SHARED: [(&str, &str); 7] = [
    ("allowed_addresses", "an address elsewhere"),
    ("external_subnets", "no external block"),
    ("mac", "a group's MAC"),
    ("mtu", "an MTU"),
    ("new_port", "a group's MAC"),
    ("peers", "a peering with itself"),
    ("rate_limit", "a rate"),
];

/// A bound that is added there and broken by no case here fails the test: it may be the gateway's alone.
fn assert_all_shared_bounds_are_tried(cases: &[(&str, Change)]) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/domain/src/validate/network.rs");
    let source = std::fs::read_to_string(path).expect("the bounds");
    let functions = source.lines().filter_map(|line| line.strip_prefix("pub fn ")?.split('(').next());
    let functions: std::collections::BTreeSet<&str> = functions.collect();
    assert_eq!(functions, SHARED.iter().map(|(function, _)| *function).collect());
    for (function, case) in SHARED {
        assert!(cases.iter().any(|(what, _)| *what == case), "{function}");
    }
}

/// The rules that the gateway names fields for, each broken once.
#[tokio::test(flavor = "multi_thread")]
async fn every_rule_about_network_objects_is_kept_here_and_not_by_the_gateway_alone() {
    let world = World::one().await;
    let (_, group_id) = world.defaults().await;
    let network_id = world.network("blue").await;
    let public = world.store.external_network_find_by_name("public").await.expect("reads").expect("there").id;
    let mut bad: Vec<(&str, Change)> = Vec::new();

    let none = (None, None);
    for (what, matches, remote) in [
        ("family", Match::Any, Remote::Cidr(block("fd00::/64"))),
        ("ports from high to low", protocol(Protocol::Tcp, Some((30, 20)), none), Remote::Any),
        ("port 0", protocol(Protocol::Udp, Some((0, 20)), none), Remote::Any),
        ("ports of ICMP", protocol(Protocol::Icmp, Some((1, 2)), none), Remote::Any),
        ("types of TCP", protocol(Protocol::Tcp, None, (Some(8), None)), Remote::Any),
        ("a code without type", protocol(Protocol::Icmp, None, (None, Some(1))), Remote::Any),
        ("a number with a name", protocol(Protocol::Number(6), None, none), Remote::Any),
    ] {
        let rule = SecurityRule { direction: Direction::Ingress, ethertype: Ethertype::Ipv4, matches, remote };
        let of = |security_group_id| SecurityGroupRule {
            id: SecurityRuleId::new(),
            security_group_id,
            rule,
            description: String::new(),
        };
        bad.push((what, Change::create::<SecurityGroupRule>(of(group_id))));
        let id = SecurityGroupId::new();
        let (name, description) = ("bad".parse().expect("a name"), String::new());
        bad.push((
            what,
            Change::create::<SecurityGroup>(NewSecurityGroup { id, name, description, rules: vec![of(id)] }),
        ));
    }

    let spec = |cidr: &str, gateway: &str| SubnetSpec {
        cidr: block(cidr),
        gateway: gateway.parse().expect("an address"),
        dns: vec![],
        allocation: vec![],
        host_routes: vec![],
    };
    let good = spec("10.1.0.0/24", "10.1.0.1");
    let range = |text: &str| text.parse().expect("a range");
    let route = domain::network::HostRoute {
        destination: block("192.168.0.0/16"),
        next_hop: "10.9.0.1".parse().expect("an address"),
    };
    for (what, spec) in [
        ("a reserved range", spec("127.0.0.0/24", "127.0.0.1")),
        ("a small subnet", spec("10.1.0.0/30", "10.1.0.1")),
        ("a large subnet", spec("0.0.0.0/1", "10.1.0.1")),
        ("a gateway elsewhere", spec("10.1.0.0/24", "10.2.0.1")),
        ("a range elsewhere", SubnetSpec { allocation: vec![range("10.2.0.5-10.2.0.9")], ..good.clone() }),
        (
            "ranges that overlap",
            SubnetSpec { allocation: vec![range("10.1.0.5-10.1.0.9"), range("10.1.0.9-10.1.0.11")], ..good.clone() },
        ),
        ("a next hop elsewhere", SubnetSpec { host_routes: vec![route], ..good.clone() }),
    ] {
        let (id, name) = (SubnetId::new(), "s".parse().expect("a name"));
        bad.push((what, Change::create::<Subnet>(NewSubnet { id, network_id, name, spec, dhcp: true })));
    }
    world.apply(subnet_create(SubnetId::new(), network_id, "there", "10.1.0.0/24", "10.1.0.1")).await;
    bad.push(("overlapping subnets", subnet_create(SubnetId::new(), network_id, "s", "10.1.0.0/25", "10.1.0.1")));

    let multicast = MacAddr([1, 0, 0x5e, 0, 0, 1]);
    bad.push(("a group's MAC", Change::create::<Port>(NewPort { mac: Some(multicast), ..new_port(network_id, &[]) })));
    let rate_limit = RateLimit { to_instance_bps: u64::MAX, from_instance_bps: 0 };
    bad.push(("a rate", Change::create::<Port>(NewPort { rate_limit, ..new_port(network_id, &[]) })));
    bad.push(("an address elsewhere", Change::create::<Port>(new_port(network_id, &["192.0.2.0/24"]))));
    let name = || "n".parse().expect("a name");
    let small = NewNetwork { id: NetworkId::new(), name: name(), description: String::new(), mtu: Some(60) };
    bad.push(("an MTU", Change::create::<Network>(small)));
    let with_itself = NewPeering { id: PeeringId::new(), name: name(), network_id, peer_network_id: network_id };
    bad.push(("a peering with itself", Change::create::<Peering>(with_itself)));
    let v6 = NewFloatingIp {
        id: FloatingIpId::new(),
        external_network_id: public,
        address: Some("fd00::9".parse().expect("an address")),
        description: String::new(),
        target: FloatingTarget::Nothing,
    };
    bad.push(("an IPv6 floating IP", Change::create::<FloatingIp>(v6)));
    let outside = |subnets| NewExternalNetwork {
        id: ExternalNetworkId::new(),
        name: name(),
        description: String::new(),
        subnets,
    };
    let external = |cidr: &str, gateway: &str| ExternalSubnet {
        cidr: block(cidr),
        gateway: gateway.parse().expect("an address"),
        allocation: vec![],
    };
    let twice = vec![external("198.51.100.0/24", "198.51.100.1"), external("198.51.100.0/25", "198.51.100.2")];
    bad.push(("external blocks that overlap", Change::create::<ExternalNetwork>(outside(twice))));
    bad.push(("no external block", Change::create::<ExternalNetwork>(outside(vec![]))));
    let elsewhere = vec![external("198.51.100.0/24", "203.0.113.1")];
    bad.push(("an external gateway elsewhere", Change::create::<ExternalNetwork>(outside(elsewhere))));

    assert_all_shared_bounds_are_tried(&bad);
    for (what, change) in bad {
        let problem = world.refused(change).await;
        let kinds = [
            ErrorKind::InvalidArgument,
            ErrorKind::PermissionDenied,
            ErrorKind::AlreadyExists,
            ErrorKind::InvalidState,
        ];
        assert!(kinds.contains(&problem.kind), "{what}: {problem:?}");
        assert!(!problem.errors.is_empty() || problem.code != "invalid_argument", "{what}: {problem:?}");
    }
    world.assert_no_leaks().await;
}

/// Both are decided on what is in memory, and both can't be.
#[tokio::test(flavor = "multi_thread")]
async fn a_block_never_goes_under_a_floating_ip_that_takes_an_address_of_it() {
    for world in World::each().await {
        world.defaults().await;
        let public = world.store.external_network_find_by_name("public").await.expect("reads").expect("there");
        let first = public.subnets[0].clone();
        let (mut taken, mut removed) = (0, 0);
        for round in 0..40_u8 {
            let second = ExternalSubnet {
                cidr: block(&format!("198.51.{round}.0/24")),
                gateway: [198, 51, round, 1].into(),
                allocation: vec![],
            };
            let blocks = |subnets| {
                let patch = ExternalNetworkPatch { description: None, subnets: Some(subnets) };
                Change::update::<ExternalNetwork>(public.id, patch)
            };
            world.apply(blocks(vec![first.clone(), second.clone()])).await;
            let id = FloatingIpId::new();
            let float = Change::create::<FloatingIp>(NewFloatingIp {
                id,
                external_network_id: public.id,
                address: Some([198, 51, round, 9].into()),
                description: String::new(),
                target: FloatingTarget::Nothing,
            });
            let removal = blocks(vec![first.clone()]);
            let (floated, gone) = if round % 2 == 0 {
                tokio::join!(world.try_apply(float), world.try_apply(removal))
            } else {
                let (gone, floated) = tokio::join!(world.try_apply(removal), world.try_apply(float));
                (floated, gone)
            };
            match (floated, gone) {
                (Ok(_), Err(problem)) => {
                    assert_eq!(problem.code, "external_network_in_use");
                    taken += 1;
                    world.apply(Change::delete::<FloatingIp>(id)).await;
                    // Its quarantine holds no block.
                    world.apply(blocks(vec![first.clone()])).await;
                }
                (Err(problem), Ok(_)) => {
                    assert_eq!(problem.code, "address_outside_subnet");
                    removed += 1;
                }
                (floated, gone) => panic!("round {round}: {floated:?}, {gone:?}"),
            }
        }
        assert_eq!(taken + removed, 40);
        world.assert_no_leaks().await;
    }
}
