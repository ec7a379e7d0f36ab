//! Quotas.

use super::plan::QuotaAmountsView;
use domain::{Problem, identity::Quota, quota::QuotaAmounts};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

#[derive(Serialize, ToSchema)]
#[schema(as = Quota)]
pub struct QuotaView {
    pub limits: QuotaAmountsView,
    pub used: QuotaAmountsView,
}

impl From<Quota> for QuotaView {
    fn from(quota: Quota) -> Self {
        Self { limits: quota.limits.into(), used: quota.used.into() }
    }
}

/// What isn't named stays.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct QuotaPut {
    #[serde(default)]
    pub instances: Option<i64>,
    #[serde(default)]
    pub vcpus: Option<i64>,
    #[serde(default)]
    pub memory_mib: Option<i64>,
    #[serde(default)]
    pub disk_gib: Option<i64>,
    /// Images in any state.
    #[serde(default)]
    pub images: Option<i64>,
    /// What all images take together; each is rounded up, and uploads in progress count.
    #[serde(default)]
    pub image_gib: Option<i64>,
    #[serde(default)]
    pub networks: Option<i64>,
    #[serde(default)]
    pub subnets: Option<i64>,
    #[serde(default)]
    pub ports: Option<i64>,
    #[serde(default)]
    pub routers: Option<i64>,
    #[serde(default)]
    pub floating_ips: Option<i64>,
    #[serde(default)]
    pub security_groups: Option<i64>,
    #[serde(default)]
    pub security_rules: Option<i64>,
    #[serde(default)]
    pub peerings: Option<i64>,
    #[serde(default)]
    pub ssh_keys: Option<i64>,
    #[serde(default)]
    pub placement_groups: Option<i64>,
}

/// More than any cloud has, and far from what overflows a sum.
const AMOUNT_MAX: i64 = 1 << 40;

impl QuotaPut {
    pub fn applied_to(&self, now: QuotaAmounts) -> Result<QuotaAmounts, Problem> {
        let pick = |field: &str, given: Option<i64>, now: i64| match given {
            None => Ok(now),
            Some(n) if (0..=AMOUNT_MAX).contains(&n) => Ok(n),
            Some(_) => Err(Problem::invalid(format!("/{field}"), format!("0 to {AMOUNT_MAX} is expected"))),
        };
        Ok(QuotaAmounts {
            instances: pick("instances", self.instances, now.instances)?,
            vcpus: pick("vcpus", self.vcpus, now.vcpus)?,
            memory_mib: pick("memory_mib", self.memory_mib, now.memory_mib)?,
            disk_gib: pick("disk_gib", self.disk_gib, now.disk_gib)?,
            images: pick("images", self.images, now.images)?,
            image_gib: pick("image_gib", self.image_gib, now.image_gib)?,
            networks: pick("networks", self.networks, now.networks)?,
            subnets: pick("subnets", self.subnets, now.subnets)?,
            ports: pick("ports", self.ports, now.ports)?,
            routers: pick("routers", self.routers, now.routers)?,
            floating_ips: pick("floating_ips", self.floating_ips, now.floating_ips)?,
            security_groups: pick("security_groups", self.security_groups, now.security_groups)?,
            security_rules: pick("security_rules", self.security_rules, now.security_rules)?,
            peerings: pick("peerings", self.peerings, now.peerings)?,
            ssh_keys: pick("ssh_keys", self.ssh_keys, now.ssh_keys)?,
            placement_groups: pick("placement_groups", self.placement_groups, now.placement_groups)?,
        })
    }
}
