//! Answers of operations as they are stored for repeats: base64 of the message that answers the call.

use crate::read_problem;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use domain::{OperationId, Problem, Timestamp};
use prost::Message;
use service_kit::context::CallContext;
use store::{OperationTable, Store, Unit};

/// The stored text of an answer.
#[must_use]
pub fn encode(answer: &impl Message) -> String {
    BASE64_STANDARD.encode(answer.encode_to_vec())
}

/// The answer in a stored text.
pub fn decode<M: Message + Default>(outcome: &str) -> Result<M, Problem> {
    let bytes = BASE64_STANDARD.decode(outcome).map_err(|error| {
        tracing::error!(%error, "a stored outcome is not base64");
        Problem::internal()
    })?;
    M::decode(bytes.as_slice()).map_err(|error| {
        tracing::error!(%error, "a stored outcome can't be decoded");
        Problem::internal()
    })
}

/// Stores the answer with the change, when the call is an operation.
pub fn store_outcome(
    unit: &mut Unit,
    table: OperationTable,
    context: &CallContext,
    answer: &impl Message,
    now: Timestamp,
) {
    if let Some(id) = context.operation_id {
        unit.push(table.insert(id, encode(answer), now));
    }
}

/// The answer that the operation got, if it was committed.
pub async fn find_outcome<M: Message + Default>(
    store: &Store,
    table: OperationTable,
    id: OperationId,
) -> Result<Option<M>, Problem> {
    let outcome = store.operation_find(table, id).await.map_err(read_problem)?;
    outcome.map(|outcome| decode(&outcome)).transpose()
}
