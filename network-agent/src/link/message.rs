//! The netlink message of each step, and which refusals mean that it was done before.

use super::netlink::Request;
use crate::{
    model::state::{Hop, LinkKind},
    plan::Step,
};
use domain::network::{Cidr, MacAddr};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope},
    link::{InfoData, InfoKind, InfoVeth, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState},
    route::{RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteProtocol, RouteScope, RouteType, RouteVia},
};
use nix::errno::Errno;
use std::{net::IpAddr, os::fd::RawFd};

/// What marks routes as ours: the kernel keeps it, and shows it on request.
pub const ROUTE_PROTOCOL: u8 = 0x99;
const TABLE_MAIN: u8 = 254;

fn family(addr: IpAddr) -> AddressFamily {
    if addr.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn named(name: &str) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    message
}

/// Whether a link of that kind is made from the host's namespace: its other side is there.
#[must_use]
pub fn made_by_host(kind: &LinkKind) -> bool {
    match kind {
        LinkKind::Vxlan { .. } | LinkKind::Uplink { .. } | LinkKind::Peer { .. } => true,
        LinkKind::Tap { .. } | LinkKind::Veth { .. } | LinkKind::Found => false,
    }
}

/// Makes a link; `inside` is the namespace it is for, `peer` the one its other end is in. None for taps.
#[must_use]
pub fn add_link(
    name: &str,
    kind: &LinkKind,
    mac: MacAddr,
    mtu: u32,
    inside: RawFd,
    peer: Option<RawFd>,
    bridge: Option<u32>,
) -> Option<Request> {
    let mut message = named(name);
    message.attributes.push(LinkAttribute::Mtu(mtu));
    message.attributes.push(LinkAttribute::Address(mac.0.to_vec()));
    let info = match kind {
        LinkKind::Tap { .. } | LinkKind::Found => return None,
        LinkKind::Vxlan { vni, local, port } => {
            message.attributes.push(LinkAttribute::NetNsFd(inside));
            let local = match local {
                IpAddr::V4(addr) => InfoVxlan::Local(*addr),
                IpAddr::V6(addr) => InfoVxlan::Local6(*addr),
            };
            let checksum = InfoVxlan::UDPCsum(false);
            let data = vec![InfoVxlan::Id(*vni), local, InfoVxlan::Port(*port), InfoVxlan::Learning(false), checksum];
            vec![LinkInfo::Kind(InfoKind::Vxlan), LinkInfo::Data(InfoData::Vxlan(data))]
        }
        LinkKind::Veth { endpoint } => {
            let mut end = named(endpoint);
            end.attributes.push(LinkAttribute::Mtu(mtu));
            veth(end)
        }
        LinkKind::Uplink { host_end, .. } => {
            message.attributes.push(LinkAttribute::NetNsFd(inside));
            // Not up yet: a veth can't be before its other end is there.
            let mut end = named(host_end);
            end.attributes.push(LinkAttribute::Mtu(mtu));
            end.attributes.extend(bridge.map(LinkAttribute::Controller));
            veth(end)
        }
        LinkKind::Peer { other_end, .. } => {
            message.attributes.push(LinkAttribute::NetNsFd(inside));
            let mut end = named(other_end);
            end.attributes.push(LinkAttribute::Mtu(mtu));
            end.attributes.extend(peer.map(LinkAttribute::NetNsFd));
            veth(end)
        }
    };
    message.attributes.push(LinkAttribute::LinkInfo(info));
    Some(Request { flags: NLM_F_CREATE | NLM_F_EXCL, message: RouteNetlinkMessage::NewLink(message) })
}

fn veth(end: LinkMessage) -> Vec<LinkInfo> {
    vec![LinkInfo::Kind(InfoKind::Veth), LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(end)))]
}

/// Puts the host's end of an uplink on its bridge, and up.
#[must_use]
pub fn enslave(name: &str, bridge: u32) -> Request {
    let mut message = named(name);
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    message.attributes.push(LinkAttribute::Controller(bridge));
    Request { flags: 0, message: RouteNetlinkMessage::SetLink(message) }
}

#[must_use]
pub fn set_link(name: &str, mac: Option<MacAddr>, mtu: Option<u32>, group: u32) -> Request {
    let mut message = named(name);
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    message.attributes.extend(mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
    message.attributes.extend(mtu.map(LinkAttribute::Mtu));
    if group != 0 {
        message.attributes.push(LinkAttribute::Group(group));
    }
    Request { flags: 0, message: RouteNetlinkMessage::SetLink(message) }
}

#[must_use]
pub fn delete_link(name: &str) -> Request {
    Request { flags: 0, message: RouteNetlinkMessage::DelLink(named(name)) }
}

/// All links of a group at once.
#[must_use]
pub fn delete_group(group: u32) -> Request {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::Group(group));
    Request { flags: 0, message: RouteNetlinkMessage::DelLink(message) }
}

