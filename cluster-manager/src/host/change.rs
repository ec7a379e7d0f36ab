//! What an operator decides on a host: cordon, drain, dedication, zone, tags, what is reserved from instances, overcommit.
//!
//! A host may shrink below what its instances claim: the claims stay, and nothing new fits until enough is free.

use crate::{manager::Manager, outcome::store_outcome};
use domain::{ErrorKind, HostId, Name, Problem, ProjectId, Timestamp, Violations, flavor::Size, host::Host, validate};
use operation::{Activity, commit_problem, contended, read_problem};
use service_kit::context::CallContext;
use std::collections::BTreeMap;
use store::{CommitError, Guard, Unit};

const ATTEMPTS: usize = 5;

/// What is to change on a host; `None` leaves as it is.
#[derive(Debug, Default)]
pub struct HostChange {
    pub cordoned: Option<bool>,
    pub cordon_reason: Option<String>,
    pub draining: Option<bool>,
    /// `Some(None)` ends the dedication.
    pub dedicated_to: Option<Option<ProjectId>>,
    pub zone: Option<Name>,
    pub tags: Option<BTreeMap<String, String>>,
    pub cpu_overcommit_permille: Option<u32>,
    pub memory_overcommit_permille: Option<u32>,
    pub disk_overcommit_permille: Option<u32>,
    pub reserved_vcpus: Option<u32>,
    pub reserved_memory_mib: Option<u64>,
    pub reserved_disk_gib: Option<u64>,
    /// What a held host knew is given up.
    pub accept_loss: bool,
    /// All capacity that its agent reports is accepted.
    pub accept_capacity: bool,
}

#[derive(Debug)]
pub struct ChangedHost {
    pub host_id: HostId,
    pub generation: i64,
}

pub async fn change(
    manager: &Manager,
    context: &CallContext,
    host_id: HostId,
    expected_generation: Option<i64>,
    change: &HostChange,
) -> Result<ChangedHost, Problem> {
    for _ in 0..ATTEMPTS {
        let host = fetch(manager, host_id, expected_generation).await?;
        let next = plan(&host, change)?;
        if next == host || context.dry_run {
            return Ok(ChangedHost { host_id, generation: host.generation });
        }
        let changed = ChangedHost { host_id, generation: host.generation + 1 };
        match manager.store.commit(unit(context, &host, &next, &changed)).await {
            Ok(()) => {
                if change.accept_loss
                    && let Some(stream) = manager.agents.find(host_id)
                {
                    // Its agent comes again, and is given what it must be.
                    manager.agents.disconnect(&stream);
                }
                let row = manager.store.host_find(host_id).await.map_err(read_problem)?;
                if let Some(row) = row {
                    manager.inventory().put_host(&row);
                }
                tracing::info!(%host_id, host = next.name, cordoned = next.cordoned, "a host was changed by its operator");
                return Ok(changed);
            }
            Err(CommitError::Guard(Guard::HostGeneration)) => {}
            Err(error) => return Err(commit_problem(error)),
        }
    }
    Err(contended("the host"))
}

/// The host's row; refuses one of another generation than expected.
pub async fn fetch(manager: &Manager, host_id: HostId, expected_generation: Option<i64>) -> Result<Host, Problem> {
    let found = manager.store.host_find(host_id).await.map_err(read_problem)?;
    let host = found.ok_or_else(|| Problem::not_found("host", host_id))?;
    match expected_generation {
        Some(expected) if expected != host.generation => Err(Problem::new(
            ErrorKind::PreconditionFailed,
            "stale_generation",
            format!("host {} is at generation {}, not {expected}", host.name, host.generation),
        )
        .with_hint("read it again, and repeat the request if it still makes sense")),
        Some(_) | None => Ok(host),
    }
}

fn plan(host: &Host, change: &HostChange) -> Result<Host, Problem> {
    let (mut next, mut violations) = (host.clone(), Violations::default());
    if let Some(cordoned) = change.cordoned {
        next.cordoned = cordoned;
        if !cordoned {
            next.cordon_reason = String::new();
        }
    }
    if let Some(reason) = &change.cordon_reason {
        violations.description("cordon_reason", reason);
        next.cordon_reason.clone_from(reason);
    }
    next.draining = change.draining.unwrap_or(next.draining);
    next.dedicated_to = change.dedicated_to.unwrap_or(next.dedicated_to);
    if let Some(zone) = &change.zone {
        next.zone = zone.to_string();
    }
    if let Some(tags) = &change.tags {
        validate::tags(&mut violations, "tags", tags);
        next.tags.clone_from(tags);
    }
    let (cpu, memory) = (change.cpu_overcommit_permille, change.memory_overcommit_permille);
    validate::host::overcommit(&mut violations, "", cpu, memory, change.disk_overcommit_permille);
    violations.finish()?;
    if change.accept_loss {
        accept_loss(&mut next)?;
    }
    plan_capacity(&mut next, change)?;
    Ok(next)
}

