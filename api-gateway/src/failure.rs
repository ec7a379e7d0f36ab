//! The one error of the gateway's own code: a problem to show the caller. What the store and the other services fail with becomes one here.

use domain::{ErrorKind, Problem};
use service_kit::error_chain;
use store::{CommitError, Guard, ReadError};

/// A refusal, to be shown to the caller.
#[derive(Debug)]
pub struct ApiError(pub(crate) Box<Problem>);

impl ApiError {
    #[must_use]
    pub fn problem(&self) -> &Problem {
        &self.0
    }

    #[must_use]
    pub fn into_problem(self) -> Problem {
        *self.0
    }

    /// A bug or a broken store: logs the cause here, once, and tells the caller the fixed text.
    pub fn internal(what: &str, cause: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(cause = error_chain(cause), "{what}");
        Self::from(Problem::internal())
    }
}

impl From<Problem> for ApiError {
    fn from(problem: Problem) -> Self {
        Self(Box::new(problem))
    }
}

impl From<ReadError> for ApiError {
    fn from(error: ReadError) -> Self {
        operation::read_problem(error).into()
    }
}

impl From<CommitError> for ApiError {
    /// The general wording; whoever knows which object it was says so itself, with the cases that it expects.
    fn from(error: CommitError) -> Self {
        let own = if let CommitError::Guard(guard) = &error { own_guard(*guard) } else { None };
        own.unwrap_or_else(|| operation::commit_problem(error)).into()
    }
}

impl From<tonic::Status> for ApiError {
    fn from(status: tonic::Status) -> Self {
        let problem = proto::status::from_status(&status);
        if matches!(problem.kind, ErrorKind::Internal | ErrorKind::Unavailable) {
            tracing::warn!(code = ?status.code(), message = status.message(), "a call to another service failed");
        }
        problem.into()
    }
}

#[must_use]
pub fn placement_group_in_use() -> Problem {
    let detail = "instances are in the placement group, or it was deleted just now";
    Problem::new(ErrorKind::InvalidState, "placement_group_in_use", detail)
        .with_hint("`iaasctl placement-group show` names the instances; delete them first")
}

#[must_use]
pub fn api_keys_refused() -> Problem {
    Problem::new(ErrorKind::QuotaExceeded, "quota_exceeded", "you have as many API keys as a user may have")
        .with_hint("delete keys that you don't need (iaasctl api-key list), or ask an administrator to raise identity.api_keys_max")
}

/// The refusals of guards on what the gateway owns.
fn own_guard(guard: Guard) -> Option<Problem> {
    if matches!(guard, Guard::ProjectGeneration | Guard::UserGeneration | Guard::QuotaGeneration) {
        let problem = Problem::new(ErrorKind::StaleGeneration, "stale_generation", "the object changed meanwhile");
        return Some(problem.with_hint("read it again, and repeat the change if it still makes sense"));
    }
    if guard == Guard::ApiKeyQuota {
        return Some(api_keys_refused());
    }
    if guard == Guard::ProjectInUse {
        let detail = "the project has instances, images, disks, ports, floating IPs, networks or security groups, or was deleted just now";
        let hint = "delete its instances, images, floating IPs, ports and own networks first; disks are deleted with their instances, the default network with the project";
        return Some(Problem::new(ErrorKind::InvalidState, "project_in_use", detail).with_hint(hint));
    }
    (guard == Guard::PlacementGroupInUse).then(placement_group_in_use)
}
