//! Idempotency keys: the same request with the same key does its work once and gets the same answer.
//!
//! **Problem.** A client that lost the answer repeats the request, perhaps while the first one still runs, perhaps at another gateway,
//! perhaps after a crash. **Rejected:** storing the answer after the work (a crash between the two does the work twice), and a lock in
//! the database (a crash leaves it).
//!
//! What holds instead:
//! 1. Before another service is called, one commit says what the key means: the request's hash, an operation id and the ids of the
//!    existing objects. A repeat means the same operation on the same objects, whoever runs it. The ids of new objects follow from the operation's
//!    (`derived_id`): a request for many objects leaves no more behind than one for none.
//! 2. The owner of the object inserts the operation id, unique, with the outcome, in the transaction of the change. So the change
//!    happens once, and its first answer can be found by the operation id for 24 hours.
//! 3. For the gateway's own objects both are one transaction.
//! 4. Repeats at once in one process wait for the first; in two processes the unique rows decide.
//!
//! A request that failed left no outcome: its repeat runs again, as the same operation. Keys are kept for a day, and a principal has so many of
//! them at most ([`KeyCounts`]).

use crate::{
    app::{App, intent::Intent},
    auth::{caller::Caller, recent::Recent},
    failure::ApiError,
};
use domain::{ErrorKind, OperationId, Problem, Timestamp};
use operation::Turn;
use parking_lot::Mutex;
use service_kit::context::CallContext;
use sha2::{Digest, Sha256};
use std::time::{Duration, Instant};
use store::{CommitError, Constraint, IdempotencyInsert, OperationTable, Unit};
use uuid::Uuid;

/// A principal and the key that they chose.
pub(crate) type KeyName = (String, String);

/// The operation and the objects that a key means.
pub(crate) struct Known {
    pub operation_id: OperationId,
    pub ids: Vec<Uuid>,
}

/// What an earlier request with the key meant, if there was one; a different request under the key is refused.
pub(crate) async fn find(app: &App, principal: &str, key: &str, request_hash: &str) -> Result<Option<Known>, ApiError> {
    let Some(row) = app.store().idempotency_find(principal, key).await? else { return Ok(None) };
    if row.body_hash != app.auth().keyring.master().mark(request_hash) {
        return Err(operation::key_reused().into());
    }
    let ids = row.object_ids.iter().map(|text| text.parse()).collect::<Result<Vec<Uuid>, _>>();
    let ids = ids.map_err(|error| ApiError::internal("an idempotency row holds no ids", &error))?;
    Ok(Some(Known { operation_id: row.operation_id, ids }))
}

pub(crate) fn row(
    app: &App,
    principal: &str,
    intent: &Intent,
    operation_id: OperationId,
    ids: &[Uuid],
) -> Option<IdempotencyInsert> {
    let key = intent.key.as_ref()?;
    Some(IdempotencyInsert {
        principal: principal.to_owned(),
        idem_key: key.key.clone(),
        body_hash: app.auth().keyring.master().mark(&key.request_hash),
        operation_id,
        object_ids: ids.iter().map(Uuid::to_string).collect(),
        created_at: Timestamp::now(),
    })
}

/// The id of an operation's `index`th new object: a UUIDv7 of the operation's time, in the order of the indexes. The same for every repeat.
fn derived_id(operation_id: OperationId, index: usize) -> Uuid {
    let operation = operation_id.0.into_bytes();
    let digest = Sha256::new().chain_update(operation).chain_update((index as u64).to_be_bytes()).finalize();
    let mut bytes = [0u8; 16];
    bytes[..6].copy_from_slice(&operation[..6]);
    bytes[8..].copy_from_slice(&digest[..8]);
    let [.., high, low] = (index as u64).to_be_bytes();
    (bytes[6], bytes[7]) = (0x70 | (high & 0x0f), low);
    bytes[8] = 0x80 | (bytes[8] & 0x3f);
    Uuid::from_bytes(bytes)
}

/// Principals whose keys are counted here at a time.
const COUNTED_MAX: usize = 10_000;
/// How old a count may be: of other gateways' keys, and of those that ended.
const COUNT_KEPT: Duration = Duration::from_secs(60);

/// How many keys each principal has, so that none fills the table.
pub struct KeyCounts {
    /// 0: no bound.
    most: u32,
    counts: Mutex<Recent<String, (Instant, u64)>>,
}

impl KeyCounts {
    #[must_use]
    pub fn new(most: u32) -> Self {
        Self { most, counts: Mutex::new(Recent::new(COUNTED_MAX)) }
    }

    /// Counts one more key of the caller, or refuses it. System admins have no bound.
    pub(crate) async fn admit(&self, app: &App, caller: &Caller) -> Result<(), ApiError> {
        if self.most == 0 || caller.identity.system_admin {
            return Ok(());
        }
        let principal = &caller.identity.label;
        let known = self.counts.lock().get(principal).filter(|(at, _)| at.elapsed() < COUNT_KEPT).copied();
        let (at, count) = match known {
            Some(known) => known,
            None => (Instant::now(), app.store().idempotency_count(principal, self.most).await?),
        };
        if count >= u64::from(self.most) {
            self.counts.lock().put(principal.clone(), (at, count));
            let detail = format!("you have used {} idempotency keys within a day, the most that are kept", self.most);
            let mut problem = Problem::new(ErrorKind::RateLimited, "too_many_keys", detail)
                .with_hint("leave the header Idempotency-Key out, or ask an administrator to raise api.idempotency_keys_per_principal");
            problem.retry_after_secs = Some(600);
            return Err(problem.into());
        }
        self.counts.lock().put(principal.clone(), (at, count + 1));
        Ok(())
    }
}

