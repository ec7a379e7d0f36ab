//! Tokens that admit a host, and the hosts that are admitted. Written by the cluster-manager.
//!
//! A token's secret is never here, only its SHA-256. A host is part of the fleet while it has an admission row: every manager refuses the
//! certificates of hosts that have none, or another key. The row goes with its host's.

use crate::{Page, ReadError, Store};
use domain::{HostId, HostTokenId, Name, Timestamp};

op! {
    HostTokenInsert {
        id: HostTokenId,
        secret_hash: String,
        host_name: Option<Name>,
        zone: Option<Name>,
        created_by: String,
        created_at: Timestamp,
        expires_at: Timestamp,
    }
    on host_token, Insert by (id): insert
}

op! {
    /// Binds it to its first host; the same host (by id and key) may come again.
    HostTokenRedeem { id: HostTokenId, host_id: HostId, key_hash: String, at: Timestamp }
    on host_token, Change by (id), guard HostToken:
    "UPDATE host_token SET host_id = r.host_id, key_hash = r.key_hash,
        redeemed_at = COALESCE(host_token.redeemed_at, r.at)
     FROM {rows} WHERE host_token.id = r.id AND host_token.expires_at > r.at
     AND (host_token.host_id IS NULL OR (host_token.host_id = r.host_id AND host_token.key_hash = r.key_hash))"
}

op! {
    HostTokenDelete { id: HostTokenId }
    on host_token, Change by (id):
    "DELETE FROM host_token WHERE id IN (SELECT r.id FROM {rows})"
}

op! {
    /// Forgets those that expired before `before`, at most 2,000: see [`crate::Retention`].
    HostTokenExpire { before: Timestamp }
    on host_token, Change by (before): expire id by expires_at
}

op! {
    /// The host is part of the fleet, with this key and no other.
    HostAdmissionPut { host_id: HostId, key_hash: String, at: Timestamp }
    on host_admission, Insert by (host_id):
    "INSERT INTO host_admission (host_id, key_hash, admitted_at)
     SELECT r.host_id, r.key_hash, r.at FROM {rows} WHERE TRUE
     ON CONFLICT (host_id) DO UPDATE SET key_hash = excluded.key_hash, admitted_at = excluded.admitted_at"
}

op! {
    /// Only a condition: the host is still admitted with this key. It goes with what a host's agent says, so that a host that is being
    /// removed doesn't register anew.
    HostAdmissionHold { host_id: HostId, key_hash: String }
    on host_admission, Change by (host_id), guard HostAdmission:
    "UPDATE host_admission SET key_hash = r.key_hash FROM {rows}
     WHERE host_admission.host_id = r.host_id AND host_admission.key_hash = r.key_hash"
}

row! {
    pub struct HostTokenRow of host_token {
        pub id: HostTokenId,
        pub host_name: Option<Name>,
        pub zone: Option<Name>,
        pub created_by: String,
        pub created_at: Timestamp,
        pub expires_at: Timestamp,
        pub host_id: Option<HostId>,
        pub key_hash: Option<String>,
        pub redeemed_at: Option<Timestamp>,
    }
}

row! {
    pub struct HostAdmissionRow of host_admission {
        pub host_id: HostId,
        pub key_hash: String,
        pub admitted_at: Timestamp,
    }
}

impl Store {
    pub async fn host_token_find(&self, id: HostTokenId) -> Result<Option<HostTokenRow>, ReadError> {
        self.pool().find("WHERE id = $1", [id.into()]).await
    }

    /// The token whose secret has this SHA-256.
    pub async fn host_token_find_by_secret(&self, secret_hash: &str) -> Result<Option<HostTokenRow>, ReadError> {
        self.pool().find("WHERE secret_hash = $1", [secret_hash.into()]).await
    }

    pub async fn host_token_list(&self, page: Page) -> Result<Vec<HostTokenRow>, ReadError> {
        self.pool().page(None, page).await
    }

    /// The tokens that admitted the host.
    pub async fn host_token_list_of_host(&self, host_id: HostId) -> Result<Vec<HostTokenRow>, ReadError> {
        self.pool().list("WHERE host_id = $1 ORDER BY id", [host_id.into()]).await
    }

    pub async fn host_admission_find(&self, host_id: HostId) -> Result<Option<HostAdmissionRow>, ReadError> {
        self.pool().find("WHERE host_id = $1", [host_id.into()]).await
    }

    /// The whole fleet.
    pub async fn host_admission_list(&self) -> Result<Vec<HostAdmissionRow>, ReadError> {
        self.pool().list("ORDER BY host_id", []).await
    }
}
