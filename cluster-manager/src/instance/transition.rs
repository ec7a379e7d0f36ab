//! Which change an instance's state allows, and what it makes of the instance: one exhaustive table per kind of change. Pure.
//!
//! Desired state is a level, so a request for what is desired already changes nothing and succeeds: a repeated `stop` is no error and
//! raises no generation. What a host can't do from the present state is refused here, with what to do first.

use super::nic::expected_nic;
use crate::reconcile::{deadline::Deadlines, plan::WAITING_FOR_HOST};
use domain::{
    ErrorKind, ImageId, Name, PortId, Problem, Timestamp,
    flavor::Size,
    instance::{Instance, InstanceState as S, NicRequest, OnCrash, Power, default_stop_timeout_secs},
    validate,
};
use std::collections::BTreeMap;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Describe {
        name: Option<Name>,
        tags: Option<BTreeMap<String, String>>,
        on_crash: Option<OnCrash>,
    },
    SetPower {
        power: Power,
        stop_timeout_secs: Option<u32>,
    },
    Reboot {
        hard: bool,
    },
    Resize {
        size: Size,
        flavor: String,
    },
    Rebuild {
        image_id: ImageId,
    },
    /// Attaches another NIC, behind those it has.
    AttachNic {
        request: NicRequest,
    },
    DetachNic {
        port_id: PortId,
    },
    Delete,
}

impl Change {
    /// The change's name in the audit log and in events.
    #[must_use]
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Describe { .. } => "describe",
            Self::SetPower { power: Power::On, .. } => "start",
            Self::SetPower { power: Power::Off, .. } => "stop",
            Self::SetPower { power: Power::Paused, .. } => "pause",
            Self::Reboot { .. } => "reboot",
            Self::Resize { .. } => "resize",
            Self::Rebuild { .. } => "rebuild",
            Self::AttachNic { .. } => "attach_nic",
            Self::DetachNic { .. } => "detach_nic",
            Self::Delete => "delete",
        }
    }

    /// Describes the change for people. `next`: the instance as it leaves it.
    #[must_use]
    pub fn describe(&self, next: &Instance) -> String {
        let name = &next.name;
        match self {
            Self::Describe { .. } => format!("{name} is to have another name, other tags or another crash policy"),
            Self::SetPower { power: Power::On, .. } => format!("{name} is to be on"),
            Self::SetPower { power: Power::Off, .. } => format!("{name} is to be off"),
            Self::SetPower { power: Power::Paused, .. } => format!("{name} is to be paused"),
            Self::Reboot { hard: true } => format!("{name} is to be reset"),
            Self::Reboot { hard: false } => format!("{name} is to reboot"),
            Self::Resize { size, .. } => {
                format!("{name} is to have {} vCPUs, {} MiB, {} GiB", size.vcpus, size.memory_mib, size.disk_gib)
            }
            Self::Rebuild { image_id } => format!("{name} is to be rebuilt from image {image_id}"),
            Self::AttachNic { .. } => match next.spec.nics.last() {
                Some(nic) => format!("{name} is to have another NIC, {}", nic.mac),
                None => format!("{name} is to have another NIC"),
            },
            Self::DetachNic { port_id } => format!("{name} is to lose the NIC of port {port_id}"),
            Self::Delete => format!("{name} is to be deleted"),
        }
    }
}

/// What the decision takes into account beside the row and the change.

#[derive(Debug, Clone, Copy)]
pub struct TransitionContext<'a> {
    pub now: Timestamp,
    pub deadlines: &'a Deadlines,
    /// Other starts in progress on the host.
    pub starts: u32,
    /// Whether the host's agent is connected; true for an instance without a host.
    pub host_connected: bool,
}

