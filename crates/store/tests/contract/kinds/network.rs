//! Networks, subnets, external networks, routers with their uplinks, peerings, hosts of networks, defaults of projects.

use crate::fixture::{
    Lab, T0, at, external_network_insert, first, name, network_insert, network_usage, port_insert, router_insert,
    subnet_insert,
};
use domain::{
    ExternalNetworkId, HostId, NetworkId, OperationId, PeeringId, ProjectId, RouterId, SubnetId,
    network::{HostRoute, SubnetSpec, Vni},
    quota::QuotaAmounts,
};
use store::*;

pub async fn walk(lab: &Lab) {
    let project = lab.project("network").await;
    networks(lab, project).await;
    subnets(lab, project).await;
    external_networks(lab).await;
    routers(lab, project).await;
    peerings(lab, project).await;
    hosts(lab).await;
    usage(lab, project).await;
    defaults(lab).await;
    let operation = ResourceOperationInsert { id: OperationId::new(), outcome: "{}".into(), created_at: T0 };
    lab.one(operation.clone()).await;
    assert_eq!(lab.constraint(operation.clone()).await, Constraint::OperationRepeated);
    assert_eq!(lab.operation_find(OperationTable::Resource, operation.id).await.unwrap().as_deref(), Some("{}"));
    lab.one(ResourceOperationExpire { before: at(1) }).await;
    assert_eq!(lab.operation_find(OperationTable::Resource, operation.id).await.unwrap(), None);
}

async fn networks(lab: &Lab, project: ProjectId) {
    let blue = network_insert(project, "blue");
    lab.one(blue.clone()).await;
    let other = NetworkInsert { id: NetworkId::new(), ..network_insert(project, "blue") };
    assert_eq!(lab.constraint(other.clone()).await, Constraint::NetworkName);
    let other = NetworkInsert { name: name("red"), vni: blue.vni, mtu: Some(1400), ..other };
    assert_eq!(lab.constraint(other.clone()).await, Constraint::NetworkVni);
    let red = NetworkInsert { vni: Vni::try_from(Vni::MAX).expect("a VNI"), ..other };
    assert_eq!(
        lab.constraint(NetworkInsert { project_id: ProjectId::new(), ..red.clone() }).await,
        Constraint::ForeignKey(ForeignKey::NetworkProject)
    );
    lab.one(red.clone()).await;
    let row = lab.network_find(red.id).await.unwrap().unwrap();
    assert_eq!((row.vni.get(), row.mtu, row.generation, row.created_at), (Vni::MAX, Some(1400), 1, T0));
    assert_eq!(lab.network_find(NetworkId::new()).await.unwrap(), None);

    let change =
        NetworkChange { id: blue.id, expected_generation: 1, name: name("azure"), description: "the \"sky\"".into() };
    lab.one(change.clone()).await;
    assert_eq!(lab.guard(change).await, Guard::NetworkGeneration);
    let bump = NetworkBump { id: blue.id, expected_generation: 2 };
    lab.one(bump.clone()).await;
    assert_eq!(lab.guard(bump).await, Guard::NetworkGeneration);
    let row = lab.network_find_by_name(project, "azure").await.unwrap().unwrap();
    assert_eq!((row.id, row.description.as_str(), row.generation, row.mtu), (blue.id, "the \"sky\"", 3, None));
    assert_eq!(lab.network_find_by_name(ProjectId::new(), "azure").await.unwrap(), None);
    let ids = |rows: Vec<domain::network::Network>| rows.iter().map(|n| n.id).collect::<Vec<_>>();
    assert_eq!(ids(lab.network_list(project, first(9)).await.unwrap()), [blue.id, red.id]);
    let page = Page { after: Some(blue.id.to_string()), limit: 9 };
    assert_eq!(ids(lab.network_list(project, page).await.unwrap()), [red.id]);
    assert!(ids(lab.network_load_all().await.unwrap()).contains(&red.id));
    let before_red = Page { after: Some(blue.id.to_string()), limit: 1000 };
    let behind_blue = ids(lab.network_list_all(before_red).await.unwrap());
    assert!(behind_blue.contains(&red.id) && !behind_blue.contains(&blue.id));

    assert_eq!(lab.guard(ProjectDelete { id: project }).await, Guard::ProjectInUse);
    assert_eq!(lab.guard(NetworkDelete { id: blue.id, expected_generation: 1 }).await, Guard::NetworkInUse);
    let port = port_insert(project, blue.id);
    lab.one(port.clone()).await;
    assert_eq!(lab.guard(NetworkDelete { id: blue.id, expected_generation: 3 }).await, Guard::NetworkInUse, "a port");
    lab.one(PortDelete { id: port.id, expected_generation: 1 }).await;
    lab.one(subnet_insert(project, blue.id, "goes", "10.9.0.0/24")).await;
    lab.one(NetworkDelete { id: blue.id, expected_generation: 3 }).await;
    assert_eq!(lab.subnet_list_of_network(blue.id).await.unwrap(), [], "subnets go with it");
    lab.one(NetworkDelete { id: red.id, expected_generation: 1 }).await;
    assert_eq!(lab.guard(NetworkDelete { id: red.id, expected_generation: 1 }).await, Guard::NetworkInUse, "gone");
}

