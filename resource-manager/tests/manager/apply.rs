//! Changes that people request: granted, or refused with a problem that says why.

use crate::support::{LIMIT, World, subnet_create};
use domain::{
    ErrorKind, FloatingIpId, NetworkId, OperationId, PeeringId, PortId, RouterId, SecurityGroupId, SecurityRuleId,
    SubnetId,
    network::{
        Change, Cidr, Direction, Ethertype, ExternalNetwork, FixedIpRequest, FloatingIp, FloatingIpPatch,
        FloatingTarget, Match, Network, NetworkObject, NetworkPatch, NewFloatingIp, NewNetwork, NewPeering, NewPort,
        NewRouter, NewSecurityGroup, Peering, Port, PortPatch, PortRange, Protocol, RateLimit, Remote, Router,
        SecurityGroup, SecurityGroupPatch, SecurityGroupRule, SecurityRule, Subnet, SubnetPatch,
    },
    quota::QuotaAmounts,
};
use service_kit::context::CallContext;

fn name(text: &str) -> domain::Name {
    text.parse().expect("a name")
}

fn port_create(network_id: NetworkId, called: &str, fixed_ips: Vec<FixedIpRequest>) -> Change {
    Change::create::<Port>(NewPort {
        id: PortId::new(),
        network_id,
        name: name(called),
        mac: None,
        fixed_ips,
        allowed_addresses: vec![],
        any_address: false,
        security_group_ids: None,
        rate_limit: RateLimit::default(),
    })
}

fn address(text: &str) -> FixedIpRequest {
    FixedIpRequest::Address(text.parse().expect("an address"))
}

