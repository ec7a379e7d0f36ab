//! All of the rows, in memory, with the indexes that say which hosts a change concerns.
//!
//! **The problem.** A change of one port must reach the hosts that have its network within milliseconds, among a hundred thousand ports. Asking
//! the database for what a host must know on each change costs as much as the host has; so the rows are kept here.
//!
//! **Rejected.** A cache that is filled on demand: what is missing in it can't be told from what isn't there, and a host would be told
//! that an object is gone. Change events through the database: another hop, another order.
//!
//! **Invariants**
//! 1. It follows commits and never goes before one: [`Topology::learn`] is called with rows that are committed.
//! 2. A row of a lower generation never replaces one of a higher: two commits may be learned in another order than they were made.
//! 3. What a host must know ([`render`]) is a pure function of it (and of the instances' rows, for their metadata).

mod concern;
mod learn;
mod load;
pub mod render;
#[cfg(test)]
pub(crate) mod tests;

use domain::{
    ExternalNetworkId, FloatingIpId, HostId, NetworkId, PeeringId, PortId, ProjectId, RouterId, SecurityGroupId,
    SubnetId,
    network::{
        ExternalNetwork, FloatingIp, Network, Peering, Port, PortState, Router, SecurityGroup, Subnet,
        VXLAN_OVERHEAD_V4, VXLAN_OVERHEAD_V6,
    },
};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use store::{NetworkHostRow, UplinkRow};

/// The name of the group that ports are in when none is said, and of the network that instances are in.
pub const DEFAULT: &str = "default";

/// Which row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    ExternalNetwork(ExternalNetworkId),
    Network(NetworkId),
    Subnet(SubnetId),
    Port(PortId),
    Router(RouterId),
    FloatingIp(FloatingIpId),
    SecurityGroup(SecurityGroupId),
    Peering(PeeringId),
    Uplink(NetworkId, HostId),
    Host(HostId),
}

/// A row as it was committed.
#[derive(Debug, Clone)]
pub enum Learned {
    ExternalNetwork(ExternalNetwork),
    Network(Network),
    Subnet(Subnet),
    Port(Port),
    Router(Router),
    FloatingIp(FloatingIp),
    SecurityGroup(SecurityGroup),
    Peering(Peering),
    Uplink(UplinkRow),
    Host(NetworkHostRow),
    Gone(Key),
}

/// An object that hosts are told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Told {
    Network(NetworkId),
    SecurityGroup(SecurityGroupId),
    Port(PortId),
    FloatingIp(FloatingIpId),
}

/// What a change concerns: this host may have to be told this.
pub type Concern = (HostId, Told);

/// A host's share of the networks: as many ports of each are bound to it.
type Presence = BTreeMap<NetworkId, u32>;

#[derive(Debug)]
pub struct Topology {
    external_networks: HashMap<ExternalNetworkId, ExternalNetwork>,
    networks: HashMap<NetworkId, Network>,
    subnets: HashMap<SubnetId, Subnet>,
    ports: HashMap<PortId, Port>,
    routers: HashMap<RouterId, Router>,
    floating_ips: HashMap<FloatingIpId, FloatingIp>,
    groups: HashMap<SecurityGroupId, SecurityGroup>,
    /// Of each project, the group that ports are in when none is said.
    default_groups: HashMap<ProjectId, SecurityGroupId>,
    peerings: HashMap<PeeringId, Peering>,
    uplinks: HashMap<(NetworkId, HostId), UplinkRow>,
    hosts: HashMap<HostId, NetworkHostRow>,
    subnets_of: HashMap<NetworkId, BTreeSet<SubnetId>>,
    ports_of: HashMap<NetworkId, BTreeSet<PortId>>,
    ports_on: HashMap<HostId, BTreeSet<PortId>>,
    presence: HashMap<HostId, Presence>,
    hosts_of: HashMap<NetworkId, BTreeSet<HostId>>,
    router_of: HashMap<NetworkId, RouterId>,
    floating_ips_of: HashMap<PortId, BTreeSet<FloatingIpId>>,
    ports_in: HashMap<SecurityGroupId, BTreeSet<PortId>>,
    peers: HashMap<NetworkId, BTreeSet<NetworkId>>,
    graves: learn::Graves,
    /// What the narrowest underlay leaves for a guest's packet.
    room: u32,
}

