//! What the cloud still has capacity for, and which moves would free some. The cluster-manager computes both.

use crate::{app::App, failure::ApiError};
use domain::{
    capacity::{RebalanceGoal, RebalancePlan, ZoneCapacity},
    flavor::Flavor,
    limits,
};
use proto::{
    cluster::v1::{PlanRebalanceRequest, ReadCapacityRequest, RebalanceGoal as PbGoal},
    convert::size_to_pb,
};
use store::Page;

/// The zones, each with how many instances of these flavors fit, in the flavors' order.
pub async fn read(app: &App) -> Result<(Vec<ZoneCapacity>, Vec<Flavor>), ApiError> {
    let flavors = app.store().flavor_list(Page::first(limits::PAGE_MAX)).await?;
    let sizes = flavors.iter().map(|flavor| size_to_pb(flavor.size)).collect();
    let pinnings = flavors.iter().map(|flavor| flavor.pinning.as_str().to_owned()).collect();
    let answer = app.cluster().read_capacity(ReadCapacityRequest { sizes, pinnings }).await?.into_inner();
    let zones = serde_json::from_str(&answer.zones_json)
        .map_err(|error| ApiError::internal("the capacity of zones doesn't parse", &error))?;
    Ok((zones, flavors))
}

/// Bounds of a rebalance plan.
#[derive(Debug, Clone, Copy)]
pub struct RebalanceRequest {
    pub moves_max: u32,
    pub moves_per_host_max: u32,
    pub goal: RebalanceGoal,
    pub tolerance_permille: u32,
}

/// Plans moves; nothing is moved.
pub async fn plan_rebalance(app: &App, request: RebalanceRequest) -> Result<RebalancePlan, ApiError> {
    let RebalanceRequest { moves_max, moves_per_host_max, goal, tolerance_permille } = request;
    let goal = match goal {
        RebalanceGoal::FreeHosts => PbGoal::FreeHosts,
        RebalanceGoal::EvenLoad => PbGoal::EvenLoad,
    };
    let request = PlanRebalanceRequest { moves_max, moves_per_host_max, goal: goal.into(), tolerance_permille };
    let answer = app.cluster().plan_rebalance(request).await?.into_inner();
    serde_json::from_str(&answer.plan_json)
        .map_err(|error| ApiError::internal("a rebalance plan doesn't parse", &error))
}
