//! What an instance's spec and its placement groups demand of a decision, and what a group's member leaves in the store.
//!
//! The inventory decides; the store is the judge of hard groups, so that no number of managers or of parallel creates can break one:
//! of an anti-affinity group no two members have one place (a unique constraint), and an affinity group's anchor names the place of
//! all. A refusal there is a conflict like any other: the create looks for another place.

use super::PlacementState;
use crate::scheduler::{GroupConstraint, HostEntry, Inventory, Placed, Request, host::RACK_TAG};
use domain::{
    HostId, InstanceId, PlacementGroupId, Problem, ProjectId,
    flavor::{Pinning, Size},
    instance::{InstanceSpec, OnHostLoss},
    placement::{GroupPolicy, GroupScope, GroupStrength, PlacementGroup},
};
use operation::read_problem;
use std::collections::HashMap;
use store::{
    Page, PlacementAnchorJoin, PlacementAnchorLeave, PlacementAnchorMove, PlacementMemberInsert, PlacementMemberMove,
    ReadError, Store, Unit,
};

const PAGE: u32 = 1000;

/// The constraints of a spec with its groups resolved: the request for the scheduler, and the groups in it.
#[derive(Debug)]
pub struct ResolvedConstraints {
    pub request: Request,
    groups: Vec<PlacementGroup>,
}

impl ResolvedConstraints {
    pub async fn load(store: &Store, project_id: ProjectId, spec: &InstanceSpec) -> Result<Self, Problem> {
        let groups = futures::future::try_join_all(spec.placement.groups.iter().map(async |id| {
            let found = store.placement_group_find(project_id, *id).await.map_err(read_problem)?;
            found.ok_or_else(|| Problem::not_found("placement group", id))
        }))
        .await?;
        Ok(Self { request: request(project_id, spec, &groups), groups })
    }

