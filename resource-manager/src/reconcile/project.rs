//! Projects that are gone took their default networks and groups with them: memory follows, hosts are sent that, and what their networks
//! had of the outside is released.

use super::{StepError, address::commit_releases};
use crate::{
    Manager,
    network::{
        plan::uplink,
        topology::{RowChange, RowKey},
    },
};
use domain::{NetworkId, ProjectId, Timestamp};
use std::collections::BTreeSet;
use store::AddressRelease;

pub(super) async fn step(manager: &Manager) -> Result<(), StepError> {
    let known: Vec<ProjectId> = {
        let topology = manager.topology();
        let networks = topology.networks().map(|network| network.project_id);
        let groups = topology.security_groups().map(|group| group.project_id);
        networks.chain(groups).collect::<BTreeSet<ProjectId>>().into_iter().collect()
    };
    if known.is_empty() {
        return Ok(());
    }
    for project_id in manager.store.project_gone(&known).await.map_err(StepError::Read)? {
        follow(manager, project_id).await?;
    }
    Ok(())
}

async fn follow(manager: &Manager, project_id: ProjectId) -> Result<(), StepError> {
    let free_at = Timestamp::now().plus_secs(manager.config.quarantine_secs);
    let (networks, groups, releases) = {
        let topology = manager.topology();
        let networks: BTreeSet<NetworkId> =
            topology.networks().filter(|n| n.project_id == project_id).map(|n| n.id).collect();
        let groups = topology.security_groups().filter(|group| group.project_id == project_id);
        let groups: Vec<RowKey> = groups.map(|group| RowKey::SecurityGroup(group.id)).collect();
        let uplinks = topology.uplinks().filter(|uplink| networks.contains(&uplink.network_id));
        let releases = uplinks.flat_map(|gone| {
            uplink::addresses(gone).map(move |address| AddressRelease {
                scope_id: gone.external_network_id.to_string(),
                address,
                owner_id: uplink::owner(gone.network_id, gone.host_id),
                free_at,
            })
        });
        let releases: Vec<AddressRelease> = releases.collect();
        (networks, groups, releases)
    };
    commit_releases(manager, releases).await?;
    tracing::info!(%project_id, networks = networks.len(), "a project is gone, and its networks with it");
    let gone = networks.iter().map(|id| RowKey::Network(*id)).chain(groups);
    manager.apply_committed(gone.map(RowChange::Gone));
    let mut ipam = manager.ipam();
    networks.iter().for_each(|id| ipam.remove_scope(id.0));
    Ok(())
}
