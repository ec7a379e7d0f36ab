//! What the cloud still has capacity for.

use crate::{
    app::{
        App,
        capacity::{self, RebalanceRequest},
    },
    http::{
        problem::ApiResult,
        query::{ProjectParams, Query},
        reply,
    },
    v1::scope::SystemAdmin,
};
use api_types::{Capacity, RebalancePlan, ZoneCapacity};
use axum::extract::State;
use domain::{Problem, capacity::RebalanceGoal, limits, validate};
use http::StatusCode;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(show)).routes(routes!(rebalance_plan))
}

/// Shows how many more instances of each flavor fit in every zone. System admins only.
#[utoipa::path(get, path = "/v1/capacity", tag = "hosts", params(ProjectParams),
    responses((status = 200, body = Capacity)))]
async fn show(State(app): State<App>, _: SystemAdmin, _: Query<ProjectParams>) -> ApiResult {
    let (zones, flavors) = capacity::read(&app).await?;
    let zones = zones.into_iter().map(|zone| ZoneCapacity::new(zone, &flavors)).collect();
    reply::json(StatusCode::OK, &Capacity { zones })
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct RebalanceParams {
    /// The largest number of moves: 100 unless given, at most 10000.
    moves: Option<u32>,
    /// How many moves a freed host is worth: 20 unless given.
    moves_per_host: Option<u32>,
    /// What the moves are for: `free_hosts` (unless given) or `even_load`.
    #[param(value_type = Option<String>)]
    goal: Option<RebalanceGoal>,
    /// For `even_load`: by how many percent the loads of hosts may differ: 10 unless given.
    tolerance: Option<u32>,
    /// Accepted as everywhere; it has no meaning here.
    #[allow(dead_code)]
    project: Option<String>,
}

/// Plans moves that would free hosts or even out load, with their cost. Nothing is moved. System admins only.
#[utoipa::path(get, path = "/v1/rebalance-plan", tag = "hosts", params(RebalanceParams),
    responses((status = 200, body = RebalancePlan)))]
async fn rebalance_plan(State(app): State<App>, _: SystemAdmin, Query(params): Query<RebalanceParams>) -> ApiResult {
    let (moves_max, moves_per_host_max) = (params.moves.unwrap_or(100), params.moves_per_host.unwrap_or(20));
    for (name, requested) in [("moves", moves_max), ("moves_per_host", moves_per_host_max)] {
        validate::check(|v| v.within(name, requested, &(1..=limits::REBALANCE_MOVES)))?;
    }
    let tolerance = params.tolerance.unwrap_or(10);
    if tolerance > 100 {
        return Err(Problem::invalid("tolerance", "must be 0 to 100 percent").into());
    }
    let goal = params.goal.unwrap_or_default();
    let request = RebalanceRequest { moves_max, moves_per_host_max, goal, tolerance_permille: tolerance * 10 };
    let plan = capacity::plan_rebalance(&app, request).await?;
    reply::json(StatusCode::OK, &RebalancePlan::from(plan))
}
