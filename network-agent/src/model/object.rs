//! The declared objects, parsed. The wire is not trusted: what ends up in a rule's text or a route comes out of a type here.

use domain::{
    FloatingIpId, InstanceId, NetworkId, PortId, SecurityGroupId, SubnetId,
    network::{Cidr, HostRoute, MTU_MAX, MTU_MIN, MacAddr, ProtectedPart, SecurityRule, Vni},
};
use proto::{
    convert::{InvalidMessage, network::rule_from_pb, parse},
    network::v1 as pb,
    sync::v1::{DesiredObject, ObjectKind, desired_object},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

pub use agent_kit::Version;

/// Which object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    Network(NetworkId),
    SecurityGroup(SecurityGroupId),
    Port(PortId),
    FloatingIp(FloatingIpId),
    Protected(ProtectedPart),
}

impl Key {
    #[must_use]
    pub fn kind(self) -> ObjectKind {
        match self {
            Self::Network(_) => ObjectKind::Network,
            Self::SecurityGroup(_) => ObjectKind::SecurityGroup,
            Self::Port(_) => ObjectKind::Port,
            Self::FloatingIp(_) => ObjectKind::FloatingIp,
            Self::Protected(_) => ObjectKind::Protected,
        }
    }

    #[must_use]
    pub fn id(self) -> String {
        match self {
            Self::Network(id) => id.to_string(),
            Self::SecurityGroup(id) => id.to_string(),
            Self::Port(id) => id.to_string(),
            Self::FloatingIp(id) => id.to_string(),
            Self::Protected(part) => part.to_string(),
        }
    }

