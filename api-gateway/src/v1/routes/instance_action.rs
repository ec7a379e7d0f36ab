//! What an instance is asked to do: power, reboot, resize, rebuild. Each is a change of what is wanted of it; its host does it, so the
//! answer is 202 with the instance as accepted, or (with `wait`) as it became.

use super::instance::{Wait, WaitedMutationParams, changed};
use crate::{
    app::{
        App,
        instance::{self, Asked},
        instance_check, instance_nic,
        instance_wait::WaitTarget,
    },
    auth::scope::{InProject, Write},
    http::{
        intent::{Change, Intent, MutationHeaders},
        path::Path,
        problem::ApiResult,
        query::Query,
    },
    v1::view::{
        instance::InstanceView,
        instance_request::{InstanceReboot, InstanceRebuild, InstanceResize, InstanceStop, NoFields},
        nic::NicRequest,
        plan::DryRun,
    },
};
use axum::extract::State;
use domain::{Problem, instance::Power};
use http::StatusCode;
use proto::{
    cluster::v1::{self as pb, change_instance_request::Change as Wanted},
    convert::power_to_pb,
};
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(start))
        .routes(routes!(stop))
        .routes(routes!(reboot))
        .routes(routes!(pause))
        .routes(routes!(resume))
        .routes(routes!(resize))
        .routes(routes!(rebuild))
        .routes(routes!(attach))
        .routes(routes!(detach))
}

struct Request<'a> {
    app: &'a App,
    scope: &'a InProject<Write>,
    key: &'a str,
    intent: &'a Intent,
    wait: Option<Wait>,
    /// The guest starts anew.
    restarts: bool,
}

async fn run(request: Request<'_>, asked: Asked) -> ApiResult {
    let Request { app, scope, key, intent, wait, restarts } = request;
    if wait.is_some_and(|w| w.target == WaitTarget::Deleted) {
        return Err(Problem::invalid("wait", "this doesn't delete it").into());
    }
    let done = instance::change(app, &scope.caller, scope.id(), key, intent, asked).await?;
    changed(app, &scope.caller, StatusCode::ACCEPTED, done, wait, restarts).await
}

fn power(power: Power, stop_timeout_secs: Option<u32>) -> Asked {
    Asked::Ready(Wanted::SetPower(pb::SetPower { power: power_to_pb(power).into(), stop_timeout_secs }))
}

/// Starts an instance. One that runs stays as it is.
#[utoipa::path(post, path = "/v1/instances/{instance}/start", tag = "instances",
    params(("instance" = String, Path, description = "Id or name."), WaitedMutationParams, MutationHeaders),
    request_body = NoFields,
    responses((status = 202, body = InstanceView), (status = 200, description = "With dry_run.", body = DryRun)))]
async fn start(
    State(app): State<App>,
    scope: InProject<Write>,
    Path(key): Path<String>,
    Query(params): Query<WaitedMutationParams>,
    change: Change<NoFields>,
) -> ApiResult {
    let wait = params.wait()?;
    let request = Request { app: &app, scope: &scope, key: &key, intent: &change.intent, wait, restarts: false };
    run(request, power(Power::On, None)).await
}

/// Stops an instance: asks the guest, and ends it when it takes too long.
#[utoipa::path(post, path = "/v1/instances/{instance}/stop", tag = "instances",
    params(("instance" = String, Path, description = "Id or name."), WaitedMutationParams, MutationHeaders),
    request_body = InstanceStop,
    responses((status = 202, body = InstanceView), (status = 200, description = "With dry_run.", body = DryRun)))]
async fn stop(
    State(app): State<App>,
    scope: InProject<Write>,
    Path(key): Path<String>,
    Query(params): Query<WaitedMutationParams>,
    Change { body, intent }: Change<InstanceStop>,
) -> ApiResult {
    let wait = params.wait()?;
    let stop_timeout_secs = instance_check::stop(&body)?;
    let request = Request { app: &app, scope: &scope, key: &key, intent: &intent, wait, restarts: false };
    run(request, power(Power::Off, stop_timeout_secs)).await
}

/// Reboots a running instance: asks the guest, or (`hard`) resets it.
#[utoipa::path(post, path = "/v1/instances/{instance}/reboot", tag = "instances",
    params(("instance" = String, Path, description = "Id or name."), WaitedMutationParams, MutationHeaders),
    request_body = InstanceReboot,
    responses((status = 202, body = InstanceView), (status = 200, description = "With dry_run.", body = DryRun)))]
async fn reboot(
    State(app): State<App>,
    scope: InProject<Write>,
    Path(key): Path<String>,
    Query(params): Query<WaitedMutationParams>,
    Change { body, intent }: Change<InstanceReboot>,
) -> ApiResult {
    let wait = params.wait()?;
    let request = Request { app: &app, scope: &scope, key: &key, intent: &intent, wait, restarts: true };
    run(request, Asked::Ready(Wanted::Reboot(pb::Reboot { hard: body.hard }))).await
}

