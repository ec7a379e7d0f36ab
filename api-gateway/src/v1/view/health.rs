//! Health and readiness.

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
    /// `database`, `cluster-manager`, `storage-manager`.
    pub name: &'static str,
    pub ok: bool,
    /// Why not; empty when it is.
    pub detail: String,
}
