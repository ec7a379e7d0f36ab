//! What an instance wishes of its host, and groups of instances that keep together or apart.

use crate::{
    InstanceId, Name, PlacementGroupId, PlacementRecordId, ProjectId, Timestamp, explain::PlacementRecord,
    flavor::Pinning,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

macro_rules! string_enum {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($(#[$vmeta])* $variant),+ }

        impl $name {
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }

            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|one| one.as_str() == text)
            }
        }
    };
}

string_enum! {
    GroupPolicy {
        /// Where another member is (anywhere, for the first).
        Affinity = "affinity",
        /// The host is one where no other member is.
        AntiAffinity = "anti_affinity",
    }
}

string_enum! {
    /// What counts as the same place.
    GroupScope {
        Host = "host",
        /// Hosts with the same tag `rack`. A host without one is a rack of its own.
        Rack = "rack",
        Zone = "zone",
    }
}

string_enum! {
    GroupStrength {
        /// The group is kept, or the instance is refused.
        Hard = "hard",
        /// If there is room.
        Soft = "soft",
    }
}

string_enum! {
    /// What is made of several when not all have a place.
    Fill {
        AllOrNothing = "all_or_nothing",
        AsManyAsFit = "as_many_as_fit",
    }
}

string_enum! {
    /// What a decision came to.
    PlacementOutcome {
        Placed = "placed",
        Refused = "refused",
    }
}

/// A decision that is kept beyond its instance, or that made none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptPlacement {
    pub id: PlacementRecordId,
    pub project_id: ProjectId,
    /// Of a refused create: the id that it would have had.
    pub instance_id: InstanceId,
    pub instance_name: Name,
    pub outcome: PlacementOutcome,
    pub record: PlacementRecord,
    pub kept_at: Timestamp,
}

/// Instances of a project that keep together or apart. What it says never changes: members were placed by it.
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

/// What an instance wishes of its host, beyond room and zone.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PlacementConstraints {
    /// Tags that the host must have.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub required_tags: BTreeMap<String, String>,
    /// Tags that it must not have.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub forbidden_tags: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cpu_features: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<PlacementGroupId>,
    /// Only on hosts dedicated to its project.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dedicated: bool,
    /// It gives way to others when there is no room; lower classes first. None: it never does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preemptible_class: Option<u8>,
    /// Its flavor's.
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
    fn words_read_back_and_no_wishes_are_an_empty_document() {
        for policy in GroupPolicy::ALL {
            assert_eq!(GroupPolicy::parse(policy.as_str()), Some(*policy));
        }
        assert_eq!(serde_json::to_string(&PlacementConstraints::default()).expect("serializes"), "{}");
        let wishes: PlacementConstraints = serde_json::from_str(r#"{"preemptible_class":3}"#).expect("reads");
        assert_eq!(wishes, PlacementConstraints { preemptible_class: Some(3), ..PlacementConstraints::default() });
    }
}
