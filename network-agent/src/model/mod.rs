//! What the host must be, as data: the parsed objects that the resource-manager declares ([`object`]), all of them together with
//! what is in use here ([`DesiredState`]), the kernel state of one namespace that follows from them ([`state`]), the same kept up to
//! date port by port ([`incremental`]), and which flows may go on ([`flow`]). Pure.

pub mod flow;
pub mod incremental;
pub mod names;
pub mod object;
pub mod state;

use domain::{
    FloatingIpId, NetworkId, PortId, SecurityGroupId,
    network::{Cidr, ProtectedPart},
};
use object::{FloatingIp, Key, Network, Object, Port, Protected, SecurityGroup, Version};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

/// Everything that this host must be, and which ports are acquired by their instances. It is cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct DesiredState {
    pub networks: BTreeMap<NetworkId, Arc<Network>>,
    pub ports: BTreeMap<PortId, Arc<Port>>,
    pub groups: BTreeMap<SecurityGroupId, Arc<SecurityGroup>>,
    pub floating_ips: BTreeMap<FloatingIpId, Arc<FloatingIp>>,
    /// Addresses of the fleet that no instance may reach, by parts.
    protected: BTreeMap<ProtectedPart, Arc<Protected>>,
    /// Ports between acquire and release.
    pub acquired: BTreeSet<PortId>,
    /// The version that each object is of.
    pub versions: BTreeMap<Key, Version>,
    by_network: BTreeMap<NetworkId, BTreeSet<PortId>>,
    floating_by_network: BTreeMap<NetworkId, BTreeSet<FloatingIpId>>,
    /// How many ports are bound to each other host.
    ports_by_underlay: BTreeMap<IpAddr, usize>,
    /// How many of each network's ports are bound to other hosts.
    remote_by_network: BTreeMap<NetworkId, usize>,
}

impl DesiredState {
    /// Puts an object in its place; the networks whose state may follow from it, before and after.
    pub fn put(&mut self, object: Object) -> BTreeSet<NetworkId> {
        match object {
            Object::Network(network) => {
                let mut affected = self.with_peers(network.id);
                let id = network.id;
                self.networks.insert(id, Arc::new(network));
                affected.extend(self.with_peers(id));
                affected
            }
            Object::Port(port) => {
                let mut affected = self.remove_port(port.id);
                affected.extend(self.with_peers(port.network_id));
                self.by_network.entry(port.network_id).or_default().insert(port.id);
                if let Some(underlay) = port.underlay() {
                    *self.ports_by_underlay.entry(underlay).or_default() += 1;
                    *self.remote_by_network.entry(port.network_id).or_default() += 1;
                }
                self.ports.insert(port.id, Arc::new(port));
                affected
            }
            Object::SecurityGroup(group) => {
                let id = group.id;
                self.groups.insert(id, Arc::new(group));
                self.networks_of_group(id)
            }
            Object::FloatingIp(floating) => {
                let mut affected = self.remove_floating_ip(floating.id);
                affected.insert(floating.network_id);
                self.floating_by_network.entry(floating.network_id).or_default().insert(floating.id);
                self.floating_ips.insert(floating.id, Arc::new(floating));
                affected
            }
            Object::Protected(protected) => {
                self.protected.insert(protected.part, Arc::new(protected));
                self.with_uplinks()
            }
        }
    }

    pub fn remove_network(&mut self, id: NetworkId) -> BTreeSet<NetworkId> {
        let mut affected = self.with_peers(id);
        self.networks.remove(&id);
        affected.insert(id);
        affected
    }

    pub fn remove_port(&mut self, id: PortId) -> BTreeSet<NetworkId> {
        let Some(port) = self.ports.remove(&id) else { return BTreeSet::new() };
        if let Some(ports) = self.by_network.get_mut(&port.network_id) {
            ports.remove(&id);
        }
        if let Some(underlay) = port.underlay() {
            uncount(&mut self.ports_by_underlay, underlay);
            uncount(&mut self.remote_by_network, port.network_id);
        }
        self.with_peers(port.network_id)
    }

    pub fn remove_group(&mut self, id: SecurityGroupId) -> BTreeSet<NetworkId> {
        let affected = self.networks_of_group(id);
        self.groups.remove(&id);
        affected
    }