async fn port(world: &World, network_id: NetworkId, called: &str) -> Port {
    let object = world.apply(port_create(network_id, called, vec![])).await;
    let NetworkObject::Port(port) = object else { panic!("{object:?}") };
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_project_has_its_defaults_once() {
    for world in World::each().await {
        let (network_id, group_id) = world.defaults().await;
        let subnets = world.store.subnet_list_of_network(network_id).await.expect("reads");
        let cidrs: Vec<Cidr> = subnets.iter().map(|subnet| subnet.spec.cidr).collect();
        assert_eq!(cidrs[0].to_string(), "10.0.0.0/20");
        assert_eq!((cidrs[1].v4(), cidrs[1].prefix()), (false, 64));
        assert!(subnets.iter().all(|subnet| subnet.dhcp));
        let group = world.store.security_group_find(group_id).await.expect("reads").expect("there");
        assert_eq!(group.rules.len(), 8);
        let router = world.store.router_find_by_name(world.project_id, "default").await.expect("reads").expect("there");
        assert!(router.source_nat && router.network_id == network_id);
        let again = world.try_apply(Change::ProjectDefaults).await.expect("a repeat succeeds");
        assert_eq!(again.object, None);

        // They are the project's to change; the group stays.
        assert_eq!(world.refused(Change::delete::<SecurityGroup>(group_id)).await.code, "default_group");
        let rename = Change::update::<SecurityGroup>(
            group_id,
            SecurityGroupPatch { name: Some(name("other")), description: None },
        );
        assert_eq!(world.refused(rename).await.code, "default_group");
        let ssh = group.rules.iter().find(|rule| rule.description.starts_with("SSH")).expect("a rule");
        world.apply(Change::delete::<SecurityGroupRule>(ssh.id)).await;
        world.assert_no_leaks().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn subnets_dont_overlap_where_they_meet() {
    let world = World::one().await;
    let (blue, red, green) = (world.network("blue").await, world.network("red").await, world.network("green").await);
    let subnet = world.subnet(blue, "a", "10.1.0.0/24", "10.1.0.1").await;
    world.subnet(red, "a", "10.1.0.0/24", "10.1.0.1").await;
    let overlaps = world.refused(subnet_create(SubnetId::new(), blue, "b", "10.1.0.128/25", "10.1.0.129")).await;
    assert_eq!((overlaps.code.as_str(), overlaps.errors[0].field.as_str()), ("subnet_overlaps", "cidr"));
    let taken = world.refused(subnet_create(SubnetId::new(), blue, "a", "10.2.0.0/24", "10.2.0.1")).await;
    assert_eq!(taken.code, "name_taken");
    let gateway = world.refused(subnet_create(SubnetId::new(), blue, "b", "10.2.0.0/24", "10.3.0.1")).await;
    assert_eq!((gateway.code.as_str(), gateway.errors[0].field.as_str()), ("invalid_gateway", "gateway"));
    let small = world.refused(subnet_create(SubnetId::new(), blue, "b", "10.2.0.0/30", "10.2.0.1")).await;
    assert_eq!(small.code, "invalid_cidr");

    let peer = |one, two| {
        Change::create::<Peering>(NewPeering {
            id: PeeringId::new(),
            name: name(&format!("p{}", PeeringId::new().0.simple())),
            network_id: one,
            peer_network_id: two,
        })
    };
    assert_eq!(world.refused(peer(blue, red)).await.code, "subnet_overlaps");
    assert_eq!(world.refused(peer(blue, blue)).await.kind, ErrorKind::InvalidArgument);
    world.apply(peer(blue, green)).await;
    assert_eq!(world.refused(peer(green, blue)).await.code, "peering_exists");
    let overlapping = world.refused(subnet_create(SubnetId::new(), green, "a", "10.1.0.0/16", "10.1.0.1")).await;
    assert_eq!(overlapping.code, "subnet_overlaps", "a peer's");
    assert_eq!(
        world.refused(peer(green, red)).await.code,
        "subnet_overlaps",
        "blue and red would be seen side by side"
    );
    assert_eq!(world.refused(Change::delete::<Network>(blue)).await.code, "network_in_use");
    world.subnet(green, "a", "10.4.0.0/16", "10.4.0.1").await;

    let change = SubnetPatch {
        allocation: Some(vec!["10.1.0.10-10.1.0.11".parse().expect("a range")]),
        ..SubnetPatch::default()
    };
    world.apply(Change::update::<Subnet>(subnet, change)).await;
    world.defaults().await;
    for called in ["one", "two"] {
        let port = port(&world, blue, called).await;
        assert!(["10.1.0.10", "10.1.0.11"].contains(&port.fixed_ips[0].address.to_string().as_str()));
    }
    assert_eq!(world.refused(port_create(blue, "three", vec![])).await.code, "no_free_address");
    assert_eq!(world.refused(Change::delete::<Subnet>(subnet)).await.code, "subnet_in_use");
    world.assert_no_leaks().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_have_one_owner_and_are_quarantined() {
    for world in World::each().await {
        let (_, group) = world.defaults().await;
        let network = world.network("blue").await;
        assert_eq!(world.refused(port_create(network, "p", vec![])).await.code, "network_without_subnet");
        world.subnet(network, "v4", "10.1.0.0/24", "10.1.0.1").await;
        world.subnet(network, "v6", "fd01::/64", "fd01::1").await;
        let both = port(&world, network, "both").await;
        assert_eq!(both.fixed_ips.iter().map(|ip| ip.address.to_string()).collect::<Vec<_>>(), ["10.1.0.2", "fd01::2"]);
        assert_eq!(both.security_group_ids, [group]);

        let NetworkObject::Port(given) = world.apply(port_create(network, "given", vec![address("10.1.0.9")])).await
        else {
            panic!("a port")
        };
        let taken = world.refused(port_create(network, "again", vec![address("10.1.0.9")])).await;
        assert_eq!((taken.code.as_str(), taken.kind), ("address_taken", ErrorKind::AlreadyExists));
        assert!(taken.detail.contains("port given"), "{}", taken.detail);
        assert_eq!(
            world.refused(port_create(network, "p", vec![address("10.9.0.9")])).await.code,
            "address_outside_subnet"
        );
        assert_eq!(
            world.refused(port_create(network, "p", vec![address("10.1.0.1")])).await.code,
            "address_is_gateway"
        );
        assert_eq!(
            world.refused(port_create(network, "p", vec![address("10.1.0.255")])).await.code,
            "address_not_usable"
        );
        assert_eq!(world.refused(port_create(NetworkId::new(), "p", vec![])).await.code, "network_not_found");
        let strange = Change::create::<Port>(NewPort {
            id: PortId::new(),
            network_id: network,
            name: name("p"),
            mac: Some(given.mac),
            fixed_ips: vec![],
            allowed_addresses: vec![],
            any_address: false,
            security_group_ids: None,
            rate_limit: RateLimit::default(),
        });
        assert_eq!(world.refused(strange).await.code, "mac_taken");
        assert_eq!(world.refused(port_create(network, "given", vec![])).await.code, "name_taken");

        // Tried first: nothing changes, and what was looked at is still free.
        let tried = world.dry_run(port_create(network, "p", vec![address("10.1.0.50")])).await.expect("it would be");
        assert!(tried.summary.contains("would be created"), "{}", tried.summary);
        world.dry_run(port_create(network, "p", vec![address("10.1.0.50")])).await.expect("still");
        assert_eq!(world.dry_run(port_create(network, "given", vec![])).await.expect_err("taken").code, "name_taken");

        world.apply(Change::delete::<Port>(given.id)).await;
        let quarantined = world.refused(port_create(network, "p", vec![address("10.1.0.9")])).await;
        assert_eq!(quarantined.code, "address_quarantined");
        assert_eq!(world.refused(Change::delete::<Network>(network)).await.code, "network_in_use");
        let rename =
            PortPatch { name: Some(name("renamed")), security_group_ids: Some(vec![]), ..PortPatch::default() };
        world.apply(Change::update::<Port>(both.id, rename)).await;
        world.apply(Change::delete::<Port>(both.id)).await;
        world.apply(Change::delete::<Network>(network)).await;
        world.assert_no_leaks().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn floating_ips_need_a_way() {
    for world in World::each().await {
        let (default, _) = world.defaults().await;
        let public = world.store.external_network_find_by_name("public").await.expect("reads").expect("there").id;
        let float = |address: Option<&str>, target| {
            Change::create::<FloatingIp>(NewFloatingIp {
                id: FloatingIpId::new(),
                external_network_id: public,
                address: address.map(|text| text.parse().expect("an address")),
                description: String::new(),
                target,
            })
        };
        let (one, two) = (port(&world, default, "one").await, port(&world, default, "two").await);
        let to = |port: &Port| FloatingTarget::Port { port_id: port.id, fixed_ip: None };
        let NetworkObject::FloatingIp(first) = world.apply(float(Some("203.0.113.20"), to(&one))).await else {
            panic!("a floating IP")
        };
        assert_eq!(first.fixed_ip, Some(one.fixed_ips[0].address));
        assert_eq!(world.refused(float(Some("203.0.113.20"), FloatingTarget::Nothing)).await.code, "address_taken");
        assert_eq!(
            world.refused(float(Some("198.51.100.1"), FloatingTarget::Nothing)).await.code,
            "address_outside_subnet"
        );
        assert_eq!(world.refused(float(None, to(&one))).await.code, "floating_ip_exists");
        let six = FloatingTarget::Port { port_id: two.id, fixed_ip: Some(two.fixed_ips[1].address) };
        assert_eq!(world.refused(float(None, six)).await.kind, ErrorKind::InvalidArgument);

        let island = world.network("island").await;
        world.subnet(island, "v6", "fd02::/64", "fd02::1").await;
        let alone = port(&world, island, "alone").await;
        assert_eq!(world.refused(float(None, to(&alone))).await.code, "target_without_ipv4");
        world.subnet(island, "v4", "10.1.0.0/24", "10.1.0.1").await;
        let stranded = port(&world, island, "stranded").await;
        assert_eq!(world.refused(float(None, to(&stranded))).await.code, "network_not_routed");
        let router = |called: &str| {
            Change::create::<Router>(NewRouter {
                id: RouterId::new(),
                name: name(called),
                network_id: island,
                external_network_id: public,
                source_nat: true,
            })
        };
        let NetworkObject::Router(way) = world.apply(router("way")).await else { panic!("a router") };
        assert_eq!(world.refused(router("second")).await.code, "router_exists");
        let NetworkObject::FloatingIp(second) = world.apply(float(None, to(&stranded))).await else {
            panic!("a floating IP")
        };
        assert_eq!(world.refused(Change::delete::<Router>(way.id)).await.code, "router_in_use");
        assert_eq!(world.refused(Change::delete::<ExternalNetwork>(public)).await.code, "external_network_in_use");

        // It moves, and is dissociated with its port.
        let moved =
            Change::update::<FloatingIp>(first.id, FloatingIpPatch { description: None, target: Some(to(&two)) });
        let NetworkObject::FloatingIp(moved) = world.apply(moved).await else { panic!("a floating IP") };
        assert_eq!(moved.port_id, Some(two.id));
        world.apply(Change::delete::<Port>(two.id)).await;
        let there = world.store.floating_ip_find(first.id).await.expect("reads").expect("there");
        assert_eq!((there.port_id, there.generation), (None, 3));
        world.apply(Change::delete::<FloatingIp>(second.id)).await;
        world.apply(Change::delete::<Router>(way.id)).await;
        assert_eq!(
            world.refused(float(Some(&second.address.to_string()), FloatingTarget::Nothing)).await.code,
            "address_quarantined"
        );
        world.assert_no_leaks().await;
    }
}

/// Both are decided on a memory in which the other isn't yet.
#[tokio::test(flavor = "multi_thread")]
async fn a_router_that_goes_and_a_floating_ip_that_needs_it_never_both_stand() {
    for world in World::each().await {
        let (default, _) = world.defaults().await;
        let public = world.store.external_network_find_by_name("public").await.expect("reads").expect("there").id;
        let target = FloatingTarget::Port { port_id: port(&world, default, "one").await.id, fixed_ip: None };
        let floating_ip = FloatingIpId::new();
        world
            .apply(Change::create::<FloatingIp>(NewFloatingIp {
                id: floating_ip,
                external_network_id: public,
                address: None,
                description: String::new(),
                target: FloatingTarget::Nothing,
            }))
            .await;
        for round in 0..10 {
            let router = world.store.router_load_many_of_networks(&[default]).await.expect("reads").remove(0);
            let to = |target| {
                Change::update::<FloatingIp>(floating_ip, FloatingIpPatch { description: None, target: Some(target) })
            };
            let (associated, removed) =
                tokio::join!(world.try_apply(to(target)), world.try_apply(Change::delete::<Router>(router.id)));
            assert!(associated.is_ok() != removed.is_ok(), "round {round}: {associated:?} {removed:?}");
            if removed.is_ok() {
                assert_eq!(associated.expect_err("refused").code, "network_not_routed");
                world
                    .apply(Change::create::<Router>(NewRouter {
                        id: RouterId::new(),
                        name: name("default"),
                        network_id: default,
                        external_network_id: public,
                        source_nat: true,
                    }))
                    .await;
            } else {
                assert_eq!(removed.expect_err("refused").code, "router_in_use");
                world.apply(to(FloatingTarget::Nothing)).await;
            }
        }
        world.assert_no_leaks().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_and_rules_make_sense() {
    let world = World::one().await;
    let (network, _) = world.defaults().await;
    let ssh = |first, last| Match::Protocol {
        protocol: Protocol::Tcp,
        ports: Some(PortRange { first, last }),
        icmp_type: None,
        icmp_code: None,
    };
    let rule =
        |matches, remote| SecurityRule { direction: Direction::Ingress, ethertype: Ethertype::Ipv4, matches, remote };
    let (web, db) = (SecurityGroupId::new(), SecurityGroupId::new());
    let group = |id, called: &str, rules: Vec<SecurityRule>| {
        Change::create::<SecurityGroup>(NewSecurityGroup {
            id,
            name: name(called),
            description: String::new(),
            rules: rules
                .into_iter()
                .map(|rule| SecurityGroupRule {
                    id: SecurityRuleId::new(),
                    security_group_id: id,
                    rule,
                    description: String::new(),
                })
                .collect(),
        })
    };
    world.apply(group(web, "web", vec![rule(ssh(22, 22), Remote::Any), rule(Match::Any, Remote::Group(web))])).await;
    world.apply(group(db, "db", vec![rule(ssh(5432, 5432), Remote::Group(web))])).await;
    assert_eq!(world.refused(group(SecurityGroupId::new(), "web", vec![])).await.code, "name_taken");
    let add = |to, rule| {
        Change::create::<SecurityGroupRule>(SecurityGroupRule {
            id: SecurityRuleId::new(),
            security_group_id: to,
            rule,
            description: String::new(),
        })
    };
    let nonsense = world.refused(add(web, rule(ssh(30, 20), Remote::Any))).await;
    assert_eq!((nonsense.code.as_str(), nonsense.errors[0].field.as_str()), ("invalid_rule", "ports"));
    assert_eq!(world.refused(add(web, rule(ssh(22, 22), Remote::Any))).await.code, "rule_exists");
    let foreign = world.refused(add(web, rule(Match::Any, Remote::Group(SecurityGroupId::new())))).await;
    assert_eq!(foreign.code, "security_group_not_found");
    let NetworkObject::SecurityRule(added) = world.apply(add(web, rule(ssh(80, 80), Remote::Any))).await else {
        panic!("a rule")
    };
    assert_eq!(world.store.security_group_find(web).await.expect("reads").expect("there").generation, 2);
    let used = world.refused(Change::delete::<SecurityGroup>(web)).await;
    assert!(used.code == "security_group_in_use" && used.detail.contains("a rule of security group db"), "{used:?}");
    let member = port(&world, network, "member").await;
    let join = PortPatch { security_group_ids: Some(vec![db]), ..PortPatch::default() };
    world.apply(Change::update::<Port>(member.id, join)).await;
    let used = world.refused(Change::delete::<SecurityGroup>(db)).await;
    assert!(used.detail.contains("port member"), "{used:?}");
    world.apply(Change::delete::<SecurityGroupRule>(added.id)).await;
    assert_eq!(world.refused(Change::delete::<SecurityGroupRule>(added.id)).await.code, "security_rule_not_found");
    world.apply(Change::delete::<Port>(member.id)).await;
    world.apply(Change::delete::<SecurityGroup>(db)).await;
    world.apply(Change::delete::<SecurityGroup>(web)).await;
    world.assert_no_leaks().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn quotas_generations_repeats_and_other_projects() {
    for mut world in World::each().await {
        world.defaults().await;
        let mut networks = Vec::new();
        for at in 1..LIMIT.networks {
            networks.push(world.network(&format!("n{at}")).await);
        }
        let more = |id| {
            Change::create::<Network>(NewNetwork { id, name: name("more"), description: String::new(), mtu: None })
        };
        for problem in [
            world.refused(more(NetworkId::new())).await,
            world.dry_run(more(NetworkId::new())).await.expect_err("full"),
        ] {
            assert_eq!(problem.kind, ErrorKind::QuotaExceeded);
            assert!(problem.detail.contains("networks: 1 requested, 5 used, limit 5"), "{}", problem.detail);
        }
        // What was read matters, where it was said.
        let context = || CallContext::system("test");
        let rename =
            Change::update::<Network>(networks[0], NetworkPatch { name: Some(name("renamed")), description: None });
        let stale = world.try_apply_with(context(), 7, &rename).await.expect_err("another generation");
        assert_eq!((stale.kind, stale.code.as_str()), (ErrorKind::PreconditionFailed, "stale_generation"));
        world.try_apply_with(context(), 1, &rename).await.expect("as it was read");

        // A repeat of an operation gets the first answer, also after a restart, and also of a deletion.
        let operation = CallContext { operation_id: Some(OperationId::new()), ..context() };
        let delete = Change::delete::<Network>(networks[1]);
        let first = world.try_apply_with(operation.clone(), 0, &delete).await.expect("deleted");
        assert_eq!(world.try_apply_with(operation.clone(), 0, &delete).await.expect("a repeat"), first);
        world.restart().await;
        assert_eq!(world.try_apply_with(operation, 0, &delete).await.expect("a repeat"), first);
        assert_eq!(world.refused(delete).await.code, "network_not_found");

        // What is another project's isn't there.
        let theirs = world.network("theirs").await;
        world.project_id = world.project("other").await;
        assert_eq!(world.refused(Change::delete::<Network>(theirs)).await.kind, ErrorKind::NotFound);
        world.defaults().await;
        assert_eq!(world.refused(port_create(theirs, "p", vec![])).await.code, "network_not_found");
        let usage = world.store.quota_usage(world.project_id).await.expect("reads");
        let expected = QuotaAmounts {
            networks: 1,
            subnets: 2,
            routers: 1,
            security_groups: 1,
            security_rules: 8,
            ..QuotaAmounts::NONE
        };
        assert_eq!(usage, expected);
        world.assert_no_leaks().await;
    }
}

/// The underlay of a host that was removed from the fleet narrows nobody's packets.
#[tokio::test(flavor = "multi_thread")]
async fn a_removed_hosts_underlay_counts_no_longer() {
    for world in World::each().await {
        let gone = domain::HostId::new();
        let row = store::NetworkHostRow {
            host_id: gone,
            name: "gone".into(),
            underlay_address: [192, 0, 2, 9].into(),
            addresses: vec![],
            underlay_mtu: 1280,
            external_networks: vec![],
            revision_limit: 0,
            last_seen_at: domain::Timestamp::now(),
        };
        world.store.commit(store::Unit::new().op(store::NetworkHostPut::from(row))).await.expect("a row");
        world.until(async || world.store.network_host_load_all().await.expect("reads").is_empty().then_some(())).await;
    }
}
