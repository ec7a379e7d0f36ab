//! Hosts that were removed from the fleet: what their network-agents said of them goes, so that the narrowest underlay is that of a host there is.

use super::StepError;
use crate::{
    Manager,
    network::topology::{RowChange, RowKey},
};
use domain::HostId;
use std::collections::BTreeSet;
use store::{NetworkHostDelete, Unit};

/// A host without a row is a removed one if two looks in a row name it and no agent is connected: a new host's network-agent may come before
/// its compute-agent.
#[derive(Debug, Default)]
pub(super) struct Removed {
    candidates: BTreeSet<HostId>,
}

impl Removed {
    pub(super) async fn step(&mut self, manager: &Manager) -> Result<(), StepError> {
        let found = manager.store.network_host_without_host().await.map_err(StepError::Read)?;
        let found: BTreeSet<HostId> = found.into_iter().filter(|id| manager.streams.find(*id).is_none()).collect();
        let removed: Vec<HostId> = found.intersection(&self.candidates).copied().collect();
        self.candidates = found;
        for host_id in removed {
            let unit = Unit::new().op(NetworkHostDelete { host_id });
            manager.store.commit(unit).await.map_err(StepError::Commit)?;
            manager.streams.remove(host_id);
            manager.apply_committed([RowChange::Gone(RowKey::Host(host_id))]);
            tracing::info!(%host_id, "a host was removed from the fleet; its underlay counts no longer");
        }
        Ok(())
    }
}
