//! Refresh tokens and the keys that sign access tokens. Written by the api-gateway. A refresh token is used once: using one again means
//! that two hold it, so its whole family is revoked. Only the SHA-256 of a token and the wrapped form of a key are stored.

use crate::{ReadError, Store};
use domain::{Timestamp, UserId};

op! {
    RefreshTokenInsert {
        secret_hash: String,
        /// All tokens that came from one login.
        family: String,
        user_id: UserId,
        expires_at: Timestamp,
        created_at: Timestamp,
    }
    on refresh_token, Insert by (secret_hash): insert
}

op! {
    /// Only if it is unused and unexpired at `used_at`.
    RefreshTokenUse { secret_hash: String, used_at: Timestamp }
    on refresh_token, Change by (secret_hash), guard RefreshToken:
    "UPDATE refresh_token SET used_at = r.used_at FROM {rows}
     WHERE refresh_token.secret_hash = r.secret_hash AND refresh_token.used_at IS NULL
     AND refresh_token.expires_at > r.used_at"
}

op! {
    RefreshFamilyRevoke { family: String }
    on refresh_token, Change by (family):
    "DELETE FROM refresh_token WHERE family IN (SELECT r.family FROM {rows})"
}

op! {
    RefreshUserRevoke { user_id: UserId }
    on refresh_token, Change by (user_id):
    "DELETE FROM refresh_token WHERE user_id IN (SELECT r.user_id FROM {rows})"
}

op! {
    /// Keeps 200 tokens of a user: the newest of the unused ones, then the newest of the used ones.
    RefreshUserTrim { user_id: UserId }
    on refresh_token, Change by (user_id):
    "DELETE FROM refresh_token WHERE secret_hash IN (SELECT s.secret_hash FROM (
        SELECT t.secret_hash, row_number() OVER (PARTITION BY t.user_id ORDER BY (t.used_at IS NULL) DESC, t.created_at DESC) AS place
        FROM refresh_token AS t WHERE t.user_id IN (SELECT r.user_id FROM {rows})) AS s WHERE s.place > 200)"
}

op! {
    /// Forgets those that expired before `before`, at most 2,000: see [`crate::Retention`].
    RefreshExpire { before: Timestamp }
    on refresh_token, Change by (before): expire secret_hash by expires_at
}

op! {
    SigningKeyInsert { kid: String, wrapped_secret: String, public_key: String, created_at: Timestamp }
    on signing_key, Insert by (kid): insert
}

op! {
    /// Signs no more; still verifies until its tokens have expired.
    SigningKeyRetire { kid: String, retired_at: Timestamp }
    on signing_key, Change by (kid):
    "UPDATE signing_key SET retired_at = r.retired_at FROM {rows}
     WHERE signing_key.kid = r.kid AND signing_key.retired_at IS NULL"
}

row! {
    pub struct RefreshTokenRow of refresh_token {
        pub secret_hash: String,
        pub family: String,
        pub user_id: UserId,
        pub used_at: Option<Timestamp>,
        pub expires_at: Timestamp,
        pub created_at: Timestamp,
    }
}

row! {
    pub struct SigningKeyRow of signing_key {
        pub kid: String,
        pub wrapped_secret: String,
        pub public_key: String,
        pub created_at: Timestamp,
        pub retired_at: Option<Timestamp>,
    }
}

impl Store {
    pub async fn refresh_token_find(&self, secret_hash: &str) -> Result<Option<RefreshTokenRow>, ReadError> {
        self.pool().find("WHERE secret_hash = $1", [secret_hash.into()]).await
    }

    /// All, the oldest first, retired ones too.
    pub async fn signing_key_list(&self) -> Result<Vec<SigningKeyRow>, ReadError> {
        self.pool().list("ORDER BY created_at, kid", []).await
    }
}
