//! The one way to change what the gateway owns: projects, members, users, keys, flavors, quota limits, placement groups.
//!
//! A module says, from what it read, what would change ([`OwnChange`]). From there all is the same for every kind of object: a dry run answers with
//! the plan; otherwise the change, its audit line, its event and (with an idempotency key) the key and the outcome are one unit, one
//! commit. Objects of other services go through [`crate::app::idempotency::IdempotencyRecord`] instead: there the owner writes all of that.

use crate::{
    app::{
        App, idempotency,
        intent::Intent,
        plan::{Done, Plan},
    },
    auth::caller::Caller,
    failure::ApiError,
};
use domain::{OperationId, ProjectId, Timestamp, quota::QuotaAmounts};
use operation::Activity;
use serde::{Serialize, de::DeserializeOwned};
use service_kit::context::CallContext;
use store::{CommitError, Constraint, Guard, Op, OperationTable, Unit};

/// A change that is ready to be committed.
pub struct OwnChange<T> {
    /// The change's own ops.
    pub unit: Unit,
    pub activity: Activity,
    /// The name that a refusal shows: "a project named `web` already exists".
    pub object_name: String,
    /// What the caller gets, now and when the request is repeated.
    pub outcome: T,
    /// Whether the caches of who may do what must be dropped: for users, roles, keys and projects.
    pub changes_identity: bool,
}

/// An outcome as it is stored: sealed, because it may hold a secret that is shown once (an API key).
#[derive(Clone, PartialEq, prost::Message)]
struct SealedOutcome {
    #[prost(string, tag = "1")]
    sealed: String,
}

fn purpose(operation_id: OperationId) -> String {
    format!("outcome {operation_id}")
}

/// Commits a change of what the gateway owns. `plan` reads and decides; it isn't polled for a repeat that is answered already.
pub async fn commit_own_change<T>(
    app: &App,
    caller: &Caller,
    intent: &Intent,
    plan: impl Future<Output = Result<OwnChange<T>, ApiError>> + Send,
) -> Result<Done<T>, ApiError>
where
    T: Serialize + DeserializeOwned,
{
    let principal = &caller.identity.label;
    let _turn = match &intent.key {
        Some(key) => {
            let turn = app.in_flight().enter((principal.clone(), key.key.clone())).await;
            if let Some(outcome) = first_outcome(app, caller, intent).await? {
                return Ok(Done::Change(outcome));
            }
            if !intent.dry_run {
                app.key_counts().admit(app, caller).await?;
            }
            Some(turn)
        }
        None => None,
    };
    let OwnChange { mut unit, activity, object_name, outcome, changes_identity } = plan.await?;
    let object_kind = activity.object_kind;
    let requested = requested(&unit);
    if intent.dry_run {
        if let Some((project_id, amounts)) = &requested {
            operation::check_quota(app.store(), *project_id, amounts).await?;
        }
        let Activity { object_id, message, .. } = activity;
        let changes = vec![format!("{object_kind} {object_name} ({object_id})")];
        return Ok(Done::Plan(Plan::of(format!("would do: {message}"), changes)));
    }
    let now = Timestamp::now();
    let context = caller.context(Some(OperationId::new()), false);
    let data = serde_json::json!({ "name": object_name, "by": caller.identity.display });
    activity.with_data(data).record(&mut unit, &context, now);
    store_outcome(app, caller, intent, &context, &mut unit, &outcome)?;
    match commit_and_invalidate(app, unit, changes_identity).await? {
        Ok(()) => {}
        // The same request at another gateway was faster.
        Err(CommitError::Constraint(Constraint::IdempotencyRepeated | Constraint::OperationRepeated))
            if intent.key.is_some() =>
        {
            let outcome = first_outcome(app, caller, intent).await?;
            return outcome.map(Done::Change).ok_or_else(|| {
                domain::Problem::unavailable("another request with this Idempotency-Key is in progress").into()
            });
        }
        Err(CommitError::Guard(Guard::IdentityQuota)) if let Some((project_id, amounts)) = &requested => {
            return Err(operation::quota_refusal(app.store(), *project_id, amounts).await.into());
        }
        Err(other) => return Err(named(other, object_kind, &object_name, intent)),
    }
    Ok(Done::Change(outcome))
}

