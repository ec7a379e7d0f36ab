//! New projects get their defaults.

use super::StepError;
use crate::{
    Manager,
    grpc::apply::{Wish, apply},
};
use domain::{ErrorKind, network::Change};
use service_kit::context::CallContext;

/// At once; the rest next.
const BATCH: u32 = 64;

pub(super) async fn step(manager: &Manager) -> Result<(), StepError> {
    let without = manager.store.project_without_network_default(BATCH).await.map_err(StepError::Read)?;
    for project_id in without {
        let wish = Wish { change: Change::ProjectDefaults, project_id: Some(project_id), expected_generation: 0 };
        match apply(manager, &CallContext::system("defaults"), &wish).await {
            Ok(outcome) => tracing::info!(%project_id, summary = outcome.summary, "a project's defaults"),
            // It was deleted at this moment.
            Err(problem) if problem.kind == ErrorKind::NotFound => {}
            Err(problem) => return Err(StepError::Refused(problem)),
        }
    }
    Ok(())
}