async fn subnets(lab: &Lab, project: ProjectId) {
    let network = network_insert(project, "with-subnets");
    lab.one(network.clone()).await;
    let four = SubnetInsert {
        spec: SubnetSpec {
            dns: vec!["1.1.1.1".parse().expect("an address")],
            allocation: vec!["10.0.0.10-10.0.0.20".parse().expect("a range")],
            host_routes: vec![HostRoute {
                destination: "192.168.0.0/16".parse().expect("a CIDR"),
                next_hop: "10.0.0.9".parse().expect("an address"),
            }],
            ..subnet_insert(project, network.id, "four", "10.0.0.0/24").spec
        },
        ..subnet_insert(project, network.id, "four", "10.0.0.0/24")
    };
    lab.one(four.clone()).await;
    let six = SubnetInsert { dhcp: false, ..subnet_insert(project, network.id, "six", "fd00::/64") };
    lab.one(six.clone()).await;
    let taken = SubnetInsert { id: SubnetId::new(), ..four.clone() };
    assert_eq!(lab.constraint(taken.clone()).await, Constraint::SubnetName);
    let adrift = SubnetInsert { network_id: NetworkId::new(), ..taken };
    assert_eq!(lab.constraint(adrift).await, Constraint::ForeignKey(ForeignKey::SubnetNetwork));
    let row = lab.subnet_find(four.id).await.unwrap().unwrap();
    assert_eq!((&row.spec, row.dhcp, row.generation, row.network_id), (&four.spec, true, 1, network.id));
    assert!(!lab.subnet_find_by_name(project, "six").await.unwrap().unwrap().dhcp);
    assert_eq!(lab.subnet_find_by_name(project, "seven").await.unwrap(), None);

    let update = SubnetUpdate {
        id: four.id,
        expected_generation: 1,
        name: name("vier"),
        spec: SubnetSpec { dns: vec![], ..four.spec.clone() },
        dhcp: false,
    };
    lab.one(update.clone()).await;
    assert_eq!(lab.guard(update).await, Guard::SubnetGeneration);
    let row = lab.subnet_find(four.id).await.unwrap().unwrap();
    assert_eq!((row.name.as_str(), row.spec.dns.len(), row.dhcp, row.generation), ("vier", 0, false, 2));
    let ids = |rows: Vec<domain::network::Subnet>| rows.iter().map(|s| s.id).collect::<Vec<_>>();
    assert_eq!(ids(lab.subnet_list(project, first(9)).await.unwrap()), [four.id, six.id]);
    assert_eq!(ids(lab.subnet_list_of_network(network.id).await.unwrap()), [four.id, six.id]);
    assert!(ids(lab.subnet_load_all().await.unwrap()).contains(&six.id));

    let take = AddressTake {
        scope_id: network.id.to_string(),
        address: "10.0.0.10".parse().expect("an address"),
        subnet_id: Some(four.id),
        block_id: None,
        owner_kind: AddressOwner::Port,
        owner_id: "somebody".into(),
        at: T0,
    };
    lab.one(take.clone()).await;
    assert_eq!(lab.guard(SubnetDelete { id: four.id, expected_generation: 2 }).await, Guard::SubnetInUse, "an address");
    let release = AddressRelease {
        scope_id: take.scope_id.clone(),
        address: take.address,
        owner_id: "somebody".into(),
        free_at: at(60),
    };
    lab.one(release).await;
    assert_eq!(lab.guard(SubnetDelete { id: four.id, expected_generation: 1 }).await, Guard::SubnetInUse, "changed");
    lab.one(SubnetDelete { id: four.id, expected_generation: 2 }).await;
    let late = AddressTake { at: at(99), ..take };
    assert_eq!(lab.guard(late).await, Guard::AddressTaken, "an address of a subnet that is gone");
    lab.one(SubnetDelete { id: six.id, expected_generation: 1 }).await;
    lab.one(AddressSweep { before: at(60) }).await;
    lab.one(NetworkDelete { id: network.id, expected_generation: 1 }).await;
}

