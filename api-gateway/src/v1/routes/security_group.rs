//! Security groups: what may pass to and from the ports that are in them.

use super::network::{ended, planned};
use crate::{
    app::{
        App,
        catalog::shown as shown_key,
        instance::Done,
        network::{
            Call, check,
            find::{self, in_field},
            look,
        },
    },
    auth::scope::{InProject, Read, Write},
    http::{
        intent::{Change, Intent, MutationHeaders, MutationParams},
        page::{List, ListParams},
        path::Path,
        problem::{ApiError, ApiResult},
        query::{ProjectParams, Query},
        reply,
    },
    v1::view::{
        plan::DryRun,
        security_group::{
            SecurityGroupChange, SecurityGroupCreate, SecurityGroupView, SecurityRuleCreate, SecurityRuleView,
        },
    },
};
use axum::extract::State;
use domain::{
    Problem, ProjectId, SecurityGroupId, SecurityRuleId,
    network::{Change as Wanted, SecurityGroup, SecurityGroupRule},
};
use http::StatusCode;
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(show, change, delete))
        .routes(routes!(add_rule))
        .routes(routes!(remove_rule))
}

async fn shown(app: &App, status: StatusCode, done: Done<SecurityGroup>) -> ApiResult {
    let object = match done {
        Done::Plan(plan) => return planned(plan),
        Done::Change(object) => object,
    };
    let around = look::security_groups(app, std::slice::from_ref(&object)).await?;
    reply::object(status, object.generation, &SecurityGroupView::new(object, &around))
}

/// The group that a rule names.
async fn remote(
    app: &App,
    project_id: ProjectId,
    field: &str,
    key: Option<&str>,
) -> Result<Option<SecurityGroupId>, ApiError> {
    let Some(key) = key else { return Ok(None) };
    Ok(Some(in_field(field, find::security_group(app, project_id, key)).await?.id))
}

/// Lists the project's security groups with their rules.
#[utoipa::path(get, path = "/v1/security-groups", tag = "security groups", params(ListParams),
    responses((status = 200, body = List<SecurityGroupView>)))]
async fn list(State(app): State<App>, scope: InProject<Read>, Query(params): Query<ListParams>) -> ApiResult {
    let page = params.page(&format!("security groups of {}", scope.id()))?;
    let rows = app.store().security_group_list(scope.id(), page.store_page()).await?;
    let around = look::security_groups(&app, &rows).await?;
    page.reply(rows, |row| row.id.to_string(), |row| SecurityGroupView::new(row, &around))
}

/// Makes a security group, with the rules that are given; else with everything allowed out, and nothing in but replies.
#[utoipa::path(post, path = "/v1/security-groups", tag = "security groups", params(MutationParams, MutationHeaders),
    request_body = SecurityGroupCreate,
    responses((status = 201, body = SecurityGroupView), (status = 200, description = "With dry_run.", body = DryRun)))]
async fn create(
    State(app): State<App>,
    scope: InProject<Write>,
    _: Query<MutationParams>,
    Change { body, intent }: Change<SecurityGroupCreate>,
) -> ApiResult {
    let (name, rules) = check::security_group(&body)?;
    let count = rules.len();
    let ids = async || {
        let rules = (0..count).map(|_| SecurityRuleId::new().0);
        Ok(std::iter::once(SecurityGroupId::new().0).chain(rules).collect())
    };
    let call = Call::open(&app, &scope.caller, Some(scope.id()), &intent, ids).await?;
    let id = SecurityGroupId(call.id()?);
    let change = async || {
        let mut made = Vec::with_capacity(count);
        for (at, (asked, rule_id)) in rules.iter().zip(call.ids().iter().skip(1)).enumerate() {
            let group = match asked.group() {
                // Its own ports.
                Some(key) if key == name.as_str() => Some(id),
                other => remote(&app, scope.id(), &format!("/rules/{at}/remote_group"), other).await?,
            };
            made.push((SecurityRuleId(*rule_id), asked.rule(group), asked.description.clone()));
        }
        let (name, description) = (name.clone(), body.description.clone());
        Ok(Wanted::SecurityGroupCreate { id, name, description, rules: made })
    };
    let done = call.run(change).await?;
    shown(&app, StatusCode::CREATED, done).await
}

/// Shows a security group with its rules.
#[utoipa::path(get, path = "/v1/security-groups/{security_group}", tag = "security groups",
    params(("security_group" = String, Path, description = "Id or name."), ProjectParams),
    responses((status = 200, body = SecurityGroupView)))]
async fn show(
    State(app): State<App>,
    scope: InProject<Read>,
    Path(key): Path<String>,
    _: Query<ProjectParams>,
) -> ApiResult {
    let object = find::security_group(&app, scope.id(), &key).await?;
    shown(&app, StatusCode::OK, Done::Change(object)).await
}

/// Changes name or description.
#[utoipa::path(patch, path = "/v1/security-groups/{security_group}", tag = "security groups",
    params(("security_group" = String, Path, description = "Id or name."), MutationParams, MutationHeaders),
    request_body = SecurityGroupChange,
    responses((status = 200, body = SecurityGroupView)))]
