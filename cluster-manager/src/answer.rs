//! What accepted changes leave beside the change itself (the operation's answer, the audit line, the event), and how a store's refusal
//! is worded.

use crate::{manager::Manager, manager::read_problem, operation};
use domain::{
    AuditId, ErrorKind, Problem, ProjectId, Timestamp,
    event::{AuditEntry, NewEvent},
    quota::QuotaAmounts,
};
use service_kit::context::CallContext;
use std::future::Future;
use store::{CommitError, OperationTable, Unit};

/// Runs a change under its operation's id: a repeat gets the stored answer, whatever else would stop it.
pub async fn once<M, F>(manager: &Manager, context: &CallContext, change: F) -> Result<M, Problem>
where
    M: prost::Message + Default,
    F: Future<Output = Result<M, Problem>>,
{
    let Some(id) = context.operation_id.filter(|_| !context.dry_run) else { return change.await };
    let entered = manager.operations.enter(id).await;
    if entered.waited
        && let Some(answer) = stored(manager, id).await?
    {
        return Ok(answer);
    }
    match change.await {
        Ok(answer) => Ok(answer),
        Err(problem) => match stored(manager, id).await {
            Ok(Some(answer)) => {
                tracing::info!(operation_id = %id, "a repeated operation gets its first answer");
                Ok(answer)
            }
            Ok(None) => Err(problem),
            // Refused, or unknown? Unknown is the one that is retried.
            Err(unreadable) => Err(unreadable),
        },
    }
}

async fn stored<M: prost::Message + Default>(manager: &Manager, id: domain::OperationId) -> Result<Option<M>, Problem> {
    let outcome = manager.store.operation_find(OperationTable::Compute, id).await.map_err(|e| read_problem(&e))?;
    outcome.map(|o| operation::decode(&o)).transpose()
}

/// What happened, to which object, for the audit log and the events.
pub struct Deed<'a> {
    pub project_id: Option<ProjectId>,
    /// `instance`, `host`.
    pub noun: &'static str,
    pub object_id: String,
    /// As in `instance.create`.
    pub verb: &'static str,
    pub message: String,
    pub data: serde_json::Value,
    pub now: Timestamp,
    pub context: &'a CallContext,
}

impl Deed<'_> {
    pub fn record(self, unit: &mut Unit) {
        let Self { project_id, noun, object_id, verb, message, data, now, context } = self;
        unit.push(store::EventInsert(NewEvent {
            at: now,
            project_id,
            kind: format!("{noun}.{verb}_accepted"),
            object_kind: noun.to_owned(),
            object_id: object_id.clone(),
            message: message.clone(),
            request_id: context.request_id.clone(),
            data,
        }));
        unit.push(store::AuditInsert(AuditEntry {
            id: AuditId::new(),
            at: now,
            principal: context.principal.clone(),
            principal_name: context.principal_name.clone(),
            project_id,
            action: format!("{noun}.{verb}"),
            object_kind: noun.to_owned(),
            object_id,
            request_id: context.request_id.clone(),
            outcome: "accepted".to_owned(),
            detail: message,
        }));
    }
}

/// Stores the answer with the change.
pub fn remember(unit: &mut Unit, context: &CallContext, answer: &impl prost::Message, now: Timestamp) {
    if let Some(id) = context.operation_id {
        unit.push(store::ComputeOperationInsert { id, outcome: operation::encode(answer), created_at: now });
    }
}

/// A refusal that only a defect explains, or the database's absence.
pub fn commit_problem(error: &CommitError) -> Problem {
    match error {
        CommitError::Unavailable(_) => {
            tracing::warn!(error = error as &dyn std::error::Error, "a change can't be committed");
            Problem::unavailable("the database doesn't answer now")
        }
        CommitError::Constraint(_) | CommitError::Guard(_) => {
            // A repeat is told by its stored answer; what is left is a race with a change of the same object.
            tracing::info!(%error, "a change was refused by the store");
            Problem::new(ErrorKind::StaleGeneration, "conflict", "the object changed meanwhile")
                .with_hint("read it again, and repeat the change if it still makes sense")
        }
        CommitError::Internal(_) => {
            tracing::error!(error = error as &dyn std::error::Error, "a change failed");
            Problem::internal()
        }
    }
}

/// The project's limits and what it uses. A project without limits has none left.
pub async fn quota(manager: &Manager, project_id: ProjectId) -> Result<(QuotaAmounts, QuotaAmounts), Problem> {
    let limit = manager.store.quota_limit_find(project_id).await.map_err(|e| read_problem(&e))?;
    let used = manager.store.quota_usage(project_id).await.map_err(|e| read_problem(&e))?;
    Ok((limit.map(|l| l.limit).unwrap_or_default(), used))
}

/// Why the quota guard failed, in figures.
pub async fn quota_problem(manager: &Manager, project_id: ProjectId, asked: &QuotaAmounts) -> Problem {
    match quota(manager, project_id).await {
        Ok((limit, used)) => QuotaAmounts::refusal(&limit, &used, asked).unwrap_or_else(|| {
            // Freed between the refusal and the look.
            Problem::new(ErrorKind::QuotaExceeded, "quota_exceeded", "the project's quota was reached a moment ago")
                .with_hint("try again")
        }),
        Err(problem) => problem,
    }
}
