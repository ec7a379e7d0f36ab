//! Any change of any object: decided on memory, committed in one unit with its outcome, its event and its audit line, learned.

use super::failure::{self, Decided, Given};
use crate::{
    Manager,
    network::plan::{Draft, Fits, Plan},
    network::topology::Learned,
};
use domain::{
    AuditId, Name, OperationId, Problem, ProjectId, Timestamp,
    event::{AuditEntry, NewEvent},
    network::{Action, Change, ChangeOutcome},
    quota::QuotaAmounts,
};
use proto::{
    convert::parse_optional,
    resource::v1::{ApplyRequest, ApplyResponse},
};
use service_kit::context::CallContext;
use store::{AuditInsert, CommitError, Constraint, EventInsert, OperationTable, ResourceOperationInsert, Unit};

pub(super) async fn call(
    manager: &Manager,
    context: &CallContext,
    request: ApplyRequest,
) -> Result<ApplyResponse, Problem> {
    let change: Change = serde_json::from_str(&request.change_json)
        .map_err(|error| Problem::invalid("change_json", format!("is no change that this version knows: {error}")))?;
    let project_id: Option<ProjectId> = parse_optional("project_id", &request.project_id)?;
    let wish = Wish { change, project_id, expected_generation: request.expected_generation };
    let outcome_json = match context.operation_id.filter(|_| !context.dry_run) {
        None => encode(&apply(manager, context, &wish).await?)?,
        Some(id) => {
            let entered = manager.operations.enter(id).await;
            if entered.waited
                && let Some(outcome) = stored(manager, id).await?
            {
                outcome
            } else {
                match apply(manager, context, &wish).await {
                    Ok(outcome) => encode(&outcome)?,
                    // A repeat fails on what it did itself before: then its first answer is there.
                    Err(problem) => stored(manager, id).await?.ok_or(problem)?,
                }
            }
        }
    };
    Ok(ApplyResponse { outcome_json })
}

async fn stored(manager: &Manager, id: OperationId) -> Result<Option<String>, Problem> {
    manager.store.operation_find(OperationTable::Resource, id).await.map_err(|e| failure::of_read(&e))
}

fn encode(outcome: &ChangeOutcome) -> Result<String, Problem> {
    serde_json::to_string(outcome).map_err(|error| {
        tracing::error!(%error, "an outcome can't be written");
        Problem::internal()
    })
}

#[derive(Debug, Clone)]
pub(crate) struct Wish {
    pub change: Change,
    pub project_id: Option<ProjectId>,
    pub expected_generation: i64,
}

/// As a call does, for whoever is named by the context.
pub(crate) async fn apply(manager: &Manager, context: &CallContext, wish: &Wish) -> Result<ChangeOutcome, Problem> {
    let given = given(&wish.change);
    for _ in 0..failure::TRIES {
        let mut ask = manager.ask(wish.project_id);
        (ask.expected_generation, ask.dry_run) = (wish.expected_generation, context.dry_run);
        let now = ask.now;
        let fits = match (&wish.change, wish.project_id) {
            (Change::ProjectDefaults, Some(project_id)) => Some(fits(manager, project_id).await?),
            _ => None,
        };
        let (plan, outcome) = manager.decide(ask, |draft: Draft<'_>| match fits {
            Some(fits) => draft.decide_defaults(fits),
            None => draft.decide(&wish.change),
        })?;
        if context.dry_run {
            manager.abandon(&plan);
            for (project_id, asked) in &plan.usage {
                failure::check_quota(manager, *project_id, asked).await?;
            }
            return Ok(outcome);
        }
        let decided = Decided::on(&plan);
        let unit = unit(context, &plan, &outcome, now)?;
        match manager.commit(plan, unit).await {
            Ok(()) => return Ok(outcome),
            Err(CommitError::Constraint(Constraint::PrimaryKey(store::Table::ProjectNetworkDefault))) => {
                let summary = "the project has its defaults already".to_owned();
                return Ok(ChangeOutcome { object: None, summary, affects: vec![] });
            }
            Err(CommitError::Constraint(Constraint::OperationRepeated)) => {
                return Err(failure::contended());
            }
            Err(CommitError::Constraint(
                Constraint::NetworkName | Constraint::SecurityGroupName | Constraint::RouterName,
            )) if fits.is_some() => learn_defaults(manager, wish.project_id).await?,
            Err(error) => failure::of_commit(manager, error, &decided, &given).await?,
        }
    }
    Err(failure::contended())
}

