//! What happened to an object, for people and for tools.

use domain::{Timestamp, event::Event};
use serde::Serialize;
use utoipa::ToSchema;

#[derive(Debug, Serialize, ToSchema)]
pub struct TimelineItem {
    /// Of the event, as in `/v1/events`.
    pub id: i64,
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// `noun.verb`: `instance.running`.
    pub kind: String,
    /// One sentence.
    pub message: String,
    /// Of the request that caused it; empty when none did.
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
