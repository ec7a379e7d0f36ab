//! What a host's report makes of an instance. Pure: the row and the report in, the next status and its events out.
//!
//! The fence of what is stored is `(epoch, caught-up generation, start, counter)`. The generation in it is the one the host has *caught
//! up with*, not the one a report is about: within an epoch `(start, counter)` alone orders an agent's reports, so this costs no
//! safety, and a caller that waits for a change sees `observed_generation` rise when the host did it, not when it began.
//!
//! Invariants: a fence that isn't greater than the stored one changes nothing; an epoch or a host that isn't the row's changes nothing; a
//! deleting instance only ever becomes gone, and only by the report of its host for its epoch; a state follows [`InstanceState::valid_transition`]; what isn't final has a deadline.

use super::deadline::Deadlines;
use domain::{
    HostId, InstanceId, Timestamp,
    event::NewEvent,
    instance::{Instance, InstanceState, InstanceStatus, ReportFence},
};

/// A report, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    pub instance_id: InstanceId,
    pub fence: ReportFence,
    pub state: InstanceState,
    pub step: String,
    pub reason: String,
    pub converged: bool,
    pub started_at: Option<Timestamp>,
    pub guest_up_at: Option<Timestamp>,
    pub crash_count: u32,
    pub exec_ms: Option<i64>,
    pub root_used_seq: Option<u64>,
}

/// What the decision takes into account beside the row and the report.
#[derive(Debug, Clone, Copy)]
pub struct ReportContext<'a> {
    pub now: Timestamp,
    pub deadlines: &'a Deadlines,
    /// Other starts in progress on the host.
    pub starts: u32,
}

/// Why a report is not stored and never will be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stale {
    /// It is of an epoch that the instance has left.
    Epoch,
    /// It is stored already, or older than what is stored.
    Repeat,
    /// It is of a generation older than what the host has caught up with.
    Generation,
    /// It is of a desired state that was never given (a restored backup, or another instance's host).
    Unknown,
}

impl Stale {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Epoch => "epoch",
            Self::Repeat => "repeat",
            Self::Generation => "generation",
            Self::Unknown => "unknown",
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    Refuse(Stale),
    /// Store the status under this fence.
    Store {
        fence: ReportFence,
        status: InstanceStatus,
        events: Vec<NewEvent>,
    },
    /// The host proved that the instance is gone: the row goes, the claim comes back.
    Gone {
        events: Vec<NewEvent>,
    },
    /// The host holds what no row binds to it: this is kept and shown.
    Orphan {
        detail: String,
    },
    /// The host proved gone what no row knows: nothing is held any more.
    OrphanGone,
    /// The host holds an epoch that the instance has left for another host: it gets a tombstone of that epoch.
    Tombstone,
}

#[must_use]
pub fn plan_report(
    host_id: HostId,
    row: Option<(&Instance, ReportFence)>,
    observed: &Observation,
    context: ReportContext<'_>,
) -> Verdict {
    let gone = observed.state == InstanceState::Deleted;
    let Some((row, stored)) = row else {
        return if gone { Verdict::OrphanGone } else { orphan("no instance of this id exists") };
    };
    if row.host_id != Some(host_id) {
        return match (gone, observed.fence.epoch < row.epoch) {
            (true, _) => Verdict::OrphanGone,
            (false, true) => Verdict::Tombstone,
            (false, false) => orphan("the instance is bound to another host"),
        };
    }
    if observed.fence.epoch < row.epoch {
        return Verdict::Refuse(Stale::Epoch);
    }
    if observed.fence.epoch > row.epoch || observed.fence.generation > row.generation {
        return Verdict::Refuse(Stale::Unknown);
    }
    if observed.fence.generation < row.status.observed_generation {
        return Verdict::Refuse(Stale::Generation);
    }
    if gone && row.spec.deleted {
        let took_ms = context.now.millis_since(row.updated_at);
        let data = serde_json::json!({ "from": row.status.state.as_str(), "to": "deleted", "took_ms": took_ms });
        return Verdict::Gone {
            events: vec![event(row, "deleted", format!("{} is deleted", row.name), data, context.now)],
        };
    }
    let status = next_status(row, observed, context);
    let fence = ReportFence { generation: status.observed_generation, ..observed.fence };
    // The store refuses it as well; here it costs nobody else's batch.
    if fence <= stored {
        return Verdict::Refuse(Stale::Repeat);
    }
    let events = events(row, &status, observed, context.now);
    Verdict::Store { fence, status, events }
}

fn orphan(detail: &str) -> Verdict {
    Verdict::Orphan { detail: detail.to_owned() }
}

