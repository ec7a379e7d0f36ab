//! The kernel state of one network's namespace: the same type for what should be and for what was found, so that planning is a
//! comparison.
//!
//! A network here is a distributed router. Its own addresses (the subnets' gateways, the metadata service) sit on `lo`, where the
//! kernel answers ARP for them on every port; each port is a route of full length to its link, each port elsewhere one through
//! VXLAN. A bridge per network was rejected: frames between neighbours would pass it unseen by the rules, and it floods.
//!
//! Neighbours are entered by hand, with those of the guests: no packet waits for an ARP answer, they don't count against the limits of the
//! machine's one neighbour table, and there is nothing to poison. What guests add to it besides, the rules limit. Next hops of other hosts and of
//! peered networks are link-local IPv6 addresses made of MACs that are made of what both ends know, for IPv4 routes too: one
//! neighbour per host serves both families, and no address plan is needed.

use super::{
    DesiredState, names,
    object::{Binding, Network, Port},
};
use crate::nft::ruleset::Ruleset;
use domain::{
    NetworkId, PortId,
    network::{Cidr, MacAddr},
};
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

/// The metadata service's address, as on every other cloud.
pub const METADATA_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

/// What a plan needs to know of the machine.
#[derive(Debug, Clone)]
pub struct HostFacts {
    /// Where other hosts send this one's VXLAN packets.
    pub underlay: IpAddr,
    pub vxlan_port: u16,
    /// External networks by name: the bridge in the host's namespace that leads to each.
    pub external: BTreeMap<String, String>,
    /// Blocks that no instance reaches by an uplink, but for replies: the hosts' and the managers' own. They don't overlap.
    pub protected: Arc<BTreeSet<Cidr>>,
    pub wiring: Wiring,
    /// Owner of taps, that QEMU runs as or gets a descriptor from.
    pub tap_owner_uid: u32,
}

/// What is at the end of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wiring {
    /// A virtual machine.
    Tap,
    /// A namespace (an appliance of ours, or a bench's endpoint): the other end of a veth, left in the network's namespace as
    /// [`names::endpoint_link`] to be moved away.
    Veth,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkKind {
    Tap {
        owner_uid: u32,
    },
    Veth {
        endpoint: String,
    },
    Vxlan {
        vni: u32,
        local: IpAddr,
        port: u16,
    },
    Uplink {
        host_end: String,
        bridge: String,
    },
    /// A veth to the namespace of a peered network.
    Peer {
        network_id: NetworkId,
        other_end: String,
    },
    /// Found; whatever it is.
    Found,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    pub kind: LinkKind,
    pub mac: MacAddr,
    pub mtu: u32,
    pub up: bool,
    /// Whose link it is, for ports.
    pub port_id: Option<PortId>,
}

/// Where a route leads.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hop {
    /// Straight out of the link.
    Link(String),
    /// A neighbour on the link passes it on.
    Via(IpAddr, String),
    /// It leads nowhere, and the sender gets an answer that says so.
    Unreachable,
}

