//! What an instance requires of its host.

pub use api_types::Placement as PlacementView;

use serde::Deserialize;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// Constraints beyond capacity and zone. A host that doesn't meet them isn't chosen; if none does, the request is refused with the reason.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PlacementRequest {
    /// Placement groups that the instance joins, by id or name: at most 8.
    pub groups: Vec<String>,
    /// Tags that the host must have.
    pub required_tags: BTreeMap<String, String>,
    /// Tags that the host must not have.
    pub forbidden_tags: BTreeMap<String, String>,
    /// CPU features that the host must have, named as in `/proc/cpuinfo`: `avx2`.
    pub cpu_features: Vec<String>,
    /// Only on hosts dedicated to the project.
    pub dedicated: bool,
    /// 0 to 255: when capacity is short, the instance may be stopped in favor of others, lower classes first. Without it, it never is.
    pub preemptible_class: Option<u8>,
}
