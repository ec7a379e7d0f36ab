//! Security groups: what may pass to and from the ports that are in them.

use super::{
    Call,
    find::{self, in_field},
    kind::{NetworkKind, common, own_id},
    rule::RuleRequest,
};
use crate::{
    app::{App, catalog::shown, intent::Intent, plan::Done},
    auth::caller::Caller,
    failure::ApiError,
};
use domain::{
    Name, Problem, ProjectId, SecurityGroupId, SecurityRuleId,
    network::{Change, NewSecurityGroup, SecurityGroup, SecurityGroupPatch, SecurityGroupRule},
};
use store::Page;
use uuid::Uuid;

pub struct SecurityGroupCreate {
    pub name: Name,
    pub description: String,
    pub rules: Vec<RuleRequest>,
}

impl NetworkKind for SecurityGroup {
    type Owner = ProjectId;
    type Filter = ();
    type Create = SecurityGroupCreate;
    type Change = SecurityGroupPatch;

    common!(security_groups);

    async fn find(app: &App, project_id: ProjectId, key: &str) -> Result<Self, ApiError> {
        find::security_group(app, project_id, key).await
    }

    async fn list(app: &App, project_id: ProjectId, (): &(), page: Page) -> Result<Vec<Self>, ApiError> {
        Ok(app.store().security_group_list(project_id, page).await?)
    }

    /// The group's id, and one for each of its rules.
    fn new_ids(request: &SecurityGroupCreate) -> usize {
        1 + request.rules.len()
    }

    async fn create(
        app: &App,
        project_id: ProjectId,
        ids: &[Uuid],
        request: SecurityGroupCreate,
    ) -> Result<Change, ApiError> {
        let SecurityGroupCreate { name, description, rules: requested } = request;
        let id = SecurityGroupId(own_id(ids)?);
        let mut rules = Vec::with_capacity(requested.len());
        for (at, (rule, rule_id)) in requested.into_iter().zip(ids.iter().skip(1)).enumerate() {
            let group = match rule.group() {
                // The group that is being made.
                Some(key) if key == name.as_str() => Some(id),
                other => rule_group(app, project_id, &format!("/rules/{at}/remote_group"), other).await?,
            };
            let (id, security_group_id) = (SecurityRuleId(*rule_id), id);
            let (rule, description) = (rule.rule(group), rule.description);
            rules.push(SecurityGroupRule { id, security_group_id, rule, description });
        }
        Ok(Change::create::<Self>(NewSecurityGroup { id, name, description, rules }))
    }

    async fn change(_: &App, _: ProjectId, id: Uuid, patch: SecurityGroupPatch) -> Result<Change, ApiError> {
        Ok(Change::update::<Self>(SecurityGroupId(id), patch))
    }
}

/// The group that a rule names.
async fn rule_group(
    app: &App,
    project_id: ProjectId,
    field: &str,
    key: Option<&str>,
) -> Result<Option<SecurityGroupId>, ApiError> {
    match key {
        Some(key) => Ok(Some(in_field(field, find::security_group(app, project_id, key)).await?.id)),
        None => Ok(None),
    }
}

/// Adds a rule to a group.
pub async fn add_rule(
    app: &App,
    caller: &Caller,
    project_id: ProjectId,
    key: &str,
    rule: RuleRequest,
    intent: &Intent,
) -> Result<Done<SecurityGroupRule>, ApiError> {
    let ids = async {
        let group = find::security_group(app, project_id, key).await?;
        Ok(vec![group.id.0])
    };
    let call = Call::open(app, caller, Some(project_id), intent, 1, ids).await?;
    let (security_group_id, id) = group_and_rule(&call)?;
    let change = async {
        let group = rule_group(app, project_id, "/remote_group", rule.group()).await?;
        let (rule, description) = (rule.rule(group), rule.description);
        let new = SecurityGroupRule { id, security_group_id, rule, description };
        Ok(Change::create::<SecurityGroupRule>(new))
    };
    call.apply(change).await
}

/// Removes a rule from a group.
pub async fn remove_rule(
    app: &App,
    caller: &Caller,
    project_id: ProjectId,
    key: &str,
    rule: &str,
    intent: &Intent,
) -> Result<Done<()>, ApiError> {
    let ids = async {
        let group = find::security_group(app, project_id, key).await?;
        let id = rule.parse::<SecurityRuleId>().ok();
        let found = group.rules.iter().find(|r| Some(r.id) == id);
        let missing = || Problem::not_found("security rule", shown(rule)).with_hint("the group shows its rules");
        Ok(vec![group.id.0, found.ok_or_else(missing)?.id.0])
    };
    let call = Call::open(app, caller, Some(project_id), intent, 0, ids).await?;
    let (_, id) = group_and_rule(&call)?;
    call.apply_deletion(async { Ok(Change::delete::<SecurityGroupRule>(id)) }).await
}

fn group_and_rule(call: &Call<'_>) -> Result<(SecurityGroupId, SecurityRuleId), Problem> {
    match call.ids() {
        [group, rule] => Ok((SecurityGroupId(*group), SecurityRuleId(*rule))),
        _ => Err(Problem::internal()),
    }
}
