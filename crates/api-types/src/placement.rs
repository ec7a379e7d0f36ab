//! Where instances may be placed, groups, and recorded decisions.

use crate::names::{GroupPolicyName, GroupScopeName, GroupStrengthName, PinningName, PlacementOutcomeName};
use domain::{
    InstanceId, Name, PlacementGroupId, PlacementRecordId, ProjectId, Timestamp,
    explain::PlacementRecord,
    flavor::Pinning,
    placement::{self, GroupPolicy, GroupScope, GroupStrength, PlacementConstraints, PlacementOutcome},
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Placement {
    #[schema(value_type = Vec<String>)]
    pub group_ids: Vec<PlacementGroupId>,
    pub required_tags: BTreeMap<String, String>,
    pub forbidden_tags: BTreeMap<String, String>,
    pub cpu_features: Vec<String>,
    pub dedicated: bool,
    pub preemptible_class: Option<u8>,
    /// How soon it should be back after the loss of its host, seconds.
    pub rto_seconds: Option<u32>,
    /// The pinning of its flavor.
    #[schema(value_type = PinningName)]
    pub pinning: Pinning,
}

impl From<PlacementConstraints> for Placement {
    fn from(constraints: PlacementConstraints) -> Self {
        let PlacementConstraints {
            required_tags,
            forbidden_tags,
            cpu_features,
            groups,
            dedicated,
            preemptible_class,
            rto_seconds,
            pinning,
        } = constraints;
        Self {
            group_ids: groups,
            required_tags,
            forbidden_tags,
            cpu_features,
            dedicated,
            preemptible_class,
            rto_seconds,
            pinning,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlacementGroup {
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

impl From<placement::PlacementGroup> for PlacementGroup {
    fn from(group: placement::PlacementGroup) -> Self {
        let placement::PlacementGroup { id, project_id, name, policy, scope, strength, generation, created_at } = group;
        Self { id, project_id, name, policy, scope, strength, instance_ids: None, generation, created_at }
    }
}

/// A new placement group. It never changes, since its members are placed by it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PlacementGroupCreate {
    pub name: String,
    #[schema(value_type = GroupPolicyName)]
    pub policy: GroupPolicy,
    /// `host` unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<GroupScopeName>)]
    pub scope: Option<GroupScope>,
    /// `hard` unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<GroupStrengthName>)]
    pub strength: Option<GroupStrength>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = PlacementRecord)]
pub struct KeptPlacement {
    #[schema(value_type = String, format = "uuid")]
    pub id: PlacementRecordId,
    #[schema(value_type = String, format = "uuid")]
    pub project_id: ProjectId,
    /// The instance's id; of a refused create the id that it would have had.
    #[schema(value_type = String, format = "uuid")]
    pub instance_id: InstanceId,
    #[schema(value_type = String)]
    pub instance_name: Name,
    #[schema(value_type = PlacementOutcomeName)]
    pub outcome: PlacementOutcome,
    /// When it was refused, or when its instance was deleted.
    #[schema(value_type = String, format = DateTime)]
    pub kept_at: Timestamp,
    /// Hosts rejected per filter, the best candidates, the nearest fit; tenants see no hosts.
    #[schema(value_type = Object)]
    pub placement: PlacementRecord,
}

/// Constraints beyond capacity and zone. A host that doesn't meet them isn't chosen; if none does, the request is refused with the reason.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PlacementRequest {
    /// Placement groups that the instance joins, by id or name: at most 8.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// Tags that the host must have.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub required_tags: BTreeMap<String, String>,
    /// Tags that the host must not have.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub forbidden_tags: BTreeMap<String, String>,
    /// CPU features that the host must have, named as in `/proc/cpuinfo`: `avx2`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cpu_features: Vec<String>,
    /// Only on hosts dedicated to the project.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dedicated: bool,
    /// 0 to 255: when capacity is short, the instance may be stopped in favor of others, lower classes first. Without it, it never is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preemptible_class: Option<u8>,
    /// How soon it should be back after the loss of its host, seconds: 1 to 86,400. When capacity is short, the most urgent gets it. Without it: 300.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rto_seconds: Option<u32>,
}

impl PlacementRequest {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
