//! Where an instance may be placed, and groups of instances that are placed together or apart.

use crate::{
    InstanceId, Name, PlacementGroupId, PlacementRecordId, ProjectId, Timestamp, explain::PlacementRecord,
    flavor::Pinning,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

string_enum! {
    pub enum GroupPolicy {
        /// A member goes where another member is; the first may go anywhere.
        Affinity = "affinity",
        /// A member goes where no other member is.
        AntiAffinity = "anti_affinity",
    }
}

string_enum! {
    /// What counts as one place.
    pub enum GroupScope {
        Host = "host",
        /// A rack is all hosts with the same value of the tag `rack`; a host without the tag is a rack of its own.
        Rack = "rack",
        Zone = "zone",
    }
}

string_enum! {
    pub enum GroupStrength {
        /// An instance that can't be placed by the policy isn't placed at all.
        Hard = "hard",
        /// The policy is met if capacity allows, and ignored otherwise.
        Soft = "soft",
    }
}

string_enum! {
    /// What happens to a request for several instances when not all of them can be placed.
    pub enum Fill {
        AllOrNothing = "all_or_nothing",
        AsManyAsFit = "as_many_as_fit",
    }
}

string_enum! {
    /// The outcome of a placement decision.
    pub enum PlacementOutcome {
        Placed = "placed",
        Refused = "refused",
    }
}

/// A placement decision that outlives its instance, or that refused to place one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptPlacement {
    pub id: PlacementRecordId,
    pub project_id: ProjectId,
    /// After a refused create this is the id that the instance would have had.
    pub instance_id: InstanceId,
    pub instance_name: Name,
    pub outcome: PlacementOutcome,
    pub record: PlacementRecord,
    pub kept_at: Timestamp,
}

/// Instances of a project that are placed together or apart. The policy never changes, since members were placed by it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacementGroup {
    pub id: PlacementGroupId,
    pub project_id: ProjectId,
    pub name: Name,
    pub policy: GroupPolicy,
    pub scope: GroupScope,
    pub strength: GroupStrength,
    pub generation: i64,
    pub created_at: Timestamp,
}

/// What an instance requires of its host, beyond capacity and zone.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PlacementConstraints {
    /// Tags that the host must have.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub required_tags: BTreeMap<String, String>,
    /// Tags that the host must not have.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub forbidden_tags: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cpu_features: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<PlacementGroupId>,
    /// The instance may only be on hosts that are dedicated to its project.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dedicated: bool,
    /// The instance may be preempted when capacity is short, lower classes first; `None` means never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preemptible_class: Option<u8>,
    /// How soon the instance should be back after the loss of its host, seconds; the most urgent gets its place first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rto_seconds: Option<u32>,
    /// The pinning comes from the flavor.
    #[serde(skip_serializing_if = "Pinning::none")]
    pub pinning: Pinning,
}

impl PlacementConstraints {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enums_read_back_and_no_constraints_are_an_empty_document() {
        for policy in GroupPolicy::ALL {
            assert_eq!(GroupPolicy::parse(policy.as_str()), Some(policy));
        }
        assert_eq!(serde_json::to_string(&PlacementConstraints::default()).expect("serializes"), "{}");
        let constraints: PlacementConstraints = serde_json::from_str(r#"{"preemptible_class":3}"#).expect("reads");
        assert_eq!(constraints, PlacementConstraints { preemptible_class: Some(3), ..PlacementConstraints::default() });
    }
}
