//! What happens when an agent says Hello: its host's row, its place in the inventory, and what it holds that nobody knows of.

use super::{HostStream, desired::render_tombstone};
use crate::{manager::Manager, reconcile::report::Verdict};
use domain::{
    ErrorKind, HostId, InstanceId, Name, Problem, Timestamp,
    event::NewEvent,
    flavor::Size,
    host::{AcceptCapacity, Host, HostFacts, HostState, MemoryOverhead},
    instance::Instance,
};
use operation::read_problem;
use proto::{
    convert::{parse, size_from_pb},
    sync::v1 as pb,
};
use service_kit::peer::{HostPeer, NOT_ADMITTED};
use std::collections::HashMap;
use store::{CommitError, Constraint, Guard, Unit};

/// Registers the host, or takes over what changed of it.
pub async fn register_host(manager: &Manager, hello: &pb::Hello, certified: Option<HostPeer>) -> Result<Host, Problem> {
    let host_id: HostId = parse("hello.host_id", &hello.host_id)?;
    let known = manager.store.host_find(host_id).await.map_err(read_problem)?;
    let host = describe(host_id, hello, known.as_ref())?;
    let changed = known.as_ref().is_none_or(|h| h.state != host.state);
    let mut unit = Unit::new().op(store::HostUpsert {
        id: host_id,
        name: host_name(&hello.name, host_id),
        zone: host.zone.clone(),
        tags: host.tags.clone(),
        state: host.state,
        threads: host.reported.vcpus,
        memory_mib: host.reported.memory_mib,
        disk_gib: host.reported.disk_gib,
        accept_first: manager.config.accept_capacity != AcceptCapacity::Never,
        accept_later: manager.config.accept_capacity == AcceptCapacity::Always,
        cpu_overcommit_permille: host.cpu_overcommit_permille,
        overhead: host.overhead,
        facts: host.facts.clone(),
        at: Timestamp::now(),
    });
    let before = known.as_ref().map(|h| h.ledger.clone()).unwrap_or_default();
    unit.push(store::HostLedgerSet {
        id: host_id,
        known_ledger_id: before.id,
        known_found_ledger_id: before.found.map(|found| found.id).unwrap_or_default(),
        ledger_id: host.ledger.id.clone(),
        ledger_start: host.ledger.start,
        found_ledger_id: host.ledger.found.as_ref().map(|found| found.id.clone()),
        found_ledger_start: host.ledger.found.as_ref().map(|found| found.start),
    });
    if let Some(cpu) = &host.facts.guest_cpu {
        unit.push(store::CpuBaselinePut { id: cpu.id(), document: cpu.clone() });
    }
    if let Some(peer) = certified {
        // Removed meanwhile: then it must not come to be again by what its agent says.
        unit.push(store::HostAdmissionHold { host_id, key_hash: peer.key_hash });
    }
    if changed {
        let verb = if known.is_none() && host.state == HostState::Up { "registered" } else { host.state.as_str() };
        unit.push(store::EventInsert(host_event(&host, verb, state_message(&host))));
    }
    if host.state == HostState::Held {
        tracing::error!(%host_id, host = host.name, reason = host.state_reason(), "a host is held");
    }
    // Watched from now on: an agent that dies right after this commit must not leave its host shown as up.
    manager.agents.expect(host_id);
    manager.store.commit(unit).await.map_err(|error| refused(&error, &host.name))?;
    // Read back: claims and the operator's decisions are the row's.
    let row = manager.store.host_find(host_id).await.map_err(read_problem)?.ok_or_else(Problem::internal)?;
    manager.inventory().put_host(&row);
    manager.refresh_host(host_id).await;
    if row.unaccepted() != Size::default() {
        let (reported, accepted) = (row.reported, row.accepted);
        tracing::warn!(%host_id, host = row.name, ?reported, ?accepted, "a host reports more capacity than its operator accepted");
    }
    Ok(row)
}

