//! Router advertisements: that there is a router, that addresses come by DHCPv6, the MTU, and the prefix without the on-link flag,
//! so that guests send everything to the router, which is where their neighbours are.

use super::{dhcp6::dns_servers, port_of, view::View};
use crate::{
    link::packet_info,
    model::object::{Network, Port},
};
use std::{
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    os::fd::OwnedFd,
    sync::Arc,
    time::Duration,
};
use tokio::{io::unix::AsyncFd, sync::watch};

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ROUTER_SECS: u16 = 1800;
/// Between unasked ones; guests forget a router after three of them are lost.
const EVERY: Duration = Duration::from_secs(ROUTER_SECS as u64 / 3);

pub struct Advertiser {
    socket: AsyncFd<OwnedFd>,
}

impl Advertiser {
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        // SAFETY: an OwnedFd's descriptor stays open and the same for as long as it is owned, which is by the AsyncFd.
        let socket = unsafe { AsyncFd::register(socket) }.map_err(io::Error::from)?;
        Ok(Self { socket })
    }

    /// To one asker, or to all on the link.
    pub fn advertise(&self, index: u32, port: Option<&Port>, network: &Network) {
        if !network.subnets.iter().any(|subnet| !subnet.cidr.v4()) {
            return;
        }
        let bytes = advertisement(network, port);
        let to = SocketAddr::from((ALL_NODES, 0));
        if let Err(error) = packet_info::send(self.socket.get_ref(), &bytes, to, index, None) {
            // A link without a guest has no link-local address to send from yet; the guest will ask.
            tracing::trace!(index, %error, "a router advertisement could not be sent");
        }
    }
}

pub async fn serve(advertiser: Arc<Advertiser>, view: watch::Receiver<Arc<View>>) {
    let mut buffer = vec![0; 1500];
    let mut tick = tokio::time::interval(EVERY);
    loop {
        let ready = tokio::select! {
            ready = advertiser.socket.readable() => ready,
            _ = tick.tick() => {
                let view = Arc::clone(&view.borrow());
                advertise_all(&advertiser, &view);
                continue;
            }
        };
        let Ok(mut ready) = ready else { return };
        let Ok(Ok(arrival)) = ready.try_io(|socket| packet_info::receive(socket.get_ref(), &mut buffer)) else {
            continue;
        };
        let view = Arc::clone(&view.borrow());
        if let Some(port) = port_of(&view, advertiser.socket.get_ref(), arrival.index) {
            advertiser.advertise(arrival.index, Some(&port), &view.network);
        }
    }
}

fn advertise_all(advertiser: &Advertiser, view: &View) {
    for (link, port) in view.in_use() {
        if port.fixed_ips.iter().any(IpAddr::is_ipv6)
            && let Some(index) = packet_info::interface_index(advertiser.socket.get_ref(), link)
        {
            advertiser.advertise(index, Some(port), &view.network);
        }
    }
}

/// RFC 4861, section 4.2, with the options of sections 4.6 and of RFC 8106. The kernel fills in the checksum. Pure.
#[must_use]
pub fn advertisement(network: &Network, port: Option<&Port>) -> Vec<u8> {
    // Hop limit 64; addresses (M) and the rest (O) by DHCPv6; no timers of ours.
    let mut bytes = vec![134, 0, 0, 0, 64, 0xc0];
    bytes.extend(ROUTER_SECS.to_be_bytes());
    bytes.extend([0; 8]);
    bytes.extend([1, 1]);
    bytes.extend(network.gateway_mac.0);
    bytes.extend([5, 1, 0, 0]);
    bytes.extend(network.mtu.to_be_bytes());
    for subnet in &network.subnets {
        let IpAddr::V6(prefix) = subnet.cidr.addr() else { continue };
        // Neither on-link (L) nor for addresses of the guest's own making (A).
        bytes.extend([3, 4, subnet.cidr.prefix(), 0]);
        bytes.extend(u32::from(ROUTER_SECS).to_be_bytes());
        bytes.extend(u32::from(ROUTER_SECS).to_be_bytes());
        bytes.extend([0; 4]);
        bytes.extend(prefix.octets());
    }
    let dns = port.map(|port| dns_servers(network, port)).unwrap_or_default();
    if !dns.is_empty() {
        bytes.extend([25, (1 + 2 * dns.len()) as u8, 0, 0]);
        bytes.extend(u32::from(ROUTER_SECS).to_be_bytes());
        dns.iter().for_each(|addr| bytes.extend(addr.octets()));
    }
    bytes
}
