//! Ports of instances that a host runs and the database doesn't know, as after the database was restored from a backup.
//!
//! Such an instance is kept, and shown, until an operator decides about it (the cluster-manager's orphans), so it keeps its network too: its
//! port, and what the port needs, get no tombstone. A port that its instance has released, or whose row or instance is known, is no such
//! port: what was deleted while its host was away ends there, and what was given to another host doesn't stay with this one.

use crate::{Manager, network::topology::ObjectKey};
use domain::{HostId, InstanceId, PortId, Problem};
use operation::read_problem;
use proto::sync::v1::Holding;
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// What the host keeps although no row says so.
pub(super) async fn kept(
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