/// The host as the row shall say it. What the operator decides (zone, tags, reserve, overcommit) the agent decides only at first.
fn describe(host_id: HostId, hello: &pb::Hello, known: Option<&Host>) -> Result<Host, Problem> {
    let Some(pb::hello::Host::Compute(machine)) = &hello.host else {
        return Err(Problem::invalid("hello.compute", "is missing"));
    };
    let reported = machine.capacity.ok_or_else(|| Problem::invalid("hello.compute.capacity", "is missing"))?;
    let reported = size_from_pb(reported);
    let facts: HostFacts = serde_json::from_str(&machine.facts_json)
        .map_err(|e| Problem::invalid("hello.compute.facts_json", e.to_string()))?;
    // One that was only admitted has neither overcommit nor, perhaps, a zone yet.
    let decided = known.map(|h| h.cpu_overcommit_permille).filter(|permille| *permille != 0);
    let permille = decided.unwrap_or(machine.cpu_overcommit_permille).max(1);
    let zone = known.map(|h| h.zone.clone()).filter(|zone| !zone.is_empty());
    let ledger = known.map(|h| h.ledger.clone()).unwrap_or_default().after_hello(&hello.ledger_id, hello.start);
    let lost = known.is_some_and(|h| h.state == HostState::Lost);
    let state = match (&ledger.found, machine.disk_full) {
        _ if lost => HostState::Lost,
        (Some(_), _) => HostState::Held,
        (None, true) => HostState::DiskFull,
        (None, false) => HostState::Up,
    };
    let now = Timestamp::now();
    let mut host = Host {
        id: host_id,
        name: known.map_or_else(|| host_name(&hello.name, host_id).to_string(), |h| h.name.clone()),
        zone: zone.unwrap_or_else(|| machine.zone.clone()),
        tags: known.map(|h| h.tags.clone()).unwrap_or_default(),
        state,
        cordoned: known.is_some_and(|h| h.cordoned),
        cordon_reason: known.map(|h| h.cordon_reason.clone()).unwrap_or_default(),
        draining: known.is_some_and(|h| h.draining),
        dedicated_to: known.and_then(|h| h.dedicated_to),
        capacity: Size::default(),
        reported,
        accepted: known.map(|h| h.accepted).unwrap_or_default(),
        // The row says what of it is accepted.
        offered: reported,
        reserved: known.map(|h| h.reserved).unwrap_or_default(),
        cpu_overcommit_permille: permille,
        memory_overcommit_permille: known.map_or(1000, |h| h.memory_overcommit_permille),
        disk_overcommit_permille: known.map_or(1000, |h| h.disk_overcommit_permille),
        used: known.map(|h| h.used).unwrap_or_default(),
        overhead: MemoryOverhead {
            fixed_mib: machine.overhead_fixed_mib,
            per_vcpu_mib: machine.overhead_per_vcpu_mib,
            per_gib_mib: machine.overhead_per_gib_mib,
        },
        facts,
        generation: known.map_or(1, |h| h.generation),
        revision: known.map_or(0, |h| h.revision),
        registered_at: known.map_or(now, |h| h.registered_at),
        state_changed_at: known.filter(|h| h.state == state).map_or(now, |h| h.state_changed_at),
        ledger,
    };
    host.capacity = host.placeable();
    Ok(host)
}

/// The name of a machine that calls itself this: `Rack1.example.org` is `rack1-example-org`, `7up` is `h-7up`.
#[must_use]
pub fn host_name(given: &str, host_id: HostId) -> Name {
    let plain: String =
        given.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).take(60).collect();
    let plain = plain.trim_matches('-');
    let named = |text: String| text.parse::<Name>().ok();
    named(plain.to_owned())
        .or_else(|| named(format!("h-{plain}")))
        .or_else(|| named(format!("h-{}", host_id.0.simple())))
        .expect("hexadecimal after a letter is a name")
}

fn refused(error: &CommitError, name: &str) -> Problem {
    match error {
        CommitError::Constraint(Constraint::HostName) => {
            Problem::new(ErrorKind::AlreadyExists, "host_name_taken", format!("another host is named `{name}` already"))
                .with_hint("give this host another name in its agent's configuration")
        }
        CommitError::Unavailable(_) => Problem::unavailable("the database doesn't answer now"),
        CommitError::Guard(Guard::HostAdmission) => {
            Problem::new(ErrorKind::PermissionDenied, NOT_ADMITTED, format!("host {name} was removed"))
        }
        CommitError::Guard(Guard::HostGeneration) => {
            Problem::unavailable(format!("host {name} was changed at the same moment: its agent connects again"))
        }
        CommitError::Constraint(_) | CommitError::Guard(_) | CommitError::Internal(_) => {
            tracing::error!(error = error as &dyn std::error::Error, host = name, "a host can't be registered");
            Problem::internal()
        }
    }
}

