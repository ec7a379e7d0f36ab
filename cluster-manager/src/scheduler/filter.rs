//! Why a host can't take a request. The filters run in the order of [`Rejection`]: a host is counted under the first that rejects it.

use super::{decide::Request, inventory::HostEntry};
use domain::{explain::Rejection, flavor::Size};

/// The first filter that rejects `host`, or `None` when it could take the request.
#[must_use]
pub fn reject(host: &HostEntry, request: &Request) -> Option<Rejection> {
    let lacks = lacks(host, request);
    ORDER.into_iter().find(|filter| match filter {
        Rejection::Disconnected => !host.up,
        Rejection::Cordoned => host.cordoned || request.avoid.contains(&host.id),
        Rejection::Zone => request.zone.as_ref().is_some_and(|zone| *zone != host.zone),
        Rejection::Tags => request.tags.iter().any(|(key, value)| host.tags.get(key) != Some(value)),
        Rejection::CpuFeatures => request.cpu_features.iter().any(|f| !host.cpu_features.contains(f)),
        Rejection::Vcpus => lacks.vcpus > 0,
        Rejection::Memory => lacks.memory_mib > 0,
        Rejection::Disk => lacks.disk_gib > 0,
    })
}

pub const ORDER: [Rejection; 8] = [
    Rejection::Disconnected,
    Rejection::Cordoned,
    Rejection::Zone,
    Rejection::Tags,
    Rejection::CpuFeatures,
    Rejection::Vcpus,
    Rejection::Memory,
    Rejection::Disk,
];

/// What `host` is short of for the request, its QEMU included; 0: enough.
#[must_use]
pub fn lacks(host: &HostEntry, request: &Request) -> Size {
    let (free, claim) = (host.free(), host.claim_of(request.size));
    Size {
        vcpus: claim.vcpus.saturating_sub(free.vcpus),
        memory_mib: claim.memory_mib.saturating_sub(free.memory_mib),
        disk_gib: claim.disk_gib.saturating_sub(free.disk_gib),
    }
}

/// What people call a filter's verdict: "5 have too little memory".
#[must_use]
pub fn describe(filter: Rejection) -> &'static str {
    match filter {
        Rejection::Disconnected => "disconnected",
        Rejection::Cordoned => "cordoned",
        Rejection::Zone => "in another zone",
        Rejection::Tags => "without the tags asked for",
        Rejection::CpuFeatures => "without the CPU features asked for",
        Rejection::Vcpus => "short of vCPUs",
        Rejection::Memory => "short of memory",
        Rejection::Disk => "short of disk",
    }
}