macro_rules! lookups {
    ($($(#[$doc:meta])* $name:ident($map:ident): $id:ty => $row:ty;)+) => {$(
        $(#[$doc])*
        #[must_use]
        pub fn $name(&self, id: $id) -> Option<&$row> {
            self.$map.get(&id)
        }
    )+};
}

impl Topology {
    lookups! {
        external_network(external_networks): ExternalNetworkId => ExternalNetwork;
        network(networks): NetworkId => Network;
        subnet(subnets): SubnetId => Subnet;
        port(ports): PortId => Port;
        router(routers): RouterId => Router;
        floating_ip(floating_ips): FloatingIpId => FloatingIp;
        security_group(groups): SecurityGroupId => SecurityGroup;
        peering(peerings): PeeringId => Peering;
        host(hosts): HostId => NetworkHostRow;
    }

    pub fn external_networks(&self) -> impl Iterator<Item = &ExternalNetwork> {
        self.external_networks.values()
    }

    pub fn networks(&self) -> impl Iterator<Item = &Network> {
        self.networks.values()
    }

    pub fn routers(&self) -> impl Iterator<Item = &Router> {
        self.routers.values()
    }

    pub fn uplinks(&self) -> impl Iterator<Item = &UplinkRow> {
        self.uplinks.values()
    }

    pub fn hosts(&self) -> impl Iterator<Item = &NetworkHostRow> {
        self.hosts.values()
    }

    pub fn ports(&self) -> impl Iterator<Item = &Port> {
        self.ports.values()
    }

    pub fn floating_ips(&self) -> impl Iterator<Item = &FloatingIp> {
        self.floating_ips.values()
    }

    pub fn security_groups(&self) -> impl Iterator<Item = &SecurityGroup> {
        self.groups.values()
    }

    /// By id.
    pub fn subnets_of(&self, network_id: NetworkId) -> impl Iterator<Item = &Subnet> {
        self.subnets_of.get(&network_id).into_iter().flatten().filter_map(|id| self.subnets.get(id))
    }

    /// By id.
    pub fn ports_of(&self, network_id: NetworkId) -> impl Iterator<Item = &Port> {
        self.ports_of.get(&network_id).into_iter().flatten().filter_map(|id| self.ports.get(id))
    }

    /// Those bound to the host, by id.
    pub fn ports_on(&self, host_id: HostId) -> impl Iterator<Item = &Port> {
        self.ports_on.get(&host_id).into_iter().flatten().filter_map(|id| self.ports.get(id))
    }

    /// By id.
    pub fn ports_in(&self, group_id: SecurityGroupId) -> impl Iterator<Item = &Port> {
        self.ports_in.get(&group_id).into_iter().flatten().filter_map(|id| self.ports.get(id))
    }

    /// The project's group named `default`.
    #[must_use]
    pub fn default_group(&self, project_id: ProjectId) -> Option<SecurityGroupId> {
        self.default_groups.get(&project_id).copied()
    }

    #[must_use]
    pub fn router_of(&self, network_id: NetworkId) -> Option<&Router> {
        self.router_of.get(&network_id).and_then(|id| self.routers.get(id))
    }

    #[must_use]
    pub fn uplink(&self, network_id: NetworkId, host_id: HostId) -> Option<&UplinkRow> {
        self.uplinks.get(&(network_id, host_id))
    }

    pub fn floating_ips_of(&self, port_id: PortId) -> impl Iterator<Item = &FloatingIp> {
        self.floating_ips_of.get(&port_id).into_iter().flatten().filter_map(|id| self.floating_ips.get(id))
    }

    pub fn peers_of(&self, network_id: NetworkId) -> impl Iterator<Item = NetworkId> + '_ {
        self.peers.get(&network_id).into_iter().flatten().copied()
    }

    pub fn peerings_of(&self, network_id: NetworkId) -> impl Iterator<Item = &Peering> {
        self.peerings.values().filter(move |p| p.network_id == network_id || p.peer_network_id == network_id)
    }

    /// Hosts to which a port of the network is bound.
    pub fn hosts_of(&self, network_id: NetworkId) -> impl Iterator<Item = HostId> + '_ {
        self.hosts_of.get(&network_id).into_iter().flatten().copied()
    }

    /// Whether a port of the network is bound to the host.
    #[must_use]
    pub fn present(&self, network_id: NetworkId, host_id: HostId) -> bool {
        self.presence.get(&host_id).is_some_and(|p| p.contains_key(&network_id))
    }

    /// The networks that a host must know: those with a port bound to it, and those peered with these.
    #[must_use]
    pub fn networks_for(&self, host_id: HostId) -> BTreeSet<NetworkId> {
        let here = self.presence.get(&host_id).into_iter().flat_map(|p| p.keys().copied());
        here.flat_map(|id| self.peers_of(id).chain([id])).filter(|id| self.networks.contains_key(id)).collect()
    }

    /// What guests are told: what the narrowest underlay leaves, unless the network's owner said less.
    #[must_use]
    pub fn mtu(&self, network: &Network) -> u32 {
        network.mtu.map_or(self.room, |mtu| mtu.min(self.room))
    }
}

/// Without a host: what plain Ethernet leaves.
const ROOM_DEFAULT: u32 = 1500 - VXLAN_OVERHEAD_V4;

/// What a host's underlay leaves for a guest's packet.
fn room_of(host: &NetworkHostRow) -> u32 {
    let overhead = if host.underlay_address.is_ipv4() { VXLAN_OVERHEAD_V4 } else { VXLAN_OVERHEAD_V6 };
    host.underlay_mtu.saturating_sub(overhead)
}

impl Default for Topology {
    fn default() -> Self {
        Self {
            external_networks: HashMap::new(),
            networks: HashMap::new(),
            subnets: HashMap::new(),
            ports: HashMap::new(),
            routers: HashMap::new(),
            floating_ips: HashMap::new(),
            groups: HashMap::new(),
            default_groups: HashMap::new(),
            peerings: HashMap::new(),
            uplinks: HashMap::new(),
            hosts: HashMap::new(),
            subnets_of: HashMap::new(),
            ports_of: HashMap::new(),
            ports_on: HashMap::new(),
            presence: HashMap::new(),
            hosts_of: HashMap::new(),
            router_of: HashMap::new(),
            floating_ips_of: HashMap::new(),
            ports_in: HashMap::new(),
            peers: HashMap::new(),
            graves: learn::Graves::default(),
            room: ROOM_DEFAULT,
        }
    }
}

/// Where a port is, if hosts must know of it.
#[must_use]
pub fn bound_to(port: &Port) -> Option<HostId> {
    match port.state {
        PortState::Reserved => None,
        PortState::Active | PortState::Releasing => port.host_id,
    }
}
