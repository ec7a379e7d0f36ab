//! Ports, their addresses, security groups and floating IPs.

use crate::fixture::{
    Lab, T0, at, external_network_insert, first, name, network_insert, port_insert, router_insert,
    security_group_insert, subnet_insert,
};
use core::net::IpAddr;
use domain::{
    FloatingIpId, HostId, InstanceId, NetworkId, PortId, ProjectId, SecurityGroupId, SecurityRuleId,
    network::{
        Direction, Ethertype, FixedIp, Match, PortOwner, PortRange, PortState, PortStatus, Protocol, RateLimit, Remote,
        SecurityRule,
    },
};
use store::*;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

pub async fn walk(lab: &Lab) {
    let project = lab.project("port").await;
    let network = network_insert(project, "of-ports");
    lab.one(network.clone()).await;
    made_with_its_instance(lab, project, network.id).await;
    of_its_own(lab, project, network.id).await;
    reports(lab, project, network.id).await;
    addresses(lab, network.id).await;
    groups(lab, project, network.id).await;
    lifted(lab, project, network.id).await;
    floating_ips(lab, project, network.id).await;
    lab.one(NetworkDelete { id: network.id, expected_generation: 1 }).await;
    lab.one(ProjectDelete { id: project }).await;
}

async fn made_with_its_instance(lab: &Lab, project: ProjectId, network: NetworkId) {
    let subnet = subnet_insert(project, network, "of-ports", "10.0.0.0/24");
    lab.one(subnet.clone()).await;
    let (instance, host) = (InstanceId::new(), HostId::new());
    let port = PortInsert {
        fixed_ips: vec![FixedIp { subnet_id: subnet.id, address: ip("10.0.0.5") }],
        allowed_addresses: vec!["10.7.0.0/16".parse().expect("a CIDR")],
        rate_limit: RateLimit { to_instance_bps: 1 << 40, from_instance_bps: 0 },
        hostname: "web".into(),
        instance_id: Some(instance),
        ..port_insert(project, network)
    };
    lab.one(port.clone()).await;
    assert_eq!(lab.guard(port.clone()).await, Guard::PortExists, "a repeat");
    let same_mac = PortInsert { id: PortId::new(), ..port.clone() };
    assert_eq!(lab.constraint(same_mac).await, Constraint::PortMac);
    let adrift = port_insert(project, NetworkId::new());
    assert_eq!(lab.constraint(adrift).await, Constraint::ForeignKey(ForeignKey::PortNetwork));
    let adrift = port_insert(ProjectId::new(), network);
    assert_eq!(lab.constraint(adrift).await, Constraint::ForeignKey(ForeignKey::PortProject));
    let row = lab.port_find(port.id).await.unwrap().unwrap();
    assert_eq!((row.state, row.epoch, row.generation, row.expires_at), (PortState::Reserved, 0, 1, Some(at(60))));
    assert_eq!(row.owner, Some(PortOwner { instance_id: instance, with_instance: true }));
    assert_eq!((&row.fixed_ips, &row.allowed_addresses), (&port.fixed_ips, &port.allowed_addresses));
    assert_eq!((row.rate_limit, row.status, row.mac), (port.rate_limit, PortStatus::Down, port.mac));
    assert_eq!(lab.port_expired(at(59), 9).await.unwrap(), []);
    assert_eq!(lab.port_expired(at(60), 9).await.unwrap(), std::slice::from_ref(&row));
    assert_eq!(lab.guard(ProjectDelete { id: project }).await, Guard::ProjectInUse);

    let bind = PortBind {
        id: port.id,
        expected_generation: 1,
        instance_id: instance,
        host_id: host,
        epoch: 1,
        instance_epoch: 1,
        metadata_digest: "d1".into(),
        hostname: "web".into(),
        status: PortStatus::Building,
    };
    let foreign = PortBind { instance_id: InstanceId::new(), ..bind.clone() };
    assert_eq!(lab.guard(foreign).await, Guard::PortState, "another instance's");
    lab.one(bind.clone()).await;
    assert_eq!(lab.guard(bind.clone()).await, Guard::PortState, "another generation");
    let fallen = PortBind { expected_generation: 2, epoch: 0, ..bind.clone() };
    assert_eq!(lab.guard(fallen).await, Guard::PortState, "epochs never fall");
    let row = lab.port_find(port.id).await.unwrap().unwrap();
    assert_eq!((row.state, row.expires_at, row.host_id, row.epoch), (PortState::Active, None, Some(host), 1));
    assert_eq!((row.status, row.instance_epoch, row.metadata_digest.as_str()), (PortStatus::Building, 1, "d1"));
    assert_eq!(lab.port_expired(at(99), 9).await.unwrap(), []);
    assert_eq!(lab.port_list(project, first(9)).await.unwrap(), std::slice::from_ref(&row));
    assert_eq!(lab.port_list_of_instance(instance).await.unwrap(), std::slice::from_ref(&row));
    assert_eq!(lab.port_load_many(&[port.id, PortId::new()]).await.unwrap(), std::slice::from_ref(&row));
    let of_instances = lab.port_load_many_of_instances(&[instance, InstanceId::new()]).await.unwrap();
    assert_eq!(of_instances, std::slice::from_ref(&row));
    assert!(lab.port_load_all().await.unwrap().contains(&row));
    assert_eq!(lab.port_list_of_network(row.network_id).await.unwrap(), std::slice::from_ref(&row));
    assert_eq!(lab.port_list_of_network(NetworkId::new()).await.unwrap(), []);

    assert!(lab.port_list_all(first(1000)).await.unwrap().contains(&row));

    let release = PortRelease { id: port.id, expected_generation: 2 };
    assert_eq!(lab.guard(PortRelease { expected_generation: 1, ..release.clone() }).await, Guard::PortState);
    lab.one(release.clone()).await;
    let again = PortRelease { expected_generation: 3, ..release };
    assert_eq!(lab.guard(again).await, Guard::PortState, "its quota is given back once");
    let rebind = PortBind { expected_generation: 3, epoch: 2, ..bind };
    assert_eq!(lab.guard(rebind).await, Guard::PortState, "it is on its way out");
    assert_eq!(lab.port_find(port.id).await.unwrap().unwrap().host_id, Some(host), "held until proof");
    assert_eq!(lab.guard(PortDelete { id: port.id, expected_generation: 2 }).await, Guard::PortState);
    lab.one(PortDelete { id: port.id, expected_generation: 3 }).await;
    assert_eq!(lab.guard(PortDelete { id: port.id, expected_generation: 3 }).await, Guard::PortState);
    lab.one(SubnetDelete { id: subnet.id, expected_generation: 1 }).await;
}

