//! DHCPv4: the port's own address, to whoever asks from the port. There is nothing to lease out and nothing to remember: an
//! address belongs to its port, and the answer follows from the ledger.

use super::{port_of, view::View};
use crate::{
    link::packet_info,
    model::object::{Network, Port, Subnet},
    model::state::METADATA_ADDRESS,
};
use dhcproto::{
    Decodable, Decoder, Encodable,
    v4::{DhcpOption, Flags, Message, MessageType, Opcode, OptionCode, UnknownOption},
};
use domain::network::Cidr;
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};
use tokio::{io::Interest, net::UdpSocket, sync::watch};

/// A guest that can't reach us keeps its address at least this long; short enough that changes of routes arrive within a day.
const LEASE_SECS: u32 = 24 * 3600;

pub async fn serve(socket: UdpSocket, view: watch::Receiver<Arc<View>>) {
    let mut buffer = vec![0; 2048];
    loop {
        if socket.readable().await.is_err() {
            return;
        }
        let Ok(arrival) = socket.try_io(Interest::READABLE, || packet_info::receive(&socket, &mut buffer)) else {
            continue;
        };
        let view = Arc::clone(&view.borrow());
        let Some(port) = port_of(&view, &socket, arrival.index) else { continue };
        let Ok(request) = Message::decode(&mut Decoder::new(&buffer[..arrival.bytes])) else { continue };
        let Some((reply, gateway)) = answer(&view.network, &port, &request) else { continue };
        let Ok(bytes) = reply.to_vec() else { continue };
        let to = destination(&request, &reply);
        let sent = packet_info::send(&socket, &bytes, to, arrival.index, Some(gateway.into()));
        if let Err(error) = sent {
            tracing::debug!(port_id = %port.id, %error, "a DHCP answer could not be sent");
        }
    }
}

/// The port's address is a permanent neighbour here, so an answer reaches it by unicast before it has configured it.
fn destination(request: &Message, reply: &Message) -> SocketAddr {
    let refused = reply.opts().get(OptionCode::MessageType) == Some(&DhcpOption::MessageType(MessageType::Nak));
    let addr = if refused || request.flags().broadcast() {
        Ipv4Addr::BROADCAST
    } else if !request.ciaddr().is_unspecified() {
        request.ciaddr()
    } else {
        reply.yiaddr()
    };
    (addr, 68).into()
}

/// The answer, and the gateway it comes from; None where RFC 2131 wants silence. Pure.
#[must_use]
#[expect(clippy::wildcard_enum_match_arm, reason = "messages of servers aren't for us")]
pub fn answer(network: &Network, port: &Port, request: &Message) -> Option<(Message, Ipv4Addr)> {
    if request.opcode() != Opcode::BootRequest || request.chaddr() != port.mac.0 {
        return None;
    }
    let (addr, subnet, gateway) = port.fixed_ips.iter().find_map(|addr| {
        let subnet = network.subnet_of(*addr).filter(|subnet| subnet.dhcp)?;
        match (addr, subnet.gateway) {
            (IpAddr::V4(addr), IpAddr::V4(gateway)) => Some((*addr, subnet, gateway)),
            _ => None,
        }
    })?;
    let Some(DhcpOption::MessageType(requested)) = request.opts().get(OptionCode::MessageType) else { return None };
    let kind = match requested {
        MessageType::Discover => MessageType::Offer,
        MessageType::Inform => MessageType::Ack,
        MessageType::Request => {
            if let Some(DhcpOption::ServerIdentifier(server)) = request.opts().get(OptionCode::ServerIdentifier)
                && *server != gateway
            {
                return None;
            }
            let tracked = match request.opts().get(OptionCode::RequestedIpAddress) {
                Some(DhcpOption::RequestedIpAddress(tracked)) => *tracked,
                _ => request.ciaddr(),
            };
            if tracked == addr { MessageType::Ack } else { MessageType::Nak }
        }
        _ => return None,
    };
    let mut reply = Message::default();
    reply
        .set_opcode(Opcode::BootReply)
        .set_htype(request.htype())
        .set_xid(request.xid())
        .set_flags(if request.flags().broadcast() { Flags::default().set_broadcast() } else { Flags::default() })
        .set_giaddr(request.giaddr())
        .set_chaddr(request.chaddr());
    reply.opts_mut().insert(DhcpOption::MessageType(kind));
    reply.opts_mut().insert(DhcpOption::ServerIdentifier(gateway));
    if kind == MessageType::Nak {
        return Some((reply, gateway));
    }
    reply.set_siaddr(gateway);
    if *requested == MessageType::Inform {
        reply.set_ciaddr(request.ciaddr());
    } else {
        reply.set_yiaddr(addr);
        reply.opts_mut().insert(DhcpOption::AddressLeaseTime(LEASE_SECS));
        reply.opts_mut().insert(DhcpOption::Renewal(LEASE_SECS / 2));
        reply.opts_mut().insert(DhcpOption::Rebinding(LEASE_SECS / 8 * 7));
    }
    add_settings(&mut reply, network, port, subnet, gateway);
    Some((reply, gateway))
}

fn add_settings(reply: &mut Message, network: &Network, port: &Port, subnet: &Subnet, gateway: Ipv4Addr) {
    let options = reply.opts_mut();
    options.insert(DhcpOption::SubnetMask(subnet.cidr.netmask_v4()));
    options.insert(DhcpOption::Router(vec![gateway]));
    let dns: Vec<Ipv4Addr> =
        subnet.dns.iter().filter_map(|addr| if let IpAddr::V4(addr) = addr { Some(*addr) } else { None }).collect();
    options.insert(DhcpOption::DomainNameServer(if dns.is_empty() { vec![gateway] } else { dns }));
    options.insert(DhcpOption::InterfaceMtu(u16::try_from(network.mtu).unwrap_or(u16::MAX)));
    if !network.dns_domain.is_empty() {
        options.insert(DhcpOption::DomainName(network.dns_domain.clone()));
    }
    if !port.hostname.is_empty() {
        options.insert(DhcpOption::Hostname(port.hostname.clone()));
    }
    let routes = UnknownOption::new(OptionCode::ClasslessStaticRoute, classless_routes(subnet, gateway));
    options.insert(DhcpOption::Unknown(routes));
}

/// RFC 3442: clients that know this option ignore the router option, so the default route is in it.
fn classless_routes(subnet: &Subnet, gateway: Ipv4Addr) -> Vec<u8> {
    let metadata = (Cidr::host(METADATA_ADDRESS.into()), gateway);
    let declared = subnet.host_routes.iter().filter_map(|route| match route.next_hop {
        IpAddr::V4(next) if route.destination.v4() => Some((route.destination, next)),
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    });
    let mut bytes = Vec::new();
    for (destination, next) in declared.chain([metadata, (Cidr::ANY_V4, gateway)]) {
        let IpAddr::V4(addr) = destination.addr() else { continue };
        bytes.push(destination.prefix());
        bytes.extend(&addr.octets()[..usize::from(destination.prefix().div_ceil(8))]);
        bytes.extend(next.octets());
    }
    bytes
}
