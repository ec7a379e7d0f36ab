//! Events: what happened, to what, and why. Ids are assigned in commit order, so that a reader who remembers the last one it saw
//! misses nothing.

use crate::{ProjectId, Timestamp};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    pub id: i64,
    pub at: Timestamp,
    /// `None` marks an event of the system, which only system admins may read.
    pub project_id: Option<ProjectId>,
    /// `kind.verb`: `instance.create_accepted`, `instance.running`, `image.active`, `host.disconnected`.
    pub kind: String,
    /// `instance`, `image`, `host`, `project`, ….
    pub object_kind: String,
    pub object_id: String,
    /// One sentence for people.
    pub message: String,
    /// The id of the request that caused the event; empty when none did.
    pub request_id: String,
    /// A small JSON object with the facts, such as states and durations.
    pub data: serde_json::Value,
}

/// An event as its writer makes it; the commit assigns the id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewEvent {
    pub at: Timestamp,
    pub project_id: Option<ProjectId>,
    pub kind: String,
    pub object_kind: String,
    pub object_id: String,
    pub message: String,
    pub request_id: String,
    pub data: serde_json::Value,
}

/// An entry of the audit log: who requested what, and with what outcome. The log is append-only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    pub id: crate::AuditId,
    pub at: Timestamp,
    /// `user:<id>` or `api_key:<id>` or `system`.
    pub principal: String,
    /// The principal's name at that time, for people.
    pub principal_name: String,
    pub project_id: Option<ProjectId>,
    /// `instance.create`, ….
    pub action: String,
    pub object_kind: String,
    pub object_id: String,
    pub request_id: String,
    /// `accepted`, `denied` or `failed`.
    pub outcome: String,
    pub detail: String,
    /// How often it happened within its minute: what is repeated is one entry.
    pub count: i64,
}
