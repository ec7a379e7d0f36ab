//! Actions on an instance: power, reboot, resize, rebuild, NICs. Each changes what is desired of it; its host does it, so the answer is 202 with
//! the instance as accepted, or (with `wait`) as it became.

use super::instance::{WaitedMutationParams, changed};
use crate::{
    app::{
        App,
        instance::{self, ChangeRequest},
        instance_wait::WaitTarget,
        intent::Intent,
    },
    http::{
        intent::{Change, MutationHeaders},
        path::Path,
        problem::ApiResult,
        query::Query,
    },
    v1::{
        check,
        describe::{Described, Description},
        scope::{InProject, Write},
        view::{instance::InstanceView, plan::DryRun},
    },
};
use api_types::{InstanceReboot, InstanceRebuild, InstanceResize, InstanceStop, NicRequest, NoFields};
use axum::{extract::State, routing};
use domain::{Problem, instance::Power};
use http::StatusCode;
use serde::de::DeserializeOwned;
use utoipa::{ToSchema, openapi::HttpMethod};
use utoipa_axum::{
    router::{OpenApiRouter, UtoipaMethodRouter},
    routes,
};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(action("start", "Starts an instance. A running one stays as it is.", power_on))
        .routes(action("stop", "Stops an instance: asks the guest, and ends it when it takes too long.", stop))
        .routes(action("reboot", "Reboots a running instance: asks the guest, or (`hard`) resets it.", reboot))
        .routes(action("pause", "Pauses a running instance: its memory is kept, its CPUs stop.", pause))
        .routes(action("resume", "Resumes a paused instance.", power_on))
        .routes(action("resize", "Gives a stopped instance another size.", resize))
        .routes(action(
            "rebuild",
            "Recreates the root disk, from the instance's image or another. What was on it is lost.",
            rebuild,
        ))
        .routes(action_at(
            "nics",
            "attach",
            "Attaches a network interface (NIC), also while the instance runs: on a network, or with an existing port.",
            attach,
        ))
        .routes(routes!(detach))
}

/// The route of an action that is called as its path is.
fn action<B>(
    name: &'static str,
    summary: &'static str,
    request: fn(B) -> Result<ChangeRequest, Problem>,
) -> UtoipaMethodRouter<App>
where
    B: DeserializeOwned + ToSchema + Send + 'static,
{
    action_at(name, name, summary, request)
}

/// The route of an action. `request`: what its body means.
fn action_at<B>(
    path: &'static str,
    operation_id: &'static str,
    summary: &'static str,
    request: fn(B) -> Result<ChangeRequest, Problem>,
) -> UtoipaMethodRouter<App>
where
    B: DeserializeOwned + ToSchema + Send + 'static,
{
    let handler = move |State(app): State<App>,
                        scope: InProject<Write>,
                        Path(key): Path<String>,
                        Query(params): Query<WaitedMutationParams>,
                        Change { body, intent }: Change<B>| async move {
        perform(&app, &scope, &key, &params, &intent, || request(body)).await
    };
    let description = Description::new("instances", operation_id, summary)
        .path_param("instance", "Id or name.")
        .params::<WaitedMutationParams>()
        .params::<MutationHeaders>()
        .body::<B>()
        .answers::<InstanceView>("202")
        .answers_dry_run();
    Described::at(format!("/v1/instances/{{instance}}/{path}"))
        .on(HttpMethod::Post, description, routing::post(handler))
        .routes()
}

async fn perform(
    app: &App,
    scope: &InProject<Write>,
    key: &str,
    params: &WaitedMutationParams,
    intent: &Intent,
    request: impl FnOnce() -> Result<ChangeRequest, Problem>,
) -> ApiResult {
    let wait = params.wait(app, &scope.caller)?;
    let request = request()?;
    if wait.as_ref().is_some_and(|w| w.target == WaitTarget::Deleted) {
        return Err(Problem::invalid("wait", "this action doesn't delete the instance").into());
    }
    // The guest starts anew: what it said before doesn't count for the wait.
    let restarts = matches!(request, ChangeRequest::Reboot { .. } | ChangeRequest::Rebuild(_));
    let done = instance::change(app, &scope.caller, scope.id(), key, intent, request).await?;
    changed(app, &scope.caller, StatusCode::ACCEPTED, done, wait, restarts).await
}

fn power_on(_: NoFields) -> Result<ChangeRequest, Problem> {
    Ok(ChangeRequest::Power { power: Power::On, stop_timeout_secs: None })
}

fn pause(_: NoFields) -> Result<ChangeRequest, Problem> {
    Ok(ChangeRequest::Power { power: Power::Paused, stop_timeout_secs: None })
}

fn stop(body: InstanceStop) -> Result<ChangeRequest, Problem> {
    Ok(ChangeRequest::Power { power: Power::Off, stop_timeout_secs: check::instance::stop(&body)? })
}

fn reboot(body: InstanceReboot) -> Result<ChangeRequest, Problem> {
    Ok(ChangeRequest::Reboot { hard: body.hard })
}

fn resize(body: InstanceResize) -> Result<ChangeRequest, Problem> {
    check::instance::resize(&body)?;
    let InstanceResize { flavor, vcpus, memory_mib, disk_gib } = body;
    Ok(match flavor {
        Some(key) => ChangeRequest::ResizeToFlavor(key),
        None => ChangeRequest::Resize { vcpus, memory_mib, disk_gib },
    })
}

fn rebuild(body: InstanceRebuild) -> Result<ChangeRequest, Problem> {
    check::instance::rebuild(&body)?;
    Ok(ChangeRequest::Rebuild(body.image))
}

fn attach(body: NicRequest) -> Result<ChangeRequest, Problem> {
    Ok(ChangeRequest::AttachNic(check::nic::check(body)?))
}

/// Detaches a NIC, also while the instance runs. A port that was created with the instance is deleted, another stays.
#[utoipa::path(delete, path = "/v1/instances/{instance}/nics/{port}", tag = "instances",
    params(("instance" = String, Path, description = "Id or name."),
        ("port" = String, Path, description = "Id or name of the NIC's port."), WaitedMutationParams, MutationHeaders),
    responses((status = 202, body = InstanceView), (status = 200, description = "With dry_run.", body = DryRun)))]
async fn detach(
    State(app): State<App>,
    scope: InProject<Write>,
    Path(path): Path<(String, String)>,
    Query(params): Query<WaitedMutationParams>,
    intent: Intent,
) -> ApiResult {
    let (key, port) = path;
    perform(&app, &scope, &key, &params, &intent, || Ok(ChangeRequest::DetachNic(port))).await
}