/// What constraints may refuse of it.
fn given(change: &Change) -> Given {
    let (name, mac): (Option<&Name>, _) = match change {
        Change::ExternalNetwork(Action::Create(new)) => (Some(&new.name), None),
        Change::Network(Action::Create(new)) => (Some(&new.name), None),
        Change::Subnet(Action::Create(new)) => (Some(&new.name), None),
        Change::Router(Action::Create(new)) => (Some(&new.name), None),
        Change::SecurityGroup(Action::Create(new)) => (Some(&new.name), None),
        Change::Peering(Action::Create(new)) => (Some(&new.name), None),
        Change::Port(Action::Create(new)) => (Some(&new.name), new.mac),
        Change::Network(Action::Update(_, patch)) => (patch.name.as_ref(), None),
        Change::Subnet(Action::Update(_, patch)) => (patch.name.as_ref(), None),
        Change::Port(Action::Update(_, patch)) => (patch.name.as_ref(), None),
        Change::Router(Action::Update(_, patch)) => (patch.name.as_ref(), None),
        Change::SecurityGroup(Action::Update(_, patch)) => (patch.name.as_ref(), None),
        _ => (None, None),
    };
    Given { name: name.cloned(), mac }
}

/// The change with all that goes with it.
fn unit(context: &CallContext, plan: &Plan, outcome: &ChangeOutcome, now: Timestamp) -> Result<Unit, Problem> {
    let mut unit = plan.unit();
    if let Some(id) = context.operation_id {
        unit.push(ResourceOperationInsert { id, outcome: encode(outcome)?, created_at: now });
    }
    for words in &plan.words {
        unit.push(EventInsert(NewEvent {
            at: now,
            project_id: words.project_id,
            kind: words.event.clone(),
            object_kind: words.object_kind.to_owned(),
            object_id: words.object_id.clone(),
            message: words.message.clone(),
            request_id: context.request_id.clone(),
            data: serde_json::json!({ "touches": outcome.affects }),
        }));
        unit.push(AuditInsert(AuditEntry {
            id: AuditId::new(),
            at: now,
            principal: context.principal.clone(),
            principal_name: context.principal_name.clone(),
            project_id: words.project_id,
            action: words.action.clone(),
            object_kind: words.object_kind.to_owned(),
            object_id: words.object_id.clone(),
            request_id: context.request_id.clone(),
            outcome: "accepted".to_owned(),
            detail: words.message.clone(),
        }));
    }
    Ok(unit)
}

/// What the project's quota leaves of the defaults.
async fn fits(manager: &Manager, project_id: ProjectId) -> Result<Fits, Problem> {
    let quota = failure::quota(manager, project_id).await?;
    let (limit, used) = quota.ok_or_else(|| Problem::not_found("project", project_id))?;
    let fit = |asked: QuotaAmounts| QuotaAmounts::refusal(&limit, &used, &asked).is_none();
    Ok(Fits {
        network: fit(QuotaAmounts { networks: 1, subnets: 2, ..QuotaAmounts::NONE }),
        router: fit(QuotaAmounts { routers: 1, ..QuotaAmounts::NONE }),
        group: fit(QuotaAmounts { security_groups: 1, security_rules: 8, ..QuotaAmounts::NONE }),
    })
}

/// The project has objects of that name that memory doesn't know.
async fn learn_defaults(manager: &Manager, project_id: Option<ProjectId>) -> Result<(), Problem> {
    let Some(project_id) = project_id else { return Ok(()) };
    let store = &manager.store;
    let read = |error| failure::of_read(&error);
    let network = store.network_find_by_name(project_id, crate::network::topology::DEFAULT).await.map_err(read)?;
    let router = store.router_find_by_name(project_id, crate::network::topology::DEFAULT).await.map_err(read)?;
    let group = store.security_group_find_by_name(project_id, crate::network::topology::DEFAULT).await.map_err(read)?;
    manager.learn(network.map(Learned::Network));
    manager.learn(router.map(Learned::Router));
    manager.learn(group.map(Learned::SecurityGroup));
    Ok(())
}