async fn lifted(lab: &Lab, project: ProjectId, network: NetworkId) {
    let (instance, host) = (InstanceId::new(), HostId::new());
    let port = PortInsert { instance_id: Some(instance), ..port_insert(project, network) };
    let bind = PortBind {
        id: port.id,
        expected_generation: 1,
        instance_id: instance,
        host_id: host,
        epoch: 1,
        instance_epoch: 1,
        metadata_digest: String::new(),
        hostname: String::new(),
        status: PortStatus::Ready,
    };
    lab.one(port.clone()).await;
    lab.one(bind.clone()).await;
    assert_eq!(lab.instance_list_with_lifted_ports(9).await.unwrap(), []);
    let lift = PortLift { id: port.id, expected_generation: 2, epoch: 5 };
    assert_eq!(lab.guard(PortLift { epoch: 1, ..lift.clone() }).await, Guard::PortState, "it isn't behind");
    lab.one(lift.clone()).await;
    assert_eq!(lab.guard(lift).await, Guard::PortState, "decided on another generation");
    let row = lab.port_find(port.id).await.unwrap().unwrap();
    assert_eq!((row.epoch, row.instance_epoch, row.host_id, row.generation), (5, 0, Some(host), 3));
    assert_eq!(lab.instance_list_with_lifted_ports(9).await.unwrap(), [instance]);
    lab.one(PortBind { expected_generation: 3, epoch: 6, ..bind }).await;
    assert_eq!(lab.instance_list_with_lifted_ports(9).await.unwrap(), []);
    lab.one(PortDelete { id: port.id, expected_generation: 4 }).await;
}

