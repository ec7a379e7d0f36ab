//! Outcomes of operations: written in the transaction of the change, answered again to whoever repeats it.

use super::{StorageService, failure};
use base64::{Engine, engine::general_purpose::STANDARD};
use domain::{
    AuditId, OperationId, Problem, ProjectId, Timestamp,
    event::{AuditEntry, NewEvent},
};
use prost::Message;
use service_kit::context::CallContext;
use store::{AuditInsert, EventInsert, OperationTable, StorageOperationInsert, Unit};

impl StorageService {
    /// The answer that this operation got, if it was done before.
    pub(super) async fn outcome<T: Message + Default>(&self, id: Option<OperationId>) -> Result<Option<T>, Problem> {
        let Some(id) = id else { return Ok(None) };
        let Some(outcome) = self.store.operation_find(OperationTable::Storage, id).await.map_err(failure::of_read)?
        else {
            return Ok(None);
        };
        let decoded = STANDARD.decode(&outcome).ok().and_then(|bytes| T::decode(bytes.as_slice()).ok());
        decoded.map(Some).ok_or_else(|| {
            tracing::error!(operation_id = %id, "the outcome of an operation can't be read");
            Problem::internal()
        })
    }
}

/// Adds the outcome to the change, when the call is an operation.
pub(super) fn record<T: Message>(unit: &mut Unit, context: &CallContext, answer: &T, now: Timestamp) {
    if let Some(id) = context.operation_id {
        let outcome = STANDARD.encode(answer.encode_to_vec());
        unit.push(StorageOperationInsert { id, outcome, created_at: now });
    }
}

/// What a change of an image says of itself to readers of events and of the audit log.
pub(super) struct ImageWords<'a> {
    pub(super) project_id: ProjectId,
    pub(super) image_id: &'a str,
    /// `image.…`
    pub(super) event: &'a str,
    pub(super) message: String,
    pub(super) data: serde_json::Value,
}

pub(super) fn event(context: &CallContext, words: ImageWords<'_>, now: Timestamp) -> EventInsert {
    EventInsert(NewEvent {
        at: now,
        project_id: Some(words.project_id),
        kind: words.event.to_owned(),
        object_kind: "image".to_owned(),
        object_id: words.image_id.to_owned(),
        message: words.message,
        request_id: context.request_id.clone(),
        data: words.data,
    })
}

pub(super) fn audit(
    context: &CallContext,
    project_id: ProjectId,
    action: &str,
    image_id: &str,
    detail: String,
    now: Timestamp,
) -> AuditInsert {
    AuditInsert(AuditEntry {
        id: AuditId::new(),
        at: now,
        principal: context.principal.clone(),
        principal_name: context.principal_name.clone(),
        project_id: Some(project_id),
        action: action.to_owned(),
        object_kind: "image".to_owned(),
        object_id: image_id.to_owned(),
        request_id: context.request_id.clone(),
        outcome: "accepted".to_owned(),
        detail,
    })
}
