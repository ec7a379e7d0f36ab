//! What a resource-manager would tell the agent: networks, a group, ports.

use domain::{InstanceId, NetworkId, PortId, SecurityGroupId, SubnetId};
use proto::{network::v1 as pb, sync::v1 as sync};
use std::net::Ipv4Addr;

pub const MTU: u32 = 1450;
pub const GATEWAY_MAC: [u8; 6] = [2, 0, 0x5e, 0, 0, 1];
/// The UDP port that the group lets in.
pub const OPEN: u16 = 9;

pub fn text_of(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

fn desired(id: String, (epoch, generation): (i64, i64), object: sync::desired_object::Object) -> sync::DesiredObject {
    sync::DesiredObject { id, epoch, generation, object: Some(object), ..Default::default() }
}

pub fn gone(id: String, kind: sync::ObjectKind) -> sync::DesiredObject {
    sync::DesiredObject { id, epoch: 1, generation: i64::MAX, deleted: true, kind: kind.into(), ..Default::default() }
}

pub fn network(id: NetworkId, vni: u32) -> sync::DesiredObject {
    let subnet = |cidr: &str, gateway: &str| pb::Subnet {
        id: SubnetId::new().to_string(),
        cidr: cidr.into(),
        gateway: gateway.into(),
        dhcp: true,
        ..Default::default()
    };
    let object = pb::Network {
        vni,
        mtu: MTU,
        gateway_mac: text_of(GATEWAY_MAC),
        subnets: vec![subnet("10.0.0.0/16", "10.0.0.1"), subnet("fd00::/64", "fd00::1")],
        dns_domain: "bench.internal".into(),
        ..Default::default()
    };
    desired(id.to_string(), (1, 1), sync::desired_object::Object::Network(object))
}

/// Everything out; in: what `udp_in` says, None for everything.
pub fn group(id: SecurityGroupId, generation: i64, udp_in: Option<u16>) -> sync::DesiredObject {
    let rule = |direction: &str, udp: Option<u16>| pb::SecurityRule {
        direction: direction.into(),
        ethertype: "ipv4".into(),
        protocol: udp.map(|_| 17),
        port_first: udp.map(u32::from),
        port_last: udp.map(u32::from),
        ..Default::default()
    };
    let object = pb::SecurityGroup { rules: vec![rule("egress", None), rule("ingress", udp_in)], ..Default::default() };
    desired(id.to_string(), (1, generation), sync::desired_object::Object::SecurityGroup(object))
}

#[derive(Debug, Clone)]
pub struct Port {
    pub id: PortId,
    pub instance_id: InstanceId,
    pub mac: [u8; 6],
    pub addr: Ipv4Addr,
    pub message: sync::DesiredObject,
}

impl Port {
    /// The `n`th of its network, bound here; or, with an underlay address, on another host.
    pub fn new(n: u16, network_id: NetworkId, group: SecurityGroupId, remote: Option<Ipv4Addr>) -> Self {
        let (id, instance_id) = (PortId::new(), InstanceId::new());
        let [high, low] = (n + 10).to_be_bytes();
        let (mac, addr) = ([2, 0, 0, 1, high, low], Ipv4Addr::new(10, 0, high, low));
        let binding = match remote {
            Some(underlay) => pb::port::Binding::RemoteUnderlay(underlay.to_string()),
            None => pb::port::Binding::Local(pb::LocalBinding { instance_id: instance_id.to_string(), metadata: None }),
        };
        let object = pb::Port {
            network_id: network_id.to_string(),
            mac: text_of(mac),
            fixed_ips: vec![addr.to_string(), format!("fd00::{:x}", n + 10)],
            security_group_ids: vec![group.to_string()],
            binding: Some(binding),
            hostname: format!("vm{n}"),
            ..Default::default()
        };
        Self {
            id,
            instance_id,
            mac,
            addr,
            message: desired(id.to_string(), (1, 1), sync::desired_object::Object::Port(object)),
        }
    }

    pub fn gone(&self) -> sync::DesiredObject {
        gone(self.id.to_string(), sync::ObjectKind::Port)
    }
}
