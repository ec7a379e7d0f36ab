//! Decisions are committed here, and what a failed commit means is judged: to decide anew on fresher memory, or a problem.

use crate::{
    Manager,
    network::{
        ipam::ScopedAddress,
        plan::{Plan, Planner, mac_taken},
        topology::RowKey,
    },
};
use domain::{
    ErrorKind, Name, Problem, ProjectId,
    network::{MacAddr, ObjectKind},
    quota::QuotaAmounts,
};
use operation::{COMMIT_ATTEMPTS, check_quota, commit_problem, contended, read_problem};
use std::collections::BTreeMap;
use store::{CommitError, Constraint, Guard, Table};

/// Others changed the same objects each time.
pub(crate) fn contended_change() -> Problem {
    contended("the same objects")
}

/// What remains of a plan to judge its failure by.
#[derive(Debug, Clone)]
pub(crate) struct Basis {
    read: Vec<RowKey>,
    claimed: Vec<ScopedAddress>,
    usage: BTreeMap<ProjectId, QuotaAmounts>,
    name: Option<(ObjectKind, Name)>,
    mac: Option<MacAddr>,
}

impl Basis {
    pub(crate) fn of(plan: &Plan) -> Self {
        Self {
            read: plan.read.clone(),
            claimed: plan.claimed.clone(),
            usage: plan.usage.clone(),
            name: plan.name.clone(),
            mac: plan.mac,
        }
    }

    /// `Ok`: decide anew, on memory that was corrected.
    pub(crate) async fn judge(&self, manager: &Manager, error: CommitError) -> Result<(), Problem> {
        match error {
            CommitError::Guard(Guard::NetworkQuota) => self.check_quota(manager).await,
            CommitError::Guard(guard) => {
                tracing::debug!(?guard, "a change is decided anew");
                self.refresh(manager).await
            }
            CommitError::Constraint(constraint) => self.judge_constraint(manager, constraint).await,
            error @ (CommitError::Unavailable(_) | CommitError::Internal(_)) => Err(commit_problem(error)),
        }
    }

    /// Refuses a plan that takes more than a project's quota leaves.
    pub(crate) async fn check_quota(&self, manager: &Manager) -> Result<(), Problem> {
        for (project_id, amounts) in &self.usage {
            check_quota(&manager.store, *project_id, amounts).await?;
        }
        Ok(())
    }

    async fn refresh(&self, manager: &Manager) -> Result<(), Problem> {
        manager.refresh(&self.read).await.map_err(read_problem)?;
        manager.refresh_addresses(&self.claimed).await.map_err(read_problem)
    }

    async fn judge_constraint(&self, manager: &Manager, constraint: Constraint) -> Result<(), Problem> {
        if constraint.is_name()
            && let Some((kind, name)) = &self.name
        {
            return Err(Problem::already_exists(kind.label(), name.as_str()));
        }
        match (constraint, self.mac) {
            (Constraint::PortMac, Some(mac)) => Err(mac_taken(mac)),
            // These were drawn at random: draw again.
            (Constraint::PortMac | Constraint::UplinkMac | Constraint::NetworkVni, _) => Ok(()),
            (Constraint::RouterNetwork | Constraint::PeeringPair | Constraint::FloatingIpTarget, _) => {
                self.refresh(manager).await
            }
            (Constraint::ForeignKey(key), _) if key.parent() == Table::Project => {
                let project = self.usage.keys().next().map(ToString::to_string).unwrap_or_default();
                Err(Problem::not_found("project", project))
            }
            (Constraint::ForeignKey(_), _) => self.refresh(manager).await,
            (Constraint::PrimaryKey(table), _) => Err(Problem::new(
                ErrorKind::AlreadyExists,
                "id_taken",
                format!("an object of that id exists already ({})", table.name()),
            )),
            (constraint, _) => Err(commit_problem(CommitError::Constraint(constraint))),
        }
    }
}

/// Decides and commits. None: somebody was faster, and memory was corrected.
pub(crate) async fn try_commit<T>(
    manager: &Manager,
    decide: impl FnOnce(Planner<'_>) -> Result<(Plan, T), Problem>,
) -> Result<Option<T>, Problem> {
    let (plan, outcome) = manager.decide(manager.context(None), decide)?;
    let (basis, unit) = (Basis::of(&plan), plan.unit());
    match manager.commit(plan, unit).await {
        Ok(()) => Ok(Some(outcome)),
        Err(error) => basis.judge(manager, error).await.map(|()| None),
    }
}

/// Decides and commits, again as long as somebody was faster.
pub(crate) async fn commit<T>(
    manager: &Manager,
    decide: impl Fn(Planner<'_>) -> Result<(Plan, T), Problem>,
) -> Result<T, Problem> {
    for _ in 0..COMMIT_ATTEMPTS {
        if let Some(outcome) = try_commit(manager, &decide).await? {
            return Ok(outcome);
        }
    }
    Err(contended_change())
}
