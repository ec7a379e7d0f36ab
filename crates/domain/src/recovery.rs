//! The loss of a host: how it is proved, and what becomes of the host's instances.

use crate::{HostId, InstanceId, Name, ProjectId, RecoveryId, Timestamp, instance::OnHostLoss};

string_enum! {
    /// How it is known that nothing runs on a host any more.
    pub enum LossProof {
        /// An operator says so: they switched it off, or saw that it is.
        Declared = "declared",
        /// Its lease lapsed, so that its guard has ended everything that may run elsewhere.
        Lease = "lease",
    }
}

string_enum! {
    /// How far an instance's recovery has come. Each phase but the first names what was reached.
    pub enum RecoveryPhase {
        /// It has no place yet.
        Waiting = "waiting",
        /// It was given to another host, under its next epoch.
        Placed = "placed",
        /// The other host started it, or prepared one that is to be off.
        Started = "started",
        /// The other host answers for its addresses.
        Reachable = "reachable",
        /// Its guest said that it is up.
        Verified = "verified",
        /// Its own host came back before it had another place, and has it again.
        Returned = "returned",
        /// It was deleted before it was recovered.
        Deleted = "deleted",
    }
}

impl RecoveryPhase {
    /// Whether the instance runs on another host than before, or is about to.
    #[must_use]
    pub fn is_moved(self) -> bool {
        match self {
            Self::Placed | Self::Started | Self::Reachable | Self::Verified => true,
            Self::Waiting | Self::Returned | Self::Deleted => false,
        }
    }
}

/// The verdict on a host: it is lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostVerdict {
    pub host_id: HostId,
    pub proof: LossProof,
    /// The number of the lease that lapsed.
    pub lease_number: Option<i64>,
    /// Who declared it; empty for a lease.
    pub declared_by: String,
    /// When the host was last known to be there.
    pub lost_at: Timestamp,
    pub declared_at: Timestamp,
    /// All its instances that are to be recovered have their recovery.
    pub listed: bool,
}

/// One instance's recovery from the loss of one host, with the times at which its phases were reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovery {
    pub id: RecoveryId,
    pub instance_id: InstanceId,
    pub instance_name: Name,
    pub project_id: ProjectId,
    /// The lost host.
    pub host_id: HostId,
    pub host_name: String,
    pub to_host_id: Option<HostId>,
    /// The instance's epoch on the lost host.
    pub epoch: i64,
    pub policy: OnHostLoss,
    /// How soon it should be back, seconds after the loss.
    pub rto_seconds: u32,
    pub phase: RecoveryPhase,
    /// Why it waits.
    pub reason: String,
    pub lost_at: Timestamp,
    /// When the host was declared lost.
    pub detected_at: Timestamp,
    pub placed_at: Option<Timestamp>,
    pub started_at: Option<Timestamp>,
    pub reachable_at: Option<Timestamp>,
    pub verified_at: Option<Timestamp>,
    /// It is over, in its last phase.
    pub closed_at: Option<Timestamp>,
}
