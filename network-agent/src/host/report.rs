//! What a round reports of the objects that it was about.

use super::{Host, tracked::Affected};
use crate::{
    apply::Failure,
    model::{
        DesiredState,
        object::{Key, Port},
    },
    observation::Observation,
};
use domain::{NetworkId, SecurityGroupId};
use proto::network::v1::ObjectState;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// What became of the objects that the round affected.
pub(super) fn report(
    host: &Arc<Host>,
    desired_state: &DesiredState,
    id: NetworkId,
    affected: &Affected,
    failed: &BTreeMap<Option<Key>, Failure>,
) {
    let whole = failed.get(&None);
    let post = |key: Key, good: ObjectState| {
        // Of what this round worked with: the ledger may know a newer one by now.
        let Some(version) = desired_state.versions.get(&key).copied() else { return };
        let observation = match whole.or_else(|| failed.get(&Some(key))) {
            Some(Failure { reason, .. }) => Observation::failed(key, version, reason.clone()),
            None => Observation {
                key,
                version,
                state: good,
                reason: String::new(),
                program_us: host.program_us_of(key, version),
            },
        };
        host.outbox.post(observation);
    };
    post(Key::Network(id), ObjectState::Ready);
    // When all failed, each object's report must say so.
    let all = affected.all || whole.is_some();
    let ports: Vec<&Arc<Port>> = if all {
        desired_state.ports_of(id).collect()
    } else {
        affected
            .ports()
            .iter()
            .filter_map(|port| desired_state.ports.get(port))
            .filter(|port| port.network_id == id)
            .collect()
    };
    let mut groups: BTreeSet<SecurityGroupId> = affected
        .keys
        .iter()
        .filter_map(|key| if let Key::SecurityGroup(group) = key { Some(*group) } else { None })
        .filter(|group| desired_state.groups.contains_key(group))
        .collect();
    let mut reported = BTreeSet::new();
    for port in ports.into_iter().filter(|port| port.instance().is_some()) {
        post(Key::Port(port.id), if desired_state.in_use(port) { ObjectState::Active } else { ObjectState::Ready });
        groups.extend(port.groups.iter().copied());
        reported.insert(port.id);
    }
    for group in groups {
        post(Key::SecurityGroup(group), ObjectState::Ready);
    }
    for floating in desired_state.floating_ips_of(id) {
        if all || reported.contains(&floating.port_id) || affected.keys.contains(&Key::FloatingIp(floating.id)) {
            let active = desired_state.floating_target(floating).is_some();
            post(Key::FloatingIp(floating.id), if active { ObjectState::Active } else { ObjectState::Ready });
        }
    }
}
