//! User accounts.

use domain::{Name, Timestamp, UserId, identity::User};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

#[derive(Serialize, ToSchema)]
#[schema(as = User)]
pub struct UserView {
    #[schema(value_type = String, format = "uuid")]
    pub id: UserId,
    #[schema(value_type = String)]
    pub name: Name,
    pub system_admin: bool,
    /// A disabled user can't log in, and their API keys don't work.
    pub enabled: bool,
    pub generation: i64,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
}

impl From<User> for UserView {
    fn from(row: User) -> Self {
        Self {
            id: row.id,
            name: row.name,
            system_admin: row.system_admin,
            enabled: row.enabled,
            generation: row.generation,
            created_at: row.created_at,
        }
    }
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UserCreate {
    #[schema(value_type = String)]
    pub name: Name,
    /// 8 to 256 characters.
    pub password: String,
    #[serde(default)]
    pub system_admin: bool,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UserChange {
    #[serde(default)]
    pub password: Option<String>,
    #[serde(default)]
    pub enabled: Option<bool>,
    #[serde(default)]
    pub system_admin: Option<bool>,
    /// With a new password: the user's API keys stay. Otherwise they are revoked.
    #[serde(default)]
    pub keep_api_keys: bool,
}
