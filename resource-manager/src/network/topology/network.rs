//! Networks: a host knows those with a port bound to it, and those that are peered with these.

use super::{Affected, HostObject, ObjectKey, Rendered, Row, Topology, row::named_in_project};
use domain::{
    HostId, NetworkId, PeeringId, SubnetId,
    network::{MacAddr, Network, Peering, Router, Subnet},
};
use proto::{network::v1 as pb, sync::v1::desired_object::Object};
use std::collections::BTreeSet;

impl Topology {
    /// Hosts to which a port of the network is bound.
    pub fn hosts_of(&self, network_id: NetworkId) -> impl Iterator<Item = HostId> + '_ {
        self.hosts_of.get(&network_id).into_iter().flatten().copied()
    }

    /// Whether a port of the network is bound to the host.
    #[must_use]
    pub fn has_port_on(&self, network_id: NetworkId, host_id: HostId) -> bool {
        self.port_counts.get(&host_id).is_some_and(|counts| counts.contains_key(&network_id))
    }

    /// The networks that a host must know.
    #[must_use]
    pub fn networks_for(&self, host_id: HostId) -> BTreeSet<NetworkId> {
        let bound = self.port_counts.get(&host_id).into_iter().flat_map(|counts| counts.keys().copied());
        bound.flat_map(|id| self.peers_of(id).chain([id])).filter(|id| self.network(*id).is_some()).collect()
    }

    /// Whether the host must know the network.
    pub(super) fn known_on(&self, network_id: NetworkId, host_id: HostId) -> bool {
        self.has_port_on(network_id, host_id) || self.peers_of(network_id).any(|peer| self.has_port_on(peer, host_id))
    }

    pub(super) fn hosts_that_know(&self, network_id: NetworkId) -> BTreeSet<HostId> {
        self.peers_of(network_id).chain([network_id]).flat_map(|id| self.hosts_of(id)).collect()
    }

    pub(super) fn affected_by_network(&self, network_id: NetworkId) -> Vec<Affected> {
        let hosts = self.hosts_that_know(network_id);
        hosts.into_iter().map(|host_id| (host_id, ObjectKey::Network(network_id))).collect()
    }

    pub(super) fn network_with_ports(&self, network_id: NetworkId) -> impl Iterator<Item = ObjectKey> + '_ {
        self.ports_of(network_id).map(|port| ObjectKey::Port(port.id)).chain([ObjectKey::Network(network_id)])
    }

    /// The network's way out of this host, once it has an address there.
    fn render_uplink(&self, host_id: HostId, network: &Network) -> Option<pb::Uplink> {
        let router = self.router_of(network.id)?;
        let uplink = self.uplink((network.id, host_id))?;
        let external = self.external_network(router.external_network_id)?;
        if uplink.external_network_id != external.id || !self.has_port_on(network.id, host_id) {
            return None;
        }
        Some(pb::Uplink {
            external_network: external.name.to_string(),
            addresses: uplink.addresses.clone(),
            gateways: external.subnets.iter().map(|subnet| subnet.gateway.to_string()).collect(),
            source_nat: router.source_nat,
            mac: uplink.mac.to_string(),
        })
    }
}

named_in_project!(Network);

impl Row for Network {
    fn affected(&self, topology: &Topology) -> Vec<Affected> {
        topology.affected_by_network(self.id)
    }

    /// What is in the network goes with it.
    fn remove(topology: &mut Topology, id: NetworkId) -> Vec<Affected> {
        let Some((_, mut affected)) = Self::take(topology, id) else { return Vec::new() };
        let subnets: Vec<SubnetId> = topology.subnets_of(id).map(|subnet| subnet.id).collect();
        let router = topology.router_of(id).map(|router| router.id);
        let peerings: Vec<PeeringId> = topology.peerings_of(id).map(|peering| peering.id).collect();
        for host_id in topology.uplinks_of.remove(&id).into_iter().flatten() {
            topology.tables.uplinks.remove(&(id, host_id));
        }
        affected.extend(subnets.into_iter().flat_map(|id| topology.remove::<Subnet>(id)));
        affected.extend(router.into_iter().flat_map(|id| topology.remove::<Router>(id)));
        affected.extend(peerings.into_iter().flat_map(|id| topology.remove::<Peering>(id)));
        affected
    }
}

impl HostObject for Network {
    fn render(&self, topology: &Topology, host_id: HostId) -> Option<Rendered> {
        if !topology.known_on(self.id, host_id) {
            return None;
        }
        let subnets = topology.subnets_of(self.id).map(|subnet| pb::Subnet {
            id: subnet.id.to_string(),
            cidr: subnet.spec.cidr.to_string(),
            gateway: subnet.spec.gateway.to_string(),
            dns: subnet.spec.dns.iter().map(ToString::to_string).collect(),
            host_routes: subnet
                .spec
                .host_routes
                .iter()
                .map(|route| pb::HostRoute {
                    destination: route.destination.to_string(),
                    next_hop: route.next_hop.to_string(),
                })
                .collect(),
            dhcp: subnet.dhcp,
        });
        let object = Object::Network(pb::Network {
            project_id: self.project_id.to_string(),
            name: self.name.to_string(),
            vni: self.vni.get(),
            mtu: topology.mtu(self),
            gateway_mac: MacAddr::gateway(self.vni).to_string(),
            subnets: subnets.collect(),
            dns_domain: format!("{}.internal", self.name),
            peer_ids: topology.peers_of(self.id).map(|id| id.to_string()).collect(),
            uplink: topology.render_uplink(host_id, self),
        });
        Some(Rendered { epoch: 0, object, instance_id: None })
    }

    fn for_host(topology: &Topology, host_id: HostId) -> Vec<NetworkId> {
        topology.networks_for(host_id).into_iter().collect()
    }
}
