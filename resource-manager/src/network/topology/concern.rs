//! Which hosts may have to be told what. Rather too much than too little: what is rendered as it was is not sent.

use super::{Concern, Told, Topology, bound_to};
use domain::{
    FloatingIpId, HostId, NetworkId, SecurityGroupId,
    network::{Peering, Port},
};
use std::collections::BTreeSet;

impl Topology {
    /// Hosts that know the network: it is there, or a network that is peered with it.
    fn knowing(&self, network_id: NetworkId) -> BTreeSet<HostId> {
        self.peers_of(network_id).chain([network_id]).flat_map(|id| self.hosts_of(id)).collect()
    }

    pub(super) fn concerns_of_network(&self, network_id: NetworkId) -> Vec<Concern> {
        self.knowing(network_id).into_iter().map(|host_id| (host_id, Told::Network(network_id))).collect()
    }

    /// Those with a port in it.
    pub(super) fn concerns_of_group(&self, id: SecurityGroupId) -> Vec<Concern> {
        let hosts: BTreeSet<HostId> = self.ports_in(id).filter_map(bound_to).collect();
        hosts.into_iter().map(|host_id| (host_id, Told::SecurityGroup(id))).collect()
    }

    pub(super) fn concerns_of_floating_ip(&self, id: FloatingIpId) -> Vec<Concern> {
        let port = self.floating_ips.get(&id).and_then(|floating| self.port(floating.port_id?));
        port.and_then(bound_to).map(|host_id| (host_id, Told::FloatingIp(id))).into_iter().collect()
    }

    /// The port where its network is known; with its groups and floating IPs where it is bound.
    pub(super) fn concerns_of_port(&self, port: &Port) -> Vec<Concern> {
        let mut concerns: Vec<Concern> =
            self.knowing(port.network_id).into_iter().map(|host_id| (host_id, Told::Port(port.id))).collect();
        if let Some(host_id) = bound_to(port) {
            concerns.push((host_id, Told::Port(port.id)));
            concerns.extend(port.security_group_ids.iter().map(|id| (host_id, Told::SecurityGroup(*id))));
            concerns.extend(self.floating_ips_of(port.id).map(|floating| (host_id, Told::FloatingIp(floating.id))));
        }
        concerns
    }

    /// A network came to a host, or left it: with all of its ports, and those of its peers.
    pub(super) fn concerns_of_presence(&self, met: Option<(HostId, NetworkId)>) -> Vec<Concern> {
        let Some((host_id, network_id)) = met else { return Vec::new() };
        let networks = self.peers_of(network_id).chain([network_id]);
        networks.flat_map(|id| self.all_of(id)).map(|told| (host_id, told)).collect()
    }

    /// Both networks, where either is known: also a third that is peered with one of them says who its peers are.
    pub(super) fn concerns_of_peering(&self, peering: &Peering) -> Vec<Concern> {
        let pair = [peering.network_id, peering.peer_network_id];
        let hosts: BTreeSet<HostId> = pair.into_iter().flat_map(|id| self.knowing(id)).collect();
        let told: Vec<Told> = pair.into_iter().flat_map(|id| self.all_of(id)).collect();
        hosts.into_iter().flat_map(|host_id| told.iter().map(move |told| (host_id, *told))).collect()
    }

    fn all_of(&self, network_id: NetworkId) -> impl Iterator<Item = Told> + '_ {
        self.ports_of(network_id).map(|port| Told::Port(port.id)).chain([Told::Network(network_id)])
    }

    /// Everything that a host must know.
    #[must_use]
    pub fn told_to(&self, host_id: HostId) -> BTreeSet<Told> {
        let mut told: BTreeSet<Told> = self.networks_for(host_id).into_iter().flat_map(|id| self.all_of(id)).collect();
        for port in self.ports_on(host_id) {
            told.extend(port.security_group_ids.iter().map(|id| Told::SecurityGroup(*id)));
            told.extend(self.floating_ips_of(port.id).map(|floating| Told::FloatingIp(floating.id)));
        }
        told
    }
}
