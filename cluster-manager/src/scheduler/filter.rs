//! Why a host can't take a request. The filters run in the order of [`Rejection`]: a host is counted under the first that rejects it.

use super::{
    host::{HostEntry, minus, pinned_claim},
    labels::Label,
    request::Request,
};
use domain::{cpu::CpuBaseline, explain::Rejection, flavor::Size};

/// The first filter that rejects `host` for what it is, whatever else is placed.
#[must_use]
pub fn closed(host: &HostEntry, request: &Request) -> Option<Rejection> {
    ORDER.into_iter().find(|filter| match filter {
        Rejection::Disconnected => !host.up(),
        Rejection::Cordoned => host.cordoned || host.policies.draining,
        Rejection::Zone => request.zone.as_ref().is_some_and(|zone| **zone != *host.zone),
        Rejection::Dedicated => match host.policies.dedicated_to {
            Some(project) => request.project != Some(project),
            None => request.dedicated,
        },
        Rejection::Tags => request.tags.iter().any(|(key, value)| host.tags.get(key) != Some(value)),
        Rejection::ForbiddenTags => request.forbidden_tags.iter().any(|(key, value)| host.tags.get(key) == Some(value)),
        Rejection::CpuFeatures => {
            let lost = |cpu: &CpuBaseline| !host.guest_cpu.as_ref().is_some_and(|guest| cpu.may_run(&guest.baseline));
            request.cpu_features.iter().any(|f| !host.cpu_features.contains(f))
                || request.baseline.as_deref().is_some_and(lost)
        }
        Rejection::SharedPool => request.pool.as_ref().is_some_and(|id| !Label::Pool(id.clone()).holds(host)),
        Rejection::Contended => request.avoid.contains(&host.id),
        Rejection::Group
        | Rejection::Vcpus
        | Rejection::Memory
        | Rejection::Disk
        | Rejection::Pinning
        | Rejection::Reserve => false,
    })
}

/// The first filter that rejects `host`, apart from groups and the reserve; `None`: it could take the request.
#[must_use]
pub fn reject(host: &HostEntry, request: &Request) -> Option<Rejection> {
    closed(host, request).or_else(|| lacking(host, request))
}

/// The filter that rejects `host` for its capacity.
#[must_use]
pub fn lacking(host: &HostEntry, request: &Request) -> Option<Rejection> {
    let lacks = lacks(host, request);
    if lacks.vcpus > 0 {
        Some(Rejection::Vcpus)
    } else if lacks.memory_mib > 0 {
        Some(Rejection::Memory)
    } else if lacks.disk_gib > 0 {
        Some(Rejection::Disk)
    } else if request.pinned && host.node_for(request.size.vcpus, claim(host, request).memory_mib).is_none() {
        Some(Rejection::Pinning)
    } else {
        None
    }
}

pub const ORDER: [Rejection; 15] = [
    Rejection::Disconnected,
    Rejection::Cordoned,
    Rejection::Zone,
    Rejection::Dedicated,
    Rejection::Tags,
    Rejection::ForbiddenTags,
    Rejection::CpuFeatures,
    Rejection::SharedPool,
    Rejection::Contended,
    Rejection::Group,
    Rejection::Vcpus,
    Rejection::Memory,
    Rejection::Disk,
    Rejection::Pinning,
    Rejection::Reserve,
];

/// What the request claims of `host`: memory with QEMU's own, pinned vCPUs as whole threads.
#[must_use]
pub fn claim(host: &HostEntry, request: &Request) -> Size {
    let mut claim = host.claim_of(request.size);
    if request.pinned {
        claim.vcpus = pinned_claim(claim.vcpus, host.overcommit_permille);
    }
    claim
}

/// What `host` lacks for the request, its QEMU included; 0: it has enough.
#[must_use]
pub fn lacks(host: &HostEntry, request: &Request) -> Size {
    minus(claim(host, request), host.free())
}
