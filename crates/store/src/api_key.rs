//! API keys: found by their prefix, proven by the SHA-256 of the rest. Written by the api-gateway.

use crate::{ReadError, Store};
use domain::{ApiKeyId, Name, ProjectId, Timestamp, UserId, policy::Role};

op! {
    /// Only while its user has fewer than `keys_max` keys (else `ApiKeyQuota`). The user's row is locked first, and keys of one user share
    /// no batch, so that the count is exact however many are made at once.
    ApiKeyInsert {
        id: ApiKeyId,
        user_id: UserId,
        /// Bound to this project alone; `None`: all of its user's.
        project_id: Option<ProjectId>,
        name: Name,
        prefix: String,
        /// Lower-case hex.
        secret_hash: String,
        /// At most this role; `None`: its user's.
        role: Option<Role>,
        expires_at: Option<Timestamp>,
        created_at: Timestamp,
        keys_max: i64,
    }
    on api_key, Insert by (user_id), guard ApiKeyQuota,
    ensure "UPDATE user_account SET generation = user_account.generation FROM {rows} WHERE user_account.id = r.user_id":
    "INSERT INTO api_key (id, user_id, project_id, name, prefix, secret_hash, role, expires_at, created_at)
     SELECT r.id, r.user_id, r.project_id, r.name, r.prefix, r.secret_hash, r.role, r.expires_at, r.created_at
     FROM {rows} WHERE (SELECT count(*) FROM api_key AS k WHERE k.user_id = r.user_id) < r.keys_max"
}

op! {
    ApiKeyDelete { id: ApiKeyId, user_id: UserId }
    on api_key, Change by (id):
    "DELETE FROM api_key WHERE (id, user_id) IN (SELECT r.id, r.user_id FROM {rows})"
}

op! {
    /// Deletes all keys of a user.
    ApiKeyUserRevoke { user_id: UserId }
    on api_key, Change by (user_id):
    "DELETE FROM api_key WHERE user_id IN (SELECT r.user_id FROM {rows})"
}

row! {
    pub struct ApiKeyRow of api_key {
        pub id: ApiKeyId,
        pub user_id: UserId,
        pub project_id: Option<ProjectId>,
        pub name: Name,
        pub prefix: String,
        pub secret_hash: String,
        pub role: Option<Role>,
        pub expires_at: Option<Timestamp>,
        pub created_at: Timestamp,
    }
}

impl Store {
    pub async fn api_key_find_by_prefix(&self, prefix: &str) -> Result<Option<ApiKeyRow>, ReadError> {
        self.pool().find("WHERE prefix = $1", [prefix.into()]).await
    }

    pub async fn api_key_list(&self, user_id: UserId) -> Result<Vec<ApiKeyRow>, ReadError> {
        self.pool().list("WHERE user_id = $1 ORDER BY id", [user_id.into()]).await
    }
}
