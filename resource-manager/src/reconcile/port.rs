//! Ports whose owner never came, or is gone.

use super::StepError;
use crate::{Manager, grpc::port::forget_chunk};
use domain::{PortId, Timestamp, network::Port};
use futures::future::join_all;
use std::collections::BTreeSet;

/// At once; the rest next.
const BATCH: u32 = 256;

/// Reservations that nobody confirmed in time. A unit each, so that one that is confirmed at this moment keeps only itself.
pub(super) async fn expire(manager: &Manager, now: Timestamp) -> Result<(), StepError> {
    loop {
        let due = manager.store.port_expired(now, BATCH).await.map_err(StepError::Read)?;
        let gone = forget(manager, &due, "its reservation expired").await?;
        if gone == 0 || due.len() < BATCH as usize {
            return Ok(());
        }
    }
}

/// How many went.
async fn forget(manager: &Manager, ports: &[Port], why: &'static str) -> Result<usize, StepError> {
    let outcomes = join_all(ports.iter().map(|port| forget_chunk(manager, std::slice::from_ref(port)))).await;
    let mut gone = 0;
    for (port, outcome) in ports.iter().zip(outcomes) {
        if outcome.map_err(StepError::Refused)? {
            gone += 1;
            tracing::info!(port_id = %port.id, instance_id = ?port.owner.map(|o| o.instance_id.to_string()), why, "a port was let go");
        }
    }
    Ok(gone)
}

/// Bound ports whose instance's row is gone: its host proved that it ended, and the word to us was lost. What two looks in a row name is
/// such a one; between two services' commits there are others.
#[derive(Debug, Default)]
pub(super) struct Abandoned {
    seen: BTreeSet<(PortId, i64)>,
}

impl Abandoned {
    pub(super) async fn step(&mut self, manager: &Manager) -> Result<(), StepError> {
        let found = manager.store.port_list_without_instance(BATCH).await.map_err(StepError::Read)?;
        let now: BTreeSet<(PortId, i64)> = found.iter().map(|port| (port.id, port.generation)).collect();
        let twice: Vec<Port> =
            found.into_iter().filter(|port| self.seen.contains(&(port.id, port.generation))).collect();
        self.seen = now;
        forget(manager, &twice, "its instance is gone").await.map(drop)
    }
}