async fn external_networks(lab: &Lab) {
    let outside = external_network_insert("outside");
    lab.one(outside.clone()).await;
    let taken = ExternalNetworkInsert { id: ExternalNetworkId::new(), ..outside.clone() };
    assert_eq!(lab.constraint(taken).await, Constraint::ExternalNetworkName);
    let row = lab.external_network_find(outside.id).await.unwrap().unwrap();
    assert_eq!((&row.subnets, row.generation), (&outside.subnets, 1));
    let change = ExternalNetworkChange {
        id: outside.id,
        expected_generation: 1,
        description: "of the lab".into(),
        subnets: vec![],
    };
    lab.one(change.clone()).await;
    assert_eq!(lab.guard(change).await, Guard::ExternalNetworkGeneration);
    let row = lab.external_network_find_by_name("outside").await.unwrap().unwrap();
    assert_eq!((row.description.as_str(), row.subnets.len(), row.generation), ("of the lab", 0, 2));
    assert_eq!(lab.external_network_list(first(9)).await.unwrap(), [row]);
    external_blocks(lab, outside.id).await;
    lab.one(ExternalNetworkDelete { id: outside.id }).await;
    assert_eq!(lab.guard(ExternalNetworkDelete { id: outside.id }).await, Guard::ExternalNetworkInUse, "gone");
}

/// Whoever has an address of a block holds the block, and its external network.
async fn external_blocks(lab: &Lab, external_network_id: ExternalNetworkId) {
    let id = external_block_id(external_network_id, "203.0.113.0/24".parse().expect("a CIDR"));
    let block = ExternalBlockInsert { id: id.clone(), external_network_id };
    let adrift = ExternalBlockInsert { external_network_id: ExternalNetworkId::new(), ..block.clone() };
    assert_eq!(lab.constraint(adrift).await, Constraint::ForeignKey(ForeignKey::ExternalBlockNetwork));
    let take = AddressTake {
        scope_id: external_network_id.to_string(),
        address: "203.0.113.10".parse().expect("an address"),
        subnet_id: None,
        block_id: Some(id.clone()),
        owner_kind: AddressOwner::FloatingIp,
        owner_id: "somebody".into(),
        at: T0,
    };
    assert_eq!(lab.constraint(take.clone()).await, Constraint::ForeignKey(ForeignKey::AddressBlock));
    lab.one(block.clone()).await;
    assert_eq!(lab.constraint(block).await, Constraint::PrimaryKey(Table::ExternalBlock));
    lab.one(take.clone()).await;
    assert_eq!(lab.guard(ExternalBlockDelete { id: id.clone() }).await, Guard::ExternalNetworkInUse, "an address");
    assert_eq!(lab.guard(ExternalNetworkDelete { id: external_network_id }).await, Guard::ExternalNetworkInUse);
    let AddressTake { scope_id, address, owner_id, .. } = take;
    lab.one(AddressRelease { scope_id, address, owner_id, free_at: at(1) }).await;
    lab.one(ExternalBlockDelete { id: id.clone() }).await;
    assert_eq!(lab.guard(ExternalBlockDelete { id }).await, Guard::ExternalNetworkInUse, "gone");
    lab.one(AddressSweep { before: at(1) }).await;
}

