//! What an instance's spec and its placement groups ask of a decision, and what a member leaves in the store.
//!
//! The inventory decides; the store is the judge of hard groups, so that no number of managers or of parallel creates can break one:
//! of an anti-affinity group no two members have one place (a unique constraint), and an affinity group's anchor names the place of
//! all. A refusal there is a conflict like any other: the create looks for another place.

use crate::{
    manager::{Manager, read_problem},
    scheduler::{Attach, GroupWish, HostEntry, Inventory, Placed, Policy, Request, Scope, Strength, host::RACK_TAG},
};
use domain::{
    InstanceId, PlacementGroupId, Problem, ProjectId,
    flavor::Pinning,
    instance::{InstanceSpec, OnHostLoss},
    placement::{GroupPolicy, GroupScope, GroupStrength, PlacementGroup},
};
use std::{collections::HashMap, sync::Arc, time::Duration};
use store::{Page, PlacementAnchorJoin, PlacementAnchorLeave, PlacementMemberInsert, ReadError, Unit};

const PAGE: u32 = 1000;
const BACK_UP_EVERY: Duration = Duration::from_secs(10);

/// A spec's request, and the groups in it.
#[derive(Debug)]
pub struct Wishes {
    pub request: Request,
    groups: Vec<PlacementGroup>,
}

impl Wishes {
    pub async fn load(manager: &Manager, project_id: ProjectId, spec: &InstanceSpec) -> Result<Self, Problem> {
        let groups = futures::future::try_join_all(spec.placement.groups.iter().map(async |id| {
            let found = manager.store.placement_group_find(project_id, *id).await.map_err(|e| read_problem(&e))?;
            found.ok_or_else(|| Problem::not_found("placement group", id))
        }))
        .await?;
        Ok(Self { request: request(project_id, spec, &groups), groups })
    }

    /// Later decisions must know of the instance: it is in a group, must survive its host, gives way, or is pinned.
    #[must_use]
    pub fn attached(&self) -> bool {
        attached(&self.request)
    }

    /// Adds to a create's unit that its instances join their groups where they are placed.
    pub fn join(&self, inventory: &Inventory, placed: &[(InstanceId, Placed)], unit: &mut Unit) {
        for group in &self.groups {
            let hard = group.strength == GroupStrength::Hard;
            let mut anchor: Option<PlacementAnchorJoin> = None;
            for (instance_id, at) in placed {
                let Some(place) = inventory.find(at.host_id).map(|host| place(host, group.scope)) else { continue };
                if hard && group.policy == GroupPolicy::Affinity {
                    let join = PlacementAnchorJoin { group_id: group.id, place: place.clone(), members: 0 };
                    anchor.get_or_insert(join).members += 1;
                }
                let exclusive = hard && group.policy == GroupPolicy::AntiAffinity;
                unit.push(PlacementMemberInsert {
                    group_id: group.id,
                    instance_id: *instance_id,
                    exclusive_place: exclusive.then(|| place.clone()),
                    place,
                });
            }
            if let Some(anchor) = anchor {
                unit.push(anchor);
            }
        }
    }
}

/// For the unit that ends an instance: its memberships go with its row, the counts of anchors by this.
pub fn leave(spec: &InstanceSpec, unit: &mut Unit) {
    unit.extend(spec.placement.groups.iter().map(|group_id| PlacementAnchorLeave { group_id: *group_id }));
}

fn attached(request: &Request) -> bool {
    !request.groups.is_empty() || request.protected || request.preemptible.is_some() || request.pinned
}

fn request(project_id: ProjectId, spec: &InstanceSpec, groups: &[PlacementGroup]) -> Request {
    let wishes = &spec.placement;
    Request {
        size: spec.size,
        zone: spec.zone.clone(),
        tags: wishes.required_tags.clone(),
        forbidden_tags: wishes.forbidden_tags.clone(),
        cpu_features: wishes.cpu_features.clone(),
        project: Some(project_id),
        dedicated: wishes.dedicated,
        groups: groups.iter().map(wish).collect(),
        protected: spec.on_host_loss == OnHostLoss::Restart,
        preemptible: wishes.preemptible_class,
        pinned: wishes.pinning == Pinning::Numa,
        ..Request::default()
    }
}