/// The instance as the change leaves it, its generation one higher; `None` when it changes nothing.
pub fn plan_change(
    old: &Instance,
    change: &Change,
    context: TransitionContext<'_>,
) -> Result<Option<Instance>, Problem> {
    if old.spec.deleted {
        return match change {
            Change::Delete => Ok(None),
            Change::Describe { .. }
            | Change::SetPower { .. }
            | Change::Reboot { .. }
            | Change::Resize { .. }
            | Change::Rebuild { .. }
            | Change::AttachNic { .. }
            | Change::DetachNic { .. } => {
                Err(Problem::invalid_state(format!("instance {} is being deleted", old.name)))
            }
        };
    }
    let mut next = old.clone();
    let changed = match change {
        Change::Describe { name, tags, on_crash } => {
            next.name = name.clone().unwrap_or(next.name);
            next.tags = tags.clone().unwrap_or(next.tags);
            next.spec.on_crash = on_crash.unwrap_or(next.spec.on_crash);
            next != *old
        }
        Change::SetPower { power, stop_timeout_secs } => set_power(&mut next, *power, *stop_timeout_secs, context)?,
        Change::Reboot { hard } => reboot(&mut next, *hard, context)?,
        Change::Resize { size, flavor } => resize(&mut next, *size, flavor, context)?,
        Change::Rebuild { image_id } => rebuild(&mut next, *image_id, context)?,
        Change::AttachNic { request } => attach_nic(&mut next, request, context)?,
        Change::DetachNic { port_id } => detach_nic(&mut next, *port_id, context),
        Change::Delete => {
            next.spec.deleted = true;
            enter(&mut next, S::Deleting, "waiting for its host", context)
        }
    };
    if !changed {
        return Ok(None);
    }
    next.generation += 1;
    next.updated_at = context.now;
    if next.status.deadline_at.is_some() && !context.host_connected {
        next.status.reason = WAITING_FOR_HOST.to_owned();
    }
    Ok(Some(next))
}

/// Moves to a state that doesn't last, with its deadline.
fn enter(next: &mut Instance, state: S, step: &str, context: TransitionContext<'_>) -> bool {
    next.status.state = state;
    next.status.step = step.to_owned();
    next.status.reason = String::new();
    next.status.deadline_at = context.deadlines.of(state, context.starts, context.now);
    true
}

/// Stays in its state and shows what is being done; a final state gets a deadline for it all the same.
fn stay(next: &mut Instance, step: &str, secs: u64, context: TransitionContext<'_>) -> bool {
    next.status.step = step.to_owned();
    if next.status.state != S::Error {
        next.status.reason = String::new();
        next.status.deadline_at = Some(context.now.plus_secs(secs));
    }
    true
}

fn set_power(
    next: &mut Instance,
    power: Power,
    timeout: Option<u32>,
    context: TransitionContext<'_>,
) -> Result<bool, Problem> {
    let state = next.status.state;
    let was_desired = next.spec.power == power;
    let settle = context.deadlines.settle_secs;
    let until_stopped = settle + u64::from(timeout.unwrap_or(next.spec.stop_timeout_secs));
    let timeout_changes = timeout.is_some_and(|t| t != next.spec.stop_timeout_secs);
    next.spec.power = power;
    match (power, state) {
        (Power::On, S::Stopped | S::Suspended | S::Error) => {
            if was_desired && state == S::Stopped {
                // It ended by itself and `on_crash` left it stopped: only a counter tells the host to boot what was desired on all along.
                next.spec.boot_seq += 1;
                next.spec.boot_hard = true;
            }
            // The timeout that was requested for one stop doesn't hold for the next.
            next.spec.stop_timeout_secs = default_stop_timeout_secs();
            Ok(enter(next, S::Building, "waiting for its host", context))
        }
        (Power::On, _) if was_desired => Ok(false),
        (Power::On, S::Paused) => Ok(stay(next, "resuming", settle, context)),
        (Power::On, S::Running) => Ok(stay(next, "starting", context.deadlines.building_secs, context)),
        (
            Power::On,
            S::Pending
            | S::Scheduling
            | S::Building
            | S::Migrating
            | S::Recovering
            | S::Resizing
            | S::Rebuilding
            | S::Deleting
            | S::Deleted,
        ) => Ok(enter(next, state, "waiting for its host", context)),
        (Power::Off, _) if was_desired && !timeout_changes && state != S::Error => Ok(false),
        (Power::Off, S::Stopped) => {
            next.spec.stop_timeout_secs = timeout.unwrap_or(next.spec.stop_timeout_secs);
            Ok(stay(next, "", settle, context))
        }
        (
            Power::Off,
            S::Pending
            | S::Scheduling
            | S::Building
            | S::Running
            | S::Paused
            | S::Suspended
            | S::Migrating
            | S::Recovering
            | S::Resizing
            | S::Rebuilding
            | S::Deleting
            | S::Deleted
            | S::Error,
        ) => {
            next.spec.stop_timeout_secs = timeout.unwrap_or(next.spec.stop_timeout_secs);
            Ok(stay(next, "stopping", until_stopped, context))
        }
        (Power::Paused, _) if was_desired && state != S::Error => Ok(false),
        (Power::Paused, S::Running) => Ok(stay(next, "pausing", settle, context)),
        (
            Power::Paused,
            S::Pending
            | S::Scheduling
            | S::Building
            | S::Paused
            | S::Stopped
            | S::Suspended
            | S::Migrating
            | S::Recovering
            | S::Resizing
            | S::Rebuilding
            | S::Deleting
            | S::Deleted
            | S::Error,
        ) => Err(refused(next, "only a running instance can be paused", "start it first")),
    }
}

