//! Projects, their members, users and API keys, as whoever may read them sees them: without the hashes of passwords and secrets.

use crate::{ApiKeyId, Name, ProjectId, Timestamp, UserId, policy::Role, quota::QuotaAmounts};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Project {
    pub id: ProjectId,
    pub name: Name,
    pub description: String,
    pub generation: i64,
    pub created_at: Timestamp,
}

/// A user's role in a project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    pub user_id: UserId,
    pub user_name: Name,
    pub role: Role,
    pub created_at: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    pub id: UserId,
    pub name: Name,
    pub system_admin: bool,
    pub enabled: bool,
    pub generation: i64,
    pub created_at: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKey {
    pub id: ApiKeyId,
    pub name: Name,
    /// What the key starts with, by which it is found.
    pub prefix: String,
    /// The only project that it works in. None: all of its user's.
    pub project_id: Option<ProjectId>,
    /// The most it may do. None: what its user may.
    pub role: Option<Role>,
    pub expires_at: Option<Timestamp>,
    pub created_at: Timestamp,
}

/// What a project may hold, and what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quota {
    pub limits: QuotaAmounts,
    pub used: QuotaAmounts,
    pub generation: i64,
}