async fn change(
    State(app): State<App>,
    scope: InProject<Write>,
    Path(key): Path<String>,
    _: Query<MutationParams>,
    Change { body, intent }: Change<SecurityGroupChange>,
) -> ApiResult {
    let name = check::security_group_change(&body)?;
    let ids = async || Ok(vec![find::security_group(&app, scope.id(), &key).await?.id.0]);
    let call = Call::open(&app, &scope.caller, Some(scope.id()), &intent, ids).await?;
    let id = SecurityGroupId(call.id()?);
    let change = async || Ok(Wanted::SecurityGroupUpdate { id, name, description: body.description });
    let done = call.run(change).await?;
    shown(&app, StatusCode::OK, done).await
}

/// Deletes a security group that no port is in and no other group's rule names.
#[utoipa::path(delete, path = "/v1/security-groups/{security_group}", tag = "security groups",
    params(("security_group" = String, Path, description = "Id or name."), MutationParams, MutationHeaders),
    responses((status = 204, description = "It is gone."), (status = 200, description = "With dry_run.", body = DryRun)))]
async fn delete(
    State(app): State<App>,
    scope: InProject<Write>,
    Path(key): Path<String>,
    _: Query<MutationParams>,
    intent: Intent,
) -> ApiResult {
    let ids = async || Ok(vec![find::security_group(&app, scope.id(), &key).await?.id.0]);
    let call = Call::open(&app, &scope.caller, Some(scope.id()), &intent, ids).await?;
    let id = SecurityGroupId(call.id()?);
    ended(call.end(async || Ok(Wanted::SecurityGroupDelete { id })).await?)
}

/// Adds a rule to a security group. It holds at once for every port in it; open connections stay.
#[utoipa::path(post, path = "/v1/security-groups/{security_group}/rules", tag = "security groups",
    params(("security_group" = String, Path, description = "Id or name."), MutationParams, MutationHeaders),
    request_body = SecurityRuleCreate,
    responses((status = 201, body = SecurityRuleView), (status = 200, description = "With dry_run.", body = DryRun)))]
async fn add_rule(
    State(app): State<App>,
    scope: InProject<Write>,
    Path(key): Path<String>,
    _: Query<MutationParams>,
    Change { body, intent }: Change<SecurityRuleCreate>,
) -> ApiResult {
    let asked = check::security_rule(&body)?;
    let ids = async || {
        let group = find::security_group(&app, scope.id(), &key).await?;
        Ok(vec![group.id.0, SecurityRuleId::new().0])
    };
    let call = Call::open(&app, &scope.caller, Some(scope.id()), &intent, ids).await?;
    let (group_id, id) = ids_of(&call)?;
    let change = async || {
        let group = remote(&app, scope.id(), "/remote_group", asked.group()).await?;
        Ok(Wanted::SecurityRuleCreate {
            id,
            security_group_id: group_id,
            rule: asked.rule(group),
            description: asked.description.clone(),
        })
    };
    let rule: SecurityGroupRule = match call.run(change).await? {
        Done::Plan(plan) => return planned(plan),
        Done::Change(rule) => rule,
    };
    let around = look::rules(&app, [&rule]).await?;
    reply::json(StatusCode::CREATED, &SecurityRuleView::new(rule, &around))
}

/// Takes a rule from a security group: what it allowed is cut, where no other rule allows it.
#[utoipa::path(delete, path = "/v1/security-groups/{security_group}/rules/{rule}", tag = "security groups",
    params(("security_group" = String, Path, description = "Id or name."), ("rule" = String, Path, description = "Id."),
        MutationParams, MutationHeaders),
    responses((status = 204, description = "It is gone."), (status = 200, description = "With dry_run.", body = DryRun)))]
async fn remove_rule(
    State(app): State<App>,
    scope: InProject<Write>,
    Path(path): Path<(String, String)>,
    _: Query<MutationParams>,
    intent: Intent,
) -> ApiResult {
    let (key, rule) = path;
    let ids = async || {
        let group = find::security_group(&app, scope.id(), &key).await?;
        let id = rule.parse::<SecurityRuleId>().ok();
        let found = group.rules.iter().find(|r| Some(r.id) == id);
        let missing = || Problem::not_found("security rule", shown_key(&rule)).with_hint("the group shows its rules");
        Ok(vec![group.id.0, found.ok_or_else(missing)?.id.0])
    };
    let call = Call::open(&app, &scope.caller, Some(scope.id()), &intent, ids).await?;
    let (security_group_id, id) = ids_of(&call)?;
    ended(call.end(async || Ok(Wanted::SecurityRuleDelete { id, security_group_id })).await?)
}

/// The group's and the rule's.
fn ids_of(call: &Call<'_>) -> Result<(SecurityGroupId, SecurityRuleId), Problem> {
    match call.ids() {
        [group, rule] => Ok((SecurityGroupId(*group), SecurityRuleId(*rule))),
        _ => Err(Problem::internal()),
    }
}
