//! Placement groups: instances of a project that keep together or apart.

pub use api_types::PlacementGroup as PlacementGroupView;

use super::names::{GroupPolicyName, GroupScopeName, GroupStrengthName};
use domain::{
    Name,
    placement::{GroupPolicy, GroupScope, GroupStrength},
};
use serde::Deserialize;
use utoipa::ToSchema;

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
