//! What the cloud still has room for.

use crate::{
    app::App,
    auth::scope::SystemAdmin,
    http::{
        problem::{ApiError, ApiResult},
        query::{ProjectParams, Query},
        reply,
    },
    view::capacity::{CapacityView, ZoneCapacityView},
};
use axum::extract::State;
use domain::{capacity::ZoneCapacity, limits};
use http::StatusCode;
use proto::{cluster::v1::ReadCapacityRequest, convert::size_to_pb};
use store::Page;
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(show))
}

/// How many more instances of each flavor every zone takes. System admins only.
#[utoipa::path(get, path = "/v1/capacity", tag = "hosts", params(ProjectParams),
    responses((status = 200, body = CapacityView)))]
async fn show(State(app): State<App>, _: SystemAdmin, _: Query<ProjectParams>) -> ApiResult {
    let flavors = app.store().flavor_list(Page::first(limits::PAGE_MAX)).await?;
    let sizes = flavors.iter().map(|flavor| size_to_pb(flavor.size)).collect();
    let answer = app.cluster().read_capacity(ReadCapacityRequest { sizes }).await?.into_inner();
    let zones: Vec<ZoneCapacity> = serde_json::from_str(&answer.zones_json)
        .map_err(|error| ApiError::internal("what fits doesn't parse", &error))?;
    let zones = zones.into_iter().map(|zone| ZoneCapacityView::new(zone, &flavors)).collect();
    reply::json(StatusCode::OK, &CapacityView { zones })
}
