//! What is in a namespace, in the model's terms. What the kernel makes by itself (link-local addresses, multicast and connected
//! routes) is left out: nobody desires it, nobody removes it.

use super::{message::ROUTE_PROTOCOL, netlink::Netlink};
use crate::model::{
    names,
    state::{Hop, Link, LinkKind, NsState},
};
use domain::network::{Cidr, MacAddr};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
    link::{LinkAttribute, LinkFlags, LinkMessage},
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteType, RouteVia},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// Cumulative counters of a link, as the kernel counts: received is what the instance sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LinkCounters {
    pub rx_bytes: u64,
    pub rx_packets: u64,
    pub tx_bytes: u64,
    pub tx_packets: u64,
}

#[derive(Debug, Default)]
pub struct Found {
    pub state: NsState,
    pub indexes: BTreeMap<String, u32>,
    pub counters: BTreeMap<String, LinkCounters>,
}

/// Links alone: names, numbers, counters.
pub fn links(netlink: &mut Netlink) -> io::Result<Found> {
    let mut found = Found::default();
    for message in netlink.dump(RouteNetlinkMessage::GetLink(LinkMessage::default()))? {
        if let RouteNetlinkMessage::NewLink(link) = message {
            take_link(&mut found, &link);
        }
    }
    Ok(found)
}

/// Everything but the rules.
pub fn all(netlink: &mut Netlink) -> io::Result<Found> {
    let mut found = links(netlink)?;
    let name_of: BTreeMap<u32, String> = found.indexes.iter().map(|(name, index)| (*index, name.clone())).collect();
    for message in netlink.dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()))? {
        if let RouteNetlinkMessage::NewAddress(address) = message {
            take_address(&mut found.state, &address, &name_of);
        }
    }
    for family in [AddressFamily::Inet, AddressFamily::Inet6, AddressFamily::Bridge] {
        let mut query = NeighbourMessage::default();
        query.header.family = family;
        for message in netlink.dump(RouteNetlinkMessage::GetNeighbour(query))? {
            if let RouteNetlinkMessage::NewNeighbour(neighbour) = message {
                take_neighbour(&mut found.state, &neighbour, &name_of);
            }
        }
    }
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut query = RouteMessage::default();
        query.header.address_family = family;
        for message in netlink.dump(RouteNetlinkMessage::GetRoute(query))? {
            if let RouteNetlinkMessage::NewRoute(route) = message {
                take_route(&mut found.state, &route, &name_of);
            }
        }
    }
    Ok(found)
}

/// The addresses that a namespace answers at, but for those that no packet from elsewhere is for.
pub fn own_addresses(netlink: &mut Netlink) -> io::Result<BTreeSet<IpAddr>> {
    let mut own = BTreeSet::new();
    for message in netlink.dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()))? {
        if let RouteNetlinkMessage::NewAddress(address) = message {
            own.extend(address_said(&address).filter(|addr| !by_itself(*addr)));
        }
    }
    Ok(own)
}

/// Links that are ours to plan; `lo` and the loose ends of veths are not.
pub fn ours(name: &str) -> bool {
    name == names::VXLAN
        || name == names::UPLINK
        || name.starts_with(names::PORT_PREFIX)
        || name.starts_with(names::PEER_PREFIX)
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the crate's attributes are many, and grow")]
fn take_link(found: &mut Found, link: &LinkMessage) {
    let (mut name, mut mac, mut mtu, mut counters) = (None, None, 0, LinkCounters::default());
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = Some(text.clone()),
            LinkAttribute::Address(bytes) => mac = <[u8; 6]>::try_from(bytes.as_slice()).ok().map(MacAddr),
            LinkAttribute::Mtu(value) => mtu = *value,
            LinkAttribute::Stats64(stats) => {
                counters = LinkCounters {
                    rx_bytes: stats.rx_bytes,
                    rx_packets: stats.rx_packets,
                    tx_bytes: stats.tx_bytes,
                    tx_packets: stats.tx_packets,
                };
            }
            _ => {}
        }
    }
    let (Some(name), Some(mac)) = (name, mac) else { return };
    found.indexes.insert(name.clone(), link.header.index);
    if ours(&name) {
        let up = link.header.flags.contains(LinkFlags::Up);
        found.counters.insert(name.clone(), counters);
        found.state.links.insert(name, Link { kind: LinkKind::Found, mac, mtu, up, port_id: None });
    }
}