    pub fn remove_floating_ip(&mut self, id: FloatingIpId) -> BTreeSet<NetworkId> {
        let Some(floating) = self.floating_ips.remove(&id) else { return BTreeSet::new() };
        if let Some(ids) = self.floating_by_network.get_mut(&floating.network_id) {
            ids.remove(&id);
        }
        BTreeSet::from([floating.network_id])
    }

    pub fn remove_protected(&mut self, part: ProtectedPart) -> BTreeSet<NetworkId> {
        self.protected.remove(&part);
        self.with_uplinks()
    }

    /// The addresses of the fleet that no instance may reach.
    pub fn protected(&self) -> impl Iterator<Item = Cidr> {
        self.protected.values().flat_map(|protected| protected.blocks.iter().copied())
    }

    pub fn ports_of(&self, network_id: NetworkId) -> impl Iterator<Item = &Arc<Port>> {
        self.by_network.get(&network_id).into_iter().flatten().filter_map(|id| self.ports.get(id))
    }

    pub fn floating_ips_of(&self, network_id: NetworkId) -> impl Iterator<Item = &Arc<FloatingIp>> {
        self.floating_by_network.get(&network_id).into_iter().flatten().filter_map(|id| self.floating_ips.get(id))
    }

    /// Whether a port of the network is bound to another host.
    #[must_use]
    pub fn reaches_other_hosts(&self, id: NetworkId) -> bool {
        self.remote_by_network.contains_key(&id)
    }

    /// The underlay addresses of the other hosts that ports are bound to.
    pub fn remote_hosts(&self) -> impl Iterator<Item = IpAddr> {
        self.ports_by_underlay.keys().copied()
    }

    /// The networks that `network` exchanges packets with: both declare it, and both are here.
    pub fn peers_of<'a>(&'a self, network: &'a Network) -> impl Iterator<Item = &'a Arc<Network>> {
        let peers = network.peers.iter().filter_map(|id| self.networks.get(id));
        peers.filter(|peer| peer.peers.contains(&network.id))
    }

    /// Ports that are bound here and in use, with the network's address of it.
    pub fn active(&self, network_id: NetworkId) -> impl Iterator<Item = &Arc<Port>> {
        self.ports_of(network_id).filter(|port| self.in_use(port))
    }

    #[must_use]
    pub fn in_use(&self, port: &Port) -> bool {
        port.instance().is_some() && self.acquired.contains(&port.id)
    }

    /// A port that a floating IP stands for, if it is in use here and has the address.
    #[must_use]
    pub fn floating_target(&self, floating: &FloatingIp) -> Option<&Arc<Port>> {
        let port = self.ports.get(&floating.port_id)?;
        let right = port.network_id == floating.network_id && port.fixed_ips.contains(&IpAddr::V4(floating.fixed_ip));
        (right && self.in_use(port)).then_some(port)
    }

    /// The network itself and all that name it, or that it names, as a peer.
    fn with_peers(&self, id: NetworkId) -> BTreeSet<NetworkId> {
        let named = self.networks.get(&id).into_iter().flat_map(|network| network.peers.iter().copied());
        let naming = self.networks.values().filter(|other| other.peers.contains(&id)).map(|other| other.id);
        named.chain(naming).chain([id]).collect()
    }

    /// The networks that lead to the outside.
    fn with_uplinks(&self) -> BTreeSet<NetworkId> {
        self.networks.values().filter(|network| network.uplink.is_some()).map(|network| network.id).collect()
    }

    /// Networks with a port bound here that is in the group, or whose groups' rules name it.
    fn networks_of_group(&self, id: SecurityGroupId) -> BTreeSet<NetworkId> {
        let changed_groups: BTreeSet<SecurityGroupId> =
            self.groups.values().filter(|group| group.names(id)).map(|group| group.id).chain([id]).collect();
        let local = self.ports.values().filter(|port| port.instance().is_some());
        local.filter(|port| !port.groups.is_disjoint(&changed_groups)).map(|port| port.network_id).collect()
    }
}

fn uncount<K: Ord>(counts: &mut BTreeMap<K, usize>, key: K) {
    if let Some(count) = counts.get_mut(&key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&key);
        }
    }
}
