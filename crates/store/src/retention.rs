//! Forgetting what is past its time, in slices. One statement that deletes a day's events holds the writer for seconds, and on PostgreSQL
//! runs into its time limit and never ends; so each `…Expire` op takes at most 2,000 rows, and [`Store::expire`] repeats it, each slice a
//! commit of its own between those of others.

use crate::{
    AuditExpire, CommitError, ComputeOperationExpire, EventExpire, HostTokenExpire, IdempotencyExpire,
    IdentityOperationExpire, Op, PlacementRecordExpire, ReadError, RecoveryExpire, RefreshExpire,
    ResourceOperationExpire, StorageOperationExpire, Store, Unit, engine::read::Count,
};
use domain::Timestamp;
use sqlx::AssertSqlSafe;

/// What is kept for a time only. Each is swept by the service that owns it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Retention {
    Events,
    Idempotency,
    IdentityOperations,
    ComputeOperations,
    StorageOperations,
    ResourceOperations,
    RefreshTokens,
    HostTokens,
    PlacementRecords,
    Recoveries,
    Audit,
}

impl Retention {
    pub const ALL: [Self; 11] = [
        Self::Events,
        Self::Idempotency,
        Self::IdentityOperations,
        Self::ComputeOperations,
        Self::StorageOperations,
        Self::ResourceOperations,
        Self::RefreshTokens,
        Self::HostTokens,
        Self::PlacementRecords,
        Self::Recoveries,
        Self::Audit,
    ];

    fn slice(self, before: Timestamp) -> Op {
        match self {
            Self::Events => EventExpire { before }.into(),
            Self::Idempotency => IdempotencyExpire { before }.into(),
            Self::IdentityOperations => IdentityOperationExpire { before }.into(),
            Self::ComputeOperations => ComputeOperationExpire { before }.into(),
            Self::StorageOperations => StorageOperationExpire { before }.into(),
            Self::ResourceOperations => ResourceOperationExpire { before }.into(),
            Self::RefreshTokens => RefreshExpire { before }.into(),
            Self::HostTokens => HostTokenExpire { before }.into(),
            Self::PlacementRecords => PlacementRecordExpire { before }.into(),
            Self::Recoveries => RecoveryExpire { before }.into(),
            Self::Audit => AuditExpire { before }.into(),
        }
    }

    /// The table, and the column that says how old a row is.
    fn age(self) -> (&'static str, &'static str) {
        match self {
            Self::Events => ("event", "at"),
            Self::Idempotency => ("idempotency", "created_at"),
            Self::IdentityOperations => ("identity_operation", "created_at"),
            Self::ComputeOperations => ("compute_operation", "created_at"),
            Self::StorageOperations => ("storage_operation", "created_at"),
            Self::ResourceOperations => ("resource_operation", "created_at"),
            Self::RefreshTokens => ("refresh_token", "expires_at"),
            Self::HostTokens => ("host_token", "expires_at"),
            Self::PlacementRecords => ("placement_record", "kept_at"),
            Self::Recoveries => ("recovery", "closed_at"),
            Self::Audit => ("audit", "at"),
        }
    }
}

impl Store {
    /// Forgets everything of the kind that is older than `before`. Can be stopped anywhere and begun again.
    pub async fn expire(&self, what: Retention, before: Timestamp) -> Result<(), CommitError> {
        let (table, time) = what.age();
        let sql = format!("SELECT count(*) AS n FROM (SELECT 1 FROM {table} WHERE {time} < $1 LIMIT 1) AS x");
        loop {
            let more: Result<Count, ReadError> =
                self.pool().fetch_one(AssertSqlSafe(sql.clone()), [before.into()]).await;
            match more {
                Ok(Count { n: 0 }) => return Ok(()),
                Ok(_) => self.commit(Unit::new().op(what.slice(before))).await?,
                Err(ReadError::Unavailable(cause)) => return Err(CommitError::Unavailable(cause)),
                Err(ReadError::Internal(cause)) => return Err(CommitError::Internal(cause)),
            }
        }
    }
}
