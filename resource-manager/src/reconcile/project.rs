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

/// Projects that the backstop looks at in one step.
const PAGE: usize = 256;
/// Steps between two of the backstop.
const BACKSTOP_ROUNDS: u32 = 15;
const EVENTS: u32 = 1000;

/// The deletion of a project is an event, which is followed; one that was missed is found by the backstop, which takes a page of the projects
/// that memory knows at a time.
#[derive(Debug)]
pub(super) struct Projects {
    last_event: i64,
    rounds: u32,
    after: Option<ProjectId>,
}

impl Projects {
    pub(super) async fn new(manager: &Manager) -> Self {
        // Memory was loaded before; what was deleted in between is the backstop's.
        let (_, last_event) = manager.store.event_head().await.unwrap_or_default();
        Self { last_event, rounds: 0, after: None }
    }

    pub(super) async fn step(&mut self, manager: &Manager) -> Result<(), StepError> {
        loop {
            let events = manager.store.event_after(self.last_event, None, EVENTS).await.map_err(StepError::Read)?;
            let deleted = events.iter().filter(|event| event.kind == "project.deleted");
            for project_id in deleted.filter_map(|event| event.object_id.parse::<ProjectId>().ok()) {
                self.follow_if_gone(manager, &[project_id]).await?;
            }
            self.last_event = events.last().map_or(self.last_event, |event| event.id);
            if events.len() < EVENTS as usize {
                break;
            }
        }
        self.rounds = self.rounds.wrapping_add(1);
        if !self.rounds.is_multiple_of(BACKSTOP_ROUNDS) {
            return Ok(());
        }
        let page: Vec<ProjectId> = {
            let topology = manager.topology();
            let networks = topology.networks().map(|network| network.project_id);
            let groups = topology.security_groups().map(|group| group.project_id);
            let further = networks.chain(groups).filter(|id| self.after.is_none_or(|after| *id > after));
            let mut further: Vec<ProjectId> = further.collect::<BTreeSet<ProjectId>>().into_iter().collect();
            further.truncate(PAGE);
            further
        };
        self.after = page.last().copied().filter(|_| page.len() == PAGE);
        self.follow_if_gone(manager, &page).await
    }

    async fn follow_if_gone(&self, manager: &Manager, known: &[ProjectId]) -> Result<(), StepError> {
        if known.is_empty() {
            return Ok(());
        }
        for project_id in manager.store.project_gone(known).await.map_err(StepError::Read)? {
            follow(manager, project_id).await?;
        }
        Ok(())
    }
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