async fn routers(lab: &Lab, project: ProjectId) {
    let (network, outside) = (network_insert(project, "routed"), external_network_insert("internet"));
    lab.all(Unit::new().op(network.clone()).op(outside.clone())).await;
    let router = router_insert(project, "way-out", network.id, outside.id);
    lab.one(router.clone()).await;
    let second = RouterInsert { id: RouterId::new(), name: name("second"), ..router.clone() };
    assert_eq!(lab.constraint(second.clone()).await, Constraint::RouterNetwork);
    let elsewhere = network_insert(project, "elsewhere");
    lab.one(elsewhere.clone()).await;
    let same_name = RouterInsert { name: router.name.clone(), network_id: elsewhere.id, ..second };
    assert_eq!(lab.constraint(same_name.clone()).await, Constraint::RouterName);
    let adrift = RouterInsert { network_id: NetworkId::new(), name: name("third"), ..same_name.clone() };
    assert_eq!(lab.constraint(adrift).await, Constraint::ForeignKey(ForeignKey::RouterNetwork));
    let nowhere = RouterInsert { external_network_id: ExternalNetworkId::new(), name: name("third"), ..same_name };
    assert_eq!(lab.constraint(nowhere).await, Constraint::ForeignKey(ForeignKey::RouterExternalNetwork));

    let update = RouterUpdate { id: router.id, expected_generation: 1, name: name("exit"), source_nat: false };
    lab.one(update.clone()).await;
    assert_eq!(lab.guard(update).await, Guard::RouterGeneration);
    let row = lab.router_find(router.id).await.unwrap().unwrap();
    assert_eq!((row.name.as_str(), row.source_nat, row.generation), ("exit", false, 2));
    assert_eq!(lab.router_find_by_name(project, "exit").await.unwrap().as_ref(), Some(&row));
    assert_eq!(lab.router_list(project, first(9)).await.unwrap(), std::slice::from_ref(&row));
    assert!(lab.router_load_all().await.unwrap().contains(&row));

    let (one, two) = (HostId::new(), HostId::new());
    let uplink = UplinkPut {
        network_id: network.id,
        host_id: one,
        external_network_id: outside.id,
        addresses: vec!["203.0.113.7/24".into()],
        mac: "02:00:00:00:00:01".parse().expect("a MAC"),
    };
    lab.one(uplink.clone()).await;
    assert_eq!(lab.constraint(UplinkPut { host_id: two, ..uplink.clone() }).await, Constraint::UplinkMac);
    let adrift =
        UplinkPut { network_id: NetworkId::new(), mac: "02:00:00:00:00:02".parse().expect("a MAC"), ..uplink.clone() };
    assert_eq!(lab.constraint(adrift).await, Constraint::ForeignKey(ForeignKey::UplinkNetwork));
    lab.one(UplinkPut { addresses: vec!["203.0.113.8/24".into()], ..uplink.clone() }).await;
    let rows = lab.uplink_load_all().await.unwrap();
    assert_eq!(
        (rows.len(), rows[0].host_id, rows[0].addresses.as_slice()),
        (1, one, &["203.0.113.8/24".to_owned()][..])
    );

    assert_eq!(lab.guard(NetworkDelete { id: network.id, expected_generation: 1 }).await, Guard::NetworkInUse);
    assert_eq!(lab.guard(ExternalNetworkDelete { id: outside.id }).await, Guard::ExternalNetworkInUse, "a router");
    assert_eq!(lab.guard(RouterDelete { id: router.id, expected_generation: 1 }).await, Guard::RouterGeneration);
    lab.one(RouterDelete { id: router.id, expected_generation: 2 }).await;
    assert_eq!(lab.guard(RouterDelete { id: router.id, expected_generation: 2 }).await, Guard::RouterGeneration);
    assert_eq!(lab.guard(ExternalNetworkDelete { id: outside.id }).await, Guard::ExternalNetworkInUse, "an uplink");
    lab.one(UplinkDelete { network_id: network.id, host_id: one }).await;
    assert_eq!(lab.uplink_load_all().await.unwrap(), []);
    lab.one(ExternalNetworkDelete { id: outside.id }).await;
    for id in [network.id, elsewhere.id] {
        lab.one(NetworkDelete { id, expected_generation: 1 }).await;
    }
}

