//! Idempotency keys and the outcomes of operations. The api-gateway commits (principal, key) → operation before it calls; the owning
//! service inserts the operation's id with its outcome in the transaction of the change. So after any crash a repeat finds either the
//! outcome or nothing done. An outcome is base64 of the message that answers the call (crates/operation).

use crate::{Op, ReadError, Store, engine::read::Count};
use domain::{OperationId, Timestamp};

op! {
    IdempotencyInsert {
        /// `user:<id>` or `api_key:<id>`.
        principal: String,
        idem_key: String,
        /// Of method, path and body, lower-case hex.
        body_hash: String,
        operation_id: OperationId,
        /// Existing objects that the request named. Ids of new ones follow from the operation's.
        object_ids: Vec<String>,
        created_at: Timestamp,
    }
    on idempotency, Insert by (principal, idem_key): insert
}

op! {
    /// Forgets keys, at most 2,000: see [`crate::Retention`].
    IdempotencyExpire { before: Timestamp }
    on idempotency, Change by (before):
    "DELETE FROM idempotency WHERE (principal, idem_key) IN (SELECT principal, idem_key FROM idempotency
        WHERE created_at < (SELECT max(r.before) FROM {rows}) ORDER BY created_at LIMIT 2000)"
}

/// The outcomes of one owner's operations.
macro_rules! operations {
    ($($table:ident: $insert:ident, $expire:ident, $owner:literal);+ $(;)?) => {$(
        op! {
            #[doc = concat!("Stores the outcome of an operation of the ", $owner, ".")]
            $insert { id: OperationId, outcome: String, created_at: Timestamp }
            on $table, Insert by (id): insert
        }

        op! {
            #[doc = concat!("Forgets outcomes of the ", $owner, ", at most 2,000: see [`crate::Retention`].")]
            $expire { before: Timestamp }
            on $table, Change by (before): expire id by created_at
        }
    )+};
}

operations! {
    identity_operation: IdentityOperationInsert, IdentityOperationExpire, "api-gateway";
    compute_operation: ComputeOperationInsert, ComputeOperationExpire, "cluster-manager";
    storage_operation: StorageOperationInsert, StorageOperationExpire, "storage-manager";
    resource_operation: ResourceOperationInsert, ResourceOperationExpire, "resource-manager";
}

row! {
    pub struct IdempotencyRow of idempotency {
        pub principal: String,
        pub idem_key: String,
        pub body_hash: String,
        pub operation_id: OperationId,
        pub object_ids: Vec<String>,
        pub created_at: Timestamp,
    }
}

row! {
    struct OutcomeRow { outcome: String }
}

/// The owner whose outcomes are meant.
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
        self.pool().find("WHERE principal = $1 AND idem_key = $2", [principal.into(), key.into()]).await
    }

    /// How many keys of the principal are kept; not counted beyond `most`.
    pub async fn idempotency_count(&self, principal: &str, most: u32) -> Result<u64, ReadError> {
        let sql = "SELECT count(*) AS n FROM (SELECT 1 FROM idempotency WHERE principal = $1 LIMIT $2) AS x";
        let count: Count = self.pool().fetch_one(sql, [principal.into(), most.into()]).await?;
        Ok(count.n.unsigned_abs())
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
