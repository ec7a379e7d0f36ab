//! Any change of any object: decided on memory, committed in one unit with its outcome, its event and its audit line, and applied to
//! memory.

use super::commit::{Basis, contended_change};
use crate::{
    Manager,
    network::{
        plan::{Plan, QuotaFit},
        topology::{DEFAULT, RowChange},
    },
};
use domain::{
    Problem, ProjectId, Timestamp,
    network::{Change, ChangeOutcome},
    quota::QuotaAmounts,
};
use operation::{COMMIT_ATTEMPTS, ProjectQuota, read_problem, store_outcome};
use proto::{
    convert::parse_optional,
    resource::v1::{ApplyRequest, ApplyResponse},
};
use service_kit::context::CallContext;
use store::{CommitError, Constraint, OperationTable, Table, Unit};

pub(super) async fn call(
    manager: &Manager,
    context: &CallContext,
    request: ApplyRequest,
) -> Result<ApplyResponse, Problem> {
    let change: Change = serde_json::from_str(&request.change_json)
        .map_err(|error| Problem::invalid("change_json", format!("is no change that this version knows: {error}")))?;
    let project_id: Option<ProjectId> = parse_optional("project_id", &request.project_id)?;
    let request = ChangeRequest { change, project_id, expected_generation: request.expected_generation };
    let answer = async { encode(&apply(manager, context, &request).await?) };
    manager.operations.execute_once(context, answer).await
}

fn encode(outcome: &ChangeOutcome) -> Result<ApplyResponse, Problem> {
    let outcome_json = serde_json::to_string(outcome).map_err(|error| {
        tracing::error!(%error, "an outcome can't be written");
        Problem::internal()
    })?;
    Ok(ApplyResponse { outcome_json })
}

#[derive(Debug, Clone)]
pub(crate) struct ChangeRequest {
    pub change: Change,
    pub project_id: Option<ProjectId>,
    pub expected_generation: i64,
}

impl ChangeRequest {
    /// A change that the cloud makes by itself.
    pub(crate) fn new(change: Change, project_id: Option<ProjectId>) -> Self {
        Self { change, project_id, expected_generation: 0 }
    }
}

/// As a call does, for whoever is named by the context.
pub(crate) async fn apply(
    manager: &Manager,
    context: &CallContext,
    request: &ChangeRequest,
) -> Result<ChangeOutcome, Problem> {
    let ChangeRequest { change, project_id, expected_generation } = request;
    let defaults_of = project_id.filter(|_| *change == Change::ProjectDefaults);
    for _ in 0..COMMIT_ATTEMPTS {
        let mut plan_context = manager.context(*project_id);
        (plan_context.expected_generation, plan_context.dry_run) = (*expected_generation, context.dry_run);
        let now = plan_context.now;
        let fit = match defaults_of {
            Some(project_id) => quota_fit(manager, project_id).await?,
            None => QuotaFit::default(),
        };
        let (plan, outcome) = manager.decide(plan_context, |planner| planner.decide(change, fit))?;
        let basis = Basis::of(&plan);
        if context.dry_run {
            manager.abandon(&plan);
            basis.check_quota(manager).await?;
            return Ok(outcome);
        }
        let unit = unit(context, &plan, &outcome, now)?;
        match (manager.commit(plan, unit).await, defaults_of) {
            (Ok(()), _) => return Ok(outcome),
            (Err(CommitError::Constraint(Constraint::PrimaryKey(Table::ProjectNetworkDefault))), _) => {
                let summary = "the project has its defaults already".to_owned();
                return Ok(ChangeOutcome { object: None, summary, affects: vec![] });
            }
            (Err(CommitError::Constraint(Constraint::OperationRepeated)), _) => return Err(contended_change()),
            (Err(CommitError::Constraint(constraint)), Some(project_id)) if constraint.is_name() => {
                read_defaults(manager, project_id).await?;
            }
            (Err(error), _) => basis.judge(manager, error).await?,
        }
    }
    Err(contended_change())
}

/// The change with all that goes with it.
fn unit(context: &CallContext, plan: &Plan, outcome: &ChangeOutcome, now: Timestamp) -> Result<Unit, Problem> {
    let mut unit = plan.unit();
    store_outcome(&mut unit, OperationTable::Resource, context, &encode(outcome)?, now);
    for activity in &plan.activities {
        activity.clone().record(&mut unit, context, now);
    }
    Ok(unit)
}

/// What the project's quota leaves of the defaults.
async fn quota_fit(manager: &Manager, project_id: ProjectId) -> Result<QuotaFit, Problem> {
    let quota = ProjectQuota::fetch(&manager.store, project_id).await?;
    let fits = |amounts: QuotaAmounts| quota.check(&amounts).is_ok();
    Ok(QuotaFit {
        network: fits(QuotaAmounts { networks: 1, subnets: 2, ..QuotaAmounts::NONE }),
        router: fits(QuotaAmounts { routers: 1, ..QuotaAmounts::NONE }),
        group: fits(QuotaAmounts { security_groups: 1, security_rules: 8, ..QuotaAmounts::NONE }),
    })
}

/// The project has objects named `default` that memory doesn't know.
async fn read_defaults(manager: &Manager, project_id: ProjectId) -> Result<(), Problem> {
    let store = &manager.store;
    let network = store.network_find_by_name(project_id, DEFAULT).await.map_err(read_problem)?;
    let router = store.router_find_by_name(project_id, DEFAULT).await.map_err(read_problem)?;
    let group = store.security_group_find_by_name(project_id, DEFAULT).await.map_err(read_problem)?;
    let network = network.map(RowChange::Network);
    let (router, group) = (router.map(RowChange::Router), group.map(RowChange::SecurityGroup));
    manager.apply_committed(network.into_iter().chain(router).chain(group));
    Ok(())
}
