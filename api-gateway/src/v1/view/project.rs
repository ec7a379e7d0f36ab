//! Roles in projects.

use domain::policy::Role;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Each includes the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Role)]
#[serde(rename_all = "snake_case")]
pub enum RoleView {
    Reader,
    Member,
    Admin,
}

impl From<Role> for RoleView {
    fn from(role: Role) -> Self {
        match role {
            Role::Reader => Self::Reader,
            Role::Member => Self::Member,
            Role::Admin => Self::Admin,
        }
    }
}

impl From<RoleView> for Role {
    fn from(role: RoleView) -> Self {
        match role {
            RoleView::Reader => Self::Reader,
            RoleView::Member => Self::Member,
            RoleView::Admin => Self::Admin,
        }
    }
}
