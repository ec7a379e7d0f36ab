//! Instances: make, list, show, change, delete. What is done with a running one: `instance_action`.

use crate::{
    app::{
        App,
        instance::{self, ChangeRequest, Created},
        instance_list::{self, InstanceQuery},
        instance_wait::{self, After, Wait, WaitTarget, Waited},
        intent::Intent,
        network::related,
        plan::Done,
        wait,
    },
    auth::caller::Caller,
    http::{
        intent::{Change, MutationHeaders, MutationParams},
        page::{List, list_params},
        path::Path,
        problem::ApiResult,
        query::Query,
        reply,
    },
    v1::{
        answer, check,
        scope::{InProject, Read, Write},
        view::{
            instance::{InstanceView, InstancesMade, instance_view, not_made},
            names::WaitTargetName,
            plan::DryRun,
        },
    },
};
use api_types::{InstanceChange, InstanceCreate};
use axum::extract::State;
use domain::{
    Problem, ProjectId, Violations,
    instance::Instance,
    policy::{Action, Resource},
};
use http::StatusCode;
use serde::Deserialize;
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(show, change, delete))
}

/// The query parameters of a change that can be waited for.
#[derive(Debug, Clone, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct WaitedMutationParams {
    /// Id or name of the project; else the header `X-Iaas-Project`, the API key's, or your home project.
    #[allow(dead_code)]
    project: Option<String>,
    /// Only checks the request and shows the plan; nothing is changed.
    #[serde(default)]
    #[param(required = false)]
    #[allow(dead_code)]
    dry_run: bool,
    /// Answer when the instance is in this state, or in error. A wait longer than `timeout` is a 504; the change stands.
    #[param(inline, value_type = Option<WaitTargetName>)]
    wait: Option<WaitTarget>,
    /// How long to wait: `60s` unless given, `1500ms`, `2m`, at most 10 minutes.
    timeout: Option<String>,
}

fn wait_of(
    app: &App,
    caller: &Caller,
    target: Option<WaitTarget>,
    timeout: Option<&str>,
) -> Result<Option<Wait>, Problem> {
    // A bad time is an error also without a wait.
    let timeout = wait::parse_timeout(timeout)?;
    target.map(|target| Wait::admit(app, caller, target, timeout)).transpose()
}

impl WaitedMutationParams {
    pub fn wait(&self, app: &App, caller: &Caller) -> Result<Option<Wait>, Problem> {
        wait_of(app, caller, self.wait, self.timeout.as_deref())
    }
}

/// The answer of a change of one instance, after the wait that was requested.
pub async fn changed(
    app: &App,
    caller: &Caller,
    status: StatusCode,
    done: Done<Instance>,
    wait: Option<Wait>,
    restarts: bool,
) -> ApiResult {
    let mut instance = match done {
        Done::Plan(plan) => return answer::planned(plan),
        Done::Change(instance) => instance,
    };
    if let Some(wait) = &wait {
        let after = After { answer: &instance, restarts };
        match instance_wait::until(app, instance.id, wait.target, Some(after), wait.timeout).await? {
            Waited::Instance(now) => instance = *now,
            Waited::Gone => return Ok(reply::no_content()),
        }
    }
    shown(app, caller, status, instance).await
}

async fn shown(app: &App, caller: &Caller, status: StatusCode, instance: Instance) -> ApiResult {
    let generation = instance.generation;
    let related = related::instances(app, [&instance]).await?;
    reply::object(status, generation, &instance_view(instance, &related, caller.system_role()))
}

list_params! {
    InstanceListParams {
        /// Only in one of these states: given several times, or separated by commas.
        #[serde(default)]
        #[param(required = false)]
        state: Vec<String>,
        /// Only with this name, or with a name that begins so: `web-*`.
        name: Option<String>,
        /// Only created from this image: id or name.
        image: Option<String>,
        /// Only on this host: id or name. System admins only.
        host: Option<String>,
        /// Only with this tag, `key:value`; given several times: with all of them.
        #[serde(default)]
        #[param(required = false)]
        tag: Vec<String>,
        /// The instances of all projects. System admins only.
        #[serde(default)]
        #[param(required = false)]
        all_projects: bool,
        /// The newest first; else the oldest.
        #[serde(default)]
        #[param(required = false)]
        newest_first: bool,
    }
}

