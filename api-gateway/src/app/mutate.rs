//! The one way to change what the gateway owns: projects, members, users, keys, flavors, quota limits, placement groups.
//!
//! A noun says, from what it read, what would change ([`OwnChange`]). From there all is the same for every object: a dry run answers with
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
use base64::{Engine as _, prelude::BASE64_STANDARD};
use domain::{
    AuditId, OperationId, ProjectId, Timestamp,
    event::{AuditEntry, NewEvent},
};
use serde::{Serialize, de::DeserializeOwned};
use store::{AuditInsert, CommitError, Constraint, EventInsert, IdentityOperationInsert, OperationTable, Unit};

/// A change that is ready to be committed.
pub struct OwnChange<T> {
    /// The change's own ops.
    pub unit: Unit,
    pub activity: Activity,
    /// What the caller gets, now and when the request is repeated.
    pub outcome: T,
    /// Whether the caches of who may do what must be dropped: for users, roles, keys and projects.
    pub changes_identity: bool,
}

/// What is said of a change in the audit log, in the event and in a dry run's plan.
pub struct Activity {
    /// `project.create`: the audit log's action.
    pub action: &'static str,
    /// `project.created`: the event's kind.
    pub event: &'static str,
    pub object_kind: &'static str,
    pub object_id: String,
    pub object_name: String,
    /// None: it concerns the system.
    pub project_id: Option<ProjectId>,
    /// One sentence: "project web was created".
    pub message: String,
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
    let _lock = match &intent.key {
        Some(key) => {
            let lock = app.in_flight().lock(principal, &key.key).await;
            if let Some(outcome) = first_outcome(app, caller, intent).await? {
                return Ok(Done::Change(outcome));
            }
            Some(lock)
        }
        None => None,
    };
    let OwnChange { unit, activity, outcome, changes_identity } = plan.await?;
    if intent.dry_run {
        let Activity { object_kind, object_id, object_name, message, .. } = activity;
        let changes = vec![format!("{object_kind} {object_name} ({object_id})")];
        return Ok(Done::Plan(Plan::of(format!("would do: {message}"), changes)));
    }
    let unit = whole_unit(app, caller, intent, unit, &activity, &outcome)?;
    match app.store().commit(unit).await {
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
        Err(other) => return Err(named(other, &activity, intent)),
    }
    if changes_identity {
        app.auth().identities.invalidate();
    }
    app.catalog().invalidate();
    Ok(Done::Change(outcome))
}

/// The change with everything that goes with it.
fn whole_unit<T: Serialize>(
    app: &App,
    caller: &Caller,
    intent: &Intent,
    mut unit: Unit,
    activity: &Activity,
    outcome: &T,
) -> Result<Unit, ApiError> {
    let now = Timestamp::now();
    unit.push(AuditInsert(AuditEntry {
        id: AuditId::new(),
        at: now,
        principal: caller.identity.label.clone(),
        principal_name: caller.identity.display.clone(),
        project_id: activity.project_id,
        action: activity.action.to_owned(),
        object_kind: activity.object_kind.to_owned(),
        object_id: activity.object_id.clone(),
        request_id: caller.request_id.clone(),
        outcome: "accepted".to_owned(),
        detail: activity.message.clone(),
    }));
    unit.push(EventInsert(NewEvent {
        at: now,
        project_id: activity.project_id,
        kind: activity.event.to_owned(),
        object_kind: activity.object_kind.to_owned(),
        object_id: activity.object_id.clone(),
        message: activity.message.clone(),
        request_id: caller.request_id.clone(),
        data: serde_json::json!({ "name": activity.object_name, "by": caller.identity.display }),
    }));
    let operation_id = OperationId::new();
    if let Some(row) = idempotency::row(app, &caller.identity.label, intent, operation_id, &[]) {
        let outcome =
            serde_json::to_vec(outcome).map_err(|error| ApiError::internal("an outcome doesn't serialise", &error))?;
        unit.push(row);
        // An outcome may hold a secret that is shown once (an API key): it isn't readable in the database either.
        unit.push(IdentityOperationInsert {
            id: operation_id,
            outcome: BASE64_STANDARD
                .encode(app.auth().keyring.master().wrap(&purpose(operation_id), &outcome).as_bytes()),
            created_at: now,
        });
    }
    Ok(unit)
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
    let Some(outcome) = app.store().operation_find(OperationTable::Identity, known.operation_id).await? else {
        return Ok(None);
    };
    let sealed = BASE64_STANDARD.decode(outcome).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let bytes = app
        .auth()
        .keyring
        .master()
        .unwrap(&purpose(known.operation_id), sealed.as_deref().unwrap_or_default())
        .map_err(|error| ApiError::internal("a stored outcome doesn't open", &error))?;
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| ApiError::internal("a stored outcome doesn't parse", &error))
}

/// The commit's refusal with the object's name in it.
fn named(error: CommitError, activity: &Activity, intent: &Intent) -> ApiError {
    let mut problem = ApiError::from(error).into_problem();
    if problem.kind == domain::ErrorKind::AlreadyExists {
        let kind = activity.object_kind.replace('_', " ");
        problem.detail = format!("a {kind} named `{}` already exists", activity.object_name);
    }
    if problem.kind == domain::ErrorKind::StaleGeneration && intent.if_match.is_some() {
        problem.kind = domain::ErrorKind::PreconditionFailed;
        problem.code = "precondition_failed".to_owned();
    }
    problem.into()
}
