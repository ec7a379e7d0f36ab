//! What happened, to which object, by whom: said once, written as the event and as the line of the audit log.

use domain::{
    AuditId, ProjectId, Timestamp,
    event::{AuditEntry, NewEvent},
};
use service_kit::context::CallContext;
use std::{borrow::Cow, fmt::Display};
use store::{AuditInsert, EventInsert, Unit};

/// An accepted change as people are told of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Activity {
    /// `None`: the object belongs to no project.
    pub project_id: Option<ProjectId>,
    /// `instance`, `host_token`.
    pub object_kind: &'static str,
    pub object_id: String,
    /// What the audit log calls it: `image.create`.
    pub action: Cow<'static, str>,
    /// The event's kind: `image.queued`.
    pub event: Cow<'static, str>,
    /// One sentence for people.
    pub message: String,
    /// What the audit log says instead of the message.
    pub detail: Option<String>,
    /// A small JSON object with the facts, for the event's readers.
    pub data: serde_json::Value,
}

/// What came of a request, in the audit log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuditOutcome {
    Accepted,
    Denied,
    Failed,
}

impl AuditOutcome {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Denied => "denied",
            Self::Failed => "failed",
        }
    }
}

impl Activity {
    #[must_use]
    pub fn new(
        object_kind: &'static str,
        object_id: impl Display,
        action: impl Into<Cow<'static, str>>,
        event: impl Into<Cow<'static, str>>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            project_id: None,
            object_kind,
            object_id: object_id.to_string(),
            action: action.into(),
            event: event.into(),
            message: message.into(),
            detail: None,
            data: serde_json::Value::Null,
        }
    }

    /// A change that was accepted and takes effect later: the action is `instance.start`, the event `instance.start_accepted`.
    #[must_use]
    pub fn accepted(
        object_kind: &'static str,
        object_id: impl Display,
        verb: &str,
        message: impl Into<String>,
    ) -> Self {
        let (action, event) = (format!("{object_kind}.{verb}"), format!("{object_kind}.{verb}_accepted"));
        Self::new(object_kind, object_id, action, event, message)
    }

    #[must_use]
    pub fn in_project(self, project_id: impl Into<Option<ProjectId>>) -> Self {
        Self { project_id: project_id.into(), ..self }
    }

    #[must_use]
    pub fn with_detail(self, detail: impl Into<String>) -> Self {
        Self { detail: Some(detail.into()), ..self }
    }

    #[must_use]
    pub fn with_data(self, data: serde_json::Value) -> Self {
        Self { data, ..self }
    }

    /// Adds the event and the audit log's line to the change.
    pub fn record(self, unit: &mut Unit, context: &CallContext, now: Timestamp) {
        unit.push(AuditInsert(self.audit_entry(context, AuditOutcome::Accepted, now)));
        unit.push(EventInsert(self.into_event(context, now)));
    }

    /// The event alone: for what nobody requested.
    #[must_use]
    pub fn into_event(self, context: &CallContext, now: Timestamp) -> NewEvent {
        NewEvent {
            at: now,
            project_id: self.project_id,
            kind: self.event.into_owned(),
            object_kind: self.object_kind.to_owned(),
            object_id: self.object_id,
            message: self.message,
            request_id: context.request_id.clone(),
            data: self.data,
        }
    }

    /// The line of the audit log alone: for what was refused, and for what changes no object.
    #[must_use]
    pub fn audit_entry(&self, context: &CallContext, outcome: AuditOutcome, now: Timestamp) -> AuditEntry {
        AuditEntry {
            id: AuditId::new(),
            at: now,
            principal: context.principal.clone(),
            principal_name: context.principal_name.clone(),
            project_id: self.project_id,
            action: self.action.clone().into_owned(),
            object_kind: self.object_kind.to_owned(),
            object_id: self.object_id.clone(),
            request_id: context.request_id.clone(),
            outcome: outcome.as_str().to_owned(),
            detail: self.detail.as_ref().unwrap_or(&self.message).clone(),
            count: 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::Op;

    #[test]
    fn an_activity_is_one_event_and_one_line_of_the_audit_log() {
        let context = CallContext { request_id: "req-1".into(), principal: "user:x".into(), ..CallContext::default() };
        let mut unit = Unit::new();
        Activity::accepted("host", 7, "drain", "host a is drained").record(&mut unit, &context, Timestamp(5));
        let [Op::AuditInsert(AuditInsert(line)), Op::EventInsert(EventInsert(event))] = unit.ops() else {
            panic!("{unit:?}")
        };
        assert_eq!((line.action.as_str(), line.outcome.as_str()), ("host.drain", "accepted"));
        assert_eq!((line.detail.as_str(), line.principal.as_str()), ("host a is drained", "user:x"));
        assert_eq!((event.kind.as_str(), event.object_id.as_str()), ("host.drain_accepted", "7"));
        assert_eq!((&event.message, &event.request_id, event.at), (&line.detail, &line.request_id, line.at));
    }
}
