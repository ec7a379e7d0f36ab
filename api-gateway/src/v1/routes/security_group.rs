//! Security groups: what may pass to and from the ports that are in them.

use super::kind::{self, KindRoutes, Texts};
use crate::{
    app::{
        App,
        intent::Intent,
        network::{
            related::{self, Related},
            security_group,
        },
        plan::Done,
    },
    auth::caller::SystemRole,
    http::{
        intent::{Change, MutationHeaders, MutationParams},
        page::ListParams,
        path::Path,
        problem::ApiResult,
        query::Query,
        reply,
    },
    v1::{
        answer, check,
        scope::{InProject, Read, Write},
        view::{
            plan::DryRun,
            security_group::{SecurityGroupView, SecurityRuleView, security_group_view, security_rule_view},
        },
    },
};
use api_types::{SecurityGroupChange, SecurityGroupCreate, SecurityRuleCreate};
use axum::extract::State;
use domain::{
    Problem,
    network::{SecurityGroup, SecurityGroupPatch},
};
use http::StatusCode;
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    kind::routes::<SecurityGroup>().routes(routes!(add_rule)).routes(routes!(remove_rule))
}

impl KindRoutes for SecurityGroup {
    const TEXTS: Texts = Texts {
        path: "/v1/security-groups",
        tag: "security groups",
        param: "security_group",
        key: "Id or name.",
        list: "Lists the project's security groups with their rules.",
        create: "Creates a security group with the given rules. Without rules, all outgoing traffic is allowed, and incoming only replies.",
        show: "Shows a security group with its rules.",
        change: Some("Changes name or description."),
        delete: "Deletes a security group that no port and no rule of another group uses.",
    };
    type Reading = InProject<Read>;
    type Writing = InProject<Write>;
    type Query = ListParams;
    type View = SecurityGroupView;
    type CreateBody = SecurityGroupCreate;
    type ChangeBody = SecurityGroupChange;

    fn check_create(body: SecurityGroupCreate) -> Result<security_group::SecurityGroupCreate, Problem> {
        check::network::security_group(body)
    }

    fn check_change(body: SecurityGroupChange) -> Result<SecurityGroupPatch, Problem> {
        check::network::security_group_change(body)
    }

    fn view(self, related: &Related, _: SystemRole) -> SecurityGroupView {
        security_group_view(self, related)
    }
}

/// Adds a rule to a security group. It applies at once to every port in the group; open connections stay.
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
    let rule = check::network::security_rule(&body)?;
    let done = security_group::add_rule(&app, &scope.caller, scope.id(), &key, rule, &intent).await?;
    let rule = match done {
        Done::Plan(plan) => return answer::planned(plan),
        Done::Change(rule) => rule,
    };
    let related = related::rules(&app, [&rule]).await?;
    reply::json(StatusCode::CREATED, &security_rule_view(rule, &related))
}

/// Removes a rule from a security group: connections that it allowed are cut, where no other rule allows them.
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
    answer::deleted(security_group::remove_rule(&app, &scope.caller, scope.id(), &key, &rule, &intent).await?)
}