async fn of_its_own(lab: &Lab, project: ProjectId, network: NetworkId) {
    let port = PortInsert {
        name: Some(name("mine")),
        state: PortState::Active,
        with_instance: false,
        instance_id: None,
        expires_at: None,
        ..port_insert(project, network)
    };
    lab.one(port.clone()).await;
    let taken = PortInsert { id: PortId::new(), mac: "02:aa:00:00:00:01".parse().expect("a MAC"), ..port.clone() };
    assert_eq!(lab.constraint(taken).await, Constraint::PortName);
    let row = lab.port_find_by_name(project, "mine").await.unwrap().unwrap();
    assert_eq!((row.id, row.owner, row.host_id), (port.id, None, None));

    let update = PortUpdate {
        id: port.id,
        expected_generation: 1,
        name: Some(name("ours")),
        allowed_addresses: vec!["fd00::/64".parse().expect("a CIDR")],
        rate_limit: RateLimit { to_instance_bps: 5, from_instance_bps: 6 },
    };
    lab.one(update.clone()).await;
    assert_eq!(lab.guard(update.clone()).await, Guard::PortGeneration);
    let (instance, host) = (InstanceId::new(), HostId::new());
    let take = PortTake {
        id: port.id,
        expected_generation: 2,
        instance_id: instance,
        hostname: "db".into(),
        expires_at: at(60),
    };
    lab.one(take.clone()).await;
    let another = PortTake { expected_generation: 3, instance_id: InstanceId::new(), ..take };
    assert_eq!(lab.guard(another).await, Guard::PortState, "it is taken");
    let row = lab.port_find(port.id).await.unwrap().unwrap();
    assert_eq!(row.owner, Some(PortOwner { instance_id: instance, with_instance: false }));
    assert_eq!((row.state, row.hostname.as_str(), row.expires_at), (PortState::Active, "db", Some(at(60))));
    assert_eq!((row.allowed_addresses, row.rate_limit), (update.allowed_addresses, update.rate_limit));
    let bind = PortBind {
        id: port.id,
        expected_generation: 3,
        instance_id: instance,
        host_id: host,
        epoch: 1,
        instance_epoch: 4,
        metadata_digest: String::new(),
        hostname: "db".into(),
        status: PortStatus::Building,
    };
    lab.one(bind).await;
    lab.one(PortDetach { id: port.id, expected_generation: 4 }).await;
    assert_eq!(lab.guard(PortDetach { id: port.id, expected_generation: 4 }).await, Guard::PortState);
    let row = lab.port_find(port.id).await.unwrap().unwrap();
    assert_eq!((row.owner, row.host_id, row.epoch, row.instance_epoch), (None, None, 2, 0));
    assert_eq!((row.hostname.as_str(), row.status, row.generation), ("", PortStatus::Down, 5));
    lab.one(PortDelete { id: port.id, expected_generation: 5 }).await;
}

async fn reports(lab: &Lab, project: ProjectId, network: NetworkId) {
    let port = PortInsert { instance_id: Some(InstanceId::new()), ..port_insert(project, network) };
    lab.one(port.clone()).await;
    let observed = |epoch, start, counter, status| PortObserved {
        id: port.id,
        epoch,
        start,
        counter,
        status,
        status_reason: status.as_str().into(),
    };
    let status = async || {
        let row = lab.port_find(port.id).await.unwrap().unwrap();
        (row.status, row.status_reason, row.generation)
    };
    lab.one(observed(0, 1, 1, PortStatus::Ready)).await;
    assert_eq!(status().await, (PortStatus::Down, String::new(), 1), "bound to no host");
    let bind = PortBind {
        id: port.id,
        expected_generation: 1,
        instance_id: port.instance_id.unwrap(),
        host_id: HostId::new(),
        epoch: 2,
        instance_epoch: 1,
        metadata_digest: String::new(),
        hostname: String::new(),
        status: PortStatus::Building,
    };
    lab.one(bind).await;
    lab.one(observed(2, 3, 5, PortStatus::Ready)).await;
    assert_eq!(status().await, (PortStatus::Ready, "ready".to_owned(), 2), "a report is no desired state");
    for stale in [(1, 9, 9), (2, 3, 5), (2, 3, 4), (2, 2, 9), (3, 9, 9)] {
        lab.one(observed(stale.0, stale.1, stale.2, PortStatus::Error)).await;
        assert_eq!(status().await.0, PortStatus::Ready, "{stale:?}");
    }
    lab.one(observed(2, 4, 1, PortStatus::Active)).await;
    assert_eq!(status().await.0, PortStatus::Active);
    lab.one(PortDelete { id: port.id, expected_generation: 2 }).await;
}

