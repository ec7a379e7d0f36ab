//! Projects and their members.

use domain::{
    Name, ProjectId, Timestamp, UserId,
    identity::{Member, Project},
    policy::Role,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

#[derive(Serialize, ToSchema)]
#[schema(as = Project)]
pub struct ProjectView {
    #[schema(value_type = String, format = "uuid")]
    pub id: ProjectId,
    #[schema(value_type = String)]
    pub name: Name,
    pub description: String,
    pub generation: i64,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
}

impl From<Project> for ProjectView {
    fn from(row: Project) -> Self {
        Self {
            id: row.id,
            name: row.name,
            description: row.description,
            generation: row.generation,
            created_at: row.created_at,
        }
    }
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ProjectCreate {
    /// 1 to 63 characters of a-z, 0-9 and '-', starting with a letter.
    #[schema(value_type = String)]
    pub name: Name,
    #[serde(default)]
    pub description: String,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ProjectChange {
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub name: Option<Name>,
    #[serde(default)]
    pub description: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Member)]
pub struct MemberView {
    #[schema(value_type = String, format = "uuid")]
    pub user_id: UserId,
    #[schema(value_type = String)]
    pub user_name: Name,
    pub role: RoleView,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
}

impl From<Member> for MemberView {
    fn from(row: Member) -> Self {
        Self { user_id: row.user_id, user_name: row.user_name, role: row.role.into(), created_at: row.created_at }
    }
}

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

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MemberPut {
    pub role: RoleView,
}
