//! What the cloud still has room for, for system admins.

use super::host::SizeView;
use domain::{capacity::ZoneCapacity, flavor::Flavor};
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
    pub set_aside: SizeView,
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
        let ZoneCapacity { zone, hosts, open_hosts, dedicated_hosts, capacity, used, set_aside, fits } = zone;
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
            set_aside: set_aside.into(),
            flavors: flavors.collect(),
        }
    }
}
