//! Taking in one committed row: the maps, the indexes, and which hosts it concerns (before and after).

use super::{Concern, DEFAULT, Key, Learned, ROOM_DEFAULT, Told, Topology, bound_to, room_of};
use domain::{
    HostId, NetworkId, PortId,
    network::{Peering, Port},
};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque, hash_map::Entry};
use std::hash::Hash;
use store::NetworkHostRow;

/// How many of the dead are remembered, so that a row that is learned after its end stays out. Only a port comes back under its id (a
/// reservation that expired is made anew): above the generation it ended at.
const GRAVES: usize = 65_536;

#[derive(Debug, Default)]
pub(super) struct Graves {
    /// The generation each ended at, as far as it was known.
    ended: HashMap<Key, i64>,
    order: VecDeque<Key>,
}

impl Graves {
    fn bury(&mut self, key: Key, generation: i64) {
        match self.ended.entry(key) {
            Entry::Occupied(mut there) => {
                let ended = there.get_mut();
                *ended = generation.max(*ended);
            }
            Entry::Vacant(empty) => {
                empty.insert(generation);
                self.order.push_back(key);
            }
        }
        if self.order.len() > GRAVES
            && let Some(oldest) = self.order.pop_front()
        {
            self.ended.remove(&oldest);
        }
    }

    fn holds(&self, key: Key) -> bool {
        self.ended.contains_key(&key)
    }

    fn port_ended_at(&self, id: PortId) -> Option<i64> {
        self.ended.get(&Key::Port(id)).copied()
    }
}

fn index<K: Hash + Eq, V: Ord>(map: &mut HashMap<K, BTreeSet<V>>, key: K, value: V) {
    map.entry(key).or_default().insert(value);
}

fn unindex<K: Hash + Eq, V: Ord>(map: &mut HashMap<K, BTreeSet<V>>, key: K, value: &V) {
    if let Entry::Occupied(mut entry) = map.entry(key) {
        entry.get_mut().remove(value);
        if entry.get().is_empty() {
            entry.remove();
        }
    }
}

/// Whether `new` is older than what is there.
macro_rules! stale {
    ($map:expr, $new:expr) => {
        $map.get(&$new.id).is_some_and(|old| old.generation > $new.generation)
    };
}

impl Topology {
    /// Takes in one row; what it concerns may hold a pair twice.
    pub fn learn(&mut self, learned: Learned) -> Vec<Concern> {
        match learned {
            Learned::ExternalNetwork(new) => {
                let id = new.id;
                if !stale!(self.external_networks, new) && !self.graves.holds(Key::ExternalNetwork(id)) {
                    self.external_networks.insert(id, new);
                }
                let routed = self.routers.values().filter(|r| r.external_network_id == id).map(|r| r.network_id);
                let routed: Vec<NetworkId> = routed.collect();
                routed.into_iter().flat_map(|id| self.concerns_of_network(id)).collect()
            }
            Learned::Network(new) => {
                let id = new.id;
                if !stale!(self.networks, new) && !self.graves.holds(Key::Network(id)) {
                    self.networks.insert(id, new);
                }
                self.concerns_of_network(id)
            }
            Learned::Subnet(new) => {
                let network_id = new.network_id;
                if !stale!(self.subnets, new) && !self.graves.holds(Key::Subnet(new.id)) {
                    index(&mut self.subnets_of, network_id, new.id);
                    self.subnets.insert(new.id, new);
                }
                self.concerns_of_network(network_id)
            }
            Learned::Router(new) => {
                let network_id = new.network_id;
                if !stale!(self.routers, new) && !self.graves.holds(Key::Router(new.id)) {
                    self.router_of.insert(network_id, new.id);
                    self.routers.insert(new.id, new);
                }
                self.concerns_of_network(network_id)
            }
            Learned::SecurityGroup(new) => {
                let id = new.id;
                if !stale!(self.groups, new) && !self.graves.holds(Key::SecurityGroup(id)) {
                    self.forget_default(id);
                    if new.name.as_str() == DEFAULT {
                        self.default_groups.insert(new.project_id, id);
                    }
                    self.groups.insert(id, new);
                }
                self.concerns_of_group(id)
            }
            Learned::Port(new) => {
                let over = self.graves.port_ended_at(new.id).is_some_and(|ended| new.generation <= ended);
                if over || stale!(self.ports, new) {
                    return Vec::new();
                }
                self.put_port(new)
            }
            Learned::FloatingIp(new) => {
                if stale!(self.floating_ips, new) || self.graves.holds(Key::FloatingIp(new.id)) {
                    return Vec::new();
                }
                let mut concerns = self.concerns_of_floating_ip(new.id);
                self.remove_floating_ip(new.id);
                let id = new.id;
                if let Some(port_id) = new.port_id {
                    index(&mut self.floating_ips_of, port_id, id);
                }
                self.floating_ips.insert(id, new);
                concerns.extend(self.concerns_of_floating_ip(id));
                concerns
            }
            Learned::Peering(new) => {
                if self.graves.holds(Key::Peering(new.id)) {
                    return Vec::new();
                }
                index(&mut self.peers, new.network_id, new.peer_network_id);
                index(&mut self.peers, new.peer_network_id, new.network_id);
                let concerns = self.concerns_of_peering(&new);
                self.peerings.insert(new.id, new);
                concerns
            }
            Learned::Uplink(new) => {
                let (network_id, host_id) = (new.network_id, new.host_id);
                self.uplinks.insert((network_id, host_id), new);
                vec![(host_id, Told::Network(network_id))]
            }
            Learned::Host(new) => self.put_host(new),
            Learned::Gone(key) => self.bury(key),
        }
    }

