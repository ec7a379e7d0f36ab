//! Addresses that rest no longer leave the table. The allocator knows by itself; anybody may take such a row over before.

use super::StepError;
use crate::{Manager, network::plan::uplink};
use domain::Timestamp;
use std::collections::BTreeSet;
use store::{AddressOwner, AddressRelease, AddressSweep, Unit};

pub(super) async fn sweep(manager: &Manager, now: Timestamp) -> Result<(), StepError> {
    while manager.store.address_quarantine_over(now).await.map_err(StepError::Read)? {
        let unit = Unit::new().op(AddressSweep { before: now });
        manager.store.commit(unit).await.map_err(StepError::Commit)?;
    }
    Ok(())
}

/// At start: uplinks end with their network's project, unseen while no manager runs; their addresses are given back now.
pub(crate) async fn orphans(manager: &Manager) -> Result<(), StepError> {
    let rows = manager.store.address_load_all().await.map_err(StepError::Read)?;
    let owners: BTreeSet<String> =
        manager.topology().uplinks().map(|row| uplink::owner(row.network_id, row.host_id)).collect();
    let free_at = Timestamp::now().plus_secs(manager.config.quarantine_secs);
    let orphan = |row: &store::AddressRow| {
        row.owner_kind == AddressOwner::Uplink && row.free_at.is_none() && !owners.contains(&row.owner_id)
    };
    let mut unit = Unit::new();
    let mut resting = Vec::new();
    for row in rows.into_iter().filter(orphan) {
        tracing::info!(address = %row.address, owner = row.owner_id, "an address of an uplink that is gone is given back");
        resting.extend(row.scope_id.parse().ok().map(|scope| (scope, row.address)));
        let store::AddressRow { scope_id, address, owner_id, .. } = row;
        unit.push(AddressRelease { scope_id, address, owner_id, free_at });
    }
    manager.store.commit(unit).await.map_err(StepError::Commit)?;
    let mut ipam = manager.ipam();
    resting.into_iter().for_each(|at| ipam.rest(at, free_at));
    Ok(())
}
