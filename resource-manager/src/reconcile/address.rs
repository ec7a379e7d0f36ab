//! Addresses whose quarantine is over leave the table. The allocator knows by itself; an address may be taken over before.

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

/// At start: uplinks end with their network's project, unnoticed while no manager runs; their addresses are released now.
pub(crate) async fn release_orphans(manager: &Manager) -> Result<(), StepError> {
    let rows = manager.store.address_load_all().await.map_err(StepError::Read)?;
    let owners: BTreeSet<String> =
        manager.topology().uplinks().map(|row| uplink::owner(row.network_id, row.host_id)).collect();
    let orphan = |row: &store::AddressRow| {
        row.owner_kind == AddressOwner::Uplink && row.free_at.is_none() && !owners.contains(&row.owner_id)
    };
    let free_at = Timestamp::now().plus_secs(manager.config.quarantine_secs);
    let mut releases = Vec::new();
    for store::AddressRow { scope_id, address, owner_id, .. } in rows.into_iter().filter(orphan) {
        tracing::info!(%address, owner = owner_id, "an address of an uplink that is gone is released");
        releases.push(AddressRelease { scope_id, address, owner_id, free_at });
    }
    commit_releases(manager, releases).await
}

/// Addresses whose owners are gone, in the database and then in the allocator.
pub(super) async fn commit_releases(manager: &Manager, releases: Vec<AddressRelease>) -> Result<(), StepError> {
    let mut unit = Unit::new();
    let quarantined: Vec<_> =
        releases.iter().filter_map(|r| Some(((r.scope_id.parse().ok()?, r.address), r.free_at))).collect();
    unit.extend(releases);
    manager.store.commit(unit).await.map_err(StepError::Commit)?;
    let mut ipam = manager.ipam();
    quarantined.into_iter().for_each(|(at, free_at)| ipam.quarantine(at, free_at));
    Ok(())
}
