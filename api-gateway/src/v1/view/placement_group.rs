//! Placement groups: instances of a project that keep together or apart.

use super::names::{GroupPolicyName, GroupScopeName, GroupStrengthName};
use domain::{
    InstanceId, Name, PlacementGroupId, ProjectId, Timestamp,
    placement::{GroupPolicy, GroupScope, GroupStrength, PlacementGroup},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PlacementGroup)]
pub struct PlacementGroupView {
    #[schema(value_type = String, format = "uuid")]
    pub id: PlacementGroupId,
    #[schema(value_type = String, format = "uuid")]
    pub project_id: ProjectId,
    #[schema(value_type = String)]
    pub name: Name,
    #[schema(value_type = GroupPolicyName)]
    pub policy: GroupPolicy,
    /// What counts as the same place.
    #[schema(value_type = GroupScopeName)]
    pub scope: GroupScope,
    #[schema(value_type = GroupStrengthName)]
    pub strength: GroupStrength,
    /// The instances in it, by id: the first 1000. In lists: null.
    #[schema(value_type = Option<Vec<String>>)]
    pub instance_ids: Option<Vec<InstanceId>>,
    pub generation: i64,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
}

impl From<PlacementGroup> for PlacementGroupView {
    fn from(group: PlacementGroup) -> Self {
        let PlacementGroup { id, project_id, name, policy, scope, strength, generation, created_at } = group;
        Self { id, project_id, name, policy, scope, strength, instance_ids: None, generation, created_at }
    }
}

/// It never changes: its members are placed by it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PlacementGroupCreate {
    #[schema(value_type = String)]
    pub name: Name,
    #[schema(value_type = GroupPolicyName)]
    pub policy: GroupPolicy,
    /// `host`, unless said.
    #[serde(default)]
    #[schema(value_type = Option<GroupScopeName>)]
    pub scope: Option<GroupScope>,
    /// `hard`, unless said.
    #[serde(default)]
    #[schema(value_type = Option<GroupStrengthName>)]
    pub strength: Option<GroupStrength>,
}