async fn peerings(lab: &Lab, project: ProjectId) {
    let (one, two) = (network_insert(project, "one"), network_insert(project, "two"));
    lab.all(Unit::new().op(one.clone()).op(two.clone())).await;
    let peering = PeeringInsert {
        id: PeeringId::new(),
        project_id: project,
        name: name("bridge"),
        network_id: one.id,
        peer_network_id: two.id,
        created_at: T0,
    };
    lab.one(peering.clone()).await;
    let again = PeeringInsert { id: PeeringId::new(), name: name("again"), ..peering.clone() };
    assert_eq!(lab.constraint(again.clone()).await, Constraint::PeeringPair);
    let same_name = PeeringInsert { name: peering.name.clone(), peer_network_id: one.id, ..again.clone() };
    assert_eq!(lab.constraint(same_name).await, Constraint::PeeringName);
    let adrift = PeeringInsert { peer_network_id: NetworkId::new(), ..again };
    assert_eq!(lab.constraint(adrift).await, Constraint::ForeignKey(ForeignKey::PeeringPeer));
    let row = lab.peering_find(peering.id).await.unwrap().unwrap();
    assert_eq!((row.network_id, row.peer_network_id, row.generation), (one.id, two.id, 1));
    assert_eq!(lab.peering_find_by_name(project, "bridge").await.unwrap().as_ref(), Some(&row));
    assert_eq!(lab.peering_list(project, first(9)).await.unwrap(), std::slice::from_ref(&row));
    assert_eq!(lab.peering_load_all().await.unwrap(), [row]);
    for id in [one.id, two.id] {
        assert_eq!(lab.guard(NetworkDelete { id, expected_generation: 1 }).await, Guard::NetworkInUse, "a peering");
    }
    let delete = PeeringDelete { id: peering.id, expected_generation: 1 };
    assert_eq!(lab.guard(PeeringDelete { expected_generation: 2, ..delete.clone() }).await, Guard::PeeringGeneration);
    lab.one(delete.clone()).await;
    assert_eq!(lab.guard(delete).await, Guard::PeeringGeneration);
    for id in [one.id, two.id] {
        lab.one(NetworkDelete { id, expected_generation: 1 }).await;
    }
}

async fn hosts(lab: &Lab) {
    let row = NetworkHostRow {
        host_id: HostId::new(),
        name: "h1".into(),
        underlay_address: "192.0.2.1".parse().expect("an address"),
        addresses: vec!["198.51.100.1".parse().expect("an address")],
        underlay_mtu: 1500,
        external_networks: vec!["outside".into()],
        revision_limit: 1000,
        last_seen_at: T0,
    };
    let host = NetworkHostPut::from(row.clone());
    lab.one(host.clone()).await;
    let same_underlay = NetworkHostRow { host_id: HostId::new(), ..row.clone() };
    assert_eq!(lab.constraint(NetworkHostPut::from(same_underlay.clone())).await, Constraint::HostUnderlay);
    // Of those that are alone there may be many.
    let alone = [HostId::new(), HostId::new()].map(|host_id| {
        NetworkHostPut::from(NetworkHostRow {
            host_id,
            underlay_address: "127.0.0.1".parse().expect("an address"),
            ..row.clone()
        })
    });
    for host in &alone {
        lab.one(host.clone()).await;
    }
    let moves = NetworkHostPut {
        underlay_address: same_underlay.underlay_address,
        exclusive_underlay: host.exclusive_underlay,
        ..alone[0].clone()
    };
    assert_eq!(lab.constraint(moves).await, Constraint::HostUnderlay, "nor by a change");
    for host in alone {
        lab.one(NetworkHostDelete { host_id: host.host_id }).await;
    }
    lab.one(NetworkHostPut { underlay_mtu: 9000, revision_limit: 500, last_seen_at: at(1), ..host.clone() }).await;
    let rows = lab.network_host_load_all().await.unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!(
        (rows[0].underlay_mtu, rows[0].revision_limit, rows[0].last_seen_at, &rows[0].addresses),
        (9000, 1000, at(1), &row.addresses),
        "it only rises"
    );
    assert_eq!(lab.network_host_without_host().await.unwrap(), [host.host_id]);
    lab.one(NetworkHostDelete { host_id: host.host_id }).await;
    assert_eq!(lab.network_host_load_all().await.unwrap(), []);
}

