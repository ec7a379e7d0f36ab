//! What a dry run answers.

use crate::app::plan::{Plan, QuotaLeft};
use serde::Serialize;
use utoipa::ToSchema;

#[derive(Serialize, ToSchema)]
pub struct DryRun {
    /// Always true: nothing was changed.
    pub dry_run: bool,
    pub plan: PlanView,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Plan)]
pub struct PlanView {
    /// One sentence.
    pub summary: String,
    /// Where the instance would be placed and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub placement: Option<domain::explain::PlacementRecord>,
    /// The project's quota left afterwards.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota_left: Option<QuotaLeftView>,
    /// Each object that would be changed.
    pub touches: Vec<String>,
}

/// An amount of each resource.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[schema(as = QuotaAmounts)]
pub struct QuotaAmountsView {
    pub instances: i64,
    pub vcpus: i64,
    pub memory_mib: i64,
    pub disk_gib: i64,
    pub networks: i64,
    pub subnets: i64,
    pub ports: i64,
    pub routers: i64,
    pub floating_ips: i64,
    pub security_groups: i64,
    pub security_rules: i64,
    pub peerings: i64,
}

/// What would be left of the resources that a plan for instances takes.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[schema(as = QuotaLeft)]
pub struct QuotaLeftView {
    pub instances: i64,
    pub vcpus: i64,
    pub memory_mib: i64,
    pub disk_gib: i64,
}

impl From<Plan> for PlanView {
    fn from(plan: Plan) -> Self {
        let Plan { summary, placement, quota_left, changes } = plan;
        Self { summary, placement, quota_left: quota_left.map(QuotaLeftView::from), touches: changes }
    }
}

impl From<QuotaLeft> for QuotaLeftView {
    fn from(left: QuotaLeft) -> Self {
        let QuotaLeft { instances, vcpus, memory_mib, disk_gib } = left;
        Self { instances, vcpus, memory_mib, disk_gib }
    }
}

impl From<domain::quota::QuotaAmounts> for QuotaAmountsView {
    fn from(amounts: domain::quota::QuotaAmounts) -> Self {
        Self {
            instances: amounts.instances,
            vcpus: amounts.vcpus,
            memory_mib: amounts.memory_mib,
            disk_gib: amounts.disk_gib,
            networks: amounts.networks,
            subnets: amounts.subnets,
            ports: amounts.ports,
            routers: amounts.routers,
            floating_ips: amounts.floating_ips,
            security_groups: amounts.security_groups,
            security_rules: amounts.security_rules,
            peerings: amounts.peerings,
        }
    }
}
