//! What views of networks read: lists narrowed for people, and what belongs to many objects at once.

use crate::fixture::{Lab, T0, first, name};
use domain::{
    ExternalNetworkId, FloatingIpId, InstanceId, NetworkId, PeeringId, PortId, ProjectId, RouterId, SecurityGroupId,
    SubnetId,
    network::{ExternalSubnet, MacAddr, PortState, RateLimit, SubnetSpec, Vni},
};
use std::collections::HashMap;
use store::*;

fn network(project_id: ProjectId, called: &str, vni: u32) -> NetworkInsert {
    NetworkInsert {
        id: NetworkId::new(),
        project_id,
        name: name(called),
        description: String::new(),
        vni: Vni::try_from(vni).expect("a VNI"),
        mtu: None,
        created_at: T0,
    }
}

fn port(project_id: ProjectId, network_id: NetworkId, last: u8, instance_id: Option<InstanceId>) -> PortInsert {
    PortInsert {
        id: PortId::new(),
        project_id,
        network_id,
        name: Some(name(&format!("p{last}"))),
        mac: MacAddr([2, 0, 0, 0, 9, last]),
        fixed_ips: vec![],
        allowed_addresses: vec![],
        rate_limit: RateLimit::default(),
        hostname: String::new(),
        state: PortState::Active,
        instance_id,
        with_instance: false,
        expires_at: None,
        generation: 1,
        created_at: T0,
    }
}

fn external(called: &str) -> ExternalNetworkInsert {
    let subnet = ExternalSubnet {
        cidr: "203.0.113.0/24".parse().expect("a CIDR"),
        gateway: "203.0.113.1".parse().expect("an address"),
        allocation: vec![],
    };
    ExternalNetworkInsert {
        id: ExternalNetworkId::new(),
        name: name(called),
        description: String::new(),
        subnets: vec![subnet],
        created_at: T0,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_are_read_with_a_fixed_number_of_queries() {
    for lab in Lab::each().await {
        let project_id = lab.project("view").await;
        let (blue, red) = (network(project_id, "blue", 901), network(project_id, "red", 902));
        let outside = external("outside-view");
        let unit = Unit::new().op(blue.clone()).op(red.clone()).op(outside.clone());
        lab.all(unit).await;
        let spec = SubnetSpec {
            cidr: "10.0.0.0/24".parse().expect("a CIDR"),
            gateway: "10.0.0.1".parse().expect("an address"),
            dns: vec![],
            allocation: vec![],
            host_routes: vec![],
        };
        let subnet = |network_id| SubnetInsert {
            id: SubnetId::new(),
            project_id,
            network_id,
            name: name("a"),
            spec: spec.clone(),
            dhcp: true,
            created_at: T0,
        };
        let (one, two) = (subnet(blue.id), subnet(red.id));
        let router = RouterInsert {
            id: RouterId::new(),
            project_id,
            name: name("out"),
            network_id: blue.id,
            external_network_id: outside.id,
            source_nat: true,
            created_at: T0,
        };
        let peering = PeeringInsert {
            id: PeeringId::new(),
            project_id,
            name: name("both"),
            network_id: blue.id,
            peer_network_id: red.id,
            created_at: T0,
        };
        let group = SecurityGroupInsert {
            id: SecurityGroupId::new(),
            project_id,
            name: name("web"),
            description: String::new(),
            created_at: T0,
        };
        let instance_id = InstanceId::new();
        let (mine, free) = (port(project_id, blue.id, 1, Some(instance_id)), port(project_id, red.id, 2, None));
        let member = PortSecurityGroupPut { port_id: free.id, security_group_id: group.id };
        let floating = FloatingIpInsert {
            id: FloatingIpId::new(),
            project_id,
            external_network_id: outside.id,
            address: "203.0.113.9".parse().expect("an address"),
            description: String::new(),
            port_id: Some(mine.id),
            fixed_ip: Some("10.0.0.5".parse().expect("an address")),
            created_at: T0,
        };
        let unit = Unit::new().op(one.clone()).op(two.clone()).op(router.clone()).op(peering.clone());
        lab.all(unit.op(group.clone()).op(mine.clone()).op(free.clone()).op(member).op(floating.clone())).await;

        let subnets = lab.subnet_load_many_of_networks(&[blue.id, red.id]).await.expect("read");
        assert_eq!(subnets.iter().map(|s| s.id).collect::<Vec<_>>(), [one.id, two.id]);
        assert_eq!(lab.subnet_load_many_of_networks(&[]).await.expect("read"), []);
        assert_eq!(lab.subnet_list_by_name(project_id, "a").await.expect("read"), subnets);
        assert_eq!(lab.subnet_list_by_name(project_id, "b").await.expect("read"), []);
        let routers = lab.router_load_many_of_networks(&[blue.id, red.id]).await.expect("read");
        assert_eq!(routers.iter().map(|r| r.id).collect::<Vec<_>>(), [router.id]);
        for end in [blue.id, red.id] {
            let peerings = lab.peering_load_many_of_networks(&[end]).await.expect("read");
            assert_eq!(peerings.iter().map(|p| p.id).collect::<Vec<_>>(), [peering.id]);
        }
        let floating_ips = lab.floating_ip_load_many_of_ports(&[mine.id, free.id]).await.expect("read");
        assert_eq!(floating_ips.iter().map(|f| f.id).collect::<Vec<_>>(), [floating.id]);

        let all = PortFilter { project_id, network_id: None, instance_id: None, security_group_id: None };
        for (filter, expected) in [
            (all, vec![mine.id, free.id]),
            (PortFilter { network_id: Some(red.id), ..all }, vec![free.id]),
            (PortFilter { instance_id: Some(instance_id), ..all }, vec![mine.id]),
            (PortFilter { security_group_id: Some(group.id), ..all }, vec![free.id]),
            (PortFilter { security_group_id: Some(group.id), network_id: Some(blue.id), ..all }, vec![]),
            (PortFilter { project_id: ProjectId::new(), ..all }, vec![]),
        ] {
            let ports = lab.port_list_filtered(&filter, first(10)).await.expect("read");
            assert_eq!(ports.iter().map(|p| p.id).collect::<Vec<_>>(), expected, "{filter:?}");
        }
        let second = Page { after: Some(mine.id.to_string()), limit: 10 };
        let ports = lab.port_list_filtered(&all, second).await.expect("read");
        assert_eq!(ports.iter().map(|p| p.id).collect::<Vec<_>>(), [free.id]);

        let names = lab.name_load_many(Named::Network, &[blue.id, NetworkId::new()]).await.expect("read");
        assert_eq!(names, HashMap::from([(blue.id, name("blue"))]));
        let names = lab.name_load_many(Named::ExternalNetwork, &[outside.id]).await.expect("read");
        assert_eq!(names, HashMap::from([(outside.id, name("outside-view"))]));
        let names = lab.name_load_many(Named::SecurityGroup, &[group.id]).await.expect("read");
        assert_eq!(names, HashMap::from([(group.id, name("web"))]));
        assert!(lab.name_load_many(Named::Instance, &[instance_id]).await.expect("read").is_empty());
    }
}
