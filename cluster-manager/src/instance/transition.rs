//! Which change an instance's state allows, and what it becomes: one exhaustive table per kind of change.
//!
//! Desired state is a level, so asking for what already is asked for changes nothing and succeeds: a repeated `stop` is no error and
//! raises no generation. What a host can't do from where it is, is refused here, with what to do first.

use crate::reconcile::{deadline::Deadlines, plan::WAITING_FOR_HOST};
use domain::{
    ErrorKind, ImageId, Name, PortId, Problem, Timestamp,
    flavor::Size,
    instance::{Instance, InstanceState as S, Nic, OnCrash, Power, default_stop_timeout_secs},
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
    /// A card more, the last.
    AttachNic {
        nic: Nic,
    },
    DetachNic {
        port_id: PortId,
    },
    Delete,
}

impl Change {
    /// As the audit log and the events call it.
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
}

#[derive(Debug, Clone, Copy)]
pub struct Scene<'a> {
    pub now: Timestamp,
    pub deadlines: &'a Deadlines,
    pub starts: u32,
    /// The host's agent is not connected.
    pub host_away: bool,
}

/// The instance as the change leaves it, its generation one higher; `None` when it changes nothing.
pub fn plan_change(old: &Instance, change: &Change, scene: Scene<'_>) -> Result<Option<Instance>, Problem> {
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
        Change::SetPower { power, stop_timeout_secs } => set_power(&mut next, *power, *stop_timeout_secs, scene)?,
        Change::Reboot { hard } => reboot(&mut next, *hard, scene)?,
        Change::Resize { size, flavor } => resize(&mut next, *size, flavor, scene)?,
        Change::Rebuild { image_id } => rebuild(&mut next, *image_id, scene)?,
        Change::AttachNic { nic } => attach_nic(&mut next, nic, scene)?,
        Change::DetachNic { port_id } => detach_nic(&mut next, *port_id, scene),
        Change::Delete => {
            next.spec.deleted = true;
            enter(&mut next, S::Deleting, "waiting for its host", scene)
        }
    };
    if !changed {
        return Ok(None);
    }
    next.generation += 1;
    next.updated_at = scene.now;
    if next.status.deadline_at.is_some() && scene.host_away {
        next.status.reason = WAITING_FOR_HOST.to_owned();
    }
    Ok(Some(next))
}

/// Moves to a state that doesn't last, with its deadline.
fn enter(next: &mut Instance, state: S, step: &str, scene: Scene<'_>) -> bool {
    next.status.state = state;
    next.status.step = step.to_owned();
    next.status.reason = String::new();
    next.status.deadline_at = scene.deadlines.of(state, scene.starts, scene.now);
    true
}

/// Stays, and says what is being done; a final state gets a deadline for it all the same.
fn stay(next: &mut Instance, step: &str, secs: u64, scene: Scene<'_>) -> bool {
    next.status.step = step.to_owned();
    if next.status.state != S::Error {
        next.status.reason = String::new();
        next.status.deadline_at = Some(scene.now.plus_secs(secs));
    }
    true
}