/// Lists instances, the oldest first.
#[utoipa::path(get, path = "/v1/instances", tag = "instances", params(InstanceListParams),
    responses((status = 200, body = List<InstanceView>)))]
async fn list(State(app): State<App>, caller: Caller, Query(params): Query<InstanceListParams>) -> ApiResult {
    let project_id = if params.all_projects {
        caller.authorize(app.auth(), Action::SystemManage, Resource::System).await?;
        None
    } else {
        Some(caller.project_for(app.auth(), Action::ProjectRead).await?.id)
    };
    if params.host.is_some() {
        caller.authorize(app.auth(), Action::SystemManage, Resource::System).await?;
    }
    // A cursor belongs to the list with these filters.
    let InstanceListParams { state, name, image, host, tag, newest_first, .. } = &params;
    let list = format!("instances {project_id:?} {state:?} {name:?} {image:?} {host:?} {tag:?} {newest_first}");
    let page = params.common().page(&list)?;
    let instances = instance_list::list(&app, list_query(params, project_id)?, page.store_page()).await?;
    let (related, role) = (related::instances(&app, &instances).await?, caller.system_role());
    let view = |instance| instance_view(instance, &related, role);
    page.reply(instances, |instance| instance.id.to_string(), view)
}

fn list_query(params: InstanceListParams, project_id: Option<ProjectId>) -> Result<InstanceQuery, Problem> {
    let mut violations = Violations::default();
    let states = check::instance::states(&mut violations, &params.state);
    let tags = check::instance::tag_filters(&mut violations, &params.tag);
    let (name, name_prefix) = match params.name {
        None => (None, None),
        Some(name) => match name.strip_suffix('*') {
            Some(prefix) => (None, Some(prefix.to_owned())),
            None => (Some(name), None),
        },
    };
    let stars = name.as_ref().or(name_prefix.as_ref()).is_some_and(|text| text.contains('*'));
    violations.unless(!stars, "name", || "a name, or the beginning of one followed by *, is expected".to_owned());
    violations.finish()?;
    let InstanceListParams { image, host, newest_first, .. } = params;
    Ok(InstanceQuery { project_id, states, name, name_prefix, image, host, tags, newest_first })
}

/// Creates an instance, or (with `count`) several: all or none, or as many as fit. With `count` the answer is a list.
#[utoipa::path(post, path = "/v1/instances", tag = "instances", params(WaitedMutationParams, MutationHeaders),
    request_body = InstanceCreate,
    responses((status = 201, body = InstanceView, description = "Accepted and placed. With `count`: `{\"items\":[…],\"not_made\":…}`."),
        (status = 200, description = "With dry_run.", body = DryRun)))]
async fn create(
    State(app): State<App>,
    scope: InProject<Write>,
    Query(params): Query<WaitedMutationParams>,
    Change { body, intent }: Change<InstanceCreate>,
) -> ApiResult {
    let wait = params.wait(&app, &scope.caller)?;
    if wait.as_ref().is_some_and(|w| w.target == WaitTarget::Deleted) {
        return Err(Problem::invalid("wait", "`deleted` can't be waited for when an instance is created").into());
    }
    let many = body.count.is_some();
    let request = check::instance::create(body)?;
    let Created { mut instances, not_created } =
        match instance::create(&app, &scope.caller, scope.id(), request, &intent).await? {
            Done::Plan(plan) => return answer::planned(plan),
            Done::Change(created) => created,
        };
    if !many {
        let only = instances.pop().ok_or_else(Problem::internal)?;
        return changed(&app, &scope.caller, StatusCode::CREATED, Done::Change(only), wait, false).await;
    }
    if let Some(wait) = wait {
        instances = instance_wait::for_all(&app, instances, wait).await?;
    }
    let (related, role) = (related::instances(&app, &instances).await?, scope.caller.system_role());
    let items = instances.into_iter().map(|instance| instance_view(instance, &related, role)).collect();
    let not_made = not_created.map(|not_created| not_made(not_created, role));
    reply::json(StatusCode::CREATED, &InstancesMade { items, not_made })
}