impl Hop {
    /// The link it goes out of.
    #[must_use]
    pub fn link(&self) -> Option<&str> {
        match self {
            Self::Link(link) | Self::Via(_, link) => Some(link),
            Self::Unreachable => None,
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NsState {
    pub links: BTreeMap<String, Link>,
    pub addresses: BTreeSet<(String, IpAddr, u8)>,
    pub routes: BTreeMap<Cidr, Hop>,
    pub neighbours: BTreeMap<(String, IpAddr), MacAddr>,
    /// VXLAN: which host a MAC is behind.
    pub fdb: BTreeMap<MacAddr, IpAddr>,
    pub rules: Ruleset,
}

/// The MAC of a host's end of every network's VXLAN, from its underlay address.
#[must_use]
pub fn vtep_mac(underlay: IpAddr) -> MacAddr {
    match underlay {
        IpAddr::V4(addr) => {
            let [a, b, c, d] = addr.octets();
            MacAddr([0x02, 0x76, a, b, c, d])
        }
        IpAddr::V6(addr) => {
            let hash = Sha256::digest(addr.octets());
            MacAddr([0x06, hash[0], hash[1], hash[2], hash[3], hash[4]])
        }
    }
}

/// The MAC of the link in `inside`'s namespace towards `towards`.
fn peer_mac(inside: NetworkId, towards: NetworkId) -> MacAddr {
    let hash = Sha256::new().chain_update(inside.0.as_bytes()).chain_update(towards.0.as_bytes()).finalize();
    MacAddr([0x0a, hash[0], hash[1], hash[2], hash[3], hash[4]])
}

/// What the namespace of `network` must be: the reference that [`super::incremental`] must agree with.
#[must_use]
pub fn namespace_state(desired_state: &DesiredState, network: &Network, host: &HostFacts) -> NsState {
    let mut state = under(desired_state, network, host);
    state.rules = crate::nft::rules_of(desired_state, network, host);
    let mut routes: BTreeMap<Cidr, Hop> = BTreeMap::new();
    let mut blocks: BTreeMap<Cidr, Hop> = BTreeMap::new();
    for port in desired_state.ports_of(network.id) {
        let part = port_part(desired_state, network, host, port);
        state.links.extend(part.link);
        state.neighbours.extend(part.neighbours);
        state.fdb.extend(part.fdb);
        routes.extend(part.routes);
        for (block, hop) in part.blocks {
            // Of several ports that may use a block, the one with the lowest id gets its packets.
            blocks.entry(block).or_insert(hop);
        }
    }
    state.routes.extend(blocks);
    state.routes.extend(routes);
    let over = over(desired_state, network, host);
    state.links.extend(over.links);
    state.addresses.extend(over.addresses);
    state.neighbours.extend(over.neighbours);
    state.routes.extend(over.routes);
    state
}

/// What is there before any port: its routes give way to theirs.
pub(super) fn under(desired_state: &DesiredState, network: &Network, host: &HostFacts) -> NsState {
    let mut state = NsState::default();
    // A socket for tunnelled frames is there only while somebody may send some: peered networks' hosts send to this network's number.
    let peers = desired_state.peers_of(network).map(|peer| peer.id);
    if peers.chain([network.id]).any(|id| desired_state.reaches_other_hosts(id)) {
        add_tunnel(&mut state, network, host);
    }
    state.addresses.insert(("lo".into(), METADATA_ADDRESS.into(), 32));
    for subnet in &network.subnets {
        state.addresses.insert(("lo".into(), subnet.gateway, Cidr::host(subnet.gateway).prefix()));
        state.routes.insert(subnet.cidr, Hop::Unreachable);
    }
    state
}

fn add_tunnel(state: &mut NsState, network: &Network, host: &HostFacts) {
    let kind = LinkKind::Vxlan { vni: network.vni.get(), local: host.underlay, port: host.vxlan_port };
    let link = Link { kind, mac: vtep_mac(host.underlay), mtu: network.mtu, up: true, port_id: None };
    state.links.insert(names::VXLAN.into(), link);
}

/// What leads elsewhere: the uplink and the peered networks. Its routes win over ports'.
pub(super) fn over(desired_state: &DesiredState, network: &Network, host: &HostFacts) -> NsState {
    let mut state = NsState::default();
    add_uplink(&mut state, desired_state, network, host);
    for peer in desired_state.peers_of(network) {
        let (name, other_end) = (names::peer_link(peer.id), names::peer_link(network.id));
        let kind = LinkKind::Peer { network_id: peer.id, other_end };
        let mtu = network.mtu.min(peer.mtu);
        let link = Link { kind, mac: peer_mac(network.id, peer.id), mtu, up: true, port_id: None };
        state.links.insert(name.clone(), link);
        let far = peer_mac(peer.id, network.id);
        state.neighbours.insert((name.clone(), far.link_local().into()), far);
        for subnet in &peer.subnets {
            state.routes.insert(subnet.cidr, Hop::Via(far.link_local().into(), name.clone()));
        }
    }
    state
}

/// What one port brings.
#[derive(Debug, Default)]
pub(super) struct PortPart {
    pub link: Option<(String, Link)>,
    pub neighbours: Vec<((String, IpAddr), MacAddr)>,
    pub fdb: Option<(MacAddr, IpAddr)>,
    /// To its own addresses.
    pub routes: Vec<(Cidr, Hop)>,
    /// To what it may send from besides: a route of its own address wins over these.
    pub blocks: Vec<(Cidr, Hop)>,
}

pub(super) fn port_part(desired_state: &DesiredState, network: &Network, host: &HostFacts, port: &Port) -> PortPart {
    let mut part = PortPart::default();
    let hop = match &port.binding {
        Binding::Unbound => return part,
        Binding::Remote { underlay } => {
            let mac = vtep_mac(*underlay);
            let next = IpAddr::V6(mac.link_local());
            part.neighbours.push(((names::VXLAN.into(), next), mac));
            part.fdb = Some((mac, *underlay));
            Hop::Via(next, names::VXLAN.into())
        }
        Binding::Local { .. } => {
            let name = names::port_link(port.id);
            let kind = match host.wiring {
                Wiring::Tap => LinkKind::Tap { owner_uid: host.tap_owner_uid },
                Wiring::Veth => LinkKind::Veth { endpoint: names::endpoint_link(port.id) },
            };
            let link = Link { kind, mac: network.gateway_mac, mtu: network.mtu, up: true, port_id: Some(port.id) };
            part.link = Some((name.clone(), link));
            if !desired_state.in_use(port) {
                return part;
            }
            let single = port.allowed.iter().filter(|b| **b == Cidr::host(b.addr())).map(|b| b.addr());
            for addr in port.fixed_ips.iter().copied().chain(single) {
                part.neighbours.push(((name.clone(), addr), port.mac));
            }
            Hop::Link(name)
        }
    };
    part.routes.extend(port.fixed_ips.iter().map(|addr| (Cidr::host(*addr), hop.clone())));
    // A block that holds a whole subnet would take the other ports' packets with it.
    let fit = port.allowed.iter().filter(|block| !network.subnets.iter().any(|subnet| block.covers(subnet.cidr)));
    part.blocks.extend(fit.map(|block| (*block, hop.clone())));
    part
}

fn add_uplink(state: &mut NsState, desired_state: &DesiredState, network: &Network, host: &HostFacts) {
    let Some(uplink) = &network.uplink else { return };
    // A host that isn't wired to that network has no way out: traffic to the outside is answered as unreachable.
    let Some(bridge) = host.external.get(&uplink.external_network) else { return };
    let kind = LinkKind::Uplink { host_end: names::uplink_host_end(network.id), bridge: bridge.clone() };
    let link = Link { kind, mac: uplink.mac, mtu: UPLINK_MTU, up: true, port_id: None };
    state.links.insert(names::UPLINK.into(), link);
    for (addr, prefix) in &uplink.addresses {
        state.addresses.insert((names::UPLINK.into(), *addr, *prefix));
        // The kernel makes it with the address, but not again when somebody removes it.
        state.routes.insert(Cidr::around(*addr, *prefix), Hop::Link(names::UPLINK.into()));
    }
    for floating in desired_state.floating_ips_of(network.id) {
        if desired_state.floating_target(floating).is_some() {
            state.addresses.insert((names::UPLINK.into(), floating.address.into(), 32));
        }
    }
    for gateway in &uplink.gateways {
        let all = if gateway.is_ipv4() { Cidr::ANY_V4 } else { Cidr::ANY_V6 };
        state.routes.insert(all, Hop::Via(*gateway, names::UPLINK.into()));
    }
}

/// Of the external network's segment. Packets that are too long for a guest come back as `fragmentation needed`.
const UPLINK_MTU: u32 = 1500;
