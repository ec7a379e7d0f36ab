//! What is wanted of the host, and what of it changed since each network was last looked at: both under one lock, so that a round
//! that takes the changes sees exactly the wishes they led to.

use crate::model::{
    Wishes,
    object::{Key, Object, Version},
};
use domain::{NetworkId, PortId};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Changes that a network's next round must follow.
#[derive(Debug, Clone, Default)]
pub struct Touched {
    /// Of the network itself, or of one it is peered with.
    pub all: bool,
    pub keys: BTreeSet<Key>,
}

impl Touched {
    #[must_use]
    pub fn ports(&self) -> BTreeSet<PortId> {
        self.keys.iter().filter_map(|key| if let Key::Port(id) = key { Some(*id) } else { None }).collect()
    }
}

#[derive(Debug, Default)]
pub struct Wanted {
    /// Rounds hold it for as long as they last; a change meanwhile is made to a copy.
    wishes: Arc<Wishes>,
    touched: BTreeMap<NetworkId, Touched>,
}

impl Wanted {
    #[must_use]
    pub fn new(wishes: Wishes) -> Self {
        Self { wishes: Arc::new(wishes), touched: BTreeMap::new() }
    }

    #[must_use]
    pub fn wishes(&self) -> &Arc<Wishes> {
        &self.wishes
    }

    /// The wishes, and what of this network is to be looked at; it counts as looked at.
    pub fn take(&mut self, id: NetworkId) -> (Arc<Wishes>, Touched) {
        (Arc::clone(&self.wishes), self.touched.remove(&id).unwrap_or_default())
    }

    /// Takes in an object, or that it is gone; the networks that this touches.
    pub fn put(&mut self, key: Key, object: Option<Object>) -> BTreeSet<NetworkId> {
        let wishes = Arc::make_mut(&mut self.wishes);
        let networks = match (object, key) {
            (Some(object), _) => wishes.put(object),
            (None, Key::Network(id)) => wishes.remove_network(id),
            (None, Key::Port(id)) => wishes.remove_port(id),
            (None, Key::SecurityGroup(id)) => wishes.remove_group(id),
            (None, Key::FloatingIp(id)) => wishes.remove_floating_ip(id),
        };
        for id in &networks {
            self.touch(*id, key);
        }
        networks
    }

    /// Hands a port over, or takes it back.
    pub fn set_acquired(&mut self, id: PortId, acquired: bool) {
        let wishes = Arc::make_mut(&mut self.wishes);
        let changed = if acquired { wishes.acquired.insert(id) } else { wishes.acquired.remove(&id) };
        if changed && let Some(network_id) = wishes.ports.get(&id).map(|port| port.network_id) {
            self.touch(network_id, Key::Port(id));
        }
    }

    pub fn versions(&mut self) -> &mut BTreeMap<Key, Version> {
        &mut Arc::make_mut(&mut self.wishes).versions
    }

    fn touch(&mut self, id: NetworkId, key: Key) {
        let touched = self.touched.entry(id).or_default();
        match key {
            Key::Network(_) => touched.all = true,
            Key::Port(_) | Key::SecurityGroup(_) | Key::FloatingIp(_) => {
                touched.keys.insert(key);
            }
        }
    }
}
