//! Projects and their members.

use crate::names::RoleName;
use domain::{Name, ProjectId, Timestamp, UserId, identity, policy::Role};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Project {
    #[schema(value_type = String, format = "uuid")]
    pub id: ProjectId,
    #[schema(value_type = String)]
    pub name: Name,
    pub description: String,
    pub generation: i64,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
}

impl From<identity::Project> for Project {
    fn from(row: identity::Project) -> Self {
        Self {
            id: row.id,
            name: row.name,
            description: row.description,
            generation: row.generation,
            created_at: row.created_at,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ProjectCreate {
    /// 1 to 63 characters of a-z, 0-9 and '-', starting with a letter.
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ProjectChange {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Member {
    #[schema(value_type = String, format = "uuid")]
    pub user_id: UserId,
    #[schema(value_type = String)]
    pub user_name: Name,
    #[schema(value_type = RoleName)]
    pub role: Role,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
}

impl From<identity::Member> for Member {
    fn from(row: identity::Member) -> Self {
        Self { user_id: row.user_id, user_name: row.user_name, role: row.role, created_at: row.created_at }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MemberPut {
    #[schema(value_type = RoleName)]
    pub role: Role,
}
