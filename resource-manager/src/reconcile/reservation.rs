//! Reservations whose owner never came: the ports go (or are free again), quota and addresses come back.
//!
//! A reservation whose instance is there isn't touched: its cluster-manager is about to bind it, late as it may be, and the instance's
//! cards name the port and its addresses.

use crate::{Manager, failure, grpc};
use domain::{InstanceId, PortId, Problem, Timestamp};
use std::{collections::HashSet, sync::Arc};

/// Taken in one look.
const LOOK: u32 = 500;

/// One look; whether there may be more.
pub(crate) async fn sweep(manager: &Arc<Manager>) -> Result<bool, Problem> {
    let now = Timestamp::now();
    let expired = manager.store.port_expired(now, LOOK).await.map_err(failure::of_read)?;
    if expired.is_empty() {
        return Ok(false);
    }
    let owners: Vec<InstanceId> = expired.iter().filter_map(|port| port.owner.map(|o| o.instance_id)).collect();
    let came = manager.store.instance_load_many(&owners).await.map_err(failure::of_read)?;
    let came: HashSet<InstanceId> = came.iter().filter(|row| !row.spec.deleted).map(|row| row.id).collect();
    let lost: Vec<PortId> = expired
        .iter()
        .filter(|port| port.owner.is_none_or(|owner| !came.contains(&owner.instance_id)))
        .map(|port| port.id)
        .collect();
    if lost.is_empty() {
        return Ok(false);
    }
    tracing::info!(ports = lost.len(), "reservations of ports expired");
    grpc::port::expire(manager, lost, now).await?;
    Ok(expired.len() as u32 == LOOK)
}