fn reboot(next: &mut Instance, hard: bool, context: TransitionContext<'_>) -> Result<bool, Problem> {
    if next.status.state != S::Running || next.spec.power != Power::On {
        return Err(refused(next, "only a running instance can be rebooted", "start it first"));
    }
    next.spec.boot_seq += 1;
    next.spec.boot_hard = hard;
    let secs = context.deadlines.building_secs + u64::from(next.spec.stop_timeout_secs);
    Ok(stay(next, "rebooting", secs, context))
}

fn resize(next: &mut Instance, size: Size, flavor: &str, context: TransitionContext<'_>) -> Result<bool, Problem> {
    if next.spec.size == size && next.spec.flavor == flavor {
        return Ok(false);
    }
    if next.status.state != S::Stopped || next.spec.power != Power::Off {
        return Err(refused(next, "only a stopped instance can be resized", "stop it first"));
    }
    let (has, requested) = (next.spec.size.disk_gib, size.disk_gib);
    if requested < has {
        return Err(Problem::new(
            ErrorKind::InvalidArgument,
            "disk_shrink",
            format!("instance {}'s root disk has {has} GiB and can't be shrunk to {requested}", next.name),
        )
        .with_hint(format!("request {has} GiB or more, or create another instance with a smaller disk"))
        .with_field("disk_gib", format!("at least {has}")));
    }
    if requested > 0 && next.root_disk_id.is_none() {
        return Err(Problem::new(
            ErrorKind::InvalidArgument,
            "no_root_disk",
            format!("instance {} runs from memory and has no root disk to grow", next.name),
        )
        .with_hint("request 0 GiB of disk, or create another instance with a disk"));
    }
    next.spec.size = size;
    flavor.clone_into(&mut next.spec.flavor);
    Ok(enter(next, S::Resizing, "waiting for its host", context))
}

fn rebuild(next: &mut Instance, image_id: ImageId, context: TransitionContext<'_>) -> Result<bool, Problem> {
    if !S::valid_transition(next.status.state, S::Rebuilding) || next.status.state == S::Rebuilding {
        return Err(refused(next, "it can't be rebuilt now", "wait until it is running or stopped"));
    }
    next.spec.root_seq += 1;
    next.spec.image_id = image_id;
    Ok(enter(next, S::Rebuilding, "waiting for its host", context))
}

fn attach_nic(next: &mut Instance, request: &NicRequest, context: TransitionContext<'_>) -> Result<bool, Problem> {
    if next.spec.nics.iter().any(|n| n.port_id == request.port_id) {
        return Ok(false);
    }
    let count = next.spec.nics.len() + 1;
    validate::check(|v| validate::instance::nic_count(v, "nics", count))?;
    next.spec.nics.push(expected_nic(request));
    Ok(nics_changed(next, "attaching a NIC", context))
}

fn detach_nic(next: &mut Instance, port_id: PortId, context: TransitionContext<'_>) -> bool {
    let before = next.spec.nics.len();
    next.spec.nics.retain(|n| n.port_id != port_id);
    next.spec.nics.len() != before && nics_changed(next, "detaching a NIC", context)
}

/// NICs come and go in any state: a host that does something else does this on the way.
fn nics_changed(next: &mut Instance, step: &str, context: TransitionContext<'_>) -> bool {
    let state = next.status.state;
    if state.is_final() {
        stay(next, step, context.deadlines.settle_secs, context)
    } else {
        enter(next, state, "waiting for its host", context)
    }
}

fn refused(instance: &Instance, what: &str, hint: &str) -> Problem {
    Problem::invalid_state(format!("instance {} is {}: {what}", instance.name, instance.status.state.as_str()))
        .with_hint(hint)
}