fn next_status(row: &Instance, observed: &Observation, context: ReportContext<'_>) -> InstanceStatus {
    let old = &row.status;
    let about_latest = observed.fence.generation == row.generation;
    let state = next_state(row, observed, about_latest);
    // A host that says "done" in a state that can't last isn't done.
    let done = about_latest && observed.converged && state.is_final() && state == observed.state;
    let moved = state != old.state;
    // A step that changes without a complaint is progress; a host that fails, says why and tries again gets no more time for it.
    let progressed = observed.step != old.step && observed.reason.is_empty();
    let deadline_at = if done || state == InstanceState::Error {
        None
    } else if state.is_final() {
        old.deadline_at
    } else if moved || (progressed && about_latest) || old.deadline_at.is_none() {
        context.deadlines.of(state, context.starts, context.now)
    } else {
        old.deadline_at
    };
    // Between a change and the host's first report about it, what the change wrote is the better text.
    let (step, reason) = if done {
        (String::new(), observed.reason.clone())
    } else if about_latest {
        (if observed.step.is_empty() { old.step.clone() } else { observed.step.clone() }, observed.reason.clone())
    } else {
        (old.step.clone(), old.reason.clone())
    };
    let reason = match (state, observed.state, reason.is_empty()) {
        (InstanceState::Error, InstanceState::Deleted, true) => "its host reports that it no longer has it".to_owned(),
        (InstanceState::Error, _, true) => "its host gave no reason".to_owned(),
        _ => reason,
    };
    InstanceStatus {
        state,
        step,
        reason,
        observed_generation: if done { row.generation } else { old.observed_generation },
        deadline_at,
        started_at: observed.started_at.or(old.started_at),
        // What a guest reported before a stop isn't true of its next boot.
        guest_up_at: observed.guest_up_at.filter(|_| state != InstanceState::Stopped),
        crash_count: observed.crash_count.max(old.crash_count),
    }
}

fn next_state(row: &Instance, observed: &Observation, about_latest: bool) -> InstanceState {
    let old = row.status.state;
    if row.spec.deleted {
        return InstanceState::Deleting;
    }
    if !about_latest && !old.is_final() {
        // The host hasn't read the change that put the instance here.
        return old;
    }
    match observed.state {
        InstanceState::Deleted | InstanceState::Deleting => InstanceState::Error,
        // States that only a manager gives.
        InstanceState::Pending | InstanceState::Scheduling => old,
        to if InstanceState::valid_transition(old, to) => to,
        // Between two states that a host may hold, we may have missed the one between; error is never wrong to leave.
        InstanceState::Building
        | InstanceState::Running
        | InstanceState::Paused
        | InstanceState::Stopped
        | InstanceState::Suspended
        | InstanceState::Migrating
        | InstanceState::Recovering
        | InstanceState::Resizing
        | InstanceState::Rebuilding
        | InstanceState::Error => old,
    }
}

fn events(row: &Instance, next: &InstanceStatus, observed: &Observation, now: Timestamp) -> Vec<NewEvent> {
    let old = &row.status;
    let mut events = Vec::new();
    if next.crash_count > old.crash_count {
        let message = format!("{}'s QEMU ended unexpectedly ({} times so far)", row.name, next.crash_count);
        events.push(event(row, "crashed", message, serde_json::json!({ "crash_count": next.crash_count }), now));
    }
    if next.state != old.state {
        let mut data = serde_json::json!({ "from": old.state.as_str(), "to": next.state.as_str() });
        if let Some(exec_ms) = observed.exec_ms {
            data["exec_ms"] = exec_ms.into();
        }
        if old.started_at.is_none() && next.state == InstanceState::Running {
            data["accepted_to_running_ms"] = now.millis_since(row.created_at).into();
        }
        let because = if next.reason.is_empty() { String::new() } else { format!(": {}", next.reason) };
        let message = format!("{} is {}{because}", row.name, next.state.as_str());
        events.push(event(row, next.state.as_str(), message, data, now));
    }
    if let Some(at) = next.guest_up_at
        && old.guest_up_at != Some(at)
    {
        events.push(event(row, "guest_up", format!("{}'s guest is up", row.name), serde_json::json!({}), now));
    }
    events
}

#[must_use]
pub fn event(row: &Instance, verb: &str, message: String, mut data: serde_json::Value, now: Timestamp) -> NewEvent {
    data["generation"] = row.generation.into();
    data["epoch"] = row.epoch.into();
    NewEvent {
        at: now,
        project_id: Some(row.project_id),
        kind: format!("instance.{verb}"),
        object_kind: "instance".to_owned(),
        object_id: row.id.to_string(),
        message,
        request_id: String::new(),
        data,
    }
}
