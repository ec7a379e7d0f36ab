//! How many more instances a cloud can take, and moves that would change that.

use crate::{HostId, InstanceId, flavor::Size};
use serde::{Deserialize, Serialize};

/// How many more instances of one size fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Fits {
    pub now: u64,
    /// The number that still has a place when any one host is lost.
    pub with_one_host_lost: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ZoneCapacity {
    pub zone: String,
    pub hosts: u32,
    /// Hosts that take new instances of every project.
    pub open_hosts: u32,
    pub dedicated_hosts: u32,
    pub capacity: Size,
    pub used: Size,
    /// Kept free for instances that must survive their host.
    pub reserved: Size,
    /// The answer for each size of the request, in order.
    pub fits: Vec<Fits>,
}

/// An instance that would be moved to another host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    pub instance_id: InstanceId,
    pub from: HostId,
    pub to: HostId,
    /// The memory that would have to be copied, with QEMU's own.
    pub memory_mib: u64,
    pub disk_gib: u64,
}

/// The goal of the moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RebalanceGoal {
    /// Hosts are emptied, so that they can be switched off or removed.
    #[default]
    FreeHosts,
    /// Hosts get similar loads.
    EvenLoad,
}

/// Moves that free hosts or even out load, in the order in which they would be made.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RebalancePlan {
    pub moves: Vec<Move>,
    pub freed: Vec<HostId>,
    /// The memory of all moves together.
    pub memory_mib: u64,
    pub disk_gib: u64,
    /// The widest gap between the dominant shares in use of two hosts of one zone and dedication, in thousandths of a host.
    pub gap_before_permille: u32,
    pub gap_after_permille: u32,
}
