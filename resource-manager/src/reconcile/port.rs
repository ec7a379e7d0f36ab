//! Ports whose owner never came, or is gone.

use super::StepError;
use crate::{Manager, grpc::port::remove_chunk};
use domain::{PortId, Timestamp, network::Port};
use futures::future::join_all;
use std::collections::BTreeSet;

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

/// Bound ports whose instance's row is gone: its host proved that the instance ended, and the call that says so was lost. A port is such a
/// one if two looks in a row name it; between two services' commits there are others.
#[derive(Debug, Default)]
pub(super) struct Abandoned {
    /// The port and its generation, as the last look named them.
    candidates: BTreeSet<(PortId, i64)>,
}

impl Abandoned {
    pub(super) async fn step(&mut self, manager: &Manager) -> Result<(), StepError> {
        let found = manager.store.port_list_without_instance(BATCH).await.map_err(StepError::Read)?;
        let now: BTreeSet<(PortId, i64)> = found.iter().map(|port| (port.id, port.generation)).collect();
        let twice: Vec<Port> =
            found.into_iter().filter(|port| self.candidates.contains(&(port.id, port.generation))).collect();
        self.candidates = now;
        remove(manager, &twice, "its instance is gone").await.map(drop)
    }
}
