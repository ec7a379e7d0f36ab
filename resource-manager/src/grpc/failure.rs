//! What a failed commit or read means for the call: to decide anew on fresher memory, or a problem. What only we should know is logged
//! here, once.

use crate::{
    Manager,
    network::{ipam::ScopedAddress, plan::Plan, topology::Key},
};
use domain::{
    ErrorKind, Name, Problem, ProjectId,
    network::{MacAddr, ObjectKind},
    quota::QuotaAmounts,
};
use std::{collections::BTreeMap, error::Error};
use store::{CommitError, Constraint, Guard, ReadError};

/// Wishes that are decided again because somebody was faster: so often, then the caller may try.
pub(crate) const TRIES: usize = 16;

/// What remains of a plan to judge its failure by.
#[derive(Debug, Clone)]
pub(crate) struct Decided {
    seen: Vec<Key>,
    claimed: Vec<ScopedAddress>,
    usage: BTreeMap<ProjectId, QuotaAmounts>,
}

impl Decided {
    pub(crate) fn on(plan: &Plan) -> Self {
        Self { seen: plan.seen.clone(), claimed: plan.claimed.clone(), usage: plan.usage.clone() }
    }
}

/// What the caller gave that a constraint may refuse.
#[derive(Debug, Clone, Default)]
pub(crate) struct Given {
    pub name: Option<Name>,
    pub mac: Option<MacAddr>,
}

fn database_away() -> Problem {
    Problem::unavailable("the database is not available")
}

pub(crate) fn of_read(error: &ReadError) -> Problem {
    match error {
        ReadError::Unavailable(_) => {
            tracing::warn!(error = error as &dyn Error, "a read waits for the database");
            database_away()
        }
        ReadError::Internal(_) => {
            tracing::error!(error = error as &dyn Error, "a read failed");
            Problem::internal()
        }
    }
}

/// Others changed the same thing each time.
pub(crate) fn contended() -> Problem {
    Problem::new(ErrorKind::StaleGeneration, "conflict", "others kept changing the same objects meanwhile")
        .with_hint("try again")
}

/// The kind whose name isn't free.
fn named_by(constraint: Constraint) -> Option<ObjectKind> {
    match constraint {
        Constraint::ExternalNetworkName => Some(ObjectKind::ExternalNetwork),
        Constraint::NetworkName => Some(ObjectKind::Network),
        Constraint::SubnetName => Some(ObjectKind::Subnet),
        Constraint::RouterName => Some(ObjectKind::Router),
        Constraint::SecurityGroupName => Some(ObjectKind::SecurityGroup),
        Constraint::PortName => Some(ObjectKind::Port),
        Constraint::PeeringName => Some(ObjectKind::Peering),
        _ => None,
    }
}

/// `Ok`: decide anew, on memory that was put right.
pub(crate) async fn of_commit(
    manager: &Manager,
    error: CommitError,
    decided: &Decided,
    given: &Given,
) -> Result<(), Problem> {
    match error {
        CommitError::Guard(Guard::NetworkQuota) => {
            for (project_id, asked) in &decided.usage {
                check_quota(manager, *project_id, asked).await?;
            }
            Ok(())
        }
        CommitError::Guard(guard) => {
            tracing::debug!(?guard, "a wish is decided anew");
            again(manager, decided).await
        }
        CommitError::Constraint(constraint) => broken(manager, constraint, decided, given).await,
        CommitError::Unavailable(_) => {
            tracing::warn!(error = &error as &dyn Error, "a change waits for the database");
            Err(database_away())
        }
        CommitError::Internal(_) => {
            tracing::error!(error = &error as &dyn Error, "a change was refused by the database");
            Err(Problem::internal())
        }
    }
}

async fn again(manager: &Manager, decided: &Decided) -> Result<(), Problem> {
    manager.refresh(&decided.seen).await.map_err(|e| of_read(&e))?;
    manager.refresh_addresses(&decided.claimed).await.map_err(|e| of_read(&e))
}

async fn broken(manager: &Manager, constraint: Constraint, decided: &Decided, given: &Given) -> Result<(), Problem> {
    if let Some(kind) = named_by(constraint) {
        let name = given.name.as_ref().map_or("default", Name::as_str);
        return Err(Problem::already_exists(kind.label(), name));
    }
    match (constraint, given.mac) {
        (Constraint::PortMac, Some(mac)) => Err(crate::network::plan::mac_taken(mac)),
        // Drawn by lot: draw again.
        (Constraint::PortMac | Constraint::UplinkMac | Constraint::NetworkVni, _) => Ok(()),
        (Constraint::RouterNetwork | Constraint::PeeringPair | Constraint::FloatingIpTarget, _) => {
            again(manager, decided).await
        }
        (Constraint::ForeignKey(key), _) if key.parent() == store::Table::Project => {
            let project = decided.usage.keys().next().map(ToString::to_string).unwrap_or_default();
            Err(Problem::not_found("project", project))
        }
        (Constraint::ForeignKey(_), _) => again(manager, decided).await,
        (Constraint::PrimaryKey(table), _) => Err(Problem::new(
            ErrorKind::AlreadyExists,
            "id_taken",
            format!("an object of that id exists already ({})", table.name()),
        )),
        (constraint, _) => {
            tracing::error!(?constraint, "a change broke a constraint that the code should keep");
            Err(Problem::internal())
        }
    }
}

/// The problem of a project whose quota doesn't leave what is asked.
pub(crate) async fn check_quota(manager: &Manager, project_id: ProjectId, asked: &QuotaAmounts) -> Result<(), Problem> {
    let left = quota(manager, project_id).await?;
    let (limit, used) = left.ok_or_else(|| Problem::not_found("project", project_id))?;
    QuotaAmounts::refusal(&limit, &used, asked).map_or(Ok(()), Err)
}

/// Limit and usage. None: there is no such project.
pub(crate) async fn quota(
    manager: &Manager,
    project_id: ProjectId,
) -> Result<Option<(QuotaAmounts, QuotaAmounts)>, Problem> {
    let limit = manager.store.quota_limit_find(project_id).await.map_err(|e| of_read(&e))?;
    let used = manager.store.quota_usage(project_id).await.map_err(|e| of_read(&e))?;
    if limit.is_none() && manager.store.project_find(project_id).await.map_err(|e| of_read(&e))?.is_none() {
        return Ok(None);
    }
    Ok(Some((limit.map_or(QuotaAmounts::NONE, |row| row.limit), used)))
}
