//! API keys.

use super::project::RoleView;
use crate::app::api_key::NewApiKey;
use domain::{ApiKeyId, Name, ProjectId, Timestamp, identity::ApiKey};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

#[derive(Serialize, ToSchema)]
#[schema(as = ApiKey)]
pub struct ApiKeyView {
    #[schema(value_type = String, format = "uuid")]
    pub id: ApiKeyId,
    #[schema(value_type = String)]
    pub name: Name,
    /// What the key starts with after `iaas_`, by which you recognise it.
    pub prefix: String,
    /// The only project that it works in; null: all of yours.
    #[schema(value_type = Option<String>, format = "uuid")]
    pub project_id: Option<ProjectId>,
    /// The most it may do; null: what you may.
    pub role: Option<RoleView>,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires_at: Option<Timestamp>,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
}

impl From<ApiKey> for ApiKeyView {
    fn from(row: ApiKey) -> Self {
        Self {
            id: row.id,
            name: row.name,
            prefix: row.prefix,
            project_id: row.project_id,
            role: row.role.map(RoleView::from),
            expires_at: row.expires_at,
            created_at: row.created_at,
        }
    }
}

#[derive(Serialize, ToSchema)]
pub struct ApiKeyCreated {
    #[serde(flatten)]
    pub key: ApiKeyView,
    /// The whole key, for `Authorization: Bearer …`. It is not shown again.
    pub secret: String,
}

impl From<NewApiKey> for ApiKeyCreated {
    fn from(new: NewApiKey) -> Self {
        Self { key: new.key.into(), secret: new.secret }
    }
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ApiKeyCreate {
    #[schema(value_type = String)]
    pub name: Name,
    /// Id or name of the only project that it works in; all of yours unless given.
    #[serde(default)]
    pub project: Option<String>,
    /// The most it may do there.
    #[serde(default)]
    pub role: Option<RoleView>,
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires_at: Option<Timestamp>,
    /// Your password. It is required for a key that is limited neither to a project nor to a role below admin.
    #[serde(default)]
    pub password: Option<String>,
}
