//! What happened to an object, for people and for tools.

use domain::{Timestamp, event::Event};
use serde::Serialize;
use utoipa::ToSchema;

#[derive(Debug, Serialize, ToSchema)]
pub struct TimelineItem {
    /// The event's id, as in `/v1/events`.
    pub id: i64,
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Object kind and what happened: `instance.running`.
    pub kind: String,
    /// One sentence.
    pub message: String,
    /// The id of the request that caused it; empty when none did.
    pub request_id: String,
    /// The facts: states from and to, durations.
    #[schema(value_type = Object)]
    pub data: serde_json::Value,
}

impl From<Event> for TimelineItem {
    fn from(event: Event) -> Self {
        let Event { id, at, kind, message, request_id, data, .. } = event;
        Self { id, at, kind, message, request_id, data }
    }
}
