//! What an instance needs next. Pure: its row, its disks, its image and its host in, one idempotent step out.
//!
//! There is no list of steps that a create or a delete goes through and no memory of how far it came: each reading of the rows gives the
//! first thing that isn't as it must be. The first run, a retry, a restart and a repair are therefore the same code, and a crash
//! between two steps is nothing special.

use super::deadline::Deadlines;
use domain::{
    DiskId, PortId, Timestamp,
    instance::{Instance, InstanceState},
    network::{Port, PortState},
};
use store::{DiskRow, DiskState};

/// The generation under which a disk is resized: that of the change, or higher when the disk was resized for a change that failed.
#[must_use]
pub fn resize_generation(instance_generation: i64, disk_generation: i64) -> i64 {
    instance_generation.max(disk_generation + 1)
}

/// Tenants read it, and hosts' names are not for tenants; `explain` tells an operator which host it is.
pub const WAITING_FOR_HOST: &str = "waiting for its host to connect again";

/// What is known of the instance's host at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostView {
    pub connected: bool,
    /// It was declared lost: that is proof that nothing of it runs.
    pub lost: bool,
    pub starts: u32,
}

/// One instance with all that its next step depends on.
#[derive(Debug, Clone, Copy)]
pub struct ReconcileTarget<'a> {
    pub instance: &'a Instance,
    /// The rows of its disks, as far as there are any.
    pub disks: &'a [DiskRow],
    /// The ports that are its own, or about to be.
    pub ports: &'a [Port],
    /// The digest of its metadata, as its ports must carry it.
    pub metadata_digest: &'a str,
    pub image_found: bool,
    pub host: Option<HostView>,
    /// What the last step of this instance failed with, if it did.
    pub last_failure: Option<&'a str>,
}

impl ReconcileTarget<'_> {
    fn host_lost(&self) -> bool {
        self.host.is_some_and(|host| host.lost)
    }
}

/// One step. All are idempotent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// There is nothing to do until something changes.
    Settled,
    /// The reservation is gone (or never was): make it again.
    ReserveDisks,
    /// Its NICs lack ports: reservations expired before they were bound.
    ReservePorts,
    /// Bind the disks, the ports or both to the instance's host and epoch. Nothing is delivered before.
    Bind { disks: bool, ports: bool },
    /// The row of a disk has another size than the instance was promised.
    ResizeDisk { disk_id: DiskId, size_gib: u64, generation: i64 },
    /// The deletion stands: the quota of what was made with it may be released.
    Release { disks: bool, ports: bool },
    /// The host proved that these NICs are detached: their ports are free, or go.
    RemovePorts { ports: Vec<PortId> },
    /// Send the host what the instance must be.
    Deliver,
    /// No host ever had it, or its host is lost, so nothing more needs proof: its row goes.
    RemoveRow,
    /// Show this, and (with a deadline) reconcile again then.
    Show { state: InstanceState, step: String, reason: String, deadline_at: Option<Timestamp> },
}

#[must_use]
pub fn plan_step(target: ReconcileTarget<'_>, deadlines: &Deadlines, now: Timestamp) -> Step {
    if let Some(show) = plan_show(target, deadlines, now) {
        return show;
    }
    let instance = target.instance;
    if instance.spec.deleted {
        let disks = target.disks.iter().any(|d| d.state != DiskState::Releasing);
        let ports = target.ports.iter().any(|p| made_with_it(p) && p.state != PortState::Releasing);
        return match instance.host_id {
            _ if disks || ports => Step::Release { disks, ports },
            None => Step::RemoveRow,
            Some(_) if target.host_lost() => Step::RemoveRow,
            Some(_) => Step::Deliver,
        };
    }
    // What a lost host's instance needs next is its recovery's to decide, or its host's when that is back.
    if target.host_lost() {
        return Step::Settled;
    }
    if instance.host_id.is_none() || (instance.status.state == InstanceState::Error && !target.image_found) {
        return Step::Settled;
    }
    if let Some(step) = plan_claims(target) {
        return step;
    }
    let left = detached_ports(instance, target.ports);
    if instance.status.observed_generation == instance.generation && !left.is_empty() {
        return Step::RemovePorts { ports: left };
    }
    if caught_up(instance) { Step::Settled } else { Step::Deliver }
}

/// Whatever the instance holds of other services must be its own, bound to its host and epoch, before anything is delivered.
fn plan_claims(target: ReconcileTarget<'_>) -> Option<Step> {
    let ReconcileTarget { instance, disks, .. } = target;
    let desired = instance.disks();
    let disks: Vec<&DiskRow> = desired.iter().filter_map(|disk| disks.iter().find(|row| row.id == disk.id)).collect();
    if disks.len() < desired.len() {
        return Some(Step::ReserveDisks);
    }
    let ports: Vec<&Port> =
        instance.spec.nics.iter().filter_map(|nic| target.ports.iter().find(|p| p.id == nic.port_id)).collect();
    if ports.len() < instance.spec.nics.len() {
        return Some(Step::ReservePorts);
    }
    // Only a deletion releases, and deletions don't come back.
    if disks.iter().any(|d| d.state == DiskState::Releasing) || ports.iter().any(|p| p.state == PortState::Releasing) {
        return Some(Step::Settled);
    }
    let bind_disks = disks.iter().any(|disk| !disk_bound(instance, disk));
    let bind_ports = ports.iter().any(|p| !bound(instance, p) || p.metadata_digest != target.metadata_digest);
    if bind_disks || bind_ports {
        return Some(Step::Bind { disks: bind_disks, ports: bind_ports });
    }
    let (disk, row) = desired.iter().zip(disks).find(|(disk, row)| disk.size_gib != row.size_gib)?;
    let generation = resize_generation(instance.generation, row.generation);
    Some(Step::ResizeDisk { disk_id: disk.id, size_gib: disk.size_gib, generation })
}

