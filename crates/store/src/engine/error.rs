//! What a commit or a read can fail with. Callers decide by kind, never by text.

use super::constraint::Constraint;
use crate::ManagerRole;
use std::sync::Arc;

/// Why the database didn't do its work.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    #[error(transparent)]
    Sqlx(sqlx::Error),
    #[error(transparent)]
    Sqlite(rusqlite::Error),
    /// The writer is gone.
    #[error("the store is closed")]
    Closed,
    /// A unit waited for the writer longer than it may.
    #[error("waited {0} s for the database")]
    WaitedTooLong(u64),
    #[error("the server didn't answer within {0} s")]
    NoAnswer(u64),
    #[error("there is no connection")]
    NoConnection,
    #[error("the server no longer knows the fate of transaction {0}")]
    FateUnknown(String),
    #[error("a unit can't be written as JSON")]
    Unit(#[source] serde_json::Error),
    #[error("the writer's thread or task can't be started")]
    Writer(#[source] std::io::Error),
    /// What room there is on the database's disk is for what makes nothing new.
    #[error("the disk of the database is full")]
    DiskFull,
    /// A rule broke where none may: outside a unit.
    #[error("the constraint {0:?} is broken")]
    Constraint(Constraint),
    #[error("the guard {0:?} doesn't hold")]
    Guard(Guard),
    /// Of a manager: another term of its role began, or its own lapsed. Nothing was written.
    #[error("this {} doesn't lead any more", .0.as_str())]
    NotLeader(ManagerRole),
}

impl DatabaseError {
    /// Whether the disk of the database is full.
    #[must_use]
    pub fn disk_full(&self) -> bool {
        match self {
            Self::DiskFull => true,
            Self::Sqlite(rusqlite::Error::SqliteFailure(error, _)) => sqlite_disk_full(error.extended_code),
            Self::Sqlx(sqlx::Error::Database(error)) => {
                let code = error.code().unwrap_or_default();
                let of_sqlite = error.try_downcast_ref::<sqlx::sqlite::SqliteError>().is_some();
                if of_sqlite { code.parse().is_ok_and(sqlite_disk_full) } else { code == POSTGRES_DISK_FULL }
            }
            Self::Sqlx(_)
            | Self::Sqlite(_)
            | Self::Closed
            | Self::WaitedTooLong(_)
            | Self::NoAnswer(_)
            | Self::NoConnection
            | Self::FateUnknown(_)
            | Self::Unit(_)
            | Self::Writer(_)
            | Self::Constraint(_)
            | Self::Guard(_)
            | Self::NotLeader(_) => false,
        }
    }

    /// Whether the unit was a manager's that doesn't lead its role.
    #[must_use]
    pub fn not_leader(&self) -> Option<ManagerRole> {
        if let Self::NotLeader(role) = self { Some(*role) } else { None }
    }
}

impl DatabaseError {
    /// Whether SQLite couldn't open or create one of its files.
    pub(crate) fn cannot_open(&self) -> bool {
        matches!(self, Self::Sqlite(rusqlite::Error::SqliteFailure(error, _)) if error.code == rusqlite::ErrorCode::CannotOpen)
    }
}

/// The SQLSTATE `disk_full`.
pub(crate) const POSTGRES_DISK_FULL: &str = "53100";

/// Full, or no room for the index of its log.
fn sqlite_disk_full(extended_code: i32) -> bool {
    extended_code & 0xff == rusqlite::ffi::SQLITE_FULL || extended_code == rusqlite::ffi::SQLITE_IOERR_SHMSIZE
}

/// Shared, because all units of a batch that fails get it.
pub type Cause = Arc<DatabaseError>;

/// Conditions in the `WHERE` of an op: a guarded op that changes fewer rows than it names fails its unit with one of these.
/// The caller reads what is there now to word the problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Guard {
    /// The host isn't up, is cordoned, or has less room than is claimed.
    HostCapacity,
    ComputeQuota,
    StorageQuota,
    /// Another generation or state than expected, or the row is gone.
    InstanceGeneration,
    /// The report isn't newer than the stored one, is of another epoch, or was decided on another generation.
    InstanceObserved,
    /// Deletion: the row is gone already, or was given another epoch.
    InstanceEpoch,
    HostGeneration,
    /// Deletion: it holds instances or claims, or was changed, or is gone.
    HostInUse,
    /// The host isn't lost, or not any more; its end: something that was taken from it isn't proved to have ended.
    HostVerdict,
    /// The recovery is over, or another step was taken.
    Recovery,
    /// Unknown, expired, or another host's.
    HostToken,
    /// Not admitted, or with another key.
    HostAdmission,
    /// Another process took or renewed the lease since it was looked at.
    ManagerLease,
    ImageGeneration,
    /// Deletion: an instance that isn't being deleted uses it, or an upload reserved something meanwhile, or it is gone already.
    ImageInUse,
    /// The image is complete, being deleted or gone.
    ImageReservation,
    /// The reservation stands already: a repeat. Its quota was counted then.
    DiskExists,
    /// Not in a state that allows the change, or gone.
    DiskState,
    NetworkQuota,
    IdentityQuota,
    /// The user has as many API keys as may be.
    ApiKeyQuota,
    /// Another generation than expected, or the row is gone.
    ExternalNetworkGeneration,
    NetworkGeneration,
    SubnetGeneration,
    PortGeneration,
    RouterGeneration,
    FloatingIpGeneration,
    /// The port's network has no router to the floating IP's external network, or the port is gone.
    FloatingIpRoute,
    SecurityGroupGeneration,
    PeeringGeneration,
    SecurityRuleGone,
    SshKeyGone,
    /// Deletion: something uses it, or it is gone or changed already.
    ExternalNetworkInUse,
    NetworkInUse,
    SubnetInUse,
    SecurityGroupInUse,
    /// The port stands already: a repeat. Its quota was counted then.
    PortExists,
    /// Not in a state that allows the change, or changed, or gone.
    PortState,
    /// Somebody has the address, or it is quarantined, or its subnet is gone.
    AddressTaken,
    /// Deletion: it has members, or it is gone already.
    PlacementGroupInUse,
    /// The members of the hard affinity group are at another place.
    PlacementAnchor,
    ProjectGeneration,
    /// Deletion: it has instances, images, disks, ports or floating IPs, or networks and groups but the default ones, or it is gone.
    ProjectInUse,
    UserGeneration,
    QuotaGeneration,
    /// Used already, expired or revoked.
    RefreshToken,
}

