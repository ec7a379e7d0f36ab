//! Peerings: each network's hosts know the other network and its ports.

use super::{
    Affected, ObjectKey, Row, Topology,
    row::{index, named_in_project, unindex},
};
use domain::{HostId, NetworkId, network::Peering};
use std::collections::BTreeSet;

impl Topology {
    pub fn peers_of(&self, network_id: NetworkId) -> impl Iterator<Item = NetworkId> + '_ {
        self.peers.get(&network_id).into_iter().flatten().copied()
    }

    pub fn peerings_of(&self, network_id: NetworkId) -> impl Iterator<Item = &Peering> {
        self.peerings().filter(move |p| p.network_id == network_id || p.peer_network_id == network_id)
    }
}

named_in_project!(Peering);

impl Row for Peering {
    fn index(&self, topology: &mut Topology) {
        index(&mut topology.peers, self.network_id, self.peer_network_id);
        index(&mut topology.peers, self.peer_network_id, self.network_id);
    }

    fn unindex(&self, topology: &mut Topology) {
        unindex(&mut topology.peers, self.network_id, &self.peer_network_id);
        unindex(&mut topology.peers, self.peer_network_id, &self.network_id);
    }

    /// Both networks, where either is known: also a third network that is peered with one of them names its peers.
    fn affected(&self, topology: &Topology) -> Vec<Affected> {
        let pair = [self.network_id, self.peer_network_id];
        let hosts: BTreeSet<HostId> = pair.into_iter().flat_map(|id| topology.hosts_that_know(id)).collect();
        let keys: Vec<ObjectKey> = pair.into_iter().flat_map(|id| topology.network_with_ports(id)).collect();
        hosts.into_iter().flat_map(|host_id| keys.iter().map(move |key| (host_id, *key))).collect()
    }
}