fn wish(group: &PlacementGroup) -> GroupWish {
    GroupWish {
        group: group.id,
        policy: match group.policy {
            GroupPolicy::Affinity => Policy::Affinity,
            GroupPolicy::AntiAffinity => Policy::AntiAffinity,
        },
        scope: match group.scope {
            GroupScope::Host => Scope::Host,
            GroupScope::Rack => Scope::Rack,
            GroupScope::Zone => Scope::Zone,
        },
        strength: match group.strength {
            GroupStrength::Hard => Strength::Hard,
            GroupStrength::Soft => Strength::Soft,
        },
    }
}

/// The host's place, as members of a group name it. Words before it keep a rack called like a host apart from that host.
fn place(host: &HostEntry, scope: GroupScope) -> String {
    match (scope, host.tags.get(RACK_TAG)) {
        (GroupScope::Rack, Some(rack)) => format!("rack {rack}"),
        (GroupScope::Host, _) | (GroupScope::Rack, None) => format!("host {}", host.id),
        (GroupScope::Zone, _) => format!("zone {}", host.zone),
    }
}

/// The groups met so far, for reads of many instances.
#[derive(Debug, Default)]
pub struct GroupsKnown(HashMap<PlacementGroupId, Option<PlacementGroup>>);

impl GroupsKnown {
    /// What an instance that is there asked for.
    pub async fn request(
        &mut self,
        manager: &Manager,
        project_id: ProjectId,
        spec: &InstanceSpec,
    ) -> Result<Request, ReadError> {
        for id in &spec.placement.groups {
            if !self.0.contains_key(id) {
                self.0.insert(*id, manager.store.placement_group_find(project_id, *id).await?);
            }
        }
        let groups: Vec<PlacementGroup> =
            spec.placement.groups.iter().filter_map(|id| self.0.get(id)?.clone()).collect();
        Ok(request(project_id, spec, &groups))
    }
}

/// After a start: makes known to the inventory what later decisions must know of.
pub async fn resume(manager: &Manager) -> Result<usize, ReadError> {
    let mut page = Page::first(PAGE);
    let mut groups = GroupsKnown::default();
    let mut known = 0;
    loop {
        let rows = manager.store.instance_attached_list(page.clone()).await?;
        for row in &rows {
            let Some(host_id) = row.host_id else { continue };
            let request = groups.request(manager, row.project_id, &row.spec).await?;
            let mut inventory = manager.inventory();
            let numa_node = row.numa_node.and_then(|id| inventory.find(host_id)?.node_at(id));
            inventory.attach(
                row.id,
                host_id,
                &Attach { claim: row.claim(), request: &request, numa_node, backup: None },
            );
        }
        known += rows.len();
        match rows.last() {
            Some(last) if rows.len() == PAGE as usize => page = Page { after: Some(last.id.to_string()), limit: PAGE },
            Some(_) | None => return Ok(known),
        }
    }
}

/// After a create whose outcome was unknown, or that was another's already: memory let its instances go, and those that have a row are
/// made known again.
pub async fn recall(manager: &Manager, ids: &[InstanceId]) {
    let found = async {
        let mut groups = GroupsKnown::default();
        for row in manager.store.instance_load_many(ids).await? {
            let Some(host_id) = row.instance.host_id else { continue };
            let request = groups.request(manager, row.instance.project_id, &row.instance.spec).await?;
            if attached(&request) {
                let mut inventory = manager.inventory();
                let numa_node = row.binding.numa_node.and_then(|id| inventory.find(host_id)?.node_at(id));
                let what = Attach { claim: row.claim, request: &request, numa_node, backup: None };
                inventory.attach(row.instance.id, host_id, &what);
            }
        }
        Ok::<_, ReadError>(())
    };
    if let Err(error) = found.await {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "instances of a create with an unknown outcome can't be read"
        );
    }
}

/// Protected instances whose backup went find another as soon as there is room. Those that have none are counted.
pub async fn keep_backed_up(manager: Arc<Manager>) {
    loop {
        let exposed = manager.inventory().back_up_exposed().len();
        metrics::gauge!("iaas_instances_exposed").set(exposed as f64);
        tokio::select! {
            () = manager.shutdown.cancelled() => return,
            () = tokio::time::sleep(BACK_UP_EVERY) => {}
        }
    }
}
