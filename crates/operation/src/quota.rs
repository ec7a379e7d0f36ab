//! Refusals by quota, in figures.

use crate::read_problem;
use domain::{ErrorKind, Problem, ProjectId, quota::QuotaAmounts};
use store::Store;

/// What a project may have, and what it has. A project without limits may have nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ProjectQuota {
    pub limit: QuotaAmounts,
    pub used: QuotaAmounts,
}

impl ProjectQuota {
    /// The figures as they are now; `NotFound` when there is no such project.
    pub async fn fetch(store: &Store, project_id: ProjectId) -> Result<Self, Problem> {
        let limit = store.quota_limit_find(project_id).await.map_err(read_problem)?;
        let used = store.quota_usage(project_id).await.map_err(read_problem)?;
        if limit.is_none() && store.project_find(project_id).await.map_err(read_problem)?.is_none() {
            return Err(Problem::not_found("project", project_id));
        }
        Ok(Self { limit: limit.map(|row| row.limit).unwrap_or_default(), used })
    }

    /// Refuses what the quota doesn't leave.
    pub fn check(&self, requested: &QuotaAmounts) -> Result<(), Problem> {
        QuotaAmounts::refusal(&self.limit, &self.used, requested).map_or(Ok(()), Err)
    }
}

/// Refuses what the project's quota doesn't leave now.
pub async fn check_quota(store: &Store, project_id: ProjectId, requested: &QuotaAmounts) -> Result<(), Problem> {
    ProjectQuota::fetch(store, project_id).await?.check(requested)
}

/// Why the quota's guard failed. It may have been freed since, which is a refusal all the same.
pub async fn quota_refusal(store: &Store, project_id: ProjectId, requested: &QuotaAmounts) -> Problem {
    match check_quota(store, project_id, requested).await {
        Err(problem) => problem,
        Ok(()) => {
            Problem::new(ErrorKind::QuotaExceeded, "quota_exceeded", "the project's quota was reached a moment ago")
                .with_hint("try again")
        }
    }
}
