//! Idempotency keys and the outcomes of operations. The api-gateway commits (principal, key) → operation before it calls; the owning
//! service inserts the operation's id with its outcome in the transaction of the change. So after any crash a repeat finds either the
//! outcome or nothing done. An outcome is base64 of the answer as the owning service encodes it.

use crate::{Op, ReadError, Store};
use domain::{OperationId, Timestamp};

op! {
    IdempotencyInsert {
        /// `user:<id>` or `api_key:<id>`.
        principal: String,
        idem_key: String,
        /// Of method, path and body, lower-case hex.
        body_hash: String,
        operation_id: OperationId,
        /// Ids that the operation's new objects get.
        new_ids: Vec<String>,
        created_at: Timestamp,
    }
    on idempotency, Insert by (principal, idem_key): insert
}

op! {
    /// At most 2,000, as the three below: see [`crate::Retention`].
    IdempotencyExpire { before: Timestamp }
    on idempotency, Change by (before):
    "DELETE FROM idempotency WHERE (principal, idem_key) IN (SELECT principal, idem_key FROM idempotency
        WHERE created_at < (SELECT max(r.before) FROM {rows}) ORDER BY created_at LIMIT 2000)"
}

op! {
    /// Of the api-gateway.
    IdentityOperationInsert { id: OperationId, outcome: String, created_at: Timestamp }
    on identity_operation, Insert by (id): insert
}

op! {
    /// Of the cluster-manager.
    ComputeOperationInsert { id: OperationId, outcome: String, created_at: Timestamp }
    on compute_operation, Insert by (id): insert
}

op! {
    /// Of the storage-manager.
    StorageOperationInsert { id: OperationId, outcome: String, created_at: Timestamp }
    on storage_operation, Insert by (id): insert
}

op! {
    /// Of the resource-manager.
    ResourceOperationInsert { id: OperationId, outcome: String, created_at: Timestamp }
    on resource_operation, Insert by (id): insert
}

op! {
    IdentityOperationExpire { before: Timestamp }
    on identity_operation, Change by (before):
    "DELETE FROM identity_operation WHERE id IN (SELECT id FROM identity_operation
        WHERE created_at < (SELECT max(r.before) FROM {rows}) ORDER BY created_at LIMIT 2000)"
}

op! {
    ComputeOperationExpire { before: Timestamp }
    on compute_operation, Change by (before):
    "DELETE FROM compute_operation WHERE id IN (SELECT id FROM compute_operation
        WHERE created_at < (SELECT max(r.before) FROM {rows}) ORDER BY created_at LIMIT 2000)"
}

op! {
    StorageOperationExpire { before: Timestamp }
    on storage_operation, Change by (before):
    "DELETE FROM storage_operation WHERE id IN (SELECT id FROM storage_operation
        WHERE created_at < (SELECT max(r.before) FROM {rows}) ORDER BY created_at LIMIT 2000)"
}

op! {
    ResourceOperationExpire { before: Timestamp }
    on resource_operation, Change by (before):
    "DELETE FROM resource_operation WHERE id IN (SELECT id FROM resource_operation
        WHERE created_at < (SELECT max(r.before) FROM {rows}) ORDER BY created_at LIMIT 2000)"
}

row! {
    pub struct IdempotencyRow of idempotency {
        pub principal: String,
        pub idem_key: String,
        pub body_hash: String,
        pub operation_id: OperationId,
        pub new_ids: Vec<String>,
        pub created_at: Timestamp,
    }
}

row! {
    struct OutcomeRow { outcome: String }
}

/// Whose outcomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OperationTable {
    Identity,
    Compute,
    Storage,
    Resource,
}

impl OperationTable {
    /// Stores an operation's outcome with the change.
    #[must_use]
    pub fn insert(self, id: OperationId, outcome: String, created_at: Timestamp) -> Op {
        match self {
            Self::Identity => IdentityOperationInsert { id, outcome, created_at }.into(),
            Self::Compute => ComputeOperationInsert { id, outcome, created_at }.into(),
            Self::Storage => StorageOperationInsert { id, outcome, created_at }.into(),
            Self::Resource => ResourceOperationInsert { id, outcome, created_at }.into(),
        }
    }
}

impl Store {
    pub async fn idempotency_find(&self, principal: &str, key: &str) -> Result<Option<IdempotencyRow>, ReadError> {
        let sql = "WHERE principal = $1 AND idem_key = $2";
        self.pool().find(sql, [principal.into(), key.into()]).await
    }

    /// The outcome, if the operation was committed.
    pub async fn operation_find(&self, table: OperationTable, id: OperationId) -> Result<Option<String>, ReadError> {
        let sql = match table {
            OperationTable::Identity => "SELECT outcome FROM identity_operation WHERE id = $1",
            OperationTable::Compute => "SELECT outcome FROM compute_operation WHERE id = $1",
            OperationTable::Storage => "SELECT outcome FROM storage_operation WHERE id = $1",
            OperationTable::Resource => "SELECT outcome FROM resource_operation WHERE id = $1",
        };
        let row: Option<OutcomeRow> = self.pool().fetch_optional(sql, [id.into()]).await?;
        Ok(row.map(|row| row.outcome))
    }
}
