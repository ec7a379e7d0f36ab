//! What operators look at: events.

use domain::{ProjectId, Timestamp};
use serde::{Deserialize, Serialize};

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
