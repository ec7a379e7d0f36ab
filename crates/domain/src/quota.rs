//! What a project may have. The gateway writes the limits; the service that owns the objects counts the usage, in the transaction that changes
//! the objects.

use crate::{ErrorKind, Problem, flavor::Size};
use serde::{Deserialize, Serialize};

/// Declares the resources: the variant, the field and the text of each, and what a new project may have of it unless the operator says otherwise.
macro_rules! resources {
    ($($resource:ident = $field:ident $text:literal: $default:expr),+ $(,)?) => {
        string_enum! {
            pub enum QuotaResource { $($resource = $text),+ }
        }

        /// An amount of each resource: a limit, a usage or a request.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
        pub struct QuotaAmounts { $(pub $field: i64),+ }

        impl QuotaAmounts {
            /// What a new project gets: room for a small team.
            pub const DEFAULT_LIMIT: Self = Self { $($field: $default),+ };

            /// Zero of each resource.
            pub const NONE: Self = Self { $($field: 0),+ };

            /// Each amount minus the other's.
            #[must_use]
            pub fn minus(&self, other: &Self) -> Self {
                Self { $($field: self.$field.saturating_sub(other.$field)),+ }
            }

            #[must_use]
            pub fn plus(&self, other: &Self) -> Self {
                Self { $($field: self.$field.saturating_add(other.$field)),+ }
            }

            #[must_use]
            pub fn get(&self, resource: QuotaResource) -> i64 {
                match resource { $(QuotaResource::$resource => self.$field),+ }
            }

            /// An amount of one resource alone.
            #[must_use]
            pub fn only(resource: QuotaResource, amount: i64) -> Self {
                match resource { $(QuotaResource::$resource => Self { $field: amount, ..Self::NONE }),+ }
            }
        }
    };
}

resources! {
    Instances = instances "instances": 50,
    Vcpus = vcpus "vcpus": 100,
    MemoryMib = memory_mib "memory_mib": 200 * 1024,
    DiskGib = disk_gib "disk_gib": 2000,
    Images = images "images": 100,
    // Of an image its parts together, rounded up; what uploads in progress announced counts as well.
    ImageGib = image_gib "image_gib": 500,
    Networks = networks "networks": 20,
    Subnets = subnets "subnets": 40,
    Ports = ports "ports": 200,
    Routers = routers "routers": 20,
    FloatingIps = floating_ips "floating_ips": 50,
    SecurityGroups = security_groups "security_groups": 50,
    SecurityRules = security_rules "security_rules": 500,
    Peerings = peerings "peerings": 20,
    SshKeys = ssh_keys "ssh_keys": 100,
    PlacementGroups = placement_groups "placement_groups": 50,
}

impl QuotaAmounts {
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
