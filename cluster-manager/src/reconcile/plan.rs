//! What an instance needs next. Pure: its row, its disks, its image and its host in, one idempotent step out.
//!
//! There is no list of steps that a create or a delete goes through and no memory of how far it came: each look at the rows gives the
//! first thing that isn't as it must be. The first run, a retry, a restart and a repair are therefore the same code, and a crash
//! between two steps is nothing special.

use super::deadline::Deadlines;
use domain::{
    HostId, PortId, Timestamp,
    instance::{Instance, InstanceState},
    network::{Port, PortState},
};

/// The storage-manager's row of a disk, as far as the plan cares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskView {
    pub size_gib: u64,
    pub state: DiskStage,
    pub host_id: Option<HostId>,
    pub epoch: i64,
    pub generation: i64,
}

/// The generation under which a disk is resized: that of the change, or higher when the disk was resized for a change that failed.
#[must_use]
pub fn resize_generation(instance_generation: i64, disk_generation: i64) -> i64 {
    instance_generation.max(disk_generation + 1)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskStage {
    Reserved,
    Confirmed,
    Releasing,
}

/// Tenants read it, and hosts' names are not for tenants; `explain` tells an operator which host it is.
pub const WAITING_FOR_HOST: &str = "waiting for its host to connect again";

/// What is known of the instance's host at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostView {
    pub connected: bool,
    pub starts: u32,
}

#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    pub instance: &'a Instance,
    /// Its root disk's row, if there is one.
    pub disk: Option<&'a DiskView>,
    /// The ports that are its own, or about to be.
    pub ports: &'a [Port],
    /// Of its metadata, as its ports must carry it.
    pub metadata_digest: &'a str,
    pub image_found: bool,
    pub host: Option<HostView>,
    /// What the last step of this instance failed with, if it did.
    pub trouble: Option<&'a str>,
}

/// One step. All are idempotent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing to do until something changes.
    Rest,
    /// The reservation is gone (or never was): make it again.
    ReserveDisk,
    /// Its cards lack ports: reservations expired before they were bound.
    ReservePorts,
    /// Bind the disk, the ports or both to the instance's host and epoch. Nothing is delivered before.
    Bind { disk: bool, ports: bool },
    /// The disk's row has another size than the instance was promised.
    ResizeDisk { size_gib: u64, generation: i64 },
    /// The deletion stands: the quota of what was made with it may be given back.
    Release { disk: bool, ports: bool },
    /// The host proved that these cards are out: their ports are free, or go.
    ForgetCards { ports: Vec<PortId> },
    /// Tell the host what the instance must be.
    Deliver,
    /// No host ever had it: nothing needs proof.
    Remove,
    /// Show this, and (with a deadline) look again then.
    Show { state: InstanceState, step: String, reason: String, deadline_at: Option<Timestamp> },
}

#[must_use]
pub fn plan_step(subject: Subject<'_>, deadlines: &Deadlines, now: Timestamp) -> Step {
    if let Some(show) = plan_show(subject, deadlines, now) {
        return show;
    }
    let Subject { instance, disk, .. } = subject;
    if instance.spec.deleted {
        let disk = disk.is_some_and(|d| d.state != DiskStage::Releasing);
        let ports = subject.ports.iter().any(|p| made_with_it(p) && p.state != PortState::Releasing);
        return match instance.host_id {
            _ if disk || ports => Step::Release { disk, ports },
            None => Step::Remove,
            Some(_) => Step::Deliver,
        };
    }
    if instance.host_id.is_none() || (instance.status.state == InstanceState::Error && !subject.image_found) {
        return Step::Rest;
    }
    if let Some(step) = plan_claims(subject) {
        return step;
    }
    let left = left_cards(instance, subject.ports);
    if instance.status.observed_generation == instance.generation && !left.is_empty() {
        return Step::ForgetCards { ports: left };
    }
    if caught_up(instance) { Step::Rest } else { Step::Deliver }
}

