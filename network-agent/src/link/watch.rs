//! What the kernel says of its own about a namespace: that somebody changed links, addresses, routes, neighbours or rules there.
//!
//! The problem: others change what is ours (a firewall service flushes rules, a script deletes a route), and looking at everything every
//! half minute leaves a network open or broken for that long. The kernel tells of every change, ours too; ours are known by the port
//! number of the socket that requested them. What has no requester follows from something that has one, or is the kernel's answer to a
//! guest, so it counts only where nothing else would tell.

use super::observe;
use domain::network::MacAddr;
use netlink_packet_core::{NetlinkDeserializable, NetlinkHeader};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    link::{LinkAttribute, LinkFlags, LinkMessage},
    neighbour::NeighbourMessage,
    route::{RouteMessage, RouteProtocol},
};
use netlink_sys::{
    Socket,
    protocols::{NETLINK_NETFILTER, NETLINK_ROUTE},
};
use nix::libc;
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};
use tokio::io::unix::AsyncFd;

const GROUP_LINK: u32 = 1;
const GROUP_NEIGHBOUR: u32 = 3;
const GROUP_ADDRESS4: u32 = 5;
const GROUP_ROUTE4: u32 = 7;
const GROUP_ADDRESS6: u32 = 9;
const GROUP_ROUTE6: u32 = 11;
const GROUP_RULES: u32 = 7;
/// A burst of changes that doesn't fit is seen as one that must be looked at.
const RECEIVE_BYTES: usize = 1024 * 1024;
/// Of a netlink message, and of nfnetlink's after it.
const HEADER: usize = 16;
const GENERIC_HEADER: usize = 4;
const NEW_GENERATION: u16 = 15;
const TABLE_NAME: u16 = 1;
/// Of the kernel's answer to "which bits changed" at a link's birth.
const ALL_BITS: u32 = u32::MAX;

/// What is to be looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changed {
    /// Links, routes, neighbours: compare all with what they should be.
    pub all: bool,
    pub addresses: bool,
    /// The tables that a transaction touched, by name. Ours may be among its makers: the generation tells.
    pub tables: BTreeSet<String>,
    /// Links that changed somehow, by name, as they are now.
    pub links: BTreeMap<String, LinkNow>,
}

/// What the kernel says of a link that changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkNow {
    pub mac: Option<MacAddr>,
    pub mtu: u32,
    pub up: bool,
}

impl Changed {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub fn merge(&mut self, other: Self) {
        self.all |= other.all;
        self.addresses |= other.addresses;
        self.tables.extend(other.tables);
        self.links.extend(other.links);
    }
}

/// Sockets in the namespace of the thread that made them, not yet read by anybody.
pub struct Sockets {
    route: Socket,
    rules: Socket,
}

impl Sockets {
    /// About all that is in a network's namespace.
    pub fn of_network() -> io::Result<Self> {
        let route = [GROUP_LINK, GROUP_NEIGHBOUR, GROUP_ADDRESS4, GROUP_ROUTE4, GROUP_ADDRESS6, GROUP_ROUTE6];
        Self::open(&route)
    }

    /// About the host's links, addresses and rules: its neighbours and routes are nobody's business here.
    pub fn of_host() -> io::Result<Self> {
        Self::open(&[GROUP_LINK, GROUP_ADDRESS4, GROUP_ADDRESS6])
    }

    fn open(route: &[u32]) -> io::Result<Self> {
        let open = |protocol, groups: &[u32]| -> io::Result<Socket> {
            let mut socket = Socket::new(protocol)?;
            socket.bind_auto()?;
            socket.set_rx_buf_sz(RECEIVE_BYTES as libc::c_int)?;
            socket.set_non_blocking(true)?;
            groups.iter().try_for_each(|group| socket.add_membership(*group))?;
            Ok(socket)
        };
        Ok(Self { route: open(NETLINK_ROUTE, route)?, rules: open(NETLINK_NETFILTER, &[GROUP_RULES])? })
    }
}

/// What of a link matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    Nothing,
    /// That it went, or went down.
    Loss,
    Everything,
}

/// Of links, by their names.
pub type Links = Box<dyn Fn(&str) -> Interest + Send + Sync>;