    /// The generation that a port of this id is born with.
    #[must_use]
    pub fn port_birth(&self, id: PortId) -> i64 {
        self.graves.port_ended_at(id).map_or(1, |ended| ended + 1)
    }

    fn bury(&mut self, key: Key) -> Vec<Concern> {
        match key {
            // These come back under the same key.
            Key::Uplink(..) | Key::Host(_) => {}
            Key::Port(id) => {
                let ended = self.ports.get(&id).map_or(1, |port| port.generation);
                self.graves.bury(key, ended);
            }
            Key::ExternalNetwork(_)
            | Key::Network(_)
            | Key::Subnet(_)
            | Key::Router(_)
            | Key::FloatingIp(_)
            | Key::SecurityGroup(_)
            | Key::Peering(_) => self.graves.bury(key, 0),
        }
        match key {
            Key::ExternalNetwork(id) => {
                self.external_networks.remove(&id);
                Vec::new()
            }
            Key::Network(id) => self.remove_network(id),
            Key::Subnet(id) => {
                let Some(old) = self.subnets.remove(&id) else { return Vec::new() };
                unindex(&mut self.subnets_of, old.network_id, &id);
                self.concerns_of_network(old.network_id)
            }
            Key::Port(id) => {
                let Some(old) = self.ports.get(&id).cloned() else { return Vec::new() };
                let concerns = self.concerns_of_port(&old);
                self.ports.remove(&id);
                let moved = self.unindex_port(&old);
                let mut concerns = [concerns, self.concerns_of_presence(moved)].concat();
                concerns.extend(self.concerns_of_port(&old));
                concerns
            }
            Key::Router(id) => {
                let Some(old) = self.routers.remove(&id) else { return Vec::new() };
                if self.router_of.get(&old.network_id) == Some(&id) {
                    self.router_of.remove(&old.network_id);
                }
                self.concerns_of_network(old.network_id)
            }
            Key::FloatingIp(id) => {
                let concerns = self.concerns_of_floating_ip(id);
                self.remove_floating_ip(id);
                concerns
            }
            Key::SecurityGroup(id) => {
                let concerns = self.concerns_of_group(id);
                self.forget_default(id);
                self.groups.remove(&id);
                concerns
            }
            Key::Peering(id) => {
                let Some(old) = self.peerings.remove(&id) else { return Vec::new() };
                let concerns = self.concerns_of_peering(&old);
                self.remove_peers(&old);
                concerns
            }
            Key::Uplink(network_id, host_id) => {
                self.uplinks.remove(&(network_id, host_id));
                vec![(host_id, Told::Network(network_id))]
            }
            Key::Host(id) => {
                self.hosts.remove(&id);
                self.measure();
                Vec::new()
            }
        }
    }

