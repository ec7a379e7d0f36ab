//! Health and readiness.

use crate::app::readiness;
use serde::Serialize;
use utoipa::ToSchema;

#[derive(Serialize, ToSchema)]
pub struct Health {
    /// Always `ok`: the process answers.
    pub status: &'static str,
}

#[derive(Serialize, ToSchema)]
pub struct Readiness {
    /// Whether all checks passed.
    pub ready: bool,
    pub checks: Vec<Check>,
}

#[derive(Serialize, ToSchema)]
pub struct Check {
    /// `database`, `cluster-manager`, `storage-manager`, `resource-manager`.
    pub name: &'static str,
    pub ok: bool,
    /// Empty: reasons are in the problem of a refusal, for system admins.
    pub detail: String,
}

impl From<Vec<readiness::Check>> for Readiness {
    fn from(checks: Vec<readiness::Check>) -> Self {
        let view = |readiness::Check { name, detail }| Check { name, ok: detail.is_empty(), detail };
        let checks: Vec<Check> = checks.into_iter().map(view).collect();
        Self { ready: checks.iter().all(|check| check.ok), checks }
    }
}