/// Why a unit wasn't applied. Nothing of it was.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CommitError {
    #[error("the change breaks the constraint {0:?}")]
    Constraint(Constraint),
    #[error("the guard {0:?} doesn't hold")]
    Guard(Guard),
    /// Locked, gone or full for longer than a commit waits. Worth a retry; the outcome may be unknown, which is what operation ids are for.
    #[error("the database is not available")]
    Unavailable(#[source] Cause),
    /// A defect: here or in the data.
    #[error("the database refused a statement")]
    Internal(#[source] Cause),
}

impl CommitError {
    /// Whether the disk of the database is full: a person has to free room. Deleting is possible.
    #[must_use]
    pub fn disk_full(&self) -> bool {
        match self {
            Self::Unavailable(cause) => cause.disk_full(),
            Self::Constraint(_) | Self::Guard(_) | Self::Internal(_) => false,
        }
    }
}

impl CommitError {
    /// The role that the manager whose unit this was doesn't lead. Nothing was written: its successor may be asked at once.
    #[must_use]
    pub fn not_leader(&self) -> Option<ManagerRole> {
        match self {
            Self::Unavailable(cause) => cause.not_leader(),
            Self::Constraint(_) | Self::Guard(_) | Self::Internal(_) => None,
        }
    }
}

impl ReadError {
    #[must_use]
    pub fn disk_full(&self) -> bool {
        match self {
            Self::Unavailable(cause) => cause.disk_full(),
            Self::Internal(_) => false,
        }
    }
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    #[error("the database is not available")]
    Unavailable(#[source] Cause),
    #[error("the database refused a query, or holds what can't be read")]
    Internal(#[source] Cause),
}

/// What one attempt at a statement or transaction met, by what the writer does next.
#[derive(Debug, Clone)]
pub(crate) enum Failure {
    /// Some unit of the batch is failing.
    Constraint(Constraint),
    Guard(Guard),
    /// Deadlock, serialization: the same batch again, at once.
    Conflict(Cause),
    /// Locked or gone: the same batch again, later.
    Away(Cause),
    /// Read-only, or broken: tell the callers.
    Refused(Cause),
    /// The disk is full: what makes nothing new may use the reserve.
    Full(Cause),
    /// Cut off between the commit and its answer.
    Unknown(Cause),
    Internal(Cause),
}

impl Failure {
    /// Whether a part of the batch may do better than the whole.
    pub(crate) fn has_failing_unit(&self) -> bool {
        match self {
            Self::Constraint(_) | Self::Guard(_) | Self::Internal(_) => true,
            Self::Conflict(_) | Self::Away(_) | Self::Refused(_) | Self::Full(_) | Self::Unknown(_) => false,
        }
    }

    /// What it was, where no unit is concerned.
    pub(crate) fn into_cause(self) -> Cause {
        match self {
            Self::Constraint(constraint) => Arc::new(DatabaseError::Constraint(constraint)),
            Self::Guard(guard) => Arc::new(DatabaseError::Guard(guard)),
            Self::Conflict(cause)
            | Self::Away(cause)
            | Self::Refused(cause)
            | Self::Full(cause)
            | Self::Unknown(cause)
            | Self::Internal(cause) => cause,
        }
    }

    pub(crate) fn into_commit_error(self) -> CommitError {
        match self {
            Self::Constraint(constraint) => CommitError::Constraint(constraint),
            Self::Guard(guard) => CommitError::Guard(guard),
            Self::Conflict(cause)
            | Self::Away(cause)
            | Self::Refused(cause)
            | Self::Full(cause)
            | Self::Unknown(cause) => CommitError::Unavailable(cause),
            Self::Internal(cause) => CommitError::Internal(cause),
        }
    }
}