    fn remove_network(&mut self, id: NetworkId) -> Vec<Concern> {
        let concerns = self.concerns_of_network(id);
        self.networks.remove(&id);
        for subnet_id in self.subnets_of.remove(&id).into_iter().flatten() {
            self.subnets.remove(&subnet_id);
        }
        if let Some(router_id) = self.router_of.remove(&id) {
            self.routers.remove(&router_id);
        }
        self.uplinks.retain(|(network_id, _), _| *network_id != id);
        let peerings: Vec<Peering> = self.peerings_of(id).cloned().collect();
        for peering in peerings {
            self.peerings.remove(&peering.id);
            self.remove_peers(&peering);
        }
        concerns
    }

    fn forget_default(&mut self, id: domain::SecurityGroupId) {
        if let Some(old) = self.groups.get(&id)
            && self.default_groups.get(&old.project_id) == Some(&id)
        {
            self.default_groups.remove(&old.project_id);
        }
    }

    fn remove_peers(&mut self, peering: &Peering) {
        unindex(&mut self.peers, peering.network_id, &peering.peer_network_id);
        unindex(&mut self.peers, peering.peer_network_id, &peering.network_id);
    }

    fn remove_floating_ip(&mut self, id: domain::FloatingIpId) {
        if let Some(old) = self.floating_ips.remove(&id)
            && let Some(port_id) = old.port_id
        {
            unindex(&mut self.floating_ips_of, port_id, &id);
        }
    }

    fn put_port(&mut self, new: Port) -> Vec<Concern> {
        let old = self.ports.remove(&new.id);
        let told_alike = old.as_ref().is_some_and(|old| old.generation == new.generation);
        if told_alike {
            // Only what hosts said of it is new.
            self.ports.insert(new.id, new);
            return Vec::new();
        }
        let mut concerns = old.as_ref().map(|old| self.concerns_of_port(old)).unwrap_or_default();
        let left = old.as_ref().and_then(|old| self.unindex_port(old));
        let came = self.index_port(&new);
        self.ports.insert(new.id, new.clone());
        // Left and came back: nothing happened to the network there.
        if left != came {
            concerns.extend(self.concerns_of_presence(left));
            concerns.extend(self.concerns_of_presence(came));
        }
        concerns.extend(self.concerns_of_port(&new));
        concerns
    }

    /// The host and network that have met by this port.
    fn index_port(&mut self, port: &Port) -> Option<(HostId, NetworkId)> {
        index(&mut self.ports_of, port.network_id, port.id);
        for group_id in &port.security_group_ids {
            index(&mut self.ports_in, *group_id, port.id);
        }
        let host_id = bound_to(port)?;
        index(&mut self.ports_on, host_id, port.id);
        let count = self.presence.entry(host_id).or_default().entry(port.network_id).or_default();
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
        let presence: &mut BTreeMap<NetworkId, u32> = self.presence.get_mut(&host_id)?;
        let count = presence.get_mut(&port.network_id)?;
        *count -= 1;
        if *count > 0 {
            return None;
        }
        presence.remove(&port.network_id);
        if presence.is_empty() {
            self.presence.remove(&host_id);
        }
        unindex(&mut self.hosts_of, port.network_id, &host_id);
        Some((host_id, port.network_id))
    }

    fn put_host(&mut self, new: NetworkHostRow) -> Vec<Concern> {
        let (id, room) = (new.host_id, self.room);
        let old = self.hosts.insert(id, new.clone());
        self.measure();
        let mut concerns = Vec::new();
        if old.is_some_and(|old| old.underlay_address != new.underlay_address) {
            let ports: Vec<Port> = self.ports_on(id).cloned().collect();
            concerns.extend(ports.iter().flat_map(|port| self.concerns_of_port(port)));
        }
        if room != self.room {
            let all: Vec<NetworkId> = self.networks.keys().copied().collect();
            concerns.extend(all.into_iter().flat_map(|id| self.concerns_of_network(id)));
        }
        concerns
    }

    fn measure(&mut self) {
        self.room = self.hosts.values().map(room_of).min().unwrap_or(ROOM_DEFAULT);
    }
}
