//! Why an instance is where it is, or why it isn't running, in words. Pure: what is known of it in, one paragraph out.
//!
//! A tenant reads no host's name or id here. A system admin reads the host's name and what is wrong with it.

pub use api_types::{Explain as ExplainView, TimelineItem};

use super::{
    instance::instance_view,
    placement_record::{PlacementRecordView, placement_record},
};
use crate::{app::explain::Explanation, auth::caller::SystemRole};
use domain::{
    explain::PlacementRecord,
    host::{Host, HostState},
    instance::{Instance, InstanceState, Power},
    placement::{KeptPlacement, PlacementOutcome},
};
use std::fmt::Write as _;

#[must_use]
pub fn explain_view(explanation: Explanation, role: SystemRole) -> ExplainView {
    let Explanation { instance, host, records, events } = explanation;
    let timeline = events.into_iter().map(TimelineItem::from).collect();
    let Some((instance, related)) = instance else {
        let why = records.first().map(what_it_was).unwrap_or_default();
        let records = shown(records, role);
        let placement = records.first().map(|record| record.placement.clone());
        return ExplainView { instance: None, placement, why, records, timeline };
    };
    let why = why(&instance, host.as_ref().filter(|_| role == SystemRole::Admin));
    let placement = match role {
        SystemRole::Admin => instance.placement.clone(),
        SystemRole::Tenant => instance.placement.clone().map(PlacementRecord::redacted),
    };
    let instance = Some(instance_view(instance, &related, role));
    ExplainView { placement, why, timeline, instance, records: shown(records, role) }
}

fn shown(records: Vec<KeptPlacement>, role: SystemRole) -> Vec<PlacementRecordView> {
    records.into_iter().map(|kept| placement_record(kept, role)).collect()
}

/// One paragraph about an instance that doesn't exist.
fn what_it_was(kept: &KeptPlacement) -> String {
    let name = &kept.instance_name;
    match kept.outcome {
        PlacementOutcome::Refused => {
            let mut text = format!("{name} was refused and doesn't exist.{}", where_it_is(&kept.record));
            if !kept.record.hint.is_empty() {
                let _ = write!(text, " What would help: {}.", sentence(&kept.record.hint));
            }
            text
        }
        PlacementOutcome::Placed => format!("{name} was deleted at {}.{}", kept.kept_at, where_it_is(&kept.record)),
    }
}

/// One paragraph. `host` is given only for those who may know of it.
#[must_use]
pub fn why(instance: &Instance, host: Option<&Host>) -> String {
    let mut text = what_it_is(instance);
    let status = &instance.status;
    if !status.reason.is_empty() && status.state != InstanceState::Error {
        let _ = write!(text, " {}.", sentence(&status.reason));
    }
    if let Some(deadline) = status.deadline_at {
        let _ =
            write!(text, " If nothing is reported about it by {deadline}, that is shown here and it is tried again.");
    }
    if status.crash_count > 0 {
        let _ = write!(text, " It ended unexpectedly {} time(s) so far.", status.crash_count);
    }
    if let Some(record) = &instance.placement {
        text.push_str(&where_it_is(record));
    } else if instance.host_id.is_none() {
        text.push_str(" It has no host yet.");
    }
    if let Some(host) = host {
        text.push_str(&on_host(host));
    }
    text
}

fn what_it_is(instance: &Instance) -> String {
    let (name, status) = (&instance.name, &instance.status);
    let step = if status.step.is_empty() { String::new() } else { format!(" (now: {})", status.step) };
    match status.state {
        InstanceState::Running => match (instance.spec.power, status.started_at) {
            (Power::Off, _) => format!("{name} is running and was asked to stop{step}."),
            (Power::Paused, _) => format!("{name} is running and was asked to pause{step}."),
            (Power::On, Some(at)) => match status.guest_up_at {
                Some(up) if up >= at => {
                    format!("{name} has been running since {at}, and its guest has been up since {up}{step}.")
                }
                _ => format!("{name} has been running since {at}; its guest hasn't reported yet that it is up{step}."),
            },
            (Power::On, None) => format!("{name} is running{step}."),
        },
        InstanceState::Stopped => match instance.spec.power {
            Power::Off => format!("{name} is stopped, as it was asked to be{step}."),
            Power::On | Power::Paused => {
                format!("{name} is stopped although it was asked to run{step}: it ended by itself. Start it again.")
            }
        },
        InstanceState::Paused => match instance.spec.power {
            Power::Paused => format!("{name} is paused, as it was asked to be{step}."),
            Power::On | Power::Off => format!("{name} is paused and was asked to leave that state{step}."),
        },
        InstanceState::Error => {
            format!(
                "{name} is in error: {}. Its desired state stands: start, stop or rebuild it to try again, or delete it.",
                sentence(&status.reason)
            )
        }
        InstanceState::Deleting => format!("{name} is being deleted{step}; its host must prove that it is gone."),
        InstanceState::Deleted => format!("{name} is deleted."),
        InstanceState::Pending
        | InstanceState::Scheduling
        | InstanceState::Building
        | InstanceState::Suspended
        | InstanceState::Migrating
        | InstanceState::Recovering
        | InstanceState::Resizing
        | InstanceState::Rebuilding => format!("{name} is {}{step}.", status.state.as_str()),
    }
}

/// Without the full stop that the text related adds.
fn sentence(text: &str) -> &str {
    text.trim().trim_end_matches('.')
}

fn where_it_is(record: &PlacementRecord) -> String {
    let mut text = format!(" Placement, {}: {}", record.at, sentence(&record.summary));
    if record.candidates > 0 && !record.score.is_empty() {
        let _ = write!(text, " (the chosen host {})", record.score);
    }
    text.push('.');
    if !record.rejected.is_empty() {
        let passed: Vec<String> =
            record.rejected.iter().map(|r| format!("{} {}", r.hosts, r.filter.describe())).collect();
        let _ = write!(text, " Rejected hosts: {}.", passed.join(", "));
    }
    if let Some(nearest) = record.nearest.as_ref().filter(|_| record.candidates == 0) {
        let lacks: Vec<String> = [
            (u64::from(nearest.lacks.vcpus), "vCPUs"),
            (nearest.lacks.memory_mib, "MiB of memory"),
            (nearest.lacks.disk_gib, "GiB of disk"),
        ]
        .into_iter()
        .filter(|(n, _)| *n > 0)
        .map(|(n, what)| format!("{n} {what}"))
        .collect();
        if !lacks.is_empty() {
            let _ = write!(text, " It would fit if the nearest host had {} more.", lacks.join(" and "));
        }
    }
    text
}

fn on_host(host: &Host) -> String {
    let mut text = format!(" Its host is {}", host.name);
    match (host.state, host.cordoned) {
        (HostState::Up, false) => text.push('.'),
        (HostState::Up, true) => text.push_str(", which is cordoned: it keeps its instances and gets no new ones."),
        (HostState::Held | HostState::DiskFull | HostState::Lost, _) => {
            let _ = write!(text, ", which is {}: {}.", host.state.as_str(), host.state_reason());
        }
        (HostState::Disconnected, _) => {
            let _ = write!(text, ", whose agent has not been connected since {}.", host.state_changed_at);
        }
    }
    text
}
