//! What the cloud still has room for.

use crate::{
    app::App,
    auth::scope::SystemAdmin,
    http::{
        problem::{ApiError, ApiResult},
        query::{ProjectParams, Query},
        reply,
    },
    v1::view::capacity::{CapacityView, RebalancePlanView, ZoneCapacityView},
};
use axum::extract::State;
use domain::{
    Problem,
    capacity::{RebalanceGoal, RebalancePlan, ZoneCapacity},
    limits, validate,
};
use http::StatusCode;
use proto::{
    cluster::v1::{PlanRebalanceRequest, ReadCapacityRequest, RebalanceGoal as PbGoal},
    convert::size_to_pb,
};
use serde::Deserialize;
use store::Page;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(show)).routes(routes!(rebalance_plan))
}

/// How many more instances of each flavor every zone takes. System admins only.
#[utoipa::path(get, path = "/v1/capacity", tag = "hosts", params(ProjectParams),
    responses((status = 200, body = CapacityView)))]
async fn show(State(app): State<App>, _: SystemAdmin, _: Query<ProjectParams>) -> ApiResult {
    let flavors = app.store().flavor_list(Page::first(limits::PAGE_MAX)).await?;
    let sizes = flavors.iter().map(|flavor| size_to_pb(flavor.size)).collect();
    let pinnings = flavors.iter().map(|flavor| flavor.pinning.as_str().to_owned()).collect();
    let answer = app.cluster().read_capacity(ReadCapacityRequest { sizes, pinnings }).await?.into_inner();
    let zones: Vec<ZoneCapacity> = serde_json::from_str(&answer.zones_json)
        .map_err(|error| ApiError::internal("what fits doesn't parse", &error))?;
    let zones = zones.into_iter().map(|zone| ZoneCapacityView::new(zone, &flavors)).collect();
    reply::json(StatusCode::OK, &CapacityView { zones })
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct RebalanceParams {
    /// At most so many moves: 100 unless said, 10000 at most.
    moves: Option<u32>,
    /// What a freed host is worth, in moves: 20 unless said.
    moves_per_host: Option<u32>,
    /// What the moves are for: `free_hosts` unless said, or `even_load`.
    #[param(value_type = Option<String>)]
    goal: Option<RebalanceGoal>,
    /// For `even_load`: hosts are even whose loads differ by no more percent than so many: 10 unless said.
    tolerance: Option<u32>,
    /// As everywhere; means nothing here.
    #[allow(dead_code)]
    project: Option<String>,
}

/// Moves that would free hosts or even out load, with their cost. Nothing is moved. System admins only.
#[utoipa::path(get, path = "/v1/rebalance-plan", tag = "hosts", params(RebalanceParams),
    responses((status = 200, body = RebalancePlanView)))]
async fn rebalance_plan(State(app): State<App>, _: SystemAdmin, Query(params): Query<RebalanceParams>) -> ApiResult {
    let (moves_max, moves_per_host_max) = (params.moves.unwrap_or(100), params.moves_per_host.unwrap_or(20));
    for (name, asked) in [("moves", moves_max), ("moves_per_host", moves_per_host_max)] {
        validate::check(|v| v.within(name, asked, &(1..=limits::REBALANCE_MOVES)))?;
    }
    let tolerance = params.tolerance.unwrap_or(10);
    if tolerance > 100 {
        return Err(Problem::invalid("tolerance", "must be 0 to 100 percent").into());
    }
    let goal = match params.goal.unwrap_or_default() {
        RebalanceGoal::FreeHosts => PbGoal::FreeHosts,
        RebalanceGoal::EvenLoad => PbGoal::EvenLoad,
    };
    let tolerance_permille = tolerance * 10;
    let request = PlanRebalanceRequest { moves_max, moves_per_host_max, goal: goal.into(), tolerance_permille };
    let answer = app.cluster().plan_rebalance(request).await?.into_inner();
    let plan: RebalancePlan = serde_json::from_str(&answer.plan_json)
        .map_err(|error| ApiError::internal("a plan of moves doesn't parse", &error))?;
    reply::json(StatusCode::OK, &RebalancePlanView::from(plan))
}