pub struct Watch {
    links: Links,
    route: AsyncFd<Socket>,
    rules: AsyncFd<Socket>,
    /// The port numbers of sockets whose changes are ours.
    own: BTreeSet<u32>,
}

impl Watch {
    /// In a runtime; `own`: port numbers of the sockets that our changes are made by.
    pub fn new(sockets: Sockets, own: BTreeSet<u32>, links: Links) -> io::Result<Self> {
        let watched = |socket: Socket| {
            // SAFETY: a socket's descriptor stays open and the same for as long as it is owned, which is by the AsyncFd.
            unsafe { AsyncFd::register_with_interest(socket, tokio::io::Interest::READABLE) }.map_err(io::Error::from)
        };
        Ok(Self { links, route: watched(sockets.route)?, rules: watched(sockets.rules)?, own })
    }

    /// Waits for changes that may be somebody else's.
    pub async fn changed(&mut self) -> io::Result<Changed> {
        loop {
            let mut changed = Changed::default();
            let (own, links) = (&self.own, &self.links);
            tokio::select! {
                ready = self.route.readable() => {
                    let mut ready = ready?;
                    changed.all |= drain(ready.get_inner(), |bytes| read_route(bytes, own, links, &mut changed))?;
                    ready.clear_ready();
                }
                ready = self.rules.readable() => {
                    let mut ready = ready?;
                    // What was lost may have been about any table.
                    if drain(ready.get_inner(), |bytes| read_rules(bytes, &mut changed))? {
                        changed.tables.insert(String::new());
                    }
                    ready.clear_ready();
                }
            }
            if !changed.is_empty() {
                return Ok(changed);
            }
        }
    }
}

/// Reads all that waits; whether the kernel had to leave something out.
fn drain(socket: &Socket, mut each: impl FnMut(&[u8])) -> io::Result<bool> {
    let mut lost = false;
    let mut buffer = Vec::with_capacity(64 * 1024);
    loop {
        buffer.clear();
        match socket.recv_from(&mut buffer, libc::MSG_DONTWAIT) {
            Ok(_) => each(&buffer),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(lost),
            Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => lost = true,
            Err(e) => return Err(e),
        }
    }
}

/// (type, requester's port number, what follows the header) of each message.
fn each_message(bytes: &[u8], mut f: impl FnMut(u16, u32, &[u8])) {
    let mut rest = bytes;
    while rest.len() >= HEADER {
        let u32_at = |at: usize| u32::from_ne_bytes([rest[at], rest[at + 1], rest[at + 2], rest[at + 3]]);
        let length = u32_at(0) as usize;
        let Some(body) = rest.get(HEADER..length) else { return };
        f(u16::from_ne_bytes([rest[4], rest[5]]), u32_at(12), body);
        let Some(next) = rest.get(length.next_multiple_of(4)..) else { return };
        rest = next;
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "what else the kernel sends is passed over")]
fn read_route(bytes: &[u8], own: &BTreeSet<u32>, links: &Links, changed: &mut Changed) {
    each_message(bytes, |kind, requester, body| {
        if own.contains(&requester) {
            return;
        }
        let mut header = NetlinkHeader::default();
        header.message_type = kind;
        let Ok(message) = RouteNetlinkMessage::deserialize(&header, body) else {
            // Of a newer kernel: better a look too many.
            changed.all = true;
            return;
        };
        match message {
            RouteNetlinkMessage::NewLink(link) => {
                let Some(name) = name_of(&link) else { return };
                let interest = links(name);
                if interest == Interest::Nothing {
                    return;
                }
                let header = &link.header;
                let born = header.change_mask.bits() == ALL_BITS;
                // A link that went down has lost its routes and neighbours, also if it is up again.
                changed.all |=
                    !born && header.change_mask.contains(LinkFlags::Up) && !header.flags.contains(LinkFlags::Up);
                if interest == Interest::Everything {
                    changed.links.insert(name.to_owned(), link_now(&link));
                }
            }
            RouteNetlinkMessage::DelLink(link) => {
                changed.all |= name_of(&link).is_some_and(|name| links(name) != Interest::Nothing);
            }
            RouteNetlinkMessage::NewAddress(address) | RouteNetlinkMessage::DelAddress(address) => {
                changed.addresses |= !observe::made_by_itself(&address);
            }
            RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route) => {
                changed.all |= requester != 0 && is_ours(&route);
            }
            RouteNetlinkMessage::NewNeighbour(neighbour) | RouteNetlinkMessage::DelNeighbour(neighbour) => {
                changed.all |= requester != 0 || is_forwarding_gone(kind, &neighbour);
            }
            _ => {}
        }
    });
}