/// Pauses a running instance: its memory stays, its CPUs stand still.
#[utoipa::path(post, path = "/v1/instances/{instance}/pause", tag = "instances",
    params(("instance" = String, Path, description = "Id or name."), WaitedMutationParams, MutationHeaders),
    request_body = NoFields,
    responses((status = 202, body = InstanceView), (status = 200, description = "With dry_run.", body = DryRun)))]
async fn pause(
    State(app): State<App>,
    scope: InProject<Write>,
    Path(key): Path<String>,
    Query(params): Query<WaitedMutationParams>,
    change: Change<NoFields>,
) -> ApiResult {
    let wait = params.wait()?;
    let request = Request { app: &app, scope: &scope, key: &key, intent: &change.intent, wait, restarts: false };
    run(request, power(Power::Paused, None)).await
}

/// Lets a paused instance go on.
#[utoipa::path(post, path = "/v1/instances/{instance}/resume", tag = "instances",
    params(("instance" = String, Path, description = "Id or name."), WaitedMutationParams, MutationHeaders),
    request_body = NoFields,
    responses((status = 202, body = InstanceView), (status = 200, description = "With dry_run.", body = DryRun)))]
async fn resume(
    State(app): State<App>,
    scope: InProject<Write>,
    Path(key): Path<String>,
    Query(params): Query<WaitedMutationParams>,
    change: Change<NoFields>,
) -> ApiResult {
    let wait = params.wait()?;
    let request = Request { app: &app, scope: &scope, key: &key, intent: &change.intent, wait, restarts: false };
    run(request, power(Power::On, None)).await
}

/// Gives a stopped instance another size.
#[utoipa::path(post, path = "/v1/instances/{instance}/resize", tag = "instances",
    params(("instance" = String, Path, description = "Id or name."), WaitedMutationParams, MutationHeaders),
    request_body = InstanceResize,
    responses((status = 202, body = InstanceView), (status = 200, description = "With dry_run.", body = DryRun)))]
async fn resize(
    State(app): State<App>,
    scope: InProject<Write>,
    Path(key): Path<String>,
    Query(params): Query<WaitedMutationParams>,
    Change { body, intent }: Change<InstanceResize>,
) -> ApiResult {
    let wait = params.wait()?;
    instance_check::resize(&body)?;
    let request = Request { app: &app, scope: &scope, key: &key, intent: &intent, wait, restarts: false };
    run(request, Asked::Resize(body)).await
}

/// Makes the root disk anew, from the instance's image or another. What was on it is gone.
#[utoipa::path(post, path = "/v1/instances/{instance}/rebuild", tag = "instances",
    params(("instance" = String, Path, description = "Id or name."), WaitedMutationParams, MutationHeaders),
    request_body = InstanceRebuild,
    responses((status = 202, body = InstanceView), (status = 200, description = "With dry_run.", body = DryRun)))]
async fn rebuild(
    State(app): State<App>,
    scope: InProject<Write>,
    Path(key): Path<String>,
    Query(params): Query<WaitedMutationParams>,
    Change { body, intent }: Change<InstanceRebuild>,
) -> ApiResult {
    let wait = params.wait()?;
    instance_check::rebuild(&body)?;
    let request = Request { app: &app, scope: &scope, key: &key, intent: &intent, wait, restarts: true };
    run(request, Asked::Rebuild(body.image)).await
}

/// Gives an instance a network card more, also while it runs: of a network, or with a port that is there already.
#[utoipa::path(post, path = "/v1/instances/{instance}/nics", tag = "instances",
    params(("instance" = String, Path, description = "Id or name."), WaitedMutationParams, MutationHeaders),
    request_body = NicRequest,
    responses((status = 202, body = InstanceView), (status = 200, description = "With dry_run.", body = DryRun)))]
async fn attach(
    State(app): State<App>,
    scope: InProject<Write>,
    Path(key): Path<String>,
    Query(params): Query<WaitedMutationParams>,
    Change { body, intent }: Change<NicRequest>,
) -> ApiResult {
    let wait = params.wait()?;
    instance_nic::check(&body)?;
    let request = Request { app: &app, scope: &scope, key: &key, intent: &intent, wait, restarts: false };
    run(request, Asked::Attach(body)).await
}

/// Takes a network card from an instance, also while it runs. A port that was made with the instance goes, another stays.
#[utoipa::path(delete, path = "/v1/instances/{instance}/nics/{port}", tag = "instances",
    params(("instance" = String, Path, description = "Id or name."),
        ("port" = String, Path, description = "Id or name of the card's port."), WaitedMutationParams, MutationHeaders),
    responses((status = 202, body = InstanceView), (status = 200, description = "With dry_run.", body = DryRun)))]
async fn detach(
    State(app): State<App>,
    scope: InProject<Write>,
    Path(path): Path<(String, String)>,
    Query(params): Query<WaitedMutationParams>,
    intent: Intent,
) -> ApiResult {
    let (key, port) = path;
    let wait = params.wait()?;
    let request = Request { app: &app, scope: &scope, key: &key, intent: &intent, wait, restarts: false };
    run(request, Asked::Detach(port)).await
}
