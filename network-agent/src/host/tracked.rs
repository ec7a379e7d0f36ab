//! The host's desired state, and what of it changed since each network was last looked at: both under one lock, so that a round that takes
//! the changes sees exactly the state that they led to.

use crate::model::{
    DesiredState,
    object::{Key, Object, Version},
};
use domain::{NetworkId, PortId};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Changes that a network's next round must follow.
#[derive(Debug, Clone, Default)]
pub struct Affected {
    /// Of the network itself, or of one it is peered with.
    pub all: bool,
    pub keys: BTreeSet<Key>,
}

impl Affected {
    #[must_use]
    pub fn ports(&self) -> BTreeSet<PortId> {
        self.keys.iter().filter_map(|key| if let Key::Port(id) = key { Some(*id) } else { None }).collect()
    }
}

#[derive(Debug, Default)]
pub struct TrackedState {
    /// Rounds hold it for as long as they last; a change meanwhile is made to a copy.
    desired_state: Arc<DesiredState>,
    affected: BTreeMap<NetworkId, Affected>,
}

impl TrackedState {
    #[must_use]
    pub fn new(desired_state: DesiredState) -> Self {
        Self { desired_state: Arc::new(desired_state), affected: BTreeMap::new() }
    }

    #[must_use]
    pub fn desired_state(&self) -> &Arc<DesiredState> {
        &self.desired_state
    }

    /// The desired_state, and what of this network is to be looked at; it counts as looked at.
    pub fn take(&mut self, id: NetworkId) -> (Arc<DesiredState>, Affected) {
        (Arc::clone(&self.desired_state), self.affected.remove(&id).unwrap_or_default())
    }

    /// Takes in an object, or that it is gone; the networks that this touches.
    pub fn put(&mut self, key: Key, object: Option<Object>) -> BTreeSet<NetworkId> {
        let desired_state = Arc::make_mut(&mut self.desired_state);
        let networks = match (object, key) {
            (Some(object), _) => desired_state.put(object),
            (None, Key::Network(id)) => desired_state.remove_network(id),
            (None, Key::Port(id)) => desired_state.remove_port(id),
            (None, Key::SecurityGroup(id)) => desired_state.remove_group(id),
            (None, Key::FloatingIp(id)) => desired_state.remove_floating_ip(id),
            (None, Key::Protected(part)) => desired_state.remove_protected(part),
        };
        for id in &networks {
            self.mark_affected(*id, key);
        }
        networks
    }

    /// Hands a port over, or takes it back.
    pub fn set_acquired(&mut self, id: PortId, acquired: bool) {
        let desired_state = Arc::make_mut(&mut self.desired_state);
        let changed = if acquired { desired_state.acquired.insert(id) } else { desired_state.acquired.remove(&id) };
        if changed && let Some(network_id) = desired_state.ports.get(&id).map(|port| port.network_id) {
            self.mark_affected(network_id, Key::Port(id));
        }
    }

    pub fn versions(&mut self) -> &mut BTreeMap<Key, Version> {
        &mut Arc::make_mut(&mut self.desired_state).versions
    }

    fn mark_affected(&mut self, id: NetworkId, key: Key) {
        let affected = self.affected.entry(id).or_default();
        match key {
            Key::Network(_) => affected.all = true,
            Key::Port(_) | Key::SecurityGroup(_) | Key::FloatingIp(_) | Key::Protected(_) => {
                affected.keys.insert(key);
            }
        }
    }
}
