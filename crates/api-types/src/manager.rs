//! The processes of the managers' roles.

use domain::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a process is in its role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ManagerState {
    Leader,
    /// It waits to lead.
    Standby,
    /// It led last, and nobody does now.
    Gone,
}

impl ManagerState {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Leader => "leader",
            Self::Standby => "standby",
            Self::Gone => "gone",
        }
    }
}

/// A process that leads a role of the control plane, or waits to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ManagerProcess {
    /// Drawn when the process starts.
    pub id: String,
    /// `cluster-manager`, `resource-manager` or `storage-manager`.
    pub role: String,
    pub state: ManagerState,
    /// The machine on which it runs.
    pub host: String,
    pub pid: u32,
    /// The URL by which others reach it; empty inside one process.
    pub address: String,
    /// Of a leader, or of the one that led last: the term under which it does. Each takeover begins a higher one.
    pub term: Option<i64>,
    /// Since when it leads, or waits.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
}