/// Commits, and drops what is cached of the rows. On a task of its own: a unit that was handed to the store is committed although its caller goes
/// away, and what they changed must be forgotten then too.
async fn commit_and_invalidate(
    app: &App,
    unit: Unit,
    changes_identity: bool,
) -> Result<Result<(), CommitError>, ApiError> {
    let of_task = app.clone();
    let committing = app.tasks().spawn(async move {
        let committed = of_task.store().commit(unit).await;
        // An error may leave it open whether the change stands.
        if changes_identity {
            of_task.auth().identities.invalidate();
        }
        of_task.catalog().invalidate();
        committed
    });
    committing.await.map_err(|error| ApiError::internal("a commit's task ended early", &error))
}

/// What the change takes of its project's quota.
fn requested(unit: &Unit) -> Option<(ProjectId, QuotaAmounts)> {
    unit.ops().iter().find_map(|op| {
        if let Op::IdentityUsageAdd(usage) = op { Some((usage.project_id, usage.amounts())) } else { None }
    })
}

/// With an idempotency key: what the key means, and the outcome for repeats.
fn store_outcome<T: Serialize>(
    app: &App,
    caller: &Caller,
    intent: &Intent,
    context: &CallContext,
    unit: &mut Unit,
    outcome: &T,
) -> Result<(), ApiError> {
    let Some(operation_id) = context.operation_id else { return Ok(()) };
    let Some(row) = idempotency::row(app, &caller.identity.label, intent, operation_id, &[]) else { return Ok(()) };
    let now = row.created_at;
    unit.push(row);
    let outcome =
        serde_json::to_vec(outcome).map_err(|error| ApiError::internal("an outcome doesn't serialise", &error))?;
    let sealed = app.auth().keyring.master().wrap(&purpose(operation_id), &outcome);
    operation::store_outcome(unit, OperationTable::Identity, context, &SealedOutcome { sealed }, now);
    Ok(())
}

/// The outcome of an earlier request with the same idempotency key, if it got as far.
async fn first_outcome<T: DeserializeOwned>(
    app: &App,
    caller: &Caller,
    intent: &Intent,
) -> Result<Option<T>, ApiError> {
    let Some(key) = &intent.key else { return Ok(None) };
    let found = idempotency::find(app, &caller.identity.label, &key.key, &key.request_hash).await?;
    let Some(known) = found else { return Ok(None) };
    let id = known.operation_id;
    let stored = operation::find_outcome::<SealedOutcome>(app.store(), OperationTable::Identity, id).await?;
    let Some(SealedOutcome { sealed }) = stored else { return Ok(None) };
    let master = app.auth().keyring.master();
    let bytes = master
        .unwrap(&purpose(id), &sealed)
        .map_err(|error| ApiError::internal("a stored outcome doesn't open", &error))?;
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| ApiError::internal("a stored outcome doesn't parse", &error))
}

/// The commit's refusal with the object's name in it.
fn named(error: CommitError, object_kind: &str, object_name: &str, intent: &Intent) -> ApiError {
    let mut problem = ApiError::from(error).into_problem();
    if problem.kind == domain::ErrorKind::AlreadyExists {
        let kind = object_kind.replace('_', " ");
        problem.detail = format!("a {kind} named `{object_name}` already exists");
    }
    if problem.kind == domain::ErrorKind::StaleGeneration && intent.if_match.is_some() {
        problem.kind = domain::ErrorKind::PreconditionFailed;
        problem.code = "precondition_failed".to_owned();
    }
    problem.into()
}
