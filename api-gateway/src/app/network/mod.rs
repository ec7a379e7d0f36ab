//! Networks and all that belongs to them. What a request means is settled here (names, new ids), and the resource-manager does it. It owns
//! them; reads go to the store.
//!
//! - `kind`: what all kinds of objects have in common; then a file for each kind.
//! - `rule`: a security rule whose form was checked.
//! - `find`: the object behind an id or a name.
//! - `related`: what is shown beside the objects.

pub mod external_network;
pub mod find;
pub mod floating_ip;
pub mod kind;
pub mod networks;
pub mod peering;
pub mod port;
pub mod related;
pub mod router;
pub mod rule;
pub mod security_group;
pub mod subnet;

use crate::{
    app::{
        App,
        idempotency::IdempotencyRecord,
        intent::Intent,
        plan::{Done, Plan},
    },
    auth::caller::Caller,
    failure::ApiError,
};
use domain::{
    Problem, ProjectId,
    network::{Change, ChangeOutcome, Resource},
};
use operation::find_outcome;
use proto::resource::v1 as pb;
use service_kit::context::CallContext;
use std::time::Duration;
use store::OperationTable;
use uuid::Uuid;

/// One request for a change.
pub struct Call<'a> {
    app: &'a App,
    intent: &'a Intent,
    /// None: the object belongs to no project.
    project_id: Option<ProjectId>,
    record: IdempotencyRecord,
}

impl<'a> Call<'a> {
    /// `new`: how many ids new objects need; `existing`: the found object's id; see [`IdempotencyRecord::open`].
    pub async fn open(
        app: &'a App,
        caller: &Caller,
        project_id: Option<ProjectId>,
        intent: &'a Intent,
        new: usize,
        existing: impl Future<Output = Result<Vec<Uuid>, ApiError>> + Send,
    ) -> Result<Self, ApiError> {
        let record = IdempotencyRecord::open(app, caller, intent, new, existing).await?;
        Ok(Self { app, intent, project_id, record })
    }

    /// All ids, as they were when the request came first.
    #[must_use]
    pub fn ids(&self) -> &[Uuid] {
        &self.record.ids
    }

    /// The only id, or the first.
    pub fn id(&self) -> Result<Uuid, ApiError> {
        self.record.ids.first().copied().ok_or_else(unexpected)
    }

    /// Makes the change, and returns the object as it is then. `change` looks up the names in the request; it isn't polled for a repeat that
    /// is answered already, because they may mean nothing any more.
    pub async fn apply<T: Resource>(
        &self,
        change: impl Future<Output = Result<Change, ApiError>> + Send,
    ) -> Result<Done<T>, ApiError> {
        match self.outcome(change).await? {
            Done::Plan(plan) => Ok(Done::Plan(plan)),
            Done::Change(outcome) => outcome.object.and_then(T::from_object).map(Done::Change).ok_or_else(unexpected),
        }
    }

    /// As [`Self::apply`], for deletions.
    pub async fn apply_deletion(
        &self,
        change: impl Future<Output = Result<Change, ApiError>> + Send,
    ) -> Result<Done<()>, ApiError> {
        Ok(self.outcome(change).await?.map(|_| ()))
    }

    async fn outcome(
        &self,
        change: impl Future<Output = Result<Change, ApiError>> + Send,
    ) -> Result<Done<ChangeOutcome>, ApiError> {
        let outcome = match self.replayed().await? {
            Some(outcome) => outcome,
            None => {
                let request = request(self.project_id, self.intent.expected_generation(), &change.await?)?;
                let answer = self.app.resource().apply(self.record.request(request)).await;
                parse(&answer.map_err(|status| self.refused(status))?.into_inner().outcome_json)?
            }
        };
        if !self.intent.dry_run {
            return Ok(Done::Change(outcome));
        }
        let ChangeOutcome { object: _, summary, affects } = outcome;
        Ok(Done::Plan(Plan::of(summary, affects)))
    }

    /// The outcome of an earlier request with the same idempotency key, if that one got as far.
    async fn replayed(&self) -> Result<Option<ChangeOutcome>, ApiError> {
        let Some(id) = self.record.context.operation_id.filter(|_| self.record.repeated) else { return Ok(None) };
        let answer = find_outcome::<pb::ApplyResponse>(self.app.store(), OperationTable::Resource, id).await?;
        answer.map(|answer| parse(&answer.outcome_json)).transpose()
    }

    fn refused(&self, status: tonic::Status) -> ApiError {
        let mut problem = self.record.refused(status).into_problem();
        // Its fields are the body's.
        for error in &mut problem.errors {
            if !error.field.is_empty() && !error.field.starts_with('/') {
                error.field.insert(0, '/');
            }
        }
        problem.into()
    }
}

fn request(
    project_id: Option<ProjectId>,
    expected_generation: i64,
    change: &Change,
) -> Result<pb::ApplyRequest, ApiError> {
    let change_json =
        serde_json::to_string(change).map_err(|error| ApiError::internal("a change doesn't serialise", &error))?;
    let project_id = project_id.map_or_else(String::new, |id| id.to_string());
    Ok(pb::ApplyRequest { project_id, expected_generation, change_json })
}

fn parse(outcome_json: &str) -> Result<ChangeOutcome, ApiError> {
    serde_json::from_str(outcome_json)
        .map_err(|error| ApiError::internal("the resource-manager's outcome makes no sense", &error))
}

fn unexpected() -> ApiError {
    tracing::error!("the resource-manager answered without the object");
    Problem::internal().into()
}

/// How long the creator of a project waits for its defaults.
const DEFAULTS_TIMEOUT: Duration = Duration::from_secs(2);

/// Requests a new project's network and security group. They come by themselves soon; requested here, they exist when the project's creator
/// has the answer.
pub async fn ensure_defaults(app: &App, context: &CallContext, project_id: ProjectId) {
    let Ok(request) = request(Some(project_id), 0, &Change::ProjectDefaults) else { return };
    let mut resource = app.resource();
    let answered = tokio::time::timeout(DEFAULTS_TIMEOUT, resource.apply(context.request(request))).await;
    match answered {
        Ok(Ok(_)) => {}
        Ok(Err(status)) => {
            tracing::info!(%project_id, message = status.message(), "the project's network comes later");
        }
        Err(_) => tracing::info!(%project_id, "the project's network comes later: no answer in time"),
    }
}
