//! Ports of instances that a host runs and the database doesn't know, as after the database was restored from a backup.
//!
//! Such an instance is kept, and shown, until an operator decides about it (the cluster-manager's orphans), so it keeps its network too: its
//! port, and what the port needs, get no tombstone. A port that its instance has released, or whose row or instance is known, is no such
//! port: what was deleted while its host was away ends there, and what was given to another host doesn't stay with this one.

use crate::{Manager, network::topology::ObjectKey};
use domain::{HostId, InstanceId, PortId, Problem};
use operation::read_problem;
use parking_lot::Mutex;
use proto::sync::v1::Holding;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// What hosts keep although no row says so, as of each one's last Hello.
#[derive(Debug, Default)]
pub struct Kept(Mutex<HashMap<HostId, HashSet<ObjectKey>>>);

impl Kept {
    pub(super) fn contains(&self, host_id: HostId, key: ObjectKey) -> bool {
        self.0.lock().get(&host_id).is_some_and(|keys| keys.contains(&key))
    }

    pub(super) fn replace(&self, host_id: HostId, keys: HashSet<ObjectKey>) {
        let mut kept = self.0.lock();
        if keys.is_empty() {
            kept.remove(&host_id);
        } else {
            kept.insert(host_id, keys);
        }
    }

    /// An instance has released its port: what is kept no longer. What ports need goes with the last of them.
    pub(super) fn released(&self, host_id: HostId, key: ObjectKey) -> HashSet<ObjectKey> {
        let mut kept = self.0.lock();
        let Some(keys) = kept.get_mut(&host_id).filter(|keys| keys.contains(&key)) else { return HashSet::new() };
        keys.remove(&key);
        if keys.iter().any(|key| matches!(key, ObjectKey::Port(_))) {
            return HashSet::from([key]);
        }
        let mut rest = kept.remove(&host_id).unwrap_or_default();
        rest.insert(key);
        rest
    }
}

/// What the host keeps although no row says so.
pub(super) async fn find(
    manager: &Manager,
    host_id: HostId,
    holdings: &[Holding],
) -> Result<HashSet<ObjectKey>, Problem> {
    let candidates: BTreeMap<PortId, (InstanceId, &Holding)> = {
        let topology = manager.topology();
        let in_use = holdings.iter().filter(|held| held.acquired_epoch != 0 && !held.tombstone);
        let unknown = in_use.filter_map(|held| match ObjectKey::parse(held.kind, &held.id)? {
            ObjectKey::Port(id) if topology.port(id).is_none() => Some((id, (held.instance_id.parse().ok()?, held))),
            ObjectKey::Port(_)
            | ObjectKey::Protected(_)
            | ObjectKey::Network(_)
            | ObjectKey::SecurityGroup(_)
            | ObjectKey::FloatingIp(_) => None,
        });
        unknown.collect()
    };
    let mut kept = HashSet::new();
    if candidates.is_empty() {
        return Ok(kept);
    }
    let ids: BTreeSet<InstanceId> = candidates.values().map(|(instance_id, _)| *instance_id).collect();
    let ids: Vec<InstanceId> = ids.into_iter().collect();
    let rows = manager.store.instance_load_many(&ids).await.map_err(read_problem)?;
    let known: HashSet<InstanceId> = rows.into_iter().map(|row| row.instance.id).collect();
    for (port_id, (instance_id, held)) in candidates {
        if known.contains(&instance_id) {
            continue;
        }
        tracing::warn!(%host_id, %port_id, %instance_id, "a port of an instance that the database doesn't know is kept");
        metrics::counter!("iaas_orphan_ports_total").increment(1);
        kept.insert(ObjectKey::Port(port_id));
        kept.extend(held.network_id.parse().map(ObjectKey::Network));
        kept.extend(held.security_group_ids.iter().filter_map(|id| id.parse().map(ObjectKey::SecurityGroup).ok()));
    }
    Ok(kept)
}
