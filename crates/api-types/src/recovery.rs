//! Lost hosts and the recoveries of their instances, for system admins.

use crate::names::{OnHostLossName, RecoveryPhaseName};
use domain::{
    HostId, InstanceId, Name, ProjectId, RecoveryId, Timestamp,
    instance::OnHostLoss,
    recovery::{self, RecoveryPhase},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What was decided when a host was declared lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HostLoss {
    #[schema(value_type = String, format = "uuid")]
    pub host_id: HostId,
    pub host_name: String,
    /// It was lost already; nothing was changed.
    pub already_lost: bool,
    /// Instances that start elsewhere with a new disk from their image.
    pub recreated: u32,
    /// Instances that start elsewhere with the disks that they have.
    pub restarted: u32,
    /// Instances that wait for the host, or for their deletion.
    pub waiting: u32,
    /// Deletions that complete.
    pub deleted: u32,
    /// What becomes of each instance; of many, the first 200.
    pub instances: Vec<String>,
}

/// The recovery of an instance from the loss of its host, with the times at which its phases were reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Recovery {
    #[schema(value_type = String, format = "uuid")]
    pub id: RecoveryId,
    #[schema(value_type = String, format = "uuid")]
    pub instance_id: InstanceId,
    #[schema(value_type = String)]
    pub instance_name: Name,
    #[schema(value_type = String, format = "uuid")]
    pub project_id: ProjectId,
    /// The lost host.
    #[schema(value_type = String, format = "uuid")]
    pub host_id: HostId,
    pub host_name: String,
    #[schema(value_type = Option<String>, format = "uuid")]
    pub to_host_id: Option<HostId>,
    /// The instance's epoch on the lost host.
    pub epoch: i64,
    #[schema(value_type = OnHostLossName)]
    pub policy: OnHostLoss,
    /// How soon it should be back, seconds after the loss.
    pub rto_seconds: u32,
    #[schema(value_type = RecoveryPhaseName)]
    pub phase: RecoveryPhase,
    /// Why it waits, or why it ended before it was verified.
    pub reason: String,
    /// When the host was last known to be there.
    #[schema(value_type = String, format = DateTime)]
    pub lost_at: Timestamp,
    /// When the host was declared lost.
    #[schema(value_type = String, format = DateTime)]
    pub detected_at: Timestamp,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub placed_at: Option<Timestamp>,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub started_at: Option<Timestamp>,
    /// When its new host answered for its addresses.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub reachable_at: Option<Timestamp>,
    /// When its guest said that it is up.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub verified_at: Option<Timestamp>,
    /// It is over, in its last phase.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub closed_at: Option<Timestamp>,
}

impl From<recovery::Recovery> for Recovery {
    fn from(recovery: recovery::Recovery) -> Self {
        let recovery::Recovery {
            id,
            instance_id,
            instance_name,
            project_id,
            host_id,
            host_name,
            to_host_id,
            epoch,
            policy,
            rto_seconds,
            phase,
            reason,
            lost_at,
            detected_at,
            placed_at,
            started_at,
            reachable_at,
            verified_at,
            closed_at,
        } = recovery;
        Self {
            id,
            instance_id,
            instance_name,
            project_id,
            host_id,
            host_name,
            to_host_id,
            epoch,
            policy,
            rto_seconds,
            phase,
            reason,
            lost_at,
            detected_at,
            placed_at,
            started_at,
            reachable_at,
            verified_at,
            closed_at,
        }
    }
}
