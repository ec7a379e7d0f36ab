//! New projects get their defaults. Ids rise with time, so new projects are at the end of the list: that is looked at each time, and of the
//! rest one page, for what was missed there.

use super::StepError;
use crate::{
    Manager,
    grpc::apply::{ChangeRequest, apply},
};
use domain::{ErrorKind, ProjectId, Timestamp, network::Change};
use service_kit::context::CallContext;

/// Projects in one look; the rest come in the next.
const PAGE: u32 = 128;
/// How far from the end a new project's id may be: it was made by a gateway with another clock, or long before its commit.
const RECENT_SECS: u64 = 600;

/// Where the slow look is.
#[derive(Debug, Default)]
pub(super) struct Defaults {
    after: Option<ProjectId>,
}

impl Defaults {
    pub(super) async fn step(&mut self, manager: &Manager) -> Result<(), StepError> {
        let now = Timestamp::now();
        let mut recent = Some(ProjectId(first_id_at(now, RECENT_SECS)));
        while let Some(after) = recent {
            recent = look(manager, Some(after)).await?;
        }
        self.after = look(manager, self.after).await?;
        Ok(())
    }
}

/// The lowest UUIDv7 of a time ago.
fn first_id_at(now: Timestamp, ago_secs: u64) -> uuid::Uuid {
    let millis = u128::try_from(now.0).unwrap_or_default().saturating_sub(u128::from(ago_secs) * 1000);
    uuid::Uuid::from_u128(millis << 80)
}

/// A page of projects. Answers where the next begins; `None`: it was the last.
async fn look(manager: &Manager, after: Option<ProjectId>) -> Result<Option<ProjectId>, StepError> {
    let page = manager.store.project_network_default_list(after, PAGE).await.map_err(StepError::Read)?;
    for (project_id, _) in page.iter().filter(|(_, made)| !made) {
        let request = ChangeRequest::new(Change::ProjectDefaults, Some(*project_id));
        match apply(manager, &CallContext::system("defaults"), &request).await {
            Ok(outcome) => tracing::info!(%project_id, summary = outcome.summary, "a project got its defaults"),
            // It was deleted at this moment.
            Err(problem) if problem.kind == ErrorKind::NotFound => {}
            Err(problem) => return Err(StepError::Refused(problem)),
        }
    }
    Ok(page.last().map(|(id, _)| *id).filter(|_| page.len() == PAGE as usize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_made_lately_comes_after_the_bound() {
        let bound = ProjectId(first_id_at(Timestamp::now(), RECENT_SECS));
        assert!(bound < ProjectId::new() && bound.to_string() < ProjectId::new().to_string());
    }
}
