//! What a project may hold. Limits are the gateway's to write; usage is counted by the service that owns the objects, in the
//! transaction that changes them.

use crate::{ErrorKind, Problem, flavor::Size};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QuotaResource {
    Instances,
    Vcpus,
    MemoryMib,
    DiskGib,
}

impl QuotaResource {
    pub const ALL: [Self; 4] = [Self::Instances, Self::Vcpus, Self::MemoryMib, Self::DiskGib];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Instances => "instances",
            Self::Vcpus => "vcpus",
            Self::MemoryMib => "memory_mib",
            Self::DiskGib => "disk_gib",
        }
    }
}

/// An amount of each resource: a limit, a usage or a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct QuotaAmounts {
    pub instances: i64,
    pub vcpus: i64,
    pub memory_mib: i64,
    pub disk_gib: i64,
}

impl QuotaAmounts {
    /// What a new project gets unless the operator says otherwise: room for a small team.
    pub const DEFAULT_LIMIT: Self = Self { instances: 50, vcpus: 100, memory_mib: 200 * 1024, disk_gib: 2000 };

    #[must_use]
    pub fn of_instances(size: Size, count: u32) -> Self {
        let n = i64::from(count);
        let times = |x: u64| i64::try_from(x).unwrap_or(i64::MAX).saturating_mul(n);
        Self {
            instances: n,
            vcpus: i64::from(size.vcpus).saturating_mul(n),
            memory_mib: times(size.memory_mib),
            disk_gib: times(size.disk_gib),
        }
    }

    #[must_use]
    pub fn get(&self, resource: QuotaResource) -> i64 {
        match resource {
            QuotaResource::Instances => self.instances,
            QuotaResource::Vcpus => self.vcpus,
            QuotaResource::MemoryMib => self.memory_mib,
            QuotaResource::DiskGib => self.disk_gib,
        }
    }

    /// The problem a request gets when `used + asked` passes `limit`, naming every resource that does; `None` when it fits.
    #[must_use]
    pub fn refusal(limit: &Self, used: &Self, asked: &Self) -> Option<Problem> {
        let over: Vec<String> = QuotaResource::ALL
            .iter()
            .filter(|r| asked.get(**r) > 0 && used.get(**r).saturating_add(asked.get(**r)) > limit.get(**r))
            .map(|r| format!("{}: {} asked, {} used, limit {}", r.as_str(), asked.get(*r), used.get(*r), limit.get(*r)))
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
        let limit = QuotaAmounts { instances: 2, vcpus: 8, memory_mib: 1024, disk_gib: 10 };
        let used = QuotaAmounts { instances: 1, vcpus: 7, memory_mib: 0, disk_gib: 0 };
        let asked = QuotaAmounts::of_instances(Size { vcpus: 2, memory_mib: 512, disk_gib: 0 }, 1);
        let problem = QuotaAmounts::refusal(&limit, &used, &asked).expect("over");
        assert!(problem.detail.contains("vcpus: 2 asked, 7 used, limit 8"), "{}", problem.detail);
        assert!(!problem.detail.contains("instances:"));
        assert!(QuotaAmounts::refusal(&limit, &QuotaAmounts::default(), &asked).is_none());
    }
}
