//! What the cloud still has room for, for system admins.

use super::host::SizeView;
use domain::{
    HostId, InstanceId,
    capacity::{Move, RebalancePlan, ZoneCapacity},
    flavor::Flavor,
};
use serde::Serialize;
use utoipa::ToSchema;

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Capacity)]
pub struct CapacityView {
    pub zones: Vec<ZoneCapacityView>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ZoneCapacity)]
pub struct ZoneCapacityView {
    pub zone: String,
    pub hosts: u32,
    /// That take new instances of every project.
    pub open_hosts: u32,
    pub dedicated_hosts: u32,
    pub capacity: SizeView,
    pub used: SizeView,
    /// Kept free for instances that must survive their host.
    pub reserved: SizeView,
    pub flavors: Vec<FlavorFitsView>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = FlavorFits)]
pub struct FlavorFitsView {
    pub flavor: String,
    /// So many more instances of it fit on open hosts, of this flavor alone.
    pub fits: u64,
    /// So many, such that they all have a place when any one host is lost.
    pub fits_with_one_host_lost: u64,
}

impl ZoneCapacityView {
    /// `flavors` in the order in which they were asked for.
    #[must_use]
    pub fn new(zone: ZoneCapacity, flavors: &[Flavor]) -> Self {
        let ZoneCapacity { zone, hosts, open_hosts, dedicated_hosts, capacity, used, reserved, fits } = zone;
        let flavors = flavors.iter().zip(fits).map(|(flavor, fits)| FlavorFitsView {
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

/// Moves that would free hosts or even out load. Nothing is moved.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RebalancePlan)]
pub struct RebalancePlanView {
    /// In the order in which they would be made.
    pub moves: Vec<MoveView>,
    #[schema(value_type = Vec<String>)]
    pub freed_host_ids: Vec<HostId>,
    /// What would have to be copied in all.
    pub memory_mib: u64,
    pub disk_gib: u64,
    /// The widest gap between the dominant shares (of vCPUs or memory) in use of two hosts of one zone and dedication, in thousandths of
    /// a host: now, and after the moves.
    pub gap_before_permille: u32,
    pub gap_after_permille: u32,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Move)]
pub struct MoveView {
    #[schema(value_type = String, format = "uuid")]
    pub instance_id: InstanceId,
    #[schema(value_type = String, format = "uuid")]
    pub from_host_id: HostId,
    #[schema(value_type = String, format = "uuid")]
    pub to_host_id: HostId,
    pub memory_mib: u64,
    pub disk_gib: u64,
}

impl From<RebalancePlan> for RebalancePlanView {
    fn from(plan: RebalancePlan) -> Self {
        let RebalancePlan { moves, freed, memory_mib, disk_gib, gap_before_permille, gap_after_permille } = plan;
        let moves = moves.into_iter().map(MoveView::from).collect();
        Self { moves, freed_host_ids: freed, memory_mib, disk_gib, gap_before_permille, gap_after_permille }
    }
}

impl From<Move> for MoveView {
    fn from(one: Move) -> Self {
        let Move { instance_id, from, to, memory_mib, disk_gib } = one;
        Self { instance_id, from_host_id: from, to_host_id: to, memory_mib, disk_gib }
    }
}
