//! What an instance wishes of its host.

pub use api_types::Placement as PlacementView;

use serde::Deserialize;
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