/// Of the steps that are one message in the namespace itself. `index`: the interface's number by its name.
#[must_use]
pub fn of_step(step: &Step, index: impl Fn(&str) -> Option<u32>) -> Option<Request> {
    let request = |flags, message| Some(Request { flags, message });
    match step {
        Step::AddLink { .. } | Step::SetLink { .. } | Step::Rules(_) => None,
        Step::DeleteLink { name } => Some(delete_link(name)),
        Step::AddAddress { link, addr, prefix } => request(
            NLM_F_CREATE | NLM_F_REPLACE,
            RouteNetlinkMessage::NewAddress(address(index(link)?, *addr, *prefix)),
        ),
        Step::DeleteAddress { link, addr, prefix } => {
            request(0, RouteNetlinkMessage::DelAddress(address(index(link)?, *addr, *prefix)))
        }
        Step::SetNeighbour { link, addr, mac } => {
            let message = neighbour(index(link)?, *addr, Some(*mac));
            request(NLM_F_CREATE | NLM_F_REPLACE, RouteNetlinkMessage::NewNeighbour(message))
        }
        Step::DeleteNeighbour { link, addr } => {
            request(0, RouteNetlinkMessage::DelNeighbour(neighbour(index(link)?, *addr, None)))
        }
        Step::SetForwarding { mac, underlay } => {
            let message = forwarding(index(crate::model::names::VXLAN)?, *mac, *underlay);
            request(NLM_F_CREATE | NLM_F_REPLACE, RouteNetlinkMessage::NewNeighbour(message))
        }
        Step::DeleteForwarding { mac, underlay } => {
            let message = forwarding(index(crate::model::names::VXLAN)?, *mac, *underlay);
            request(0, RouteNetlinkMessage::DelNeighbour(message))
        }
        Step::SetRoute { destination, hop } => {
            let message = route(*destination, hop, index)?;
            request(NLM_F_CREATE | NLM_F_REPLACE, RouteNetlinkMessage::NewRoute(message))
        }
        Step::DeleteRoute { destination, hop } => {
            let message = route(*destination, hop, index)?;
            request(0, RouteNetlinkMessage::DelRoute(message))
        }
    }
}

/// Whether the refusal of a step says that it was done before.
#[must_use]
pub fn done_before(step: &Step, errno: Errno) -> bool {
    match step {
        Step::AddLink { .. } | Step::AddAddress { .. } => errno == Errno::EEXIST,
        Step::DeleteLink { .. }
        | Step::DeleteAddress { .. }
        | Step::DeleteNeighbour { .. }
        | Step::DeleteForwarding { .. }
        | Step::DeleteRoute { .. } => {
            matches!(errno, Errno::ENODEV | Errno::ENOENT | Errno::ESRCH | Errno::EADDRNOTAVAIL)
        }
        Step::SetLink { .. }
        | Step::Rules(_)
        | Step::SetNeighbour { .. }
        | Step::SetForwarding { .. }
        | Step::SetRoute { .. } => false,
    }
}

fn address(index: u32, addr: IpAddr, prefix: u8) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(addr);
    message.header.prefix_len = prefix;
    message.header.index = index;
    message.header.scope = AddressScope::Universe;
    if addr.is_ipv6() {
        message.header.flags = AddressHeaderFlags::Nodad;
    }
    message.attributes = vec![AddressAttribute::Local(addr), AddressAttribute::Address(addr)];
    message
}

fn neighbour_address(addr: IpAddr) -> NeighbourAddress {
    match addr {
        IpAddr::V4(addr) => NeighbourAddress::Inet(addr),
        IpAddr::V6(addr) => NeighbourAddress::Inet6(addr),
    }
}

fn neighbour(index: u32, addr: IpAddr, mac: Option<MacAddr>) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(addr);
    message.header.ifindex = index;
    message.header.state = NeighbourState::Permanent;
    message.attributes.push(NeighbourAttribute::Destination(neighbour_address(addr)));
    message.attributes.extend(mac.map(|mac| NeighbourAttribute::LinkLayerAddress(mac.0.to_vec())));
    message
}

fn forwarding(index: u32, mac: MacAddr, underlay: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = index;
    message.header.state = NeighbourState::Permanent;
    message.header.flags = NeighbourFlags::Own;
    message.attributes = vec![
        NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()),
        NeighbourAttribute::Destination(neighbour_address(underlay)),
    ];
    message
}

fn route(destination: Cidr, hop: &Hop, index: impl Fn(&str) -> Option<u32>) -> Option<RouteMessage> {
    let mut message = RouteMessage::default();
    let header = &mut message.header;
    header.address_family = family(destination.addr());
    header.destination_prefix_length = destination.prefix();
    header.table = TABLE_MAIN;
    header.protocol = RouteProtocol::Other(ROUTE_PROTOCOL);
    header.scope = RouteScope::Universe;
    header.kind = RouteType::Unicast;
    let address = |addr| match addr {
        IpAddr::V4(addr) => RouteAddress::Inet(addr),
        IpAddr::V6(addr) => RouteAddress::Inet6(addr),
    };
    match hop {
        Hop::Unreachable => header.kind = RouteType::Unreachable,
        Hop::Link(link) => {
            if destination.v4() {
                header.scope = RouteScope::Link;
            }
            message.attributes.push(RouteAttribute::Oif(index(link)?));
        }
        Hop::Via(next, link) => {
            header.flags = RouteFlags::Onlink;
            message.attributes.push(match (destination.v4(), next) {
                (true, IpAddr::V6(next)) => RouteAttribute::Via(RouteVia::Inet6(*next)),
                (true, IpAddr::V4(_)) | (false, _) => RouteAttribute::Gateway(address(*next)),
            });
            message.attributes.push(RouteAttribute::Oif(index(link)?));
        }
    }
    if destination.prefix() > 0 {
        message.attributes.push(RouteAttribute::Destination(address(destination.addr())));
    }
    Some(message)
}