#[derive(Debug, Clone, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct InstanceShowParams {
    /// Id or name of the project; else the header `X-Iaas-Project`, the API key's, or your home project.
    #[allow(dead_code)]
    project: Option<String>,
    /// Answer when the instance is in this state, or in error; 504 after `timeout`.
    #[param(inline, value_type = Option<WaitTargetName>)]
    wait: Option<WaitTarget>,
    /// How long to wait: `60s` unless given, `1500ms`, `2m`, at most 10 minutes.
    timeout: Option<String>,
}

/// Shows an instance, at once or when it is in the expected state.
#[utoipa::path(get, path = "/v1/instances/{instance}", tag = "instances",
    params(("instance" = String, Path, description = "Id or name."), InstanceShowParams),
    responses((status = 200, body = InstanceView), (status = 204, description = "With `wait=deleted`: it is gone.")))]
async fn show(
    State(app): State<App>,
    scope: InProject<Read>,
    Path(key): Path<String>,
    Query(params): Query<InstanceShowParams>,
) -> ApiResult {
    let wait = wait_of(&app, &scope.caller, params.wait, params.timeout.as_deref())?;
    let mut instance = instance::find(&app, scope.id(), &key).await?;
    if let Some(wait) = &wait {
        match instance_wait::until(&app, instance.id, wait.target, None, wait.timeout).await? {
            Waited::Instance(now) => instance = *now,
            Waited::Gone => return Ok(reply::no_content()),
        }
    }
    shown(&app, &scope.caller, StatusCode::OK, instance).await
}

/// Changes name, tags or what happens on a crash.
#[utoipa::path(patch, path = "/v1/instances/{instance}", tag = "instances",
    params(("instance" = String, Path, description = "Id or name."), MutationParams, MutationHeaders),
    request_body = InstanceChange,
    responses((status = 200, body = InstanceView)))]
async fn change(
    State(app): State<App>,
    scope: InProject<Write>,
    Path(key): Path<String>,
    _: Query<MutationParams>,
    Change { body, intent }: Change<InstanceChange>,
) -> ApiResult {
    check::instance::change(&body)?;
    let InstanceChange { name, tags, on_crash } = body;
    let request = ChangeRequest::Describe { name, tags, on_crash };
    let done = instance::change(&app, &scope.caller, scope.id(), &key, &intent, request).await?;
    changed(&app, &scope.caller, StatusCode::OK, done, None, false).await
}

/// Deletes an instance and its disk. It is `deleting` until its host has proved that it is gone.
#[utoipa::path(delete, path = "/v1/instances/{instance}", tag = "instances",
    params(("instance" = String, Path, description = "Id or name."), WaitedMutationParams, MutationHeaders),
    responses((status = 202, body = InstanceView), (status = 204, description = "It is gone."),
        (status = 200, description = "With dry_run.", body = DryRun)))]
async fn delete(
    State(app): State<App>,
    scope: InProject<Write>,
    Path(key): Path<String>,
    Query(params): Query<WaitedMutationParams>,
    intent: Intent,
) -> ApiResult {
    let wait = params.wait(&app, &scope.caller)?;
    if wait.as_ref().is_some_and(|w| w.target != WaitTarget::Deleted) {
        return Err(Problem::invalid("wait", "only `deleted` can be waited for when an instance is deleted").into());
    }
    match instance::delete(&app, &scope.caller, scope.id(), &key, &intent).await? {
        Done::Plan(plan) => answer::planned(plan),
        Done::Change(None) => Ok(reply::no_content()),
        Done::Change(Some(instance)) => {
            changed(&app, &scope.caller, StatusCode::ACCEPTED, Done::Change(instance), wait, false).await
        }
    }
}