fn accept_loss(next: &mut Host) -> Result<(), Problem> {
    let Some(found) = next.ledger.found.take() else {
        let detail = format!("host {} isn't held: it has lost nothing that the control plane knows of", next.name);
        return Err(Problem::invalid_state(detail).with_hint("see `iaasctl host show`"));
    };
    (next.ledger.id, next.ledger.start) = (found.id, found.start);
    Ok(())
}

/// Decides what instances may have of the host.
fn plan_capacity(next: &mut Host, change: &HostChange) -> Result<(), Problem> {
    let ratios = [
        (change.cpu_overcommit_permille, &mut next.cpu_overcommit_permille),
        (change.memory_overcommit_permille, &mut next.memory_overcommit_permille),
        (change.disk_overcommit_permille, &mut next.disk_overcommit_permille),
    ];
    for (requested, permille) in ratios {
        *permille = requested.unwrap_or(*permille);
    }
    if change.accept_capacity {
        (next.accepted, next.offered) = (next.reported, next.reported);
    }
    let (reserved, offered) = (next.reserved, next.offered);
    next.reserved = Size {
        vcpus: change.reserved_vcpus.unwrap_or(reserved.vcpus),
        memory_mib: change.reserved_memory_mib.unwrap_or(reserved.memory_mib),
        disk_gib: change.reserved_disk_gib.unwrap_or(reserved.disk_gib),
    };
    // Only what is requested now is checked: a machine that has less than it had before must still be able to be changed otherwise.
    let too_much = [
        ("reserved/vcpus", change.reserved_vcpus.map(u64::from), u64::from(offered.vcpus), "hardware threads"),
        ("reserved/memory_mib", change.reserved_memory_mib, offered.memory_mib, "MiB"),
        ("reserved/disk_gib", change.reserved_disk_gib, offered.disk_gib, "GiB"),
    ];
    for (field, requested, offered, unit) in too_much {
        if requested.is_some_and(|requested| requested > offered) {
            return Err(Problem::invalid(field, format!("the host has {offered} {unit} for instances")));
        }
    }
    next.capacity = next.placeable();
    Ok(())
}

