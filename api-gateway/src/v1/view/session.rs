//! Logins.

use domain::{Name, ProjectId, Timestamp, UserId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::project::RoleView;

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LoginRequest {
    pub username: String,
    pub password: String,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RefreshRequest {
    pub refresh_token: String,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Tokens)]
pub struct TokensView {
    /// For the header `Authorization: Bearer …`.
    pub access_token: String,
    /// It is good for one `POST /v1/auth/refresh`.
    pub refresh_token: String,
    /// Always `Bearer`.
    pub token_type: &'static str,
    /// How long the access token is valid, in seconds.
    pub expires_in: u64,
}

#[derive(Serialize, ToSchema)]
pub struct Whoami {
    pub user: WhoamiUser,
    /// The projects you are in that this token gives access to.
    pub projects: Vec<WhoamiProject>,
    /// The project that your requests mean when they name none.
    #[schema(value_type = Option<String>, format = "uuid")]
    pub home_project_id: Option<ProjectId>,
    /// Set when the token is an API key.
    pub api_key: Option<WhoamiKey>,
}

#[derive(Serialize, ToSchema)]
pub struct WhoamiUser {
    #[schema(value_type = String, format = "uuid")]
    pub id: UserId,
    pub name: String,
    /// Whether this token may administer the system.
    pub system_admin: bool,
}

#[derive(Serialize, ToSchema)]
pub struct WhoamiProject {
    #[schema(value_type = String, format = "uuid")]
    pub id: ProjectId,
    #[schema(value_type = String)]
    pub name: Name,
    pub role: RoleView,
}

#[derive(Serialize, ToSchema)]
pub struct WhoamiKey {
    #[schema(value_type = String, format = "uuid")]
    pub id: domain::ApiKeyId,
    pub name: String,
    #[schema(value_type = Option<String>, format = "uuid")]
    pub project_id: Option<ProjectId>,
    pub role: Option<RoleView>,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires_at: Option<Timestamp>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PasswordChange {
    pub current: String,
    /// 8 to 256 characters.
    pub new: String,
    /// Your API keys stay. Otherwise they are revoked: whoever knew the old password may have made some.
    #[serde(default)]
    pub keep_api_keys: bool,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HomeProject {
    /// Id or name of one of your projects.
    pub project: String,
}
