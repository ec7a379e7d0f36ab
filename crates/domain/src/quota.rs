//! What a project may have. The gateway writes the limits; the service that owns the objects counts the usage, in the transaction that changes
//! the objects.

use crate::{ErrorKind, Problem, flavor::Size};
use serde::{Deserialize, Serialize};

string_enum! {
    pub enum QuotaResource {
        Instances = "instances",
        Vcpus = "vcpus",
        MemoryMib = "memory_mib",
        DiskGib = "disk_gib",
        Networks = "networks",
        Subnets = "subnets",
        Ports = "ports",
        Routers = "routers",
        FloatingIps = "floating_ips",
        SecurityGroups = "security_groups",
        SecurityRules = "security_rules",
        Peerings = "peerings",
    }
}

/// An amount of each resource: a limit, a usage or a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct QuotaAmounts {
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

impl QuotaAmounts {
    /// What a new project gets unless the operator says otherwise: room for a small team.
    pub const DEFAULT_LIMIT: Self = Self {
        instances: 50,
        vcpus: 100,
        memory_mib: 200 * 1024,
        disk_gib: 2000,
        networks: 20,
        subnets: 40,
        ports: 200,
        routers: 20,
        floating_ips: 50,
        security_groups: 50,
        security_rules: 500,
        peerings: 20,
    };

    /// Zero of each resource.
    pub const NONE: Self = Self {
        instances: 0,
        vcpus: 0,
        memory_mib: 0,
        disk_gib: 0,
        networks: 0,
        subnets: 0,
        ports: 0,
        routers: 0,
        floating_ips: 0,
        security_groups: 0,
        security_rules: 0,
        peerings: 0,
    };

    #[must_use]
    pub fn of_instances(size: Size, count: u32) -> Self {
        let n = i64::from(count);
        let times = |x: u64| i64::try_from(x).unwrap_or(i64::MAX).saturating_mul(n);
        Self {
            instances: n,
            vcpus: i64::from(size.vcpus).saturating_mul(n),
            memory_mib: times(size.memory_mib),
            disk_gib: times(size.disk_gib),
            ..Self::NONE
        }
    }

    /// Each amount with the opposite sign.
    #[must_use]
    pub fn negated(&self) -> Self {
        Self::NONE.minus(self)
    }

    /// Each amount minus the other's.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        Self {
            instances: self.instances.saturating_sub(other.instances),
            vcpus: self.vcpus.saturating_sub(other.vcpus),
            memory_mib: self.memory_mib.saturating_sub(other.memory_mib),
            disk_gib: self.disk_gib.saturating_sub(other.disk_gib),
            networks: self.networks.saturating_sub(other.networks),
            subnets: self.subnets.saturating_sub(other.subnets),
            ports: self.ports.saturating_sub(other.ports),
            routers: self.routers.saturating_sub(other.routers),
            floating_ips: self.floating_ips.saturating_sub(other.floating_ips),
            security_groups: self.security_groups.saturating_sub(other.security_groups),
            security_rules: self.security_rules.saturating_sub(other.security_rules),
            peerings: self.peerings.saturating_sub(other.peerings),
        }
    }

    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        Self {
            instances: self.instances.saturating_add(other.instances),
            vcpus: self.vcpus.saturating_add(other.vcpus),
            memory_mib: self.memory_mib.saturating_add(other.memory_mib),
            disk_gib: self.disk_gib.saturating_add(other.disk_gib),
            networks: self.networks.saturating_add(other.networks),
            subnets: self.subnets.saturating_add(other.subnets),
            ports: self.ports.saturating_add(other.ports),
            routers: self.routers.saturating_add(other.routers),
            floating_ips: self.floating_ips.saturating_add(other.floating_ips),
            security_groups: self.security_groups.saturating_add(other.security_groups),
            security_rules: self.security_rules.saturating_add(other.security_rules),
            peerings: self.peerings.saturating_add(other.peerings),
        }
    }

    #[must_use]
    pub fn get(&self, resource: QuotaResource) -> i64 {
        match resource {
            QuotaResource::Instances => self.instances,
            QuotaResource::Vcpus => self.vcpus,
            QuotaResource::MemoryMib => self.memory_mib,
            QuotaResource::DiskGib => self.disk_gib,
            QuotaResource::Networks => self.networks,
            QuotaResource::Subnets => self.subnets,
            QuotaResource::Ports => self.ports,
            QuotaResource::Routers => self.routers,
            QuotaResource::FloatingIps => self.floating_ips,
            QuotaResource::SecurityGroups => self.security_groups,
            QuotaResource::SecurityRules => self.security_rules,
            QuotaResource::Peerings => self.peerings,
        }
    }

    /// The problem a request gets when `used + requested` passes `limit`, naming every resource that does; `None` when it fits.
    #[must_use]
    pub fn refusal(limit: &Self, used: &Self, requested: &Self) -> Option<Problem> {
        let over: Vec<String> = QuotaResource::ALL
            .iter()
            .filter(|r| requested.get(**r) > 0 && used.get(**r).saturating_add(requested.get(**r)) > limit.get(**r))
            .map(|r| {
                format!(
                    "{}: {} requested, {} used, limit {}",
                    r.as_str(),
                    requested.get(*r),
                    used.get(*r),
                    limit.get(*r)
                )
            })
            .collect();
        (!over.is_empty()).then(|| {
            Problem::new(
                ErrorKind::QuotaExceeded,
                "quota_exceeded",
                format!("the project's quota is reached ({})", over.join("; ")),
            )
            .with_hint("delete what you don't need, or ask an administrator to raise the limit (iaasctl quota set)")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_what_and_how_much() {
        let limit = QuotaAmounts { instances: 2, vcpus: 8, memory_mib: 1024, disk_gib: 10, ..QuotaAmounts::NONE };
        let used = QuotaAmounts { instances: 1, vcpus: 7, ..QuotaAmounts::NONE };
        let requested = QuotaAmounts::of_instances(Size { vcpus: 2, memory_mib: 512, disk_gib: 0 }, 1);
        let problem = QuotaAmounts::refusal(&limit, &used, &requested).expect("over");
        assert!(problem.detail.contains("vcpus: 2 requested, 7 used, limit 8"), "{}", problem.detail);
        assert!(!problem.detail.contains("instances:"));
        assert!(QuotaAmounts::refusal(&limit, &QuotaAmounts::default(), &requested).is_none());
    }
}