fn unit(context: &CallContext, host: &Host, next: &Host, changed: &ChangedHost) -> Unit {
    let now = Timestamp::now();
    let mut unit = Unit::new().op(store::HostChange {
        id: host.id,
        expected_generation: host.generation,
        cordoned: next.cordoned,
        cordon_reason: next.cordon_reason.clone(),
        draining: next.draining,
        dedicated_to: next.dedicated_to,
        zone: next.zone.clone(),
        tags: next.tags.clone(),
        cpu_overcommit_permille: next.cpu_overcommit_permille,
        memory_overcommit_permille: next.memory_overcommit_permille,
        disk_overcommit_permille: next.disk_overcommit_permille,
        reserved_vcpus: next.reserved.vcpus,
        reserved_memory_mib: next.reserved.memory_mib,
        reserved_disk_gib: next.reserved.disk_gib,
        accept_capacity: next.accepted != host.accepted,
    });
    if let Some(found) = host.ledger.found.as_ref().filter(|_| next.ledger.found.is_none()) {
        unit.push(store::HostLedgerAccept { id: host.id, found_ledger_id: found.id.clone() });
    }
    store_outcome(&mut unit, context, changed, now);
    let verb = match ((host.cordoned, next.cordoned), (host.draining, next.draining)) {
        (_, (false, true)) => "drain",
        ((false, true), _) => "cordon",
        ((true, false), _) => "uncordon",
        ((true, true) | (false, false), _) if host.ledger != next.ledger => "accept_loss",
        ((true, true) | (false, false), _) if host.accepted != next.accepted => "accept_capacity",
        ((true, true) | (false, false), _) => "change",
    };
    Activity::accepted("host", host.id, verb, format!("{verb} of host {}", host.name))
        .with_data(serde_json::json!({
            "cordoned": next.cordoned, "reason": next.cordon_reason, "draining": next.draining, "dedicated_to": next.dedicated_to,
            "zone": next.zone, "reserved": next.reserved, "cpu_overcommit_permille": next.cpu_overcommit_permille,
            "memory_overcommit_permille": next.memory_overcommit_permille,
            "disk_overcommit_permille": next.disk_overcommit_permille, "capacity": next.capacity, "accepted": next.accepted,
            "beyond_capacity": next.beyond_capacity(),
        }))
        .record(&mut unit, context, now);
    unit
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{host::HostLedger, testing};

    fn host() -> Host {
        let offered = Size { vcpus: 4, memory_mib: 8192, disk_gib: 100 };
        let mut host = Host { offered, ..testing::host(HostId::new(), "h") };
        host.capacity = host.placeable();
        host
    }

    #[test]
    fn overcommit_counts_from_what_is_offered_and_uncordon_drops_the_reason() {
        let host = Host { cordoned: true, cordon_reason: "disk".into(), ..host() };
        let change = HostChange { cordoned: Some(false), cpu_overcommit_permille: Some(2000), ..Default::default() };
        let next = plan(&host, &change).expect("valid");
        assert_eq!((next.capacity.vcpus, next.cordoned, next.cordon_reason.as_str()), (8, false, ""));
    }

    #[test]
    fn what_is_reserved_is_kept_before_the_rest_is_shared_out() {
        let change = HostChange {
            reserved_vcpus: Some(1),
            reserved_memory_mib: Some(2048),
            memory_overcommit_permille: Some(1500),
            disk_overcommit_permille: Some(10_000),
            ..Default::default()
        };
        let next = plan(&host(), &change).expect("valid");
        assert_eq!(next.capacity, Size { vcpus: 12, memory_mib: 9216, disk_gib: 1000 });
        let again = HostChange { reserved_disk_gib: Some(100), ..Default::default() };
        let next = plan(&next, &again).expect("all of it may be kept, and what isn't named stays");
        assert_eq!(next.capacity, Size { vcpus: 12, memory_mib: 9216, disk_gib: 0 });
        // The machine has less than it had: what is reserved takes all, and the host can still be changed.
        let less = Host { offered: Size { vcpus: 1, memory_mib: 1024, disk_gib: 1 }, ..next };
        let next = plan(&less, &HostChange { draining: Some(true), ..Default::default() }).expect("valid");
        assert_eq!(next.capacity, Size::default());
        let held = Host { used: Size { vcpus: 3, memory_mib: 100, disk_gib: 0 }, ..next };
        assert_eq!(held.beyond_capacity(), held.used);
    }

    #[test]
    fn only_a_held_hosts_loss_can_be_accepted() {
        let change = HostChange { accept_loss: true, ..Default::default() };
        let problem = plan(&host(), &change).expect_err("it isn't held");
        assert_eq!(problem.kind, ErrorKind::InvalidState);
        let held = Host { ledger: HostLedger::default().after_hello("a", 5).after_hello("b", 1), ..host() };
        let next = plan(&held, &change).expect("accepted").ledger;
        assert_eq!((next.id.as_str(), next.start, next.found), ("b", 1, None));
        assert_eq!(plan(&held, &HostChange::default()).expect("nothing").ledger, held.ledger);
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_its_name() {
        let none = HostChange::default;
        for (bad, field) in [
            (HostChange { cpu_overcommit_permille: Some(0), ..none() }, "cpu_overcommit"),
            (HostChange { memory_overcommit_permille: Some(99), ..none() }, "memory_overcommit"),
            (HostChange { memory_overcommit_permille: Some(10_001), ..none() }, "memory_overcommit"),
            (HostChange { disk_overcommit_permille: Some(u32::MAX), ..none() }, "disk_overcommit"),
            (HostChange { reserved_vcpus: Some(5), ..none() }, "reserved/vcpus"),
            (HostChange { reserved_memory_mib: Some(8193), ..none() }, "reserved/memory_mib"),
            (HostChange { reserved_disk_gib: Some(u64::MAX), ..none() }, "reserved/disk_gib"),
        ] {
            let problem = plan(&host(), &bad).expect_err(field);
            assert_eq!(problem.errors[0].field, field, "{problem:?}");
        }
    }
}
