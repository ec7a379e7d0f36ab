//! What instances take of their hosts, as the store counts it.

use crate::scheduler::Placed;
use domain::{HostId, flavor::Size};

/// Takes a placement's claim of its host, unless the host lacks it or was changed since the decision.
#[must_use]
pub fn take_claim(placed: &Placed) -> store::HostClaim {
    store::HostClaim {
        host_id: placed.host_id,
        generation: placed.generation,
        vcpus: placed.claim.vcpus,
        memory_mib: placed.claim.memory_mib,
        disk_gib: placed.claim.disk_gib,
    }
}

/// Gives a claim back to its host.
#[must_use]
pub fn release_claim(host_id: HostId, claim: Size) -> store::HostRelease {
    store::HostRelease { host_id, vcpus: claim.vcpus, memory_mib: claim.memory_mib, disk_gib: claim.disk_gib }
}
