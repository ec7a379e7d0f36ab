//! What a mutation comes to: the change, or (a dry run) the plan of it.

use domain::explain::PlacementRecord;

pub enum Done<T> {
    Plan(Plan),
    Change(T),
}

/// What would be done.
pub struct Plan {
    /// One sentence.
    pub summary: String,
    /// Where it would be placed and why.
    pub placement: Option<PlacementRecord>,
    pub quota_left: Option<QuotaLeft>,
    /// The objects that would be changed, for people: "network blue (0198…)".
    pub changes: Vec<String>,
}

/// What would be left of the project's quota.
#[derive(Debug, Clone, Copy)]
pub struct QuotaLeft {
    pub instances: i64,
    pub vcpus: i64,
    pub memory_mib: i64,
    pub disk_gib: i64,
}

impl Plan {
    /// A plan that places nothing and takes nothing from the quota.
    #[must_use]
    pub fn of(summary: String, changes: Vec<String>) -> Self {
        Self { summary, placement: None, quota_left: None, changes }
    }
}

impl<T> Done<T> {
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Done<U> {
        match self {
            Self::Plan(plan) => Done::Plan(plan),
            Self::Change(done) => Done::Change(change(done)),
        }
    }
}