/// What an event says of a host's state.
#[must_use]
pub fn state_message(host: &Host) -> String {
    let reason = host.state_reason();
    let because = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    let name = &host.name;
    match host.state {
        HostState::Up => format!("host {name} is up"),
        HostState::Disconnected => format!("host {name} is disconnected"),
        HostState::Held => format!("host {name} is held{because}"),
        HostState::DiskFull => format!("host {name} takes no new instances{because}"),
        HostState::Lost => format!("host {name} is lost{because}"),
    }
}

#[must_use]
pub fn host_event(host: &Host, verb: &str, message: String) -> NewEvent {
    NewEvent {
        at: Timestamp::now(),
        project_id: None,
        kind: format!("host.{verb}"),
        object_kind: "host".to_owned(),
        object_id: host.id.to_string(),
        message,
        request_id: String::new(),
        data: serde_json::json!({ "name": host.name }),
    }
}

/// What an agent holds is compared with what is bound to its host: the rest is recorded as orphan, or released by a tombstone when it is of an
/// epoch that its instance has left. Nothing is ever deleted because it isn't known.
pub async fn review_holdings(manager: &Manager, stream: &HostStream, holdings: &[pb::Holding]) -> Result<(), Problem> {
    let mut held: HashMap<InstanceId, &pb::Holding> = HashMap::new();
    for holding in holdings {
        held.insert(parse("holding.id", &holding.id)?, holding);
    }
    let ids: Vec<InstanceId> = held.keys().copied().collect();
    let rows = manager.store.instance_load_many(&ids).await.map_err(read_problem)?;
    let rows: HashMap<InstanceId, Instance> = rows.into_iter().map(|r| (r.instance.id, r.instance)).collect();
    let mut unit = Unit::new();
    let now = Timestamp::now();
    // Nothing can bring back what has no row: its tombstone has done its work. That of a lost host has it to do yet.
    let lost = manager.host_state(stream.host_id) == Some(HostState::Lost);
    let forgotten = held.iter().filter(|(id, holding)| holding.tombstone && !lost && !rows.contains_key(id));
    stream.acknowledge(forgotten.map(|(id, _)| pb::ReportAck {
        kind: pb::ObjectKind::Instance.into(),
        id: id.to_string(),
        forgotten: true,
        ..pb::ReportAck::default()
    }));
    for (id, holding) in &held {
        let row = rows.get(id);
        match review(stream.host_id, row, holding) {
            Some(Verdict::Orphan { detail }) => unit.push(store::OrphanPut {
                host_id: stream.host_id,
                instance_id: *id,
                epoch: holding.epoch,
                detail,
                last_seen_at: now,
            }),
            Some(Verdict::Tombstone) => stream.push(row.map(|row| (*id, render_tombstone(row, holding.epoch)))),
            Some(_) | None => {}
        }
    }
    for orphan in manager.store.orphan_list_of_hosts(&[stream.host_id]).await.map_err(read_problem)? {
        if held.get(&orphan.instance_id).is_none_or(|h| h.tombstone) {
            unit.push(store::OrphanDelete { host_id: orphan.host_id, instance_id: orphan.instance_id });
        }
    }
    if !unit.is_empty() {
        manager.store.commit(unit).await.map_err(|error| refused(&error, &stream.host_name))?;
    }
    Ok(())
}

/// `None`: it is as it should be (a snapshot follows), or a tombstone.
fn review(host_id: HostId, row: Option<&Instance>, holding: &pb::Holding) -> Option<Verdict> {
    if holding.tombstone {
        return None;
    }
    match row {
        None => Some(Verdict::Orphan { detail: "no instance of this id exists".to_owned() }),
        Some(row) if row.host_id == Some(host_id) => None,
        Some(row) if holding.epoch < row.epoch => Some(Verdict::Tombstone),
        Some(_) => Some(Verdict::Orphan { detail: "the instance is bound to another host".to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_machine_is_called_it_has_a_name_here() {
        let id = HostId::new();
        for (given, name) in
            [("vm", "vm"), ("Rack1.example.org", "rack1-example-org"), ("7up", "h-7up"), ("_x_", "x"), ("a-", "a")]
        {
            assert_eq!(host_name(given, id).as_str(), name, "{given}");
        }
        assert!(host_name("", id).as_str().starts_with("h-"));
        assert!(host_name(&"x".repeat(200), id).as_str().len() <= 63);
    }
}