async fn addresses(lab: &Lab, network: NetworkId) {
    let scope = network.to_string();
    let take = |owner: &str, secs| AddressTake {
        scope_id: scope.clone(),
        address: ip("10.0.0.1"),
        subnet_id: None,
        block_id: None,
        owner_kind: AddressOwner::Port,
        owner_id: owner.into(),
        at: at(secs),
    };
    let release = |owner: &str, secs| AddressRelease {
        scope_id: scope.clone(),
        address: ip("10.0.0.1"),
        owner_id: owner.into(),
        free_at: at(secs),
    };
    lab.one(take("a", 0)).await;
    lab.one(take("a", 0)).await;
    assert_eq!(lab.guard(take("b", 99)).await, Guard::AddressTaken);
    lab.one(AddressTake { scope_id: NetworkId::new().to_string(), ..take("b", 0) }).await;
    lab.one(release("b", 60)).await;
    assert_eq!(lab.address_find(&scope, ip("10.0.0.1")).await.unwrap().unwrap().free_at, None, "another's release");
    lab.one(release("a", 60)).await;
    lab.one(release("a", 90)).await;
    let row = lab.address_find(&scope, ip("10.0.0.1")).await.unwrap().unwrap();
    assert_eq!((row.free_at, row.owner_id.as_str()), (Some(at(60)), "a"), "it is quarantined since its first release");
    assert_eq!(lab.guard(take("b", 59)).await, Guard::AddressTaken, "it is quarantined");
    assert_eq!(lab.guard(take("a", 59)).await, Guard::AddressTaken, "for its last owner too");
    lab.one(AddressTake { address: ip("10.0.0.2"), ..take("c", 0) }).await;
    lab.one(AddressTake { owner_kind: AddressOwner::FloatingIp, ..take("b", 60) }).await;
    let row = lab.address_find(&scope, ip("10.0.0.1")).await.unwrap().unwrap();
    assert_eq!((row.free_at, row.owner_id.as_str(), row.owner_kind), (None, "b", AddressOwner::FloatingIp));
    lab.one(AddressSweep { before: at(999) }).await;
    let of_scope = |rows: Vec<AddressRow>| rows.into_iter().filter(|row| row.scope_id == scope).count();
    assert_eq!(of_scope(lab.address_load_all().await.unwrap()), 2, "what is owned isn't swept");
    assert_eq!(of_scope(lab.address_list_of_scope(&scope).await.unwrap()), 2);
    assert_eq!(lab.address_list_of_scope("another").await.unwrap(), []);
    for row in lab.address_load_all().await.unwrap() {
        let AddressRow { scope_id, address, owner_id, .. } = row;
        lab.one(AddressRelease { scope_id, address, owner_id, free_at: at(60) }).await;
    }
    lab.one(AddressSweep { before: at(59) }).await;
    assert_eq!(of_scope(lab.address_load_all().await.unwrap()), 2);
    lab.one(AddressSweep { before: at(60) }).await;
    assert_eq!(lab.address_load_all().await.unwrap(), []);
    assert_eq!(lab.address_find(&scope, ip("10.0.0.1")).await.unwrap(), None);
}

