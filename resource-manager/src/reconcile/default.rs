//! New projects get their defaults.

use super::StepError;
use crate::{
    Manager,
    grpc::apply::{ChangeRequest, apply},
};
use domain::{ErrorKind, network::Change};
use service_kit::context::CallContext;

/// Projects in one step; the rest get theirs in the next.
const BATCH: u32 = 64;

pub(super) async fn step(manager: &Manager) -> Result<(), StepError> {
    let without = manager.store.project_without_network_default(BATCH).await.map_err(StepError::Read)?;
    for project_id in without {
        let request = ChangeRequest::new(Change::ProjectDefaults, Some(project_id));
        match apply(manager, &CallContext::system("defaults"), &request).await {
            Ok(outcome) => tracing::info!(%project_id, summary = outcome.summary, "a project got its defaults"),
            // It was deleted at this moment.
            Err(problem) if problem.kind == ErrorKind::NotFound => {}
            Err(problem) => return Err(StepError::Refused(problem)),
        }
    }
    Ok(())
}
