//! Forgetting what is past its time, in slices. One statement that deletes a day's events holds the writer for seconds, and on PostgreSQL
//! runs into its time limit and never ends; so each `…Expire` op takes at most 2,000 rows, and [`Store::expire`] repeats it, each slice a
//! commit of its own between those of others.

use crate::{
    CommitError, ComputeOperationExpire, EventExpire, HostTokenExpire, IdempotencyExpire, IdentityOperationExpire, Op,
    PlacementRecordExpire, ReadError, RefreshExpire, ResourceOperationExpire, StorageOperationExpire, Store, Unit,
    engine::read::Count,
};
use domain::Timestamp;

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
}

impl Retention {
    pub const ALL: [Self; 9] = [
        Self::Events,
        Self::Idempotency,
        Self::IdentityOperations,
        Self::ComputeOperations,
        Self::StorageOperations,
        Self::ResourceOperations,
        Self::RefreshTokens,
        Self::HostTokens,
        Self::PlacementRecords,
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
        }
    }

    /// 1 when there is more, else 0.
    fn more(self) -> &'static str {
        match self {
            Self::Events => "SELECT count(*) AS n FROM (SELECT 1 FROM event WHERE at < $1 LIMIT 1) AS x",
            Self::Idempotency => {
                "SELECT count(*) AS n FROM (SELECT 1 FROM idempotency WHERE created_at < $1 LIMIT 1) AS x"
            }
            Self::IdentityOperations => {
                "SELECT count(*) AS n FROM (SELECT 1 FROM identity_operation WHERE created_at < $1 LIMIT 1) AS x"
            }
            Self::ComputeOperations => {
                "SELECT count(*) AS n FROM (SELECT 1 FROM compute_operation WHERE created_at < $1 LIMIT 1) AS x"
            }
            Self::StorageOperations => {
                "SELECT count(*) AS n FROM (SELECT 1 FROM storage_operation WHERE created_at < $1 LIMIT 1) AS x"
            }
            Self::ResourceOperations => {
                "SELECT count(*) AS n FROM (SELECT 1 FROM resource_operation WHERE created_at < $1 LIMIT 1) AS x"
            }
            Self::RefreshTokens => {
                "SELECT count(*) AS n FROM (SELECT 1 FROM refresh_token WHERE expires_at < $1 LIMIT 1) AS x"
            }
            Self::HostTokens => {
                "SELECT count(*) AS n FROM (SELECT 1 FROM host_token WHERE expires_at < $1 LIMIT 1) AS x"
            }
            Self::PlacementRecords => {
                "SELECT count(*) AS n FROM (SELECT 1 FROM placement_record WHERE kept_at < $1 LIMIT 1) AS x"
            }
        }
    }
}

impl Store {
    /// Forgets everything of the kind that is older than `before`. Can be stopped anywhere and begun again.
    pub async fn expire(&self, what: Retention, before: Timestamp) -> Result<(), CommitError> {
        loop {
            let more: Result<Count, ReadError> = self.pool().fetch_one(what.more(), [before.into()]).await;
            match more {
                Ok(Count { n: 0 }) => return Ok(()),
                Ok(_) => self.commit(Unit::new().op(what.slice(before))).await?,
                Err(ReadError::Unavailable(cause)) => return Err(CommitError::Unavailable(cause)),
                Err(ReadError::Internal(cause)) => return Err(CommitError::Internal(cause)),
            }
        }
    }
}
