//! What a namespace's services answer from: a picture of what is in use, brought up to date after each round.

use crate::model::{
    DesiredState,
    incremental::Scope,
    names,
    object::{Network, Port},
};
use domain::PortId;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

type Named = HashMap<String, BTreeMap<PortId, Arc<Port>>>;

/// Changed in place, unless an answer is being made from it just then.
#[derive(Debug, Clone)]
pub struct View {
    pub network: Arc<Network>,
    /// Ports in use here, by their links' names.
    by_link: HashMap<String, Arc<Port>>,
    /// Ports in use here, by each address of theirs. Two with the same are a mistake that passes: the last one counts.
    by_address: HashMap<IpAddr, BTreeMap<PortId, Arc<Port>>>,
    /// Host names, lower case, without domain, of the network's ports, wherever they are; and of its peers'.
    names: Named,
    peers_names: Named,
    /// Floating addresses by fixed ones.
    floating: HashMap<IpAddr, IpAddr>,
    /// What each port is known as here.
    known: HashMap<PortId, Arc<Port>>,
}

impl View {
    #[must_use]
    pub fn new(desired_state: &DesiredState, network: &Arc<Network>) -> Self {
        let mut view = Self {
            network: Arc::clone(network),
            by_link: HashMap::new(),
            by_address: HashMap::new(),
            names: HashMap::new(),
            peers_names: HashMap::new(),
            floating: HashMap::new(),
            known: HashMap::new(),
        };
        view.add_all(desired_state);
        view
    }

    /// Follows a change, as [`crate::model::incremental`] does.
    pub fn update(&mut self, desired_state: &DesiredState, network: &Arc<Network>, scope: Scope<'_>) {
        match scope {
            Scope::All => *self = Self::new(desired_state, network),
            Scope::Ports(ports) => {
                for id in ports {
                    self.forget(*id);
                    if let Some(port) = desired_state.ports.get(id) {
                        self.add(desired_state, port);
                    }
                }
                self.add_floating(desired_state);
            }
        }
    }

    #[must_use]
    pub fn by_link(&self, link: &str) -> Option<&Arc<Port>> {
        self.by_link.get(link)
    }

    #[must_use]
    pub fn by_address(&self, addr: IpAddr) -> Option<&Arc<Port>> {
        self.by_address.get(&addr)?.values().next_back()
    }

    /// Ports in use here, with their links.
    pub fn in_use(&self) -> impl Iterator<Item = (&String, &Arc<Port>)> {
        self.by_link.iter()
    }

    /// The addresses of a name; a network's own names win over its peers'.
    #[must_use]
    pub fn addresses_of(&self, name: &str) -> Option<BTreeSet<IpAddr>> {
        let ports = self.names.get(name).or_else(|| self.peers_names.get(name))?;
        Some(ports.values().flat_map(|port| port.fixed_ips.iter().copied()).collect())
    }

    #[must_use]
    pub fn floating_of(&self, fixed: IpAddr) -> Option<IpAddr> {
        self.floating.get(&fixed).copied()
    }

    fn add_all(&mut self, desired_state: &DesiredState) {
        let network = Arc::clone(&self.network);
        let networks = desired_state.peers_of(&network).map(|peer| peer.id).chain([network.id]);
        for port in networks.flat_map(|id| desired_state.ports_of(id)) {
            self.add(desired_state, port);
        }
        self.add_floating(desired_state);
    }

    fn add(&mut self, desired_state: &DesiredState, port: &Arc<Port>) {
        let own = port.network_id == self.network.id;
        if !own && !desired_state.peers_of(&self.network).any(|peer| peer.id == port.network_id) {
            return;
        }
        if own && desired_state.in_use(port) {
            self.by_link.insert(names::port_link(port.id), Arc::clone(port));
            for addr in &port.fixed_ips {
                self.by_address.entry(*addr).or_default().insert(port.id, Arc::clone(port));
            }
        }
        if !port.hostname.is_empty() {
            let names = if own { &mut self.names } else { &mut self.peers_names };
            names.entry(port.hostname.clone()).or_default().insert(port.id, Arc::clone(port));
        }
        self.known.insert(port.id, Arc::clone(port));
    }

    fn forget(&mut self, id: PortId) {
        let Some(port) = self.known.remove(&id) else { return };
        self.by_link.remove(&names::port_link(id));
        for addr in &port.fixed_ips {
            forget_one(&mut self.by_address, addr, id);
        }
        for names in [&mut self.names, &mut self.peers_names] {
            forget_one(names, &port.hostname, id);
        }
    }

    fn add_floating(&mut self, desired_state: &DesiredState) {
        let floating = desired_state.floating_ips_of(self.network.id);
        let active = floating.filter(|floating| desired_state.floating_target(floating).is_some());
        self.floating = active.map(|floating| (IpAddr::V4(floating.fixed_ip), IpAddr::V4(floating.address))).collect();
    }
}

fn forget_one<K: std::hash::Hash + Eq>(map: &mut HashMap<K, BTreeMap<PortId, Arc<Port>>>, key: &K, id: PortId) {
    if let Some(ports) = map.get_mut(key) {
        ports.remove(&id);
        if ports.is_empty() {
            map.remove(key);
        }
    }
}