async fn groups(lab: &Lab, project: ProjectId, network: NetworkId) {
    let (web, db) = (security_group_insert(project, "web"), security_group_insert(project, "db"));
    lab.all(Unit::new().op(web.clone()).op(db.clone())).await;
    let taken = SecurityGroupInsert { id: SecurityGroupId::new(), ..web.clone() };
    assert_eq!(lab.constraint(taken.clone()).await, Constraint::SecurityGroupName);
    let adrift = SecurityGroupInsert { project_id: ProjectId::new(), ..taken };
    assert_eq!(lab.constraint(adrift).await, Constraint::ForeignKey(ForeignKey::SecurityGroupProject));

    let rule = |group: SecurityGroupId, matches, remote| SecurityRuleInsert {
        id: SecurityRuleId::new(),
        security_group_id: group,
        rule: SecurityRule { direction: Direction::Ingress, ethertype: Ethertype::Ipv4, matches, remote },
        remote_group_id: match remote {
            Remote::Group(id) => Some(id),
            Remote::Any | Remote::Cidr(_) => None,
        },
        description: "why".into(),
    };
    let ssh = Match::Protocol {
        protocol: Protocol::Tcp,
        ports: Some(PortRange { first: 22, last: 22 }),
        icmp_type: None,
        icmp_code: None,
    };
    let to_db = rule(db.id, ssh, Remote::Group(web.id));
    let anywhere = rule(web.id, Match::Any, Remote::Cidr("10.0.0.0/8".parse().expect("a CIDR")));
    let among = rule(web.id, Match::Any, Remote::Group(web.id));
    lab.all(Unit::new().op(to_db.clone()).op(anywhere.clone()).op(among.clone())).await;
    let adrift = rule(SecurityGroupId::new(), Match::Any, Remote::Any);
    assert_eq!(lab.constraint(adrift).await, Constraint::ForeignKey(ForeignKey::SecurityRuleGroup));
    let adrift = rule(web.id, Match::Any, Remote::Group(SecurityGroupId::new()));
    assert_eq!(lab.constraint(adrift).await, Constraint::ForeignKey(ForeignKey::SecurityRuleRemote));
    let row = lab.security_group_find(web.id).await.unwrap().unwrap();
    let rules: Vec<_> = row.rules.iter().map(|r| (r.id, r.rule, r.description.as_str())).collect();
    assert_eq!(rules, [(anywhere.id, anywhere.rule, "why"), (among.id, among.rule, "why")]);
    assert_eq!(lab.security_group_find(SecurityGroupId::new()).await.unwrap(), None);

    let change = SecurityGroupChange {
        id: web.id,
        expected_generation: 1,
        name: name("front"),
        description: "faces people".into(),
    };
    lab.one(change.clone()).await;
    assert_eq!(lab.guard(change).await, Guard::SecurityGroupGeneration);
    let row = lab.security_group_find_by_name(project, "front").await.unwrap().unwrap();
    assert_eq!((row.description.as_str(), row.generation, row.rules.len()), ("faces people", 2, 2));
    let listed = lab.security_group_list(project, first(9)).await.unwrap();
    assert_eq!(listed.iter().map(|g| (g.id, g.rules.len())).collect::<Vec<_>>(), [(web.id, 2), (db.id, 1)]);
    assert!(lab.security_group_load_all().await.unwrap().contains(&row));

    let port = port_insert(project, network);
    let put = PortSecurityGroupPut { port_id: port.id, security_group_id: web.id };
    lab.all(
        Unit::new()
            .op(port.clone())
            .op(put.clone())
            .op(PortSecurityGroupPut { security_group_id: db.id, ..put.clone() }),
    )
    .await;
    lab.one(put.clone()).await;
    let adrift = PortSecurityGroupPut { port_id: PortId::new(), ..put.clone() };
    assert_eq!(lab.constraint(adrift).await, Constraint::ForeignKey(ForeignKey::PortSecurityGroupPort));
    let adrift = PortSecurityGroupPut { security_group_id: SecurityGroupId::new(), ..put.clone() };
    assert_eq!(lab.constraint(adrift).await, Constraint::ForeignKey(ForeignKey::PortSecurityGroupGroup));
    assert_eq!(lab.port_find(port.id).await.unwrap().unwrap().security_group_ids, [web.id, db.id]);
    let loaded = lab.port_load_all().await.unwrap();
    assert_eq!(loaded.iter().find(|p| p.id == port.id).unwrap().security_group_ids, [web.id, db.id]);
    let delete =
        |group: &SecurityGroupInsert, expected_generation| SecurityGroupDelete { id: group.id, expected_generation };
    assert_eq!(lab.guard(delete(&db, 1)).await, Guard::SecurityGroupInUse, "a port is in it");
    lab.one(PortSecurityGroupDelete { port_id: port.id, security_group_id: web.id }).await;
    assert_eq!(lab.port_find(port.id).await.unwrap().unwrap().security_group_ids, [db.id]);
    assert_eq!(lab.guard(delete(&web, 2)).await, Guard::SecurityGroupInUse, "a rule of another group names it");
    lab.one(PortDelete { id: port.id, expected_generation: 1 }).await;

    let gone = SecurityRuleDelete { id: to_db.id, security_group_id: db.id };
    let elsewhere = SecurityRuleDelete { security_group_id: web.id, ..gone.clone() };
    assert_eq!(lab.guard(elsewhere).await, Guard::SecurityRuleGone);
    lab.one(gone.clone()).await;
    assert_eq!(lab.guard(gone).await, Guard::SecurityRuleGone);
    assert_eq!(lab.guard(delete(&web, 1)).await, Guard::SecurityGroupInUse, "changed");
    lab.all(Unit::new().op(delete(&web, 2)).op(delete(&db, 1))).await;
    assert_eq!(lab.security_group_list(project, first(9)).await.unwrap(), []);
}

