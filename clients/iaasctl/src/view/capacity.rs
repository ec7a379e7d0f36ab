//! What still fits, as rows: zones, and flavors in zones.

use crate::{output::Row, size::show_mib};
use client::model::{Capacity, Move, Size, ZoneCapacity};

#[derive(Debug, serde::Serialize)]
pub struct ZoneLine(ZoneCapacity);

/// A flavor in a zone.
#[derive(Debug, serde::Serialize)]
pub struct FlavorLine {
    zone: String,
    flavor: String,
    fits: u64,
    fits_with_one_host_lost: u64,
}

#[must_use]
pub fn capacity_zones(capacity: &Capacity) -> Vec<ZoneLine> {
    capacity.zones.iter().cloned().map(ZoneLine).collect()
}

#[must_use]
pub fn capacity_flavors(capacity: &Capacity) -> Vec<FlavorLine> {
    let of_zone = |zone: &ZoneCapacity| {
        let name = zone.zone.clone();
        let line = move |fits: &client::model::FlavorFits| FlavorLine {
            zone: name.clone(),
            flavor: fits.flavor.clone(),
            fits: fits.fits,
            fits_with_one_host_lost: fits.fits_with_one_host_lost,
        };
        zone.flavors.iter().map(line).collect::<Vec<_>>()
    };
    capacity.zones.iter().flat_map(of_zone).collect()
}

fn show(size: &Size) -> String {
    format!("{} vCPUs, {}, {} GiB", size.vcpus, show_mib(size.memory_mib), size.disk_gib)
}

impl Row for ZoneLine {
    const HEADER: &'static [&'static str] = &["ZONE", "HOSTS", "OPEN", "DEDICATED", "USED", "RESERVED", "CAPACITY"];

    fn cells(&self) -> Vec<String> {
        let zone = &self.0;
        vec![
            zone.zone.clone(),
            zone.hosts.to_string(),
            zone.open_hosts.to_string(),
            zone.dedicated_hosts.to_string(),
            show(&zone.used),
            show(&zone.reserved),
            show(&zone.capacity),
        ]
    }
}

impl Row for FlavorLine {
    const HEADER: &'static [&'static str] = &["ZONE", "FLAVOR", "FITS", "FITS WITH ONE HOST LOST"];

    fn cells(&self) -> Vec<String> {
        vec![self.zone.clone(), self.flavor.clone(), self.fits.to_string(), self.fits_with_one_host_lost.to_string()]
    }
}

impl Row for Move {
    const HEADER: &'static [&'static str] = &["INSTANCE", "FROM", "TO", "MEMORY", "DISK"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.instance_id.to_string(),
            self.from_host_id.to_string(),
            self.to_host_id.to_string(),
            show_mib(self.memory_mib),
            format!("{} GiB", self.disk_gib),
        ]
    }
}