    /// Adds to a create's unit that its instances join their groups where they are placed.
    pub fn join_groups(&self, inventory: &Inventory, placed: &[(InstanceId, Placed)], unit: &mut Unit) {
        for group in &self.groups {
            let hard = group.strength == GroupStrength::Hard;
            let mut anchor: Option<PlacementAnchorJoin> = None;
            for (instance_id, at) in placed {
                let Some(place) = inventory.find(at.host_id).map(|host| place_name(host, group.scope)) else {
                    continue;
                };
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

impl ResolvedConstraints {
    /// Adds to the unit that gives an instance to another host that its groups have it there. An affinity group's anchor goes along.
    pub fn move_groups(
        &self,
        inventory: &Inventory,
        instance_id: InstanceId,
        from: HostId,
        placed: &Placed,
        unit: &mut Unit,
    ) {
        for group in &self.groups {
            let place = |host_id| inventory.find(host_id).map(|host| place_name(host, group.scope));
            let (Some(from_place), Some(place)) = (place(from), place(placed.host_id)) else { continue };
            let hard = group.strength == GroupStrength::Hard;
            if hard && group.policy == GroupPolicy::Affinity {
                unit.push(PlacementAnchorMove { group_id: group.id, from_place, place: place.clone() });
            }
            let exclusive = hard && group.policy == GroupPolicy::AntiAffinity;
            unit.push(PlacementMemberMove {
                group_id: group.id,
                instance_id,
                exclusive_place: exclusive.then(|| place.clone()),
                place,
            });
        }
    }
}

/// Adds to the unit that ends an instance that it leaves the counts of anchors; its memberships go with its row.
pub fn leave_groups(spec: &InstanceSpec, unit: &mut Unit) {
    unit.extend(spec.placement.groups.iter().map(|group_id| PlacementAnchorLeave { group_id: *group_id }));
}

fn request(project_id: ProjectId, spec: &InstanceSpec, groups: &[PlacementGroup]) -> Request {
    let placement = &spec.placement;
    let constraint = |group: &PlacementGroup| GroupConstraint {
        group: group.id,
        policy: group.policy,
        scope: group.scope,
        strength: group.strength,
    };
    Request {
        size: spec.size_on_host(),
        pool: spec.uses_shared_pool().then(String::new),
        zone: spec.zone.clone(),
        tags: placement.required_tags.clone(),
        forbidden_tags: placement.forbidden_tags.clone(),
        cpu_features: placement.cpu_features.clone(),
        project: Some(project_id),
        dedicated: placement.dedicated,
        groups: groups.iter().map(constraint).collect(),
        protected: spec.on_host_loss == OnHostLoss::Restart,
        preemptible: placement.preemptible_class,
        pinned: placement.pinning == Pinning::Numa,
        ..Request::default()
    }
}

/// The host's place, as a group's members name it. The scope comes first, since a rack may be called like a host.
fn place_name(host: &HostEntry, scope: GroupScope) -> String {
    match (scope, host.tags.get(RACK_TAG)) {
        (GroupScope::Rack, Some(rack)) => format!("rack {rack}"),
        (GroupScope::Host, _) | (GroupScope::Rack, None) => format!("host {}", host.id),
        (GroupScope::Zone, _) => format!("zone {}", host.zone),
    }
}

/// The groups read so far, where many instances are read.
#[derive(Debug, Default)]
pub struct GroupCache(HashMap<PlacementGroupId, Option<PlacementGroup>>);

impl GroupCache {
    /// The request of an existing instance.
    pub async fn request(
        &mut self,
        store: &Store,
        project_id: ProjectId,
        spec: &InstanceSpec,
    ) -> Result<Request, ReadError> {
        for id in &spec.placement.groups {
            if !self.0.contains_key(id) {
                self.0.insert(*id, store.placement_group_find(project_id, *id).await?);
            }
        }
        let groups: Vec<PlacementGroup> =
            spec.placement.groups.iter().filter_map(|id| self.0.get(id)?.clone()).collect();
        Ok(request(project_id, spec, &groups))
    }
}

/// Adds all instances that later decisions depend on to the inventory after a start. Answers how many these are.
pub async fn load_placed_instances(store: &Store, state: &PlacementState) -> Result<usize, ReadError> {
    let mut page = Page::first(PAGE);
    let mut groups = GroupCache::default();
    let mut loaded = 0;
    loop {
        let rows = store.instance_attached_list(page.clone()).await?;
        for row in &rows {
            let Some(host_id) = row.host_id else { continue };
            let request = groups.request(store, row.project_id, &row.spec).await?;
            add_instance(state, (row.id, host_id), row.claim(), row.numa_node, &request);
        }
        loaded += rows.len();
        match rows.last() {
            Some(last) if rows.len() == PAGE as usize => page = Page { after: Some(last.id.to_string()), limit: PAGE },
            Some(_) | None => return Ok(loaded),
        }
    }
}

/// Adds the instances of a create to the inventory again, as far as they have rows. Memory has released them, because the create's outcome is
/// unknown, or it had been committed before.
pub async fn restore_placed_instances(store: &Store, state: &PlacementState, ids: &[InstanceId]) {
    let read = async {
        let mut groups = GroupCache::default();
        for row in store.instance_load_many(ids).await? {
            let Some(host_id) = row.instance.host_id else { continue };
            let request = groups.request(store, row.instance.project_id, &row.instance.spec).await?;
            if request.tracked() {
                add_instance(state, (row.instance.id, host_id), row.claim, row.binding.numa_node, &request);
            }
        }
        Ok::<_, ReadError>(())
    };
    if let Err(error) = read.await {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "instances of a create with an unknown outcome can't be read"
        );
    }
}

/// Adds one instance; `numa_node` is the host's own number for the node.
fn add_instance(
    state: &PlacementState,
    (id, host_id): (InstanceId, HostId),
    claim: Size,
    numa_node: Option<u32>,
    request: &Request,
) {
    let mut inventory = state.inventory();
    let numa_node = numa_node.and_then(|node| inventory.find(host_id)?.node_at(node));
    inventory.add_instance(id, &Placed { numa_node, ..Placed::of(host_id, claim) }, request);
}
