//! What an instance wishes of its host.

use super::names::PinningName;
use domain::{PlacementGroupId, flavor::Pinning, placement::PlacementConstraints};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// Wishes beyond room and zone. A host that doesn't meet them isn't taken; if none does, the request is refused with the reason.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PlacementRequest {
    /// Placement groups to be in, by id or name: at most 8.
    pub groups: Vec<String>,
    /// Tags that the host must have.
    pub required_tags: BTreeMap<String, String>,
    /// Tags that it must not have.
    pub forbidden_tags: BTreeMap<String, String>,
    /// As in `/proc/cpuinfo`: `avx2`.
    pub cpu_features: Vec<String>,
    /// Only on hosts dedicated to the project.
    pub dedicated: bool,
    /// 0 to 255: it gives way to others when there is no room, lower classes first. Without it, it never does.
    pub preemptible_class: Option<u8>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Placement)]
pub struct PlacementView {
    #[schema(value_type = Vec<String>)]
    pub group_ids: Vec<PlacementGroupId>,
    pub required_tags: BTreeMap<String, String>,
    pub forbidden_tags: BTreeMap<String, String>,
    pub cpu_features: Vec<String>,
    pub dedicated: bool,
    pub preemptible_class: Option<u8>,
    /// Its flavor's.
    #[schema(value_type = PinningName)]
    pub pinning: Pinning,
}

impl From<PlacementConstraints> for PlacementView {
    fn from(wishes: PlacementConstraints) -> Self {
        let PlacementConstraints {
            required_tags,
            forbidden_tags,
            cpu_features,
            groups,
            dedicated,
            preemptible_class,
            pinning,
        } = wishes;
        Self { group_ids: groups, required_tags, forbidden_tags, cpu_features, dedicated, preemptible_class, pinning }
    }
}
