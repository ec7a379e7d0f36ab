//! Who: logins, users, projects, members, API keys.

use crate::{model::QuotaAmounts, token::Tokens};
use domain::{ApiKeyId, ProjectId, Timestamp, UserId, policy::Role};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Login {
    pub access_token: String,
    pub refresh_token: String,
    /// Seconds that the access token lives.
    #[serde(default)]
    pub expires_in: u64,
}

impl Login {
    #[must_use]
    pub fn tokens(&self) -> Tokens {
        Tokens { access_token: self.access_token.clone(), refresh_token: self.refresh_token.clone() }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Whoami {
    pub user: WhoamiUser,
    pub projects: Vec<WhoamiProject>,
    #[serde(default)]
    pub home_project_id: Option<ProjectId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key: Option<serde_json::Value>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhoamiUser {
    pub id: UserId,
    pub name: String,
    pub system_admin: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhoamiProject {
    pub id: ProjectId,
    pub name: String,
    pub role: Role,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quota {
    pub limits: QuotaAmounts,
    pub used: QuotaAmounts,
}

/// New limits; what is `None` stays.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct QuotaChange {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instances: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vcpus: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_gib: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub images: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_gib: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub networks: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subnets: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ports: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub routers: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub floating_ips: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security_groups: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security_rules: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peerings: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ssh_keys: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub placement_groups: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    pub id: UserId,
    pub name: String,
    pub system_admin: bool,
    pub enabled: bool,
    #[serde(default)]
    pub generation: i64,
    pub created_at: Timestamp,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserCreate {
    pub name: String,
    pub password: String,
    pub system_admin: bool,
}

#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct UserChange {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system_admin: Option<bool>,
    /// With a new password: the API keys stay.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub keep_api_keys: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKey {
    pub id: ApiKeyId,
    pub name: String,
    #[serde(default)]
    pub prefix: String,
    #[serde(default)]
    pub project_id: Option<ProjectId>,
    #[serde(default)]
    pub role: Option<Role>,
    #[serde(default)]
    pub expires_at: Option<Timestamp>,
    pub created_at: Timestamp,
    /// Only in the answer that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ApiKeyCreate {
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// The user's own password: for a key that is limited neither to a project nor to a role.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
}