    pub fn parse(kind: i32, id: &str) -> Result<Self, InvalidMessage> {
        Ok(match ObjectKind::try_from(kind) {
            Ok(ObjectKind::Network) => Self::Network(parse("id", id)?),
            Ok(ObjectKind::SecurityGroup) => Self::SecurityGroup(parse("id", id)?),
            Ok(ObjectKind::Port) => Self::Port(parse("id", id)?),
            Ok(ObjectKind::FloatingIp) => Self::FloatingIp(parse("id", id)?),
            Ok(ObjectKind::Protected) => Self::Protected(parse("id", id)?),
            Ok(ObjectKind::Unspecified | ObjectKind::Instance) | Err(_) => {
                return Err(wrong("kind", format!("unknown value {kind}")));
            }
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    pub id: NetworkId,
    pub project_id: String,
    pub name: String,
    pub vni: Vni,
    pub mtu: u32,
    pub gateway_mac: MacAddr,
    pub subnets: Vec<Subnet>,
    pub dns_domain: String,
    pub peers: BTreeSet<NetworkId>,
    pub uplink: Option<Uplink>,
}

impl Network {
    /// The subnet an address is of.
    #[must_use]
    pub fn subnet_of(&self, addr: IpAddr) -> Option<&Subnet> {
        self.subnets.iter().find(|subnet| subnet.cidr.contains(addr))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subnet {
    pub id: SubnetId,
    pub cidr: Cidr,
    pub gateway: IpAddr,
    pub dns: Vec<IpAddr>,
    pub host_routes: Vec<HostRoute>,
    pub dhcp: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uplink {
    pub external_network: String,
    /// The router's addresses, with their prefix lengths.
    pub addresses: Vec<(IpAddr, u8)>,
    pub gateways: Vec<IpAddr>,
    pub source_nat: bool,
    pub mac: MacAddr,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    pub id: PortId,
    pub version: Version,
    pub network_id: NetworkId,
    pub mac: MacAddr,
    pub fixed_ips: BTreeSet<IpAddr>,
    pub allowed: BTreeSet<Cidr>,
    pub groups: BTreeSet<SecurityGroupId>,
    pub binding: Binding,
    pub to_instance_bps: u64,
    pub from_instance_bps: u64,
    pub hostname: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Binding {
    Local {
        instance_id: InstanceId,
        metadata: Box<Metadata>,
    },
    Remote {
        underlay: IpAddr,
    },
    /// To no host yet.
    Unbound,
}

impl Port {
    /// Whose it is, if it is bound here.
    #[must_use]
    pub fn instance(&self) -> Option<InstanceId> {
        match &self.binding {
            Binding::Local { instance_id, .. } => Some(*instance_id),
            Binding::Remote { .. } | Binding::Unbound => None,
        }
    }

    /// The underlay address of the other host that it is bound to.
    #[must_use]
    pub fn underlay(&self) -> Option<IpAddr> {
        match &self.binding {
            Binding::Remote { underlay } => Some(*underlay),
            Binding::Local { .. } | Binding::Unbound => None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Metadata {
    pub instance_name: String,
    /// (name, public key)
    pub ssh_keys: Vec<(String, String)>,
    pub user_data: Vec<u8>,
    pub zone: String,
    pub flavor: String,
    pub tags: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecurityGroup {
    pub id: SecurityGroupId,
    pub rules: Vec<SecurityRule>,
}

impl SecurityGroup {
    /// Whether a rule lets that group's members in or out.
    #[must_use]
    pub fn names(&self, id: SecurityGroupId) -> bool {
        self.rules.iter().any(|rule| rule.remote == domain::network::Remote::Group(id))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FloatingIp {
    pub id: FloatingIpId,
    pub network_id: NetworkId,
    pub port_id: PortId,
    pub address: Ipv4Addr,
    pub fixed_ip: Ipv4Addr,
}

/// A part of the addresses of the fleet that no instance may reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Protected {
    pub part: ProtectedPart,
    pub blocks: BTreeSet<Cidr>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Object {
    Network(Network),
    Port(Port),
    SecurityGroup(SecurityGroup),
    FloatingIp(FloatingIp),
    Protected(Protected),
}

/// One parsed command of the manager.
#[derive(Debug, Clone)]
pub struct Desired {
    pub key: Key,
    pub version: Version,
    /// None: a tombstone.
    pub object: Option<Object>,
}

impl Desired {
    pub fn parse(desired: &DesiredObject) -> Result<Self, InvalidMessage> {
        let version = Version { epoch: desired.epoch, generation: desired.generation };
        if desired.deleted {
            return Ok(Self { key: Key::parse(desired.kind, &desired.id)?, version, object: None });
        }
        let id = desired.id.as_str();
        let object = match desired.object.as_ref() {
            None | Some(desired_object::Object::Instance(_)) => return Err(wrong("object", "is missing")),
            Some(desired_object::Object::Network(network)) => Object::Network(parse_network(id, network)?),
            Some(desired_object::Object::Port(port)) => Object::Port(parse_port(id, version, port)?),
            Some(desired_object::Object::SecurityGroup(group)) => Object::SecurityGroup(SecurityGroup {
                id: parse("id", id)?,
                rules: group.rules.iter().map(rule_from_pb).collect::<Result<_, _>>()?,
            }),
            Some(desired_object::Object::FloatingIp(floating)) => Object::FloatingIp(FloatingIp {
                id: parse("id", id)?,
                network_id: parse("floating_ip.network_id", &floating.network_id)?,
                port_id: parse("floating_ip.port_id", &floating.port_id)?,
                address: parse("floating_ip.address", &floating.address)?,
                fixed_ip: parse("floating_ip.fixed_ip", &floating.fixed_ip)?,
            }),
            Some(desired_object::Object::Protected(protected)) => Object::Protected(Protected {
                part: parse("id", id)?,
                blocks: parse_all("protected.blocks", &protected.blocks)?,
            }),
        };
        let key = match &object {
            Object::Network(network) => Key::Network(network.id),
            Object::Port(port) => Key::Port(port.id),
            Object::SecurityGroup(group) => Key::SecurityGroup(group.id),
            Object::FloatingIp(floating) => Key::FloatingIp(floating.id),
            Object::Protected(protected) => Key::Protected(protected.part),
        };
        Ok(Self { key, version, object: Some(object) })
    }
}

fn wrong(field: &'static str, detail: impl Into<String>) -> InvalidMessage {
    InvalidMessage { field, detail: detail.into() }
}

fn parse_all<T, C>(field: &'static str, texts: &[String]) -> Result<C, InvalidMessage>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
    C: FromIterator<T>,
{
    texts.iter().map(|text| parse(field, text)).collect()
}

fn parse_mac(field: &'static str, text: &str) -> Result<MacAddr, InvalidMessage> {
    parse::<MacAddr>(field, text)?.unicast().map_err(|e| wrong(field, e.to_string()))
}

fn parse_network(id: &str, network: &pb::Network) -> Result<Network, InvalidMessage> {
    if !(MTU_MIN..=MTU_MAX).contains(&network.mtu) {
        return Err(wrong("network.mtu", format!("{} is not from {MTU_MIN} to {MTU_MAX}", network.mtu)));
    }
    Ok(Network {
        id: parse("id", id)?,
        project_id: network.project_id.clone(),
        name: network.name.clone(),
        vni: Vni::try_from(network.vni).map_err(|e| wrong("network.vni", e.to_string()))?,
        mtu: network.mtu,
        gateway_mac: parse_mac("network.gateway_mac", &network.gateway_mac)?,
        subnets: network.subnets.iter().map(parse_subnet).collect::<Result<_, _>>()?,
        dns_domain: network.dns_domain.to_ascii_lowercase(),
        peers: parse_all("network.peer_ids", &network.peer_ids)?,
        uplink: network.uplink.as_ref().map(parse_uplink).transpose()?,
    })
}

fn parse_subnet(subnet: &pb::Subnet) -> Result<Subnet, InvalidMessage> {
    let cidr: Cidr = parse("subnet.cidr", &subnet.cidr)?;
    let gateway = parse("subnet.gateway", &subnet.gateway)?;
    if !cidr.contains(gateway) {
        return Err(wrong("subnet.gateway", format!("{gateway} is not in {cidr}")));
    }
    let routes = subnet.host_routes.iter().map(|route| {
        let destination = parse("host_route.destination", &route.destination)?;
        Ok(HostRoute { destination, next_hop: parse("host_route.next_hop", &route.next_hop)? })
    });
    Ok(Subnet {
        id: parse("subnet.id", &subnet.id)?,
        cidr,
        gateway,
        dns: parse_all("subnet.dns", &subnet.dns)?,
        host_routes: routes.collect::<Result<_, _>>()?,
        dhcp: subnet.dhcp,
    })
}

fn parse_uplink(uplink: &pb::Uplink) -> Result<Uplink, InvalidMessage> {
    let addresses = uplink.addresses.iter().map(|text| {
        let (addr, prefix) = text.split_once('/').ok_or_else(|| wrong("uplink.addresses", "has no prefix length"))?;
        let addr: IpAddr = parse("uplink.addresses", addr)?;
        let prefix: u8 = parse("uplink.addresses", prefix)?;
        let longest = if addr.is_ipv4() { 32 } else { 128 };
        if prefix > longest { Err(wrong("uplink.addresses", "the prefix is too long")) } else { Ok((addr, prefix)) }
    });
    Ok(Uplink {
        external_network: uplink.external_network.clone(),
        addresses: addresses.collect::<Result<_, _>>()?,
        gateways: parse_all("uplink.gateways", &uplink.gateways)?,
        source_nat: uplink.source_nat,
        mac: parse_mac("uplink.mac", &uplink.mac)?,
    })
}

fn parse_port(id: &str, version: Version, port: &pb::Port) -> Result<Port, InvalidMessage> {
    let binding = match &port.binding {
        None => Binding::Unbound,
        Some(pb::port::Binding::RemoteUnderlay(underlay)) => {
            Binding::Remote { underlay: parse("port.remote_underlay", underlay)? }
        }
        Some(pb::port::Binding::Local(local)) => {
            let metadata = local.metadata.clone().unwrap_or_default();
            Binding::Local {
                instance_id: parse("port.instance_id", &local.instance_id)?,
                metadata: Box::new(Metadata {
                    instance_name: metadata.instance_name,
                    ssh_keys: metadata.ssh_keys.into_iter().map(|key| (key.name, key.public_key)).collect(),
                    user_data: metadata.user_data.to_vec(),
                    zone: metadata.zone,
                    flavor: metadata.flavor,
                    tags: metadata.tags.into_iter().collect(),
                }),
            }
        }
    };
    let limits = port.rate_limit.unwrap_or_default();
    let allowed = port.allowed_addresses.iter().map(|text| match text.parse::<IpAddr>() {
        Ok(addr) => Ok(Cidr::host(addr)),
        Err(_) => parse("port.allowed_addresses", text),
    });
    let hostname = port.hostname.to_ascii_lowercase();
    if !hostname.is_empty() && hostname.parse::<domain::Name>().is_err() {
        return Err(wrong("port.hostname", format!("`{hostname}` is no host name")));
    }
    Ok(Port {
        id: parse("id", id)?,
        version,
        network_id: parse("port.network_id", &port.network_id)?,
        mac: parse_mac("port.mac", &port.mac)?,
        fixed_ips: parse_all("port.fixed_ips", &port.fixed_ips)?,
        allowed: allowed.collect::<Result<_, _>>()?,
        groups: parse_all("port.security_group_ids", &port.security_group_ids)?,
        binding,
        to_instance_bps: limits.to_instance_bps,
        from_instance_bps: limits.from_instance_bps,
        hostname,
    })
}
