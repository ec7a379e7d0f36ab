//! DHCPv6: the port's own /128, to whoever asks from the port. Stateless like its elder: see [`super::dhcp4`].

use super::{port_of, view::View};
use crate::{
    link::packet_info,
    model::object::{Network, Port},
};
use dhcproto::{
    Decodable, Decoder, Encodable,
    v6::{DhcpOption, IAAddr, IANA, Message, MessageType, OptionCode, Status, StatusCode, UnknownOption},
};
use std::{
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};
use tokio::{io::Interest, net::UdpSocket, sync::watch};

const LEASE_SECS: u32 = 24 * 3600;

pub async fn serve(socket: Arc<UdpSocket>, view: watch::Receiver<Arc<View>>) {
    let mut buffer = vec![0; 2048];
    loop {
        if socket.readable().await.is_err() {
            return;
        }
        let Ok(arrival) = socket.try_io(Interest::READABLE, || packet_info::receive(&*socket, &mut buffer)) else {
            continue;
        };
        let view = Arc::clone(&view.borrow());
        let Some(port) = port_of(&view, &*socket, arrival.index) else { continue };
        let Ok(request) = Message::decode(&mut Decoder::new(&buffer[..arrival.bytes])) else { continue };
        let Some(reply) = answer(&view.network, &port, &request) else { continue };
        let Ok(bytes) = reply.to_vec() else { continue };
        if let Err(error) = packet_info::send(&*socket, &bytes, arrival.from, arrival.index, None) {
            tracing::debug!(port_id = %port.id, %error, "a DHCPv6 answer could not be sent");
        }
    }
}

/// A DUID of the gateway's link-layer address (type 3, hardware type 1): the same on every host.
fn server_id(network: &Network) -> Vec<u8> {
    [&[0, 3, 0, 1][..], &network.gateway_mac.0].concat()
}

/// The answer; None where RFC 8415 wants silence. Pure.
#[must_use]
#[expect(clippy::wildcard_enum_match_arm, reason = "messages of servers aren't for us")]
pub fn answer(network: &Network, port: &Port, request: &Message) -> Option<Message> {
    let own: Vec<Ipv6Addr> = port
        .fixed_ips
        .iter()
        .filter_map(|addr| match addr {
            IpAddr::V6(v6) if network.subnet_of(*addr).is_some_and(|subnet| subnet.dhcp) => Some(*v6),
            IpAddr::V6(_) | IpAddr::V4(_) => None,
        })
        .collect();
    if own.is_empty() {
        return None;
    }
    let options = request.opts();
    let ours = match options.get(OptionCode::ServerId) {
        Some(DhcpOption::ServerId(id)) => Some(*id == server_id(network)),
        _ => None,
    };
    let rapid = options.get(OptionCode::RapidCommit).is_some();
    let kind = match (request.msg_type(), ours) {
        (MessageType::Solicit, None) if rapid => MessageType::Reply,
        (MessageType::Solicit, None) => MessageType::Advertise,
        (MessageType::Request | MessageType::Renew | MessageType::Release | MessageType::Decline, Some(true))
        | (MessageType::Rebind | MessageType::Confirm, None)
        | (MessageType::InformationRequest, None | Some(true)) => MessageType::Reply,
        _ => return None,
    };
    let mut reply = Message::new_with_id(kind, request.xid());
    reply.opts_mut().insert(DhcpOption::ServerId(server_id(network)));
    reply.opts_mut().insert(options.get(OptionCode::ClientId)?.clone());
    if request.msg_type() == MessageType::Solicit && rapid {
        reply.opts_mut().insert(DhcpOption::RapidCommit);
    }
    match request.msg_type() {
        MessageType::Release | MessageType::Decline => {
            reply.opts_mut().insert(status(Status::Success, "it stays yours"));
            return Some(reply);
        }
        MessageType::Confirm => {
            let known = requested(request).iter().all(|addr| own.contains(addr));
            let status =
                if known { status(Status::Success, "still yours") } else { status(Status::NotOnLink, "not here") };
            reply.opts_mut().insert(status);
            return Some(reply);
        }
        _ => {}
    }
    if let Some(DhcpOption::IANA(tracked)) = options.get(OptionCode::IANA) {
        let mut inner = dhcproto::v6::DhcpOptions::new();
        for addr in &own {
            inner.insert(lease(*addr, LEASE_SECS));
        }
        // What the guest believes to have, and hasn't.
        for addr in requested(request).into_iter().filter(|addr| !own.contains(addr)) {
            inner.insert(lease(addr, 0));
        }
        let iana = IANA { id: tracked.id, t1: LEASE_SECS / 2, t2: LEASE_SECS / 8 * 7, opts: inner };
        reply.opts_mut().insert(DhcpOption::IANA(iana));
    }
    let dns = dns_servers(network, port);
    if !dns.is_empty() {
        reply.opts_mut().insert(DhcpOption::DomainNameServers(dns));
    }
    if !network.dns_domain.is_empty() {
        let domain = UnknownOption::new(OptionCode::DomainSearchList, encode_name(&network.dns_domain));
        reply.opts_mut().insert(DhcpOption::Unknown(domain));
    }
    Some(reply)
}

fn lease(addr: Ipv6Addr, secs: u32) -> DhcpOption {
    let opts = dhcproto::v6::DhcpOptions::new();
    DhcpOption::IAAddr(IAAddr { addr, preferred_life: secs, valid_life: secs, opts })
}

fn status(status: Status, msg: &str) -> DhcpOption {
    DhcpOption::StatusCode(StatusCode { status, msg: msg.to_owned() })
}

fn requested(request: &Message) -> Vec<Ipv6Addr> {
    let Some(DhcpOption::IANA(iana)) = request.opts().get(OptionCode::IANA) else { return Vec::new() };
    let addrs = iana.opts.iter().filter_map(|o| if let DhcpOption::IAAddr(a) = o { Some(a.addr) } else { None });
    addrs.collect()
}

/// The resolvers of the port's IPv6 subnets; where none are configured, the gateways.
#[must_use]
pub fn dns_servers(network: &Network, port: &Port) -> Vec<Ipv6Addr> {
    let mut servers = Vec::new();
    for subnet in port.fixed_ips.iter().filter_map(|addr| network.subnet_of(*addr)) {
        let IpAddr::V6(gateway) = subnet.gateway else { continue };
        let configured = subnet.dns.iter().filter_map(|a| if let IpAddr::V6(a) = a { Some(*a) } else { None });
        let before = servers.len();
        servers.extend(configured);
        if servers.len() == before {
            servers.push(gateway);
        }
    }
    servers.dedup();
    servers
}

/// Labels with their lengths (RFC 1035, section 3.1).
#[must_use]
pub fn encode_name(name: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(name.len() + 2);
    for label in name.split('.').filter(|label| (1..=63).contains(&label.len())) {
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes
}