async fn floating_ips(lab: &Lab, project: ProjectId, network: NetworkId) {
    let (outside, port) = (external_network_insert("floats"), port_insert(project, network));
    let router = router_insert(project, "floats", network, outside.id);
    lab.all(Unit::new().op(outside.clone()).op(port.clone())).await;
    let insert = |address: &str| FloatingIpInsert {
        id: FloatingIpId::new(),
        project_id: project,
        external_network_id: outside.id,
        address: ip(address),
        description: "mine".into(),
        port_id: None,
        fixed_ip: None,
        created_at: T0,
    };
    let (one, two) = (insert("203.0.113.10"), insert("203.0.113.11"));
    lab.all(Unit::new().op(one.clone()).op(two.clone())).await;
    let adrift = FloatingIpInsert { project_id: ProjectId::new(), ..insert("203.0.113.12") };
    assert_eq!(lab.constraint(adrift).await, Constraint::ForeignKey(ForeignKey::FloatingIpProject));
    let change = |of: &FloatingIpInsert, expected_generation, to: Option<(PortId, &str)>| FloatingIpChange {
        id: of.id,
        expected_generation,
        description: "yours".into(),
        port_id: to.map(|(port, _)| port),
        fixed_ip: to.map(|(_, address)| ip(address)),
    };
    let to_port = change(&one, 1, Some((port.id, "10.0.0.5")));
    assert_eq!(lab.guard(to_port.clone()).await, Guard::FloatingIpGeneration, "no router leads there");
    lab.one(router.clone()).await;
    lab.one(to_port.clone()).await;
    let unroute = RouterDelete { id: router.id, expected_generation: 1 };
    assert_eq!(lab.guard(unroute.clone()).await, Guard::RouterGeneration, "a floating IP needs it");
    assert_eq!(lab.guard(to_port).await, Guard::FloatingIpGeneration);
    let same = change(&two, 1, Some((port.id, "10.0.0.5")));
    assert_eq!(lab.constraint(same).await, Constraint::FloatingIpTarget);
    let gone = PortId::new();
    let adrift = change(&two, 1, Some((gone, "10.0.0.5")));
    assert_eq!(lab.guard(adrift).await, Guard::FloatingIpGeneration, "no such port");
    let adrift = FloatingIpInsert { port_id: Some(gone), fixed_ip: Some(ip("10.0.0.5")), ..insert("203.0.113.12") };
    assert_eq!(lab.guard(adrift).await, Guard::FloatingIpRoute);
    let row = lab.floating_ip_find(one.id).await.unwrap().unwrap();
    assert_eq!((row.port_id, row.fixed_ip, row.generation), (Some(port.id), Some(ip("10.0.0.5")), 2));
    assert_eq!(lab.floating_ip_find_by_address(project, one.address).await.unwrap().as_ref(), Some(&row));
    assert_eq!(lab.floating_ip_list(project, first(9)).await.unwrap().len(), 2);
    assert!(lab.floating_ip_load_all().await.unwrap().contains(&row));
    assert_eq!(lab.guard(PortDelete { id: port.id, expected_generation: 1 }).await, Guard::PortState, "stood for");
    assert_eq!(lab.guard(ExternalNetworkDelete { id: outside.id }).await, Guard::ExternalNetworkInUse);
    lab.all(Unit::new().op(change(&one, 2, None)).op(PortDelete { id: port.id, expected_generation: 1 })).await;
    let delete = FloatingIpDelete { id: one.id, expected_generation: 3 };
    assert_eq!(lab.guard(ProjectDelete { id: project }).await, Guard::ProjectInUse);
    assert_eq!(
        lab.guard(FloatingIpDelete { expected_generation: 1, ..delete.clone() }).await,
        Guard::FloatingIpGeneration
    );
    lab.one(delete).await;
    lab.one(FloatingIpDelete { id: two.id, expected_generation: 1 }).await;
    lab.all(Unit::new().op(unroute).op(ExternalNetworkDelete { id: outside.id })).await;
}