/// What the instance holds of other services must be its own, bound to its host and epoch, before anything is delivered.
fn plan_claims(subject: Subject<'_>) -> Option<Step> {
    let Subject { instance, disk, .. } = subject;
    let wanted_gib = wanted_disk(instance);
    let disk = match (wanted_gib, disk) {
        (None, _) => None,
        (Some(_), None) => return Some(Step::ReserveDisk),
        (Some(_), Some(disk)) => Some(disk),
    };
    let ports: Vec<Option<&Port>> =
        instance.spec.nics.iter().map(|nic| subject.ports.iter().find(|p| p.id == nic.port_id)).collect();
    if ports.contains(&None) {
        return Some(Step::ReservePorts);
    }
    let ports: Vec<&Port> = ports.into_iter().flatten().collect();
    // Only a deletion releases, and deletions don't come back.
    if disk.is_some_and(|d| d.state == DiskStage::Releasing) || ports.iter().any(|p| p.state == PortState::Releasing) {
        return Some(Step::Rest);
    }
    let bind_disk = disk
        .is_some_and(|d| d.state == DiskStage::Reserved || d.epoch != instance.epoch || d.host_id != instance.host_id);
    let bind_ports = ports.iter().any(|p| !bound(instance, p) || p.metadata_digest != subject.metadata_digest);
    if bind_disk || bind_ports {
        return Some(Step::Bind { disk: bind_disk, ports: bind_ports });
    }
    match (disk, wanted_gib) {
        (Some(d), Some(size_gib)) if d.size_gib != size_gib => {
            Some(Step::ResizeDisk { size_gib, generation: resize_generation(instance.generation, d.generation) })
        }
        _ => None,
    }
}

/// Whether a port is this instance's, on its host, under its epoch.
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

/// Ports that are still bound though their cards are no longer wanted. What is only reserved is on its way in, or expires.
#[must_use]
pub fn left_cards(instance: &Instance, ports: &[Port]) -> Vec<PortId> {
    ports
        .iter()
        .filter(|p| p.expires_at.is_none() && p.state == PortState::Active)
        .map(|p| p.id)
        .filter(|id| instance.spec.nics.iter().all(|nic| nic.port_id != *id))
        .collect()
}

/// The size of the root disk that the instance must have, GiB.
#[must_use]
pub fn wanted_disk(instance: &Instance) -> Option<u64> {
    (instance.root_disk_id.is_some() && instance.spec.size.disk_gib > 0).then_some(instance.spec.size.disk_gib)
}

/// The host did all that the latest generation asks.
#[must_use]
pub fn caught_up(instance: &Instance) -> bool {
    instance.status.state.is_final() && instance.status.observed_generation == instance.generation
}

/// Whether the row must show something else than it does: why it waits, or that it took too long.
fn plan_show(subject: Subject<'_>, deadlines: &Deadlines, now: Timestamp) -> Option<Step> {
    let Subject { instance, host, .. } = subject;
    let status = &instance.status;
    let show = |state, reason: String, deadline_at| {
        let same = state == status.state && reason == status.reason && deadline_at == status.deadline_at;
        (!same).then(|| Step::Show { state, step: status.step.clone(), reason, deadline_at })
    };
    if !instance.spec.deleted && !subject.image_found && !caught_up(instance) && status.state != InstanceState::Error {
        return show(InstanceState::Error, format!("its image {} no longer exists", instance.spec.image_id), None);
    }
    let deadline = status.deadline_at?;
    let overdue = deadline <= now;
    let disconnected = host.is_some_and(|h| !h.connected);
    if disconnected {
        // Nobody's fault: it waits for its host, and says so. The next look is when the host connects, or later.
        let reason = WAITING_FOR_HOST.to_owned();
        if status.reason != reason || overdue {
            return show(status.state, reason, Some(now.plus_secs(wait_secs(deadlines, status.state))));
        }
        return None;
    }
    if !overdue {
        return None;
    }
    let trouble = subject.trouble.map(|t| format!(": {t}")).unwrap_or_default();
    let doing = if status.step.is_empty() { String::new() } else { format!(" (last step: {})", status.step) };
    match status.state {
        // Only proof ends a deletion, however long it takes.
        InstanceState::Deleting => show(
            InstanceState::Deleting,
            format!("the host hasn't confirmed yet that it is gone{trouble}; asked again"),
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
            format!("not done in time while {}{doing}{trouble}; its host keeps trying", status.state.as_str()),
            None,
        ),
        // A change of something that lasts: it is asked for again, and says so.
        InstanceState::Running | InstanceState::Paused | InstanceState::Stopped | InstanceState::Suspended => show(
            status.state,
            format!("the host hasn't done the last change yet{doing}{trouble}; asked again"),
            Some(now.plus_secs(deadlines.settle_secs)),
        ),
        InstanceState::Error | InstanceState::Deleted => show(status.state, status.reason.clone(), None),
    }
}

fn wait_secs(deadlines: &Deadlines, state: InstanceState) -> u64 {
    if state == InstanceState::Deleting { deadlines.deleting_secs } else { deadlines.settle_secs }
}
