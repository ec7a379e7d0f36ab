//! Placement groups: instances of a project that stay together or apart.

pub use api_types::PlacementGroup as PlacementGroupView;

use super::names::{GroupPolicyName, GroupScopeName, GroupStrengthName};
use domain::{
    Name,
    placement::{GroupPolicy, GroupScope, GroupStrength},
};
use serde::Deserialize;
use utoipa::ToSchema;

/// A new placement group. It never changes, since its members are placed by it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PlacementGroupCreate {
    #[schema(value_type = String)]
    pub name: Name,
    #[schema(value_type = GroupPolicyName)]
    pub policy: GroupPolicy,
    /// `host` unless given.
    #[serde(default)]
    #[schema(value_type = Option<GroupScopeName>)]
    pub scope: Option<GroupScope>,
    /// `hard` unless given.
    #[serde(default)]
    #[schema(value_type = Option<GroupStrengthName>)]
    pub strength: Option<GroupStrength>,
}
