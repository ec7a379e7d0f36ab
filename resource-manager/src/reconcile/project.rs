//! Projects that are gone took their default networks and groups with them: memory follows, hosts are told, and what their networks had
//! of the outside is given back.

use super::StepError;
use crate::{
    Manager,
    network::plan::uplink,
    network::topology::{Key, Learned},
};
use domain::{NetworkId, ProjectId, Timestamp};
use std::collections::BTreeSet;
use store::{AddressRelease, Unit, UplinkRow};

pub(super) async fn step(manager: &Manager) -> Result<(), StepError> {
    let known: Vec<ProjectId> = {
        let topology = manager.topology();
        let networks = topology.networks().map(|network| network.project_id);
        let projects: BTreeSet<ProjectId> =
            networks.chain(topology.security_groups().map(|group| group.project_id)).collect();
        projects.into_iter().collect()
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
    let (networks, groups, uplinks) = {
        let topology = manager.topology();
        let networks: BTreeSet<NetworkId> =
            topology.networks().filter(|n| n.project_id == project_id).map(|n| n.id).collect();
        let groups: Vec<Key> = topology
            .security_groups()
            .filter(|group| group.project_id == project_id)
            .map(|group| Key::SecurityGroup(group.id))
            .collect();
        let uplinks: Vec<UplinkRow> =
            topology.uplinks().filter(|uplink| networks.contains(&uplink.network_id)).cloned().collect();
        (networks, groups, uplinks)
    };
    let free_at = Timestamp::now().plus_secs(manager.config.quarantine_secs);
    let mut unit = Unit::new();
    let mut resting = Vec::new();
    for gone in &uplinks {
        for address in uplink::addresses(gone) {
            let scope = gone.external_network_id.0;
            let owner_id = uplink::owner(gone.network_id, gone.host_id);
            unit.push(AddressRelease { scope_id: scope.to_string(), address, owner_id, free_at });
            resting.push((scope, address));
        }
    }
    manager.store.commit(unit).await.map_err(StepError::Commit)?;
    {
        let mut ipam = manager.ipam();
        resting.into_iter().for_each(|at| ipam.rest(at, free_at));
    }
    tracing::info!(%project_id, networks = networks.len(), "a project is gone, and its networks with it");
    let gone = networks.iter().map(|id| Key::Network(*id)).chain(groups);
    manager.learn(gone.map(Learned::Gone));
    let mut ipam = manager.ipam();
    networks.iter().for_each(|id| ipam.remove_scope(id.0));
    Ok(())
}
