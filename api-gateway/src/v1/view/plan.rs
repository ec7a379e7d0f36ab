//! What a dry run answers.

pub use api_types::{DryRun, Plan as PlanView};

use crate::app::plan::{Plan, QuotaLeft};
use serde::Serialize;
use utoipa::ToSchema;

/// An amount of each resource.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[schema(as = QuotaAmounts)]
pub struct QuotaAmountsView {
    pub instances: i64,
    pub vcpus: i64,
    pub memory_mib: i64,
    pub disk_gib: i64,
    pub images: i64,
    pub image_gib: i64,
    pub networks: i64,
    pub subnets: i64,
    pub ports: i64,
    pub routers: i64,
    pub floating_ips: i64,
    pub security_groups: i64,
    pub security_rules: i64,
    pub peerings: i64,
    pub ssh_keys: i64,
    pub placement_groups: i64,
}

#[must_use]
pub fn plan_view(plan: Plan) -> PlanView {
    let Plan { summary, placement, quota_left, changes } = plan;
    let quota_left = quota_left.map(|QuotaLeft { instances, vcpus, memory_mib, disk_gib }| api_types::QuotaLeft {
        instances,
        vcpus,
        memory_mib,
        disk_gib,
    });
    PlanView { summary, placement, quota_left, touches: changes }
}

impl From<domain::quota::QuotaAmounts> for QuotaAmountsView {
    fn from(amounts: domain::quota::QuotaAmounts) -> Self {
        Self {
            instances: amounts.instances,
            vcpus: amounts.vcpus,
            memory_mib: amounts.memory_mib,
            disk_gib: amounts.disk_gib,
            images: amounts.images,
            image_gib: amounts.image_gib,
            networks: amounts.networks,
            subnets: amounts.subnets,
            ports: amounts.ports,
            routers: amounts.routers,
            floating_ips: amounts.floating_ips,
            security_groups: amounts.security_groups,
            security_rules: amounts.security_rules,
            peerings: amounts.peerings,
            ssh_keys: amounts.ssh_keys,
            placement_groups: amounts.placement_groups,
        }
    }
}
