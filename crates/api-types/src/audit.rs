//! The audit log.

use domain::{AuditId, ProjectId, Timestamp, event};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditEntry {
    #[schema(value_type = String, format = "uuid")]
    pub id: AuditId,
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// `user:<id>`, `api_key:<id>` or `system`.
    pub principal: String,
    /// The name at that time.
    pub principal_name: String,
    #[schema(value_type = Option<String>, format = "uuid")]
    pub project_id: Option<ProjectId>,
    /// `instance.create`, …; for a denied request its method and route.
    pub action: String,
    pub object_kind: String,
    pub object_id: String,
    pub request_id: String,
    /// `accepted`, `denied` or `failed`.
    pub outcome: String,
    pub detail: String,
    /// How often it happened within its minute: repeated refusals are one entry, with the first one's request id.
    #[serde(default = "once")]
    pub count: i64,
}

fn once() -> i64 {
    1
}

impl From<event::AuditEntry> for AuditEntry {
    fn from(entry: event::AuditEntry) -> Self {
        Self {
            id: entry.id,
            at: entry.at,
            principal: entry.principal,
            principal_name: entry.principal_name,
            project_id: entry.project_id,
            action: entry.action,
            object_kind: entry.object_kind,
            object_id: entry.object_id,
            request_id: entry.request_id,
            outcome: entry.outcome,
            detail: entry.detail,
            count: entry.count,
        }
    }
}
