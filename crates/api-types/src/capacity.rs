//! Sizes, how many more instances the cloud can take, and moves that would change that.

use domain::{
    HostId, InstanceId, capacity,
    flavor::{self, Flavor},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Size {
    pub vcpus: u32,
    pub memory_mib: u64,
    pub disk_gib: u64,
}

impl From<flavor::Size> for Size {
    fn from(size: flavor::Size) -> Self {
        let flavor::Size { vcpus, memory_mib, disk_gib } = size;
        Self { vcpus, memory_mib, disk_gib }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Capacity {
    pub zones: Vec<ZoneCapacity>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ZoneCapacity {
    pub zone: String,
    pub hosts: u32,
    /// Hosts that take new instances of every project.
    pub open_hosts: u32,
    pub dedicated_hosts: u32,
    pub capacity: Size,
    pub used: Size,
    /// Capacity that is kept free for instances that must survive their host.
    pub reserved: Size,
    pub flavors: Vec<FlavorFits>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FlavorFits {
    pub flavor: String,
    /// How many more instances of this flavor alone fit on open hosts.
    pub fits: u64,
    /// How many fit such that all of them still do when any one host is lost.
    pub fits_with_one_host_lost: u64,
}

/// Moves that would free hosts or even out load. Nothing is moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RebalancePlan {
    /// In the order in which they would be made.
    pub moves: Vec<Move>,
    #[schema(value_type = Vec<String>)]
    pub freed_host_ids: Vec<HostId>,
    /// The total amount that would have to be copied.
    pub memory_mib: u64,
    pub disk_gib: u64,
    /// The widest gap between the dominant shares (of vCPUs or memory) in use of two hosts of one zone and dedication, in thousandths of
    /// a host: now, and after the moves.
    pub gap_before_permille: u32,
    pub gap_after_permille: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Move {
    #[schema(value_type = String, format = "uuid")]
    pub instance_id: InstanceId,
    #[schema(value_type = String, format = "uuid")]
    pub from_host_id: HostId,
    #[schema(value_type = String, format = "uuid")]
    pub to_host_id: HostId,
    pub memory_mib: u64,
    pub disk_gib: u64,
}

impl ZoneCapacity {
    /// `flavors` in the order of the request.
    #[must_use]
    pub fn new(zone: capacity::ZoneCapacity, flavors: &[Flavor]) -> Self {
        let capacity::ZoneCapacity { zone, hosts, open_hosts, dedicated_hosts, capacity, used, reserved, fits } = zone;
        let flavors = flavors.iter().zip(fits).map(|(flavor, fits)| FlavorFits {
            flavor: flavor.name.to_string(),
            fits: fits.now,
            fits_with_one_host_lost: fits.with_one_host_lost,
        });
        Self {
            zone,
            hosts,
            open_hosts,
            dedicated_hosts,
            capacity: capacity.into(),
            used: used.into(),
            reserved: reserved.into(),
            flavors: flavors.collect(),
        }
    }
}

impl From<capacity::RebalancePlan> for RebalancePlan {
    fn from(plan: capacity::RebalancePlan) -> Self {
        let capacity::RebalancePlan { moves, freed, memory_mib, disk_gib, gap_before_permille, gap_after_permille } =
            plan;
        let moves = moves.into_iter().map(Move::from).collect();
        Self { moves, freed_host_ids: freed, memory_mib, disk_gib, gap_before_permille, gap_after_permille }
    }
}

impl From<capacity::Move> for Move {
    fn from(planned: capacity::Move) -> Self {
        let capacity::Move { instance_id, from, to, memory_mib, disk_gib } = planned;
        Self { instance_id, from_host_id: from, to_host_id: to, memory_mib, disk_gib }
    }
}
