//! Ports: known wherever their network is known, and bound to the host of their instance.

use super::{
    Affected, HostObject, NamedRow, ObjectKey, Rendered, Row, RowKey, Topology, described,
    row::{Return, index, unindex},
};
use domain::{
    HostId, Name, NetworkId, PortId, ProjectId,
    network::{ObjectKind, Port, PortState},
};
use proto::{network::v1 as pb, sync::v1::desired_object::Object};

/// Where a port is, if hosts must know it.
#[must_use]
pub fn bound_to(port: &Port) -> Option<HostId> {
    match port.state {
        PortState::Reserved => None,
        PortState::Active | PortState::Releasing => port.host_id,
    }
}

impl Topology {
    /// All rows, by their ids.
    pub fn ports_of(&self, network_id: NetworkId) -> impl Iterator<Item = &Port> {
        self.ports_of.get(&network_id).into_iter().flatten().filter_map(|id| self.port(*id))
    }

    /// Those bound to the host, by id.
    pub fn ports_on(&self, host_id: HostId) -> impl Iterator<Item = &Port> {
        self.ports_on.get(&host_id).into_iter().flatten().filter_map(|id| self.port(*id))
    }

    /// The generation that a new port of this id starts with.
    #[must_use]
    pub fn first_generation(&self, id: PortId) -> i64 {
        self.tombstones.ended_at(&RowKey::Port(id)).map_or(1, |ended| ended + 1)
    }

    /// The host and network that have met by this port.
    fn index_port(&mut self, port: &Port) -> Option<(HostId, NetworkId)> {
        index(&mut self.ports_of, port.network_id, port.id);
        for group_id in &port.security_group_ids {
            index(&mut self.ports_in, *group_id, port.id);
        }
        let host_id = bound_to(port)?;
        index(&mut self.ports_on, host_id, port.id);
        let count = self.port_counts.entry(host_id).or_default().entry(port.network_id).or_default();
        *count += 1;
        (*count == 1).then(|| {
            index(&mut self.hosts_of, port.network_id, host_id);
            (host_id, port.network_id)
        })
    }

    /// The host and network that have parted.
    fn unindex_port(&mut self, port: &Port) -> Option<(HostId, NetworkId)> {
        unindex(&mut self.ports_of, port.network_id, &port.id);
        for group_id in &port.security_group_ids {
            unindex(&mut self.ports_in, *group_id, &port.id);
        }
        let host_id = bound_to(port)?;
        unindex(&mut self.ports_on, host_id, &port.id);
        let counts = self.port_counts.get_mut(&host_id)?;
        let count = counts.get_mut(&port.network_id)?;
        *count -= 1;
        if *count > 0 {
            return None;
        }
        counts.remove(&port.network_id);
        if counts.is_empty() {
            self.port_counts.remove(&host_id);
        }
        unindex(&mut self.hosts_of, port.network_id, &host_id);
        Some((host_id, port.network_id))
    }

    /// A network came to a host or left it: with all of its ports, and those of its peers.
    fn affected_by_meeting(&self, (host_id, network_id): (HostId, NetworkId)) -> impl Iterator<Item = Affected> + '_ {
        let networks = self.peers_of(network_id).chain([network_id]);
        networks.flat_map(|id| self.network_with_ports(id)).map(move |key| (host_id, key))
    }

    fn replace_port(&mut self, id: PortId, new: Option<Port>) -> Vec<Affected> {
        let old = self.tables.ports.remove(&id);
        let mut affected = old.as_ref().map(|old| old.affected(self)).unwrap_or_default();
        let parted = old.as_ref().and_then(|old| self.unindex_port(old));
        let met = new.as_ref().and_then(|new| self.index_port(new));
        if let Some(new) = new {
            self.tables.ports.insert(id, new);
        }
        // If it parted and met again, nothing happened to the network there.
        if parted != met {
            affected.extend(parted.into_iter().chain(met).flat_map(|meeting| self.affected_by_meeting(meeting)));
        }
        affected.extend(self.port(id).into_iter().flat_map(|new| new.affected(self)));
        affected
    }
}

impl Row for Port {
    /// A reservation that expired is made anew under its id.
    const RETURN: Return = Return::Later;

    /// The port where its network is known; with its groups and floating IPs where it is bound.
    fn affected(&self, topology: &Topology) -> Vec<Affected> {
        let hosts = topology.hosts_that_know(self.network_id).into_iter();
        let mut affected: Vec<Affected> = hosts.map(|host_id| (host_id, ObjectKey::Port(self.id))).collect();
        if let Some(host_id) = bound_to(self) {
            let groups = self.security_group_ids.iter().map(|id| ObjectKey::SecurityGroup(*id));
            let floating_ips = topology.floating_ips_of(self.id).map(|ip| ObjectKey::FloatingIp(ip.id));
            let keys = groups.chain(floating_ips).chain([ObjectKey::Port(self.id)]);
            affected.extend(keys.map(|key| (host_id, key)));
        }
        affected
    }

    fn put(self, topology: &mut Topology) -> Vec<Affected> {
        topology.replace_port(self.id, Some(self))
    }

    fn remove(topology: &mut Topology, id: PortId) -> Vec<Affected> {
        topology.replace_port(id, None)
    }
}

impl NamedRow for Port {
    fn project_id(&self) -> Option<ProjectId> {
        Some(self.project_id)
    }

    fn name(&self) -> Option<&Name> {
        self.name.as_ref()
    }

    /// With its instance, if it has one.
    fn describe(&self) -> String {
        let of = if self.hostname.is_empty() { String::new() } else { format!(" of instance {}", self.hostname) };
        format!("{}{of}", described(ObjectKind::Port, self.label(), self.id))
    }
}

impl HostObject for Port {
    fn render(&self, topology: &Topology, host_id: HostId) -> Option<Rendered> {
        let bound = bound_to(self)?;
        let local = bound == host_id;
        let binding = if local {
            let instance_id = self.owner?.instance_id.to_string();
            pb::port::Binding::Local(pb::LocalBinding { instance_id, metadata: None })
        } else if topology.known_on(self.network_id, host_id) {
            // A host that never said where it is can't be reached yet.
            pb::port::Binding::RemoteUnderlay(topology.host(bound)?.underlay_address.to_string())
        } else {
            return None;
        };
        let object = Object::Port(pb::Port {
            network_id: self.network_id.to_string(),
            project_id: self.project_id.to_string(),
            mac: self.mac.to_string(),
            fixed_ips: self.fixed_ips.iter().map(|ip| ip.address.to_string()).collect(),
            allowed_addresses: self.allowed_addresses.iter().map(ToString::to_string).collect(),
            security_group_ids: self.security_group_ids.iter().map(ToString::to_string).collect(),
            binding: Some(binding),
            rate_limit: local.then_some(pb::RateLimit {
                to_instance_bps: self.rate_limit.to_instance_bps,
                from_instance_bps: self.rate_limit.from_instance_bps,
            }),
            hostname: self.hostname.clone(),
        });
        let instance_id = self.owner.filter(|_| local).map(|owner| owner.instance_id);
        Some(Rendered { epoch: self.epoch, object, instance_id })
    }

    fn for_host(topology: &Topology, host_id: HostId) -> Vec<PortId> {
        let networks = topology.networks_for(host_id).into_iter();
        networks.flat_map(|id| topology.ports_of(id)).map(|port| port.id).collect()
    }
}
