//! Hosts, as their network-agents introduced themselves: where each is reached, and how much of a packet its underlay leaves to guests.

use super::{Affected, ObjectKey, Row, Topology, protected::addresses_of, row::Return};
use domain::{
    HostId,
    network::{Network, ProtectedPart, VXLAN_OVERHEAD_V4, VXLAN_OVERHEAD_V6},
};
use std::net::IpAddr;
use store::NetworkHostRow;

/// What the narrowest underlay leaves for a guest's packet, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Headroom(u32);

/// Without any host it is what plain Ethernet leaves.
impl Default for Headroom {
    fn default() -> Self {
        Self(1500 - VXLAN_OVERHEAD_V4)
    }
}

fn headroom_of(host: &NetworkHostRow) -> Headroom {
    let overhead = if host.underlay_address.is_ipv4() { VXLAN_OVERHEAD_V4 } else { VXLAN_OVERHEAD_V6 };
    Headroom(host.underlay_mtu.saturating_sub(overhead))
}

impl Topology {
    /// What guests are given: what the narrowest underlay leaves, unless the network's owner chose less.
    #[must_use]
    pub fn mtu(&self, network: &Network) -> u32 {
        let Headroom(most) = self.headroom;
        network.mtu.map_or(most, |mtu| mtu.min(most))
    }

    fn measure_headroom(&mut self) {
        self.headroom = self.hosts().map(headroom_of).min_by_key(|headroom| headroom.0).unwrap_or_default();
    }
}

impl Row for NetworkHostRow {
    const RETURN: Return = Return::Always;

    fn unindex(&self, topology: &mut Topology) {
        topology.measure_headroom();
        topology.unindex_protected(self.host_id);
    }

    fn affected(&self, _: &Topology) -> Vec<Affected> {
        Vec::new()
    }

    /// One that is gone may have been the narrowest.
    fn remove(topology: &mut Topology, id: HostId) -> Vec<Affected> {
        let headroom = topology.headroom;
        if Self::take(topology, id).is_none() {
            return Vec::new();
        }
        let mut affected: Vec<Affected> = topology.ports_on(id).flat_map(|port| port.affected(topology)).collect();
        affected.extend(topology.affected_by_part(ProtectedPart::of_host(id)));
        affected.extend(ProtectedPart::all().map(|part| (id, ObjectKey::Protected(part))));
        if topology.headroom != headroom {
            affected.extend(topology.networks().flat_map(|network| network.affected(topology)));
        }
        affected
    }

    /// A host that came or moved affects those that reach its ports, and all whose instances must not reach it; one that narrows or widens
    /// what guests may send affects every network.
    fn put(self, topology: &mut Topology) -> Vec<Affected> {
        let (host_id, address, headroom) = (self.host_id, self.underlay_address, topology.headroom);
        topology.index_protected(&self);
        let protected: Vec<IpAddr> = addresses_of(&self).collect();
        let old = topology.tables.hosts.insert(host_id, self);
        topology.measure_headroom();
        let mut affected = Vec::new();
        if old.as_ref().is_none_or(|old| !addresses_of(old).eq(protected.iter().copied())) {
            affected.extend(topology.affected_by_part(ProtectedPart::of_host(host_id)));
        }
        if old.is_none() {
            affected.extend(topology.protected_parts().map(|part| (host_id, ObjectKey::Protected(part))));
        }
        if old.is_none_or(|old| old.underlay_address != address) {
            affected.extend(topology.ports_on(host_id).flat_map(|port| port.affected(topology)));
        }
        if topology.headroom != headroom {
            affected.extend(topology.networks().flat_map(|network| network.affected(topology)));
        }
        affected
    }
}
