//! The one way to change what the gateway owns: projects, members, users, keys, flavors, quota limits.
//!
//! A route says, from what it read, what would change ([`OwnChange`]). From there all is the same for every object: a dry run answers
//! with the plan; otherwise the change, its audit line, its event and (with an idempotency key) the key and the outcome are one unit, one
//! commit. Objects of other services go through [`crate::app::idempotency::Ticket`] instead: there the owner writes all of that.

use crate::{
    app::{App, idempotency},
    auth::scope::Caller,
    http::{
        intent::Intent,
        problem::{ApiError, ApiResult},
        reply,
    },
    v1::view::plan::{DryRun, PlanView},
};
use axum::response::Response;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use domain::{
    AuditId, OperationId, ProjectId, Timestamp,
    event::{AuditEntry, NewEvent},
};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use store::{AuditInsert, CommitError, Constraint, EventInsert, IdentityOperationInsert, OperationTable, Unit};

/// What a route wants done.
pub struct OwnChange {
    /// The change's own ops.
    pub unit: Unit,
    pub deed: Deed,
    pub answer: Answer,
    /// The caches of who may what must forget: users, roles, keys, projects.
    pub touches_identity: bool,
}

/// What is said of it, in the audit log, the event and a dry run's plan.
pub struct Deed {
    /// `project.create`: the audit log's action; the event's kind is made of it (`project.created`).
    pub action: &'static str,
    pub event: &'static str,
    pub object_kind: &'static str,
    pub object_id: String,
    pub object_name: String,
    /// None: of the system.
    pub project_id: Option<ProjectId>,
    /// One sentence: "project web was created".
    pub message: String,
}

/// The first answer, as it is repeated.
#[derive(Serialize, Deserialize)]
pub struct Answer {
    status: u16,
    etag: Option<i64>,
    /// JSON text; none for 204.
    body: Option<String>,
}

impl Answer {
    pub fn object<T: Serialize>(status: StatusCode, generation: i64, value: &T) -> Result<Self, ApiError> {
        let body = serde_json::to_string(value).map_err(|e| ApiError::internal("an answer doesn't serialise", &e))?;
        Ok(Self { status: status.as_u16(), etag: Some(generation), body: Some(body) })
    }

    /// Something without a generation.
    pub fn plain<T: Serialize>(status: StatusCode, value: &T) -> Result<Self, ApiError> {
        Self::object(status, 0, value).map(|answer| Self { etag: None, ..answer })
    }

    #[must_use]
    pub fn none() -> Self {
        Self { status: StatusCode::NO_CONTENT.as_u16(), etag: None, body: None }
    }

    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::OK);
        let mut response = match self.body {
            Some(body) => reply::raw_json(status, body.into()),
            None => reply::no_content(),
        };
        if let Some(generation) = self.etag {
            response.headers_mut().insert(http::header::ETAG, crate::http::etag::render(generation));
        }
        response
    }
}

fn purpose(operation_id: OperationId) -> String {
    format!("outcome {operation_id}")
}

/// Runs a mutation of the gateway's own. `plan` looks and decides, and is not asked for a repeat that is answered already.
pub async fn own<F, Fut>(app: &App, caller: &Caller, intent: &Intent, plan: F) -> ApiResult
where
    F: FnOnce() -> Fut,
    Fut: Future<Output = Result<OwnChange, ApiError>>,
{
    let principal = &caller.identity.label;
    let _lock = match &intent.key {
        Some(key) => {
            let lock = app.in_flight().lock(principal, &key.key).await;
            if let Some(answer) = replay(app, caller, intent).await? {
                return Ok(answer.into_response());
            }
            Some(lock)
        }
        None => None,
    };
    let change = plan().await?;
    if intent.dry_run {
        let plan = PlanView {
            summary: format!("would do: {}", change.deed.message),
            placement: None,
            quota_left: None,
            touches: vec![format!(
                "{} {} ({})",
                change.deed.object_kind, change.deed.object_name, change.deed.object_id
            )],
        };
        return reply::json(StatusCode::OK, &DryRun { dry_run: true, plan });
    }
    let unit = whole_unit(app, caller, intent, &change)?;
    match app.store().commit(unit).await {
        Ok(()) => {}
        // The same request at another gateway was faster.
        Err(CommitError::Constraint(Constraint::IdempotencyRepeated | Constraint::OperationRepeated))
            if intent.key.is_some() =>
        {
            let answer = replay(app, caller, intent).await?;
            return answer
                .map(Answer::into_response)
                .ok_or_else(|| domain::Problem::unavailable("the idempotency key is in motion").into());
        }
        Err(other) => return Err(named(other, &change.deed, intent)),
    }
    if change.touches_identity {
        app.auth().identities.invalidate();
    }
    app.catalog().invalidate();
    Ok(change.answer.into_response())
}

/// The change with everything that goes with it.
fn whole_unit(app: &App, caller: &Caller, intent: &Intent, change: &OwnChange) -> Result<Unit, ApiError> {
    let mut unit = change.unit.clone();
    let (deed, now) = (&change.deed, Timestamp::now());
    unit.push(AuditInsert(AuditEntry {
        id: AuditId::new(),
        at: now,
        principal: caller.identity.label.clone(),
        principal_name: caller.identity.display.clone(),
        project_id: deed.project_id,
        action: deed.action.to_owned(),
        object_kind: deed.object_kind.to_owned(),
        object_id: deed.object_id.clone(),
        request_id: caller.request_id().to_owned(),
        outcome: "accepted".to_owned(),
        detail: deed.message.clone(),
    }));
    unit.push(EventInsert(NewEvent {
        at: now,
        project_id: deed.project_id,
        kind: deed.event.to_owned(),
        object_kind: deed.object_kind.to_owned(),
        object_id: deed.object_id.clone(),
        message: deed.message.clone(),
        request_id: caller.request_id().to_owned(),
        data: serde_json::json!({ "name": deed.object_name, "by": caller.identity.display }),
    }));
    let operation_id = OperationId::new();
    if let Some(row) = idempotency::row(app, &caller.identity.label, intent, operation_id, &[]) {
        let outcome = serde_json::to_vec(&change.answer)
            .map_err(|error| ApiError::internal("an outcome doesn't serialise", &error))?;
        unit.push(row);
        // An answer may hold a secret that is shown once (an API key): it isn't readable in the database either.
        unit.push(IdentityOperationInsert {
            id: operation_id,
            outcome: BASE64_STANDARD
                .encode(app.auth().keyring.master().wrap(&purpose(operation_id), &outcome).as_bytes()),
            created_at: now,
        });
    }
    Ok(unit)
}

async fn replay(app: &App, caller: &Caller, intent: &Intent) -> Result<Option<Answer>, ApiError> {
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
fn named(error: CommitError, deed: &Deed, intent: &Intent) -> ApiError {
    let mut problem = ApiError::from(error).into_problem();
    match problem.kind {
        domain::ErrorKind::AlreadyExists => {
            let noun = deed.object_kind.replace('_', " ");
            problem.detail = format!("a {noun} named `{}` exists already", deed.object_name);
        }
        domain::ErrorKind::StaleGeneration if intent.if_match.is_some() => {
            problem.kind = domain::ErrorKind::PreconditionFailed;
            problem.code = "precondition_failed".to_owned();
        }
        _ => {}
    }
    problem.into()
}
