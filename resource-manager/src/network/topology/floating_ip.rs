//! Floating IPs: the host that their port is bound to has them.

use super::{
    Affected, HostObject, NamedRow, ObjectKey, Rendered, Row, Topology, bound_to,
    row::{index, unindex},
};
use domain::{
    FloatingIpId, HostId, Name, PortId, ProjectId,
    network::{FloatingIp, Port},
};
use proto::{network::v1 as pb, sync::v1::desired_object::Object};

impl Topology {
    /// All rows, by their ids.
    pub fn floating_ips_of(&self, port_id: PortId) -> impl Iterator<Item = &FloatingIp> {
        self.floating_ips_of.get(&port_id).into_iter().flatten().filter_map(|id| self.floating_ip(*id))
    }

    /// The port that it stands for, and the host that this is bound to.
    fn floating_target(&self, floating_ip: &FloatingIp) -> Option<(&Port, HostId)> {
        let port = self.port(floating_ip.port_id?)?;
        Some((port, bound_to(port)?))
    }
}

impl Row for FloatingIp {
    fn index(&self, topology: &mut Topology) {
        if let Some(port_id) = self.port_id {
            index(&mut topology.floating_ips_of, port_id, self.id);
        }
    }

    fn unindex(&self, topology: &mut Topology) {
        if let Some(port_id) = self.port_id {
            unindex(&mut topology.floating_ips_of, port_id, &self.id);
        }
    }

    fn affected(&self, topology: &Topology) -> Vec<Affected> {
        let target = topology.floating_target(self);
        target.map(|(_, host_id)| (host_id, ObjectKey::FloatingIp(self.id))).into_iter().collect()
    }
}

impl NamedRow for FloatingIp {
    fn project_id(&self) -> Option<ProjectId> {
        Some(self.project_id)
    }

    fn name(&self) -> Option<&Name> {
        None
    }

    fn label(&self) -> String {
        self.address.to_string()
    }
}

impl HostObject for FloatingIp {
    fn render(&self, topology: &Topology, host_id: HostId) -> Option<Rendered> {
        let (port, _) = topology.floating_target(self).filter(|(_, bound)| *bound == host_id)?;
        let object = Object::FloatingIp(pb::FloatingIp {
            network_id: port.network_id.to_string(),
            port_id: port.id.to_string(),
            address: self.address.to_string(),
            fixed_ip: self.fixed_ip?.to_string(),
        });
        Some(Rendered { epoch: 0, object, instance_id: None })
    }

    fn for_host(topology: &Topology, host_id: HostId) -> Vec<FloatingIpId> {
        topology.ports_on(host_id).flat_map(|port| topology.floating_ips_of(port.id)).map(|ip| ip.id).collect()
    }
}