/// Whether a disk is bound to this instance's host, under its epoch.
#[must_use]
pub fn disk_bound(instance: &Instance, disk: &DiskRow) -> bool {
    disk.state == DiskState::Confirmed && disk.epoch == instance.epoch && disk.host_id == instance.host_id
}

/// Whether a port is bound to this instance, on its host, under its epoch.
#[must_use]
pub fn bound(instance: &Instance, port: &Port) -> bool {
    port.owner.is_some_and(|o| o.instance_id == instance.id)
        && port.state == PortState::Active
        && port.expires_at.is_none()
        && port.host_id == instance.host_id
        && port.instance_epoch == instance.epoch
}

fn made_with_it(port: &Port) -> bool {
    port.owner.is_some_and(|o| o.with_instance)
}

/// The ports that are still bound although their NICs are no longer desired. What is only reserved is on its way in, or expires.
#[must_use]
pub fn detached_ports(instance: &Instance, ports: &[Port]) -> Vec<PortId> {
    ports
        .iter()
        .filter(|p| p.expires_at.is_none() && p.state == PortState::Active)
        .map(|p| p.id)
        .filter(|id| instance.spec.nics.iter().all(|nic| nic.port_id != *id))
        .collect()
}

/// The host did all that the latest generation demands.
#[must_use]
pub fn caught_up(instance: &Instance) -> bool {
    instance.status.state.is_final() && instance.status.observed_generation == instance.generation
}

/// The step that shows something else than the row does: why the instance waits, or that it took too long.
fn plan_show(target: ReconcileTarget<'_>, deadlines: &Deadlines, now: Timestamp) -> Option<Step> {
    let ReconcileTarget { instance, host, .. } = target;
    let status = &instance.status;
    let show = |state, reason: String, deadline_at| {
        let same = state == status.state && reason == status.reason && deadline_at == status.deadline_at;
        (!same).then(|| Step::Show { state, step: status.step.clone(), reason, deadline_at })
    };
    if !instance.spec.deleted && !target.image_found && !caught_up(instance) && status.state != InstanceState::Error {
        return show(InstanceState::Error, format!("its image {} no longer exists", instance.spec.image_id), None);
    }
    let deadline = status.deadline_at?;
    let overdue = deadline <= now;
    if target.host_lost() {
        if instance.spec.deleted {
            return None;
        }
        // It waits for capacity elsewhere, or for its host. Its reason is its recovery's; one that has none says that it waits.
        let recovering = status.state == InstanceState::Recovering;
        let reason = if recovering { status.reason.clone() } else { WAITING_FOR_HOST.to_owned() };
        if overdue || reason != status.reason {
            return show(status.state, reason, Some(now.plus_secs(wait_secs(deadlines, status.state))));
        }
        return None;
    }
    let disconnected = host.is_some_and(|h| !h.connected);
    if disconnected {
        // It waits for its host, and says so. It is reconciled again when the host connects, or later.
        let reason = WAITING_FOR_HOST.to_owned();
        if status.reason != reason || overdue {
            return show(status.state, reason, Some(now.plus_secs(wait_secs(deadlines, status.state))));
        }
        return None;
    }
    if !overdue {
        return None;
    }
    let failure = target.last_failure.map(|t| format!(": {t}")).unwrap_or_default();
    let doing = if status.step.is_empty() { String::new() } else { format!(" (last step: {})", status.step) };
    match status.state {
        // Only proof ends a deletion, however long it takes.
        InstanceState::Deleting => show(
            InstanceState::Deleting,
            format!("the host hasn't confirmed yet that it is gone{failure}; requested again"),
            deadlines.of(InstanceState::Deleting, 0, now),
        ),
        InstanceState::Pending
        | InstanceState::Scheduling
        | InstanceState::Building
        | InstanceState::Recovering
        | InstanceState::Rebuilding
        | InstanceState::Resizing
        | InstanceState::Migrating => show(
            InstanceState::Error,
            format!("not done in time while {}{doing}{failure}; its host keeps trying", status.state.as_str()),
            None,
        ),
        // A change of something that lasts is requested again, and the row says so.
        InstanceState::Running | InstanceState::Paused | InstanceState::Stopped | InstanceState::Suspended => show(
            status.state,
            format!("the host hasn't done the last change yet{doing}{failure}; requested again"),
            Some(now.plus_secs(deadlines.settle_secs)),
        ),
        InstanceState::Error | InstanceState::Deleted => show(status.state, status.reason.clone(), None),
    }
}

fn wait_secs(deadlines: &Deadlines, state: InstanceState) -> u64 {
    if state == InstanceState::Deleting { deadlines.deleting_secs } else { deadlines.settle_secs }
}