fn take_address(state: &mut NsState, address: &AddressMessage, name_of: &BTreeMap<u32, String>) {
    let Some(link) = name_of.get(&address.header.index) else { return };
    let Some(addr) = address_said(address) else { return };
    if !by_itself(addr) && (link == "lo" || ours(link)) {
        state.addresses.insert((link.clone(), addr, address.header.prefix_len));
    }
}

fn address_said(address: &AddressMessage) -> Option<IpAddr> {
    let local =
        address.attributes.iter().find_map(|a| if let AddressAttribute::Local(a) = a { Some(*a) } else { None });
    let any =
        address.attributes.iter().find_map(|a| if let AddressAttribute::Address(a) = a { Some(*a) } else { None });
    local.or(any)
}

/// Whether the message is of such an address.
pub(super) fn made_by_itself(address: &AddressMessage) -> bool {
    address_said(address).is_some_and(by_itself)
}

/// Addresses that nobody configured.
fn by_itself(addr: IpAddr) -> bool {
    addr.is_loopback() || matches!(addr, IpAddr::V6(a) if a.is_unicast_link_local())
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the crate's attributes are many, and grow")]
fn take_neighbour(state: &mut NsState, neighbour: &NeighbourMessage, name_of: &BTreeMap<u32, String>) {
    let Some(link) = name_of.get(&neighbour.header.ifindex).filter(|link| ours(link)) else { return };
    let (mut addr, mut mac) = (None, None);
    for attribute in &neighbour.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(a)) => addr = Some(IpAddr::V4(*a)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(a)) => addr = Some(IpAddr::V6(*a)),
            NeighbourAttribute::Destination(NeighbourAddress::Other(bytes)) => addr = address_of(bytes),
            NeighbourAttribute::LinkLayerAddress(bytes) => {
                mac = <[u8; 6]>::try_from(bytes.as_slice()).ok().map(MacAddr);
            }
            _ => {}
        }
    }
    let (Some(addr), Some(mac)) = (addr, mac) else { return };
    if neighbour.header.family == AddressFamily::Bridge {
        if link == names::VXLAN {
            state.fdb.insert(mac, addr);
        }
    } else if neighbour.header.state == NeighbourState::Permanent {
        state.neighbours.insert((link.clone(), addr), mac);
    }
}

fn address_of(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).ok().map(|b| IpAddr::V4(Ipv4Addr::from(b)));
    v4.or_else(|| <[u8; 16]>::try_from(bytes).ok().map(|b| IpAddr::V6(Ipv6Addr::from(b))))
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the crate's attributes are many, and grow")]
fn take_route(state: &mut NsState, route: &RouteMessage, name_of: &BTreeMap<u32, String>) {
    let header = &route.header;
    if header.protocol != RouteProtocol::Other(ROUTE_PROTOCOL) {
        return;
    }
    let address = |a: &RouteAddress| match a {
        RouteAddress::Inet(a) => Some(IpAddr::V4(*a)),
        RouteAddress::Inet6(a) => Some(IpAddr::V6(*a)),
        _ => None,
    };
    let mut destination = match header.address_family {
        AddressFamily::Inet => Cidr::ANY_V4,
        _ => Cidr::ANY_V6,
    };
    let (mut via, mut link) = (None, None);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Destination(a) => {
                if let Some(addr) = address(a) {
                    destination = Cidr::around(addr, header.destination_prefix_length);
                }
            }
            RouteAttribute::Gateway(a) => via = address(a),
            RouteAttribute::Via(RouteVia::Inet6(a)) => via = Some(IpAddr::V6(*a)),
            RouteAttribute::Via(RouteVia::Inet(a)) => via = Some(IpAddr::V4(*a)),
            RouteAttribute::Oif(index) => link = name_of.get(index).cloned(),
            _ => {}
        }
    }
    let hop = match (header.kind, via, link) {
        (RouteType::Unreachable, ..) => Hop::Unreachable,
        (_, Some(via), Some(link)) => Hop::Via(via, link),
        (_, None, Some(link)) => Hop::Link(link),
        (_, _, None) => return,
    };
    state.routes.insert(destination, hop);
}
