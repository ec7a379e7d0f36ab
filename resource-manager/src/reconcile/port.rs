//! Ports whose owner never came, or is gone.

use super::StepError;
use crate::{Manager, grpc::port::remove_chunk};
use domain::{InstanceId, PortId, Timestamp, network::Port};
use futures::future::join_all;
use std::collections::{BTreeMap, BTreeSet};
use store::Page;

/// Ports in one step; the rest go in the next.
const BATCH: u32 = 256;

/// Reservations that nobody confirmed in time. A unit each, so that one that is confirmed at this moment keeps only itself.
pub(super) async fn expire(manager: &Manager, now: Timestamp) -> Result<(), StepError> {
    loop {
        let due = manager.store.port_expired(now, BATCH).await.map_err(StepError::Read)?;
        let removed = remove(manager, &due, "its reservation expired").await?;
        if removed == 0 || due.len() < BATCH as usize {
            return Ok(());
        }
    }
}

/// How many were removed.
async fn remove(manager: &Manager, ports: &[Port], why: &'static str) -> Result<usize, StepError> {
    let outcomes = join_all(ports.iter().map(|port| remove_chunk(manager, std::slice::from_ref(port)))).await;
    let mut removed = 0;
    for (port, outcome) in ports.iter().zip(outcomes) {
        if outcome.map_err(StepError::Refused)? {
            removed += 1;
            tracing::info!(port_id = %port.id, instance_id = ?port.owner.map(|o| o.instance_id.to_string()), why, "a port was removed");
        }
    }
    Ok(removed)
}

/// Bound ports whose instance's row is gone: its host proved that the instance ended, and nobody removed its ports. The cluster-manager keeps
/// that work as a row until it is done; this is the backstop, which takes a page of the ports at a time. A port is such a one if two looks in
/// a row name it; between two services' commits there are others.
#[derive(Debug, Default)]
pub(super) struct Abandoned {
    after: Option<PortId>,
    /// The ports that the last look named, with their generations.
    candidates: BTreeMap<PortId, i64>,
}

impl Abandoned {
    pub(super) async fn step(&mut self, manager: &Manager) -> Result<(), StepError> {
        let page = Page { after: self.after.map(|id| id.to_string()), limit: BATCH };
        let mut ports = manager.store.port_list_all(page).await.map_err(StepError::Read)?;
        self.after = ports.last().map(|port| port.id).filter(|_| ports.len() == BATCH as usize);
        let again: Vec<PortId> = self.candidates.keys().copied().collect();
        ports.extend(manager.store.port_load_many(&again).await.map_err(StepError::Read)?);
        let bound = |port: &Port| port.owner.map(|owner| owner.instance_id).filter(|_| port.expires_at.is_none());
        let owners: BTreeSet<InstanceId> = ports.iter().filter_map(bound).collect();
        let owners: Vec<InstanceId> = owners.into_iter().collect();
        let gone = manager.store.instance_gone(&owners).await.map_err(StepError::Read)?;
        ports.retain(|port| bound(port).is_some_and(|id| gone.contains(&id)));
        let twice: Vec<Port> =
            ports.iter().filter(|port| self.candidates.get(&port.id) == Some(&port.generation)).cloned().collect();
        self.candidates = ports.iter().map(|port| (port.id, port.generation)).collect();
        remove(manager, &twice, "its instance is gone").await.map(drop)
    }
}
