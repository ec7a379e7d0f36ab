//! What instances take of their hosts, as the store counts it.

use crate::{manager::Manager, scheduler::Placed};
use domain::{HostId, InstanceId, Timestamp, flavor::Size};
use store::{InstanceTodo, Unit};

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

/// An instance's row goes; the owners of its disks and ports must be told after that.
#[must_use]
pub fn claims_to_remove(instance_id: InstanceId, now: Timestamp) -> store::InstanceTodoPut {
    store::InstanceTodoPut { todo: InstanceTodo::RemoveClaims, instance_id, created_at: now }
}

/// They were told. If that can't be noted, they are told once more.
pub async fn claims_removed(manager: &Manager, ids: &[InstanceId], since: Timestamp) {
    let mut unit = Unit::new();
    unit.extend(ids.iter().map(|instance_id| store::InstanceTodoDone {
        todo: InstanceTodo::RemoveClaims,
        instance_id: *instance_id,
        created_at: since,
    }));
    if let Err(error) = manager.store.commit(unit).await {
        tracing::info!(error = &error as &dyn std::error::Error, "the sweep removes once more what is removed");
    }
}

/// Gives a claim back to its host.
#[must_use]
pub fn release_claim(host_id: HostId, claim: Size) -> store::HostRelease {
    store::HostRelease { host_id, vcpus: claim.vcpus, memory_mib: claim.memory_mib, disk_gib: claim.disk_gib }
}