fn link_now(link: &LinkMessage) -> LinkNow {
    let mut now = LinkNow { mac: None, mtu: 0, up: link.header.flags.contains(LinkFlags::Up) };
    for attribute in &link.attributes {
        if let LinkAttribute::Address(bytes) = attribute {
            now.mac = <[u8; 6]>::try_from(bytes.as_slice()).ok().map(MacAddr);
        } else if let LinkAttribute::Mtu(mtu) = attribute {
            now.mtu = *mtu;
        }
    }
    now
}

fn name_of(link: &LinkMessage) -> Option<&str> {
    link.attributes.iter().find_map(|a| if let LinkAttribute::IfName(name) = a { Some(name.as_str()) } else { None })
}

fn is_ours(route: &RouteMessage) -> bool {
    route.header.protocol == RouteProtocol::Other(super::message::ROUTE_PROTOCOL)
}

/// The kernel names no requester for what VXLAN forwards.
fn is_forwarding_gone(kind: u16, neighbour: &NeighbourMessage) -> bool {
    kind == libc::RTM_DELNEIGH && neighbour.header.family == AddressFamily::Bridge
}

/// Every message about rules names its table first.
fn read_rules(bytes: &[u8], changed: &mut Changed) {
    each_message(bytes, |kind, _, body| {
        // The end of a transaction names no table, and those that it ends were named before.
        if kind & 0xff == NEW_GENERATION {
            return;
        }
        let Some(attribute) = body.get(GENERIC_HEADER..) else { return };
        let (Some(length), Some(number)) = (attribute.get(..2), attribute.get(2..4)) else { return };
        let length = usize::from(u16::from_ne_bytes([length[0], length[1]]));
        if u16::from_ne_bytes([number[0], number[1]]) == TABLE_NAME
            && let Some(name) = attribute.get(4..length)
        {
            let name = String::from_utf8_lossy(name);
            changed.tables.insert(name.trim_end_matches('\0').to_owned());
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any() -> Links {
        Box::new(|_| Interest::Everything)
    }

    fn message(kind: u16, requester: u32, body: &[u8]) -> Vec<u8> {
        let length = (HEADER + body.len()) as u32;
        let head = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &[0; 6], &requester.to_ne_bytes()].concat();
        let mut bytes = [&head[..], body].concat();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn the_tables_of_a_transaction_are_named() {
        let table = |name: &str| {
            let length = (4 + name.len() + 1) as u16;
            [&[1, 0, 0, 0][..], &length.to_ne_bytes(), &1u16.to_ne_bytes(), name.as_bytes(), &[0]].concat()
        };
        let bytes =
            [message(0x0a01, 7, &table("iaas")), message(0x0a0e, 7, &table("other")), message(0x0a0f, 7, &[0; 12])];
        let mut changed = Changed::default();
        read_rules(&bytes.concat(), &mut changed);
        assert_eq!(changed.tables.into_iter().collect::<Vec<_>>(), ["iaas", "other"]);
        let mut none = Changed::default();
        read_rules(&[0; 7], &mut none);
        read_rules(&message(0x0a01, 7, &[1, 0, 0, 0, 9]), &mut none);
        assert!(none.is_empty());
    }

    #[test]
    fn what_is_cut_off_is_passed_over_and_what_is_not_understood_is_looked_at() {
        let mut changed = Changed::default();
        read_route(&message(libc::RTM_NEWROUTE, 9, &[2; 3]), &BTreeSet::new(), &any(), &mut changed);
        assert!(changed.all);
        let mut own = Changed::default();
        read_route(&message(libc::RTM_NEWROUTE, 9, &[2; 3]), &BTreeSet::from([9]), &any(), &mut own);
        assert!(own.is_empty());
    }
}