/// The right to run a mutation of an object that another service owns: the context to call with, and the ids that the request means.
pub struct IdempotencyRecord {
    pub context: CallContext,
    /// The ids of the existing objects, as they were when the key was used first; then those of the new ones.
    pub ids: Vec<Uuid>,
    /// The request came before: the owner will answer with the first outcome.
    pub repeated: bool,
    if_match: Option<i64>,
    _turn: Option<Turn<KeyName>>,
}

impl IdempotencyRecord {
    /// Opens a mutation. `existing` says which objects the request means. With a key it is polled only the first time and remembered, so that a
    /// repeat works on the same objects even when names have moved since. Without a key nothing is committed. `new`: how many ids new objects need.
    pub async fn open(
        app: &App,
        caller: &Caller,
        intent: &Intent,
        new: usize,
        existing: impl Future<Output = Result<Vec<Uuid>, ApiError>> + Send,
    ) -> Result<Self, ApiError> {
        let record = |operation_id: Option<OperationId>, mut ids: Vec<Uuid>, repeated, turn| {
            let seed = operation_id.unwrap_or_else(OperationId::new);
            ids.extend((0..new).map(|index| derived_id(seed, index)));
            let context = caller.context(operation_id, intent.dry_run);
            Self { context, ids, repeated, if_match: intent.if_match, _turn: turn }
        };
        let Some(key) = &intent.key else {
            return Ok(record(None, existing.await?, false, None));
        };
        let principal = &caller.identity.label;
        let turn = app.in_flight().enter((principal.clone(), key.key.clone())).await;
        if let Some(known) = find(app, principal, &key.key, &key.request_hash).await? {
            return Ok(record(Some(known.operation_id), known.ids, true, Some(turn)));
        }
        let ids = existing.await?;
        app.key_counts().admit(app, caller).await?;
        let operation_id = OperationId::new();
        let unit = row(app, principal, intent, operation_id, &ids).into_iter().fold(Unit::new(), Unit::op);
        match app.store().commit(unit).await {
            Ok(()) => Ok(record(Some(operation_id), ids, false, Some(turn))),
            // The same request at another gateway was faster.
            Err(CommitError::Constraint(Constraint::IdempotencyRepeated)) => {
                let known = find(app, principal, &key.key, &key.request_hash).await?;
                let known = known
                    .ok_or_else(|| Problem::unavailable("another request with this Idempotency-Key is in progress"))?;
                Ok(record(Some(known.operation_id), known.ids, true, Some(turn)))
            }
            Err(other) => Err(other.into()),
        }
    }

    /// The answer of an earlier request with the same key, if that one was accepted. The names in a repeat may mean nothing any more (the image
    /// was deleted since), so this is read before they are looked up.
    pub async fn first_answer<M>(&self, app: &App, table: OperationTable) -> Result<Option<M>, ApiError>
    where
        M: prost::Message + Default,
    {
        match self.context.operation_id.filter(|_| self.repeated) {
            Some(id) => Ok(operation::find_outcome(app.store(), table, id).await?),
            None => Ok(None),
        }
    }

    /// The message with the call's context.
    pub fn request<T>(&self, message: T) -> tonic::Request<T> {
        self.context.request(message)
    }

    /// A refusal of the owner. A generation that moved is a 412 when the request said `If-Match`.
    #[must_use]
    pub fn refused(&self, status: tonic::Status) -> ApiError {
        let mut problem = ApiError::from(status).into_problem();
        if problem.kind == ErrorKind::StaleGeneration && self.if_match.is_some() {
            problem.kind = ErrorKind::PreconditionFailed;
        }
        if problem.kind == ErrorKind::PreconditionFailed {
            problem.code = "precondition_failed".to_owned();
        }
        problem.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derived_ids_are_the_same_for_each_repeat_and_never_the_same_for_two_objects() {
        let (one, other) = (OperationId::new(), OperationId::new());
        let ids: Vec<Uuid> = (0..1800).map(|index| derived_id(one, index)).collect();
        assert_eq!(ids, (0..1800).map(|index| derived_id(one, index)).collect::<Vec<_>>());
        assert!(ids.is_sorted_by(|a, b| a < b), "in the order in which they are taken");
        assert!(ids.iter().all(|id| id.get_version_num() == 7 && id.get_variant() == uuid::Variant::RFC4122));
        assert!(ids.iter().all(|id| id.as_bytes()[..6] == one.0.as_bytes()[..6]), "of the operation's time");
        let others: Vec<Uuid> = (0..1800).map(|index| derived_id(other, index)).collect();
        assert!(!ids.iter().any(|id| others.contains(id)));
    }
}