async fn usage(lab: &Lab, project: ProjectId) {
    let all = QuotaAmounts {
        networks: 2,
        subnets: 2,
        ports: 2,
        routers: 2,
        floating_ips: 2,
        security_groups: 2,
        security_rules: 2,
        peerings: 2,
        ..QuotaAmounts::NONE
    };
    lab.one(NetworkUsageAdd::take(project, &all)).await;
    assert_eq!(lab.quota_usage(project).await.unwrap(), all);
    assert_eq!(lab.guard(network_usage(project, 1)).await, Guard::NetworkQuota);
    let one_port = QuotaAmounts { ports: 1, ..QuotaAmounts::NONE };
    assert_eq!(lab.guard(NetworkUsageAdd::take(project, &one_port)).await, Guard::NetworkQuota);
    // What is given back makes room, also in one batch.
    let give = NetworkUsageAdd::release(project, &one_port);
    lab.all(Unit::new().op(give).op(NetworkUsageAdd::take(project, &one_port))).await;
    assert_eq!(lab.quota_usage(project).await.unwrap(), all);
    lab.one(NetworkUsageAdd::release(project, &all)).await;
    assert_eq!(lab.quota_usage(project).await.unwrap(), QuotaAmounts::NONE);
    assert_eq!(lab.constraint(network_usage(project, -1)).await, Constraint::UsedNotNegative);
    assert_eq!(lab.guard(network_usage(ProjectId::new(), 1)).await, Guard::NetworkQuota);
}

async fn defaults(lab: &Lab) {
    let project = lab.project("fresh").await;
    assert!(lab.project_network_default_list(None, 1000).await.unwrap().contains(&(project, false)));
    assert_eq!(lab.project_network_default_list(None, 1).await.unwrap().len(), 1);
    assert!(lab.project_network_default_list(Some(ProjectId::new()), 9).await.unwrap().is_empty());
    let made = ProjectNetworkDefaultInsert { project_id: project, made_at: T0 };
    let (network, outside) = (network_insert(project, "default"), external_network_insert("default-outside"));
    let router = router_insert(project, "default", network.id, outside.id);
    let subnet = subnet_insert(project, network.id, "default", "10.0.0.0/20");
    lab.all(Unit::new().op(made.clone()).op(outside.clone()).op(network.clone()).op(router.clone()).op(subnet.clone()))
        .await;
    assert_eq!(lab.constraint(made).await, Constraint::PrimaryKey(Table::ProjectNetworkDefault));
    assert!(lab.project_network_default_list(None, 1000).await.unwrap().contains(&(project, true)));
    // Only the default ones: they go with the project.
    assert_eq!(lab.project_gone(&[project]).await.unwrap(), []);
    lab.one(ProjectDelete { id: project }).await;
    assert_eq!(lab.project_gone(&[project]).await.unwrap(), [project]);
    assert_eq!(lab.network_find(network.id).await.unwrap(), None);
    assert_eq!(lab.router_find(router.id).await.unwrap(), None);
    assert_eq!(lab.subnet_find(subnet.id).await.unwrap(), None);
    lab.one(ExternalNetworkDelete { id: outside.id }).await;
}
