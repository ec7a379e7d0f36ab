//! A stub of another API dialect, in the shape of OpenStack's: three routes that read. It proves that a dialect needs `app` and `auth` of the
//! api-gateway and nothing of `v1`: it finds the token elsewhere, names the nouns differently and has errors of its own shape.

use api_gateway::{
    app::{
        App, instance,
        instance_list::{self, InstanceQuery},
        network::kind::NetworkKind,
    },
    auth::{Auth, caller::Caller},
    failure::ApiError,
    http::{dialect::Dialect, scope::known_caller},
};
use axum::{
    Json, Router,
    body::Body,
    extract::{FromRef, FromRequestParts, Path, State},
    response::Response,
    routing::get,
};
use domain::{
    ErrorKind, Problem, ProjectId,
    instance::{Instance, InstanceState},
    network::Network,
    policy::Action,
};
use http::{HeaderValue, StatusCode, header, request::Parts};
use serde_json::{Value, json};
use store::Page;

const PREFIX: &str = "/openstack";
const PAGE: u32 = 1000;

/// The stub, to be served beside v1.
#[must_use]
pub fn openstack() -> Dialect {
    let router = Router::new()
        .route("/openstack/compute/v2.1/servers", get(servers))
        .route("/openstack/compute/v2.1/servers/{server}", get(server))
        .route("/openstack/network/v2.0/networks", get(networks));
    Dialect { render, ..Dialect::new(PREFIX, router) }
}

/// Whoever `X-Auth-Token` stands for, in the only project that they can mean.
struct Reader {
    project_id: ProjectId,
}

impl<S> FromRequestParts<S> for Reader
where
    S: Send + Sync,
    Auth: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let auth = Auth::from_ref(state);
        let token = parts.headers.get("x-auth-token").and_then(|value| value.to_str().ok()).map(str::to_owned);
        let missing =
            || Problem::new(ErrorKind::Unauthenticated, "token_missing", "this needs the header X-Auth-Token");
        let caller: Caller = known_caller(parts, &auth, &token.ok_or_else(missing)?, None).await?;
        let project = caller.enter(&auth, Action::ProjectRead).await?;
        Ok(Self { project_id: project.id })
    }
}

async fn servers(State(app): State<App>, reader: Reader) -> Result<Json<Value>, ApiError> {
    let query = InstanceQuery { project_id: Some(reader.project_id), ..InstanceQuery::default() };
    let instances = instance_list::list(&app, query, Page::first(PAGE)).await?;
    let servers: Vec<Value> = instances.iter().map(|i| json!({ "id": i.id, "name": i.name })).collect();
    Ok(Json(json!({ "servers": servers })))
}

async fn server(State(app): State<App>, reader: Reader, Path(key): Path<String>) -> Result<Json<Value>, ApiError> {
    let instance = instance::find(&app, reader.project_id, &key).await?;
    Ok(Json(json!({ "server": shown(&instance) })))
}

fn shown(instance: &Instance) -> Value {
    json!({
        "id": instance.id,
        "name": instance.name,
        "status": status(instance.status.state),
        "tenant_id": instance.project_id,
        "image": { "id": instance.spec.image_id },
        "flavor": { "vcpus": instance.spec.size.vcpus, "ram": instance.spec.size.memory_mib, "disk": instance.spec.size.disk_gib },
    })
}

fn status(state: InstanceState) -> &'static str {
    match state {
        InstanceState::Pending | InstanceState::Scheduling | InstanceState::Building => "BUILD",
        InstanceState::Running => "ACTIVE",
        InstanceState::Paused => "PAUSED",
        InstanceState::Stopped => "SHUTOFF",
        InstanceState::Suspended => "SUSPENDED",
        InstanceState::Migrating | InstanceState::Recovering => "MIGRATING",
        InstanceState::Resizing => "RESIZE",
        InstanceState::Rebuilding => "REBUILD",
        InstanceState::Deleting | InstanceState::Deleted => "DELETED",
        InstanceState::Error => "ERROR",
    }
}

async fn networks(State(app): State<App>, reader: Reader) -> Result<Json<Value>, ApiError> {
    let networks = Network::list(&app, reader.project_id, &(), Page::first(PAGE)).await?;
    let networks: Vec<Value> = networks.iter().map(|n| json!({ "id": n.id, "name": n.name, "mtu": n.mtu })).collect();
    Ok(Json(json!({ "networks": networks })))
}

/// OpenStack's errors have one key, which says what kind they are.
fn render(problem: &Problem, _: &str) -> Response {
    let status = problem.kind.http_status();
    let key = match status {
        401 => "unauthorized",
        403 => "forbidden",
        404 => "itemNotFound",
        400..500 => "badRequest",
        _ => "computeFault",
    };
    let body = json!({ key: { "code": status, "message": problem.detail } });
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