fn set_power(next: &mut Instance, power: Power, timeout: Option<u32>, scene: Scene<'_>) -> Result<bool, Problem> {
    let state = next.status.state;
    let asked_before = next.spec.power == power;
    let settle = scene.deadlines.settle_secs;
    let until_stopped = settle + u64::from(timeout.unwrap_or(next.spec.stop_timeout_secs));
    let timeout_changes = timeout.is_some_and(|t| t != next.spec.stop_timeout_secs);
    next.spec.power = power;
    match (power, state) {
        (Power::On, S::Stopped | S::Suspended | S::Error) => {
            if asked_before && state == S::Stopped {
                // It ended by itself and `on_crash` let it lie: only a counter tells the host to boot what was wanted on all along.
                next.spec.boot_seq += 1;
                next.spec.boot_hard = true;
            }
            // What one stop was asked is not for the next.
            next.spec.stop_timeout_secs = default_stop_timeout_secs();
            Ok(enter(next, S::Building, "waiting for its host", scene))
        }
        (Power::On, _) if asked_before => Ok(false),
        (Power::On, S::Paused) => Ok(stay(next, "resuming", settle, scene)),
        (Power::On, S::Running) => Ok(stay(next, "starting", scene.deadlines.building_secs, scene)),
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
        ) => Ok(enter(next, state, "waiting for its host", scene)),
        (Power::Off, _) if asked_before && !timeout_changes && state != S::Error => Ok(false),
        (Power::Off, S::Stopped) => {
            next.spec.stop_timeout_secs = timeout.unwrap_or(next.spec.stop_timeout_secs);
            Ok(stay(next, "", settle, scene))
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
            Ok(stay(next, "stopping", until_stopped, scene))
        }
        (Power::Paused, _) if asked_before && state != S::Error => Ok(false),
        (Power::Paused, S::Running) => Ok(stay(next, "pausing", settle, scene)),
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

fn reboot(next: &mut Instance, hard: bool, scene: Scene<'_>) -> Result<bool, Problem> {
    if next.status.state != S::Running || next.spec.power != Power::On {
        return Err(refused(next, "only a running instance can be rebooted", "start it first"));
    }
    next.spec.boot_seq += 1;
    next.spec.boot_hard = hard;
    let secs = scene.deadlines.building_secs + u64::from(next.spec.stop_timeout_secs);
    Ok(stay(next, "rebooting", secs, scene))
}

fn resize(next: &mut Instance, size: Size, flavor: &str, scene: Scene<'_>) -> Result<bool, Problem> {
    if next.spec.size == size && next.spec.flavor == flavor {
        return Ok(false);
    }
    if next.status.state != S::Stopped || next.spec.power != Power::Off {
        return Err(refused(next, "only a stopped instance can be resized", "stop it first"));
    }
    let (has, asked) = (next.spec.size.disk_gib, size.disk_gib);
    if asked < has {
        return Err(Problem::new(
            ErrorKind::InvalidArgument,
            "disk_shrink",
            format!("instance {}'s root disk has {has} GiB and can't be shrunk to {asked}", next.name),
        )
        .with_hint(format!("ask for {has} GiB or more, or rebuild it as a new instance"))
        .with_field("disk_gib", format!("at least {has}")));
    }
    if asked > 0 && next.root_disk_id.is_none() {
        return Err(Problem::new(
            ErrorKind::InvalidArgument,
            "no_root_disk",
            format!("instance {} runs from memory and has no root disk to grow", next.name),
        )
        .with_hint("ask for 0 GiB of disk, or create another instance with a disk"));
    }
    next.spec.size = size;
    flavor.clone_into(&mut next.spec.flavor);
    Ok(enter(next, S::Resizing, "waiting for its host", scene))
}

fn rebuild(next: &mut Instance, image_id: ImageId, scene: Scene<'_>) -> Result<bool, Problem> {
    if !S::valid_transition(next.status.state, S::Rebuilding) || next.status.state == S::Rebuilding {
        return Err(refused(next, "it can't be rebuilt now", "wait until it is running or stopped"));
    }
    next.spec.root_seq += 1;
    next.spec.image_id = image_id;
    Ok(enter(next, S::Rebuilding, "waiting for its host", scene))
}

fn attach_nic(next: &mut Instance, nic: &Nic, scene: Scene<'_>) -> Result<bool, Problem> {
    if next.spec.nics.iter().any(|n| n.port_id == nic.port_id) {
        return Ok(false);
    }
    let count = next.spec.nics.len() + 1;
    validate::check(|v| validate::instance::nic_count(v, "nics", count))?;
    next.spec.nics.push(nic.clone());
    Ok(cards_change(next, "plugging a network card in", scene))
}

fn detach_nic(next: &mut Instance, port_id: PortId, scene: Scene<'_>) -> bool {
    let before = next.spec.nics.len();
    next.spec.nics.retain(|n| n.port_id != port_id);
    next.spec.nics.len() != before && cards_change(next, "taking a network card out", scene)
}

/// Cards come and go in any state: a host that is at something else does it on the way.
fn cards_change(next: &mut Instance, step: &str, scene: Scene<'_>) -> bool {
    let state = next.status.state;
    if state.is_final() {
        stay(next, step, scene.deadlines.settle_secs, scene)
    } else {
        enter(next, state, "waiting for its host", scene)
    }
}

fn refused(instance: &Instance, what: &str, hint: &str) -> Problem {
    Problem::invalid_state(format!("instance {} is {}: {what}", instance.name, instance.status.state.as_str()))
        .with_hint(hint)
}
