//! Networks and all that belongs to them. What a request means is settled here (form, names, new ids), and the resource-manager does it. It
//! owns them; reads go to the store.
//!
//! - `check`, `rule`: what a body may say at all. Pure.
//! - `find`: the object behind an id or a name.
//! - `look`: what views show around the objects.
//! - `floating_ip`: what a floating IP shall stand for.

pub mod check;
pub mod find;
pub mod floating_ip;
pub mod look;
pub mod rule;

use crate::{
    app::{App, idempotency::Ticket, instance::Done},
    auth::scope::Caller,
    http::{intent::Intent, problem::ApiError},
    v1::view::plan::PlanView,
};
use domain::{
    Problem, ProjectId,
    network::{
        Change, ChangeOutcome, ExternalNetwork, FloatingIp, Network, NetworkObject, Peering, Port, Router,
        SecurityGroup, SecurityGroupRule, Subnet,
    },
};
use proto::resource::v1 as pb;
use service_kit::context::CallContext;
use std::time::Duration;
use store::OperationTable;
use uuid::Uuid;

/// The kinds of objects that an outcome may have.
pub trait Kind: Sized {
    fn of(object: NetworkObject) -> Option<Self>;
}

macro_rules! kinds {
    ($($object:ident of $variant:ident),+ $(,)?) => {$(
        impl Kind for $object {
            fn of(object: NetworkObject) -> Option<Self> {
                if let NetworkObject::$variant(object) = object { Some(object) } else { None }
            }
        }
    )+};
}
kinds! {
    ExternalNetwork of ExternalNetwork,
    Network of Network,
    Subnet of Subnet,
    Port of Port,
    Router of Router,
    FloatingIp of FloatingIp,
    SecurityGroup of SecurityGroup,
    SecurityGroupRule of SecurityRule,
    Peering of Peering,
}

/// One request for a change.
pub struct Call<'a> {
    app: &'a App,
    intent: &'a Intent,
    /// None: of what belongs to no project.
    project_id: Option<ProjectId>,
    ticket: Ticket,
}

impl<'a> Call<'a> {
    /// `ids`: new ids for a create, the found object's for a change; see [`Ticket::open`].
    pub async fn open<F, Fut>(
        app: &'a App,
        caller: &Caller,
        project_id: Option<ProjectId>,
        intent: &'a Intent,
        ids: F,
    ) -> Result<Self, ApiError>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<Vec<Uuid>, ApiError>>,
    {
        let ticket = Ticket::open(app, caller, intent, ids).await?;
        Ok(Self { app, intent, project_id, ticket })
    }

    /// All ids, as they were when the request came first.
    #[must_use]
    pub fn ids(&self) -> &[Uuid] {
        &self.ticket.ids
    }

    /// The only id, or the first.
    pub fn id(&self) -> Result<Uuid, ApiError> {
        self.ticket.ids.first().copied().ok_or_else(unexpected)
    }

    /// Makes the change, and has the object as it is then. `change` looks up the names in the request, and isn't asked for a repeat that
    /// is answered already: they may mean nothing any more.
    pub async fn run<T, F, Fut>(&self, change: F) -> Result<Done<T>, ApiError>
    where
        T: Kind,
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<Change, ApiError>>,
    {
        match self.outcome(change).await? {
            Done::Plan(plan) => Ok(Done::Plan(plan)),
            Done::Change(outcome) => outcome.object.and_then(T::of).map(Done::Change).ok_or_else(unexpected),
        }
    }

    /// As [`Self::run`], for deletions.
    pub async fn end<F, Fut>(&self, change: F) -> Result<Done<()>, ApiError>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<Change, ApiError>>,
    {
        match self.outcome(change).await? {
            Done::Plan(plan) => Ok(Done::Plan(plan)),
            Done::Change(_) => Ok(Done::Change(())),
        }
    }

    async fn outcome<F, Fut>(&self, change: F) -> Result<Done<ChangeOutcome>, ApiError>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<Change, ApiError>>,
    {
        let outcome = match self.replayed().await? {
            Some(outcome) => outcome,
            None => {
                let request = request(self.project_id, self.intent.expected_generation(), &change().await?)?;
                let answer = self.app.resource().apply(self.ticket.request(request)).await;
                parse(&answer.map_err(|status| self.refused(status))?.into_inner().outcome_json)?
            }
        };
        if !self.intent.dry_run {
            return Ok(Done::Change(outcome));
        }
        let ChangeOutcome { object: _, summary, touches } = outcome;
        Ok(Done::Plan(PlanView { summary, placement: None, quota_left: None, touches }))
    }

    /// The outcome of an earlier request with the same idempotency key, if that one got as far.
    async fn replayed(&self) -> Result<Option<ChangeOutcome>, ApiError> {
        let Some(id) = self.ticket.context.operation_id.filter(|_| self.ticket.repeated) else { return Ok(None) };
        let Some(text) = self.app.store().operation_find(OperationTable::Resource, id).await? else { return Ok(None) };
        parse(&text).map(Some)
    }

    fn refused(&self, status: tonic::Status) -> ApiError {
        let mut problem = self.ticket.refused(status).into_problem();
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

/// As it is answered, and as it is stored for repeats.
fn parse(outcome_json: &str) -> Result<ChangeOutcome, ApiError> {
    serde_json::from_str(outcome_json)
        .map_err(|error| ApiError::internal("the resource-manager's outcome makes no sense", &error))
}

fn unexpected() -> ApiError {
    tracing::error!("the resource-manager answered without the object");
    Problem::internal().into()
}

/// How long a new project's maker waits for its defaults.
const DEFAULTS_PATIENCE: Duration = Duration::from_secs(2);

/// Asks for a new project's network and security group. They come by themselves soon; asked for, they are there when the project's maker
/// has the answer.
pub async fn ensure_defaults(app: &App, context: &CallContext, project_id: ProjectId) {
    let Ok(request) = request(Some(project_id), 0, &Change::ProjectDefaults) else { return };
    let mut resource = app.resource();
    let asked = tokio::time::timeout(DEFAULTS_PATIENCE, resource.apply(context.request(request))).await;
    match asked {
        Ok(Ok(_)) => {}
        Ok(Err(status)) => {
            tracing::info!(%project_id, message = status.message(), "the project's network comes later");
        }
        Err(_) => tracing::info!(%project_id, "the project's network comes later: no answer in time"),
    }
}
