//! What operators look at: hosts and events.

use super::Size;
use domain::{HostId, HostTokenId, ProjectId, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Host {
    pub id: HostId,
    pub name: String,
    #[serde(default)]
    pub zone: String,
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// `up` or `disconnected`.
    pub state: String,
    pub cordoned: bool,
    #[serde(default)]
    pub cordon_reason: String,
    #[serde(default)]
    pub draining: bool,
    #[serde(default)]
    pub dedicated_to: Option<ProjectId>,
    pub capacity: Size,
    /// What its agent says instances may take, before reserve and overcommit.
    #[serde(default)]
    pub offered: Size,
    #[serde(default)]
    pub reserved: Size,
    pub used: Size,
    /// Claims that stay although there is less room than they take.
    #[serde(default)]
    pub beyond_capacity: Size,
    #[serde(default)]
    pub cpu_overcommit: f64,
    #[serde(default)]
    pub memory_overcommit: f64,
    #[serde(default)]
    pub disk_overcommit: f64,
    /// The CPU that its guests see.
    #[serde(default)]
    pub cpu_baseline: Option<String>,
    /// What its agent says of the machine.
    #[serde(default)]
    pub facts: serde_json::Value,
    #[serde(default)]
    pub generation: i64,
    #[serde(default)]
    pub registered_at: Option<Timestamp>,
    #[serde(default)]
    pub state_changed_at: Option<Timestamp>,
    /// Whatever else the server says.
    #[serde(flatten)]
    pub other: serde_json::Map<String, serde_json::Value>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct HostChange {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cordoned: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cordon_reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub draining: Option<bool>,
    /// A project, or nothing (`""`) for all projects again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dedicated_to: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_overcommit: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_overcommit: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_overcommit: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reserved: Option<HostReserve>,
}

/// What is kept from instances. What isn't named stays.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HostReserve {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vcpus: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_gib: Option<u64>,
}

/// A token that admits a host, without its secret.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HostToken {
    pub id: HostTokenId,
    #[serde(default)]
    pub name: Option<String>,
    #[serde(default)]
    pub zone: Option<String>,
    /// `unused`, `used` or `expired`.
    pub state: String,
    #[serde(default)]
    pub host_id: Option<HostId>,
    #[serde(default)]
    pub redeemed_at: Option<Timestamp>,
    #[serde(default)]
    pub created_by: String,
    #[serde(default)]
    pub created_at: Option<Timestamp>,
    pub expires_at: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct HostTokenCreate {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl_secs: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HostTokenCreated {
    pub id: HostTokenId,
    /// All that a host needs, in one line. Shown once.
    pub token: String,
    pub expires_at: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    pub id: i64,
    pub at: Timestamp,
    #[serde(default)]
    pub project_id: Option<ProjectId>,
    /// `noun.verb`.
    pub kind: String,
    #[serde(default)]
    pub object_kind: String,
    #[serde(default)]
    pub object_id: String,
    #[serde(default)]
    pub message: String,
    #[serde(default)]
    pub request_id: String,
    #[serde(default)]
    pub data: serde_json::Value,
}
