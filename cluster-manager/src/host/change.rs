//! What an operator decides on a host: cordon, drain, dedication, zone, tags, what is kept from instances, overcommit.
//!
//! A host may shrink under what it holds: claims stay, and nothing new fits until enough is freed.

use crate::{
    answer::{self, Deed},
    manager::{Manager, read_problem},
};
use domain::{ErrorKind, HostId, Problem, Timestamp, Violations, flavor::Size, host::Host, validate};
use proto::{
    cluster::v1 as pb,
    convert::{parse, parse_optional},
};
use service_kit::context::CallContext;
use store::{CommitError, Guard, Unit};

const ATTEMPTS: usize = 5;

pub async fn change(
    manager: &Manager,
    context: &CallContext,
    request: pb::ChangeHostRequest,
) -> Result<pb::ChangeHostResponse, Problem> {
    let host_id: HostId = parse("host_id", &request.host_id)?;
    answer::once(manager, context, run(manager, context, host_id, &request)).await
}

async fn run(
    manager: &Manager,
    context: &CallContext,
    host_id: HostId,
    request: &pb::ChangeHostRequest,
) -> Result<pb::ChangeHostResponse, Problem> {
    for _ in 0..ATTEMPTS {
        let found = manager.store.host_find(host_id).await.map_err(|e| read_problem(&e))?;
        let host = found.ok_or_else(|| Problem::not_found("host", host_id))?;
        let expected = request.expected_generation;
        if expected != 0 && expected != host.generation {
            return Err(Problem::new(
                ErrorKind::PreconditionFailed,
                "stale_generation",
                format!("host {} is at generation {}, not {expected}", host.name, host.generation),
            )
            .with_hint("read it again, and repeat the change if it still makes sense"));
        }
        let next = plan(&host, request)?;
        let response = |generation| pb::ChangeHostResponse { host_id: host_id.to_string(), generation };
        if next == host || context.dry_run {
            return Ok(response(host.generation));
        }
        let answer = response(host.generation + 1);
        match manager.store.commit(unit(context, &host, &next, &answer)).await {
            Ok(()) => {
                let row = manager.store.host_find(host_id).await.map_err(|e| read_problem(&e))?;
                if let Some(row) = row {
                    manager.inventory().put_host(&row);
                }
                tracing::info!(%host_id, host = next.name, cordoned = next.cordoned, "a host was changed by its operator");
                return Ok(answer);
            }
            Err(CommitError::Guard(Guard::HostGeneration)) => {}
            Err(error) => return Err(answer::commit_problem(&error)),
        }
    }
    Err(Problem::new(ErrorKind::StaleGeneration, "conflict", "the host kept changing meanwhile").with_hint("try again"))
}

fn plan(host: &Host, request: &pb::ChangeHostRequest) -> Result<Host, Problem> {
    let (mut next, mut violations) = (host.clone(), Violations::default());
    if let Some(cordoned) = request.cordoned {
        next.cordoned = cordoned;
        if !cordoned {
            next.cordon_reason = String::new();
        }
    }
    if let Some(reason) = &request.cordon_reason {
        violations.description("cordon_reason", reason);
        next.cordon_reason.clone_from(reason);
    }
    if let Some(draining) = request.draining {
        next.draining = draining;
    }
    if let Some(project) = &request.dedicated_to {
        next.dedicated_to = parse_optional("dedicated_to", project)?;
    }
    if let Some(zone) = &request.zone {
        next.zone = parse::<domain::Name>("zone", zone)?.to_string();
    }
    if request.replace_tags {
        next.tags = request.tags.clone().into_iter().collect();
        validate::tags(&mut violations, "tags", &next.tags);
    }
    let (cpu, memory) = (request.cpu_overcommit_permille, request.memory_overcommit_permille);
    validate::host::overcommit(&mut violations, "", cpu, memory, request.disk_overcommit_permille);
    violations.finish()?;
    shape(&mut next, request)?;
    Ok(next)
}

/// What instances may have of the host.
fn shape(next: &mut Host, request: &pb::ChangeHostRequest) -> Result<(), Problem> {
    let ratios = [
        (request.cpu_overcommit_permille, &mut next.cpu_overcommit_permille),
        (request.memory_overcommit_permille, &mut next.memory_overcommit_permille),
        (request.disk_overcommit_permille, &mut next.disk_overcommit_permille),
    ];
    for (requested, permille) in ratios {
        *permille = requested.unwrap_or(*permille);
    }
    let (reserved, offered) = (next.reserved, next.offered);
    next.reserved = Size {
        vcpus: request.reserved_vcpus.unwrap_or(reserved.vcpus),
        memory_mib: request.reserved_memory_mib.unwrap_or(reserved.memory_mib),
        disk_gib: request.reserved_disk_gib.unwrap_or(reserved.disk_gib),
    };
    // Only what is said now: a machine that has less than it had before must still be able to be changed otherwise.
    let too_much = [
        ("reserved/vcpus", request.reserved_vcpus.map(u64::from), u64::from(offered.vcpus), "hardware threads"),
        ("reserved/memory_mib", request.reserved_memory_mib, offered.memory_mib, "MiB"),
        ("reserved/disk_gib", request.reserved_disk_gib, offered.disk_gib, "GiB"),
    ];
    for (field, asked, offered, unit) in too_much {
        if asked.is_some_and(|asked| asked > offered) {
            return Err(Problem::invalid(field, format!("the host has {offered} {unit} for instances")));
        }
    }
    next.capacity = next.placeable();
    Ok(())
}

fn unit(context: &CallContext, host: &Host, next: &Host, answer: &pb::ChangeHostResponse) -> Unit {
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
    });
    answer::remember(&mut unit, context, answer, now);
    let verb = match ((host.cordoned, next.cordoned), (host.draining, next.draining)) {
        (_, (false, true)) => "drain",
        ((false, true), _) => "cordon",
        ((true, false), _) => "uncordon",
        ((true, true) | (false, false), _) => "change",
    };
    Deed {
        project_id: None,
        noun: "host",
        object_id: host.id.to_string(),
        verb,
        message: format!("{verb} of host {}", host.name),
        data: serde_json::json!({
            "cordoned": next.cordoned, "reason": next.cordon_reason, "draining": next.draining, "dedicated_to": next.dedicated_to,
            "zone": next.zone, "reserved": next.reserved, "cpu_overcommit_permille": next.cpu_overcommit_permille,
            "memory_overcommit_permille": next.memory_overcommit_permille,
            "disk_overcommit_permille": next.disk_overcommit_permille, "capacity": next.capacity,
            "beyond_capacity": next.beyond_capacity(),
        }),
        now,
        context,
    }
    .record(&mut unit);
    unit
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    fn host() -> Host {
        let offered = Size { vcpus: 4, memory_mib: 8192, disk_gib: 100 };
        let mut host = Host { offered, ..fixture::host(HostId::new(), "h") };
        host.capacity = host.placeable();
        host
    }

    #[test]
    fn overcommit_counts_from_what_is_offered_and_uncordon_drops_the_reason() {
        let host = Host { cordoned: true, cordon_reason: "disk".into(), ..host() };
        let ask =
            pb::ChangeHostRequest { cordoned: Some(false), cpu_overcommit_permille: Some(2000), ..Default::default() };
        let next = plan(&host, &ask).expect("valid");
        assert_eq!((next.capacity.vcpus, next.cordoned, next.cordon_reason.as_str()), (8, false, ""));
    }

    #[test]
    fn what_is_reserved_is_kept_before_the_rest_is_shared_out() {
        let ask = pb::ChangeHostRequest {
            reserved_vcpus: Some(1),
            reserved_memory_mib: Some(2048),
            memory_overcommit_permille: Some(1500),
            disk_overcommit_permille: Some(10_000),
            ..Default::default()
        };
        let next = plan(&host(), &ask).expect("valid");
        assert_eq!(next.capacity, Size { vcpus: 12, memory_mib: 9216, disk_gib: 1000 });
        let again = pb::ChangeHostRequest { reserved_disk_gib: Some(100), ..Default::default() };
        let next = plan(&next, &again).expect("all of it may be kept, and what isn't named stays");
        assert_eq!(next.capacity, Size { vcpus: 12, memory_mib: 9216, disk_gib: 0 });
        // The machine has less than it had: what is reserved takes all, and the host can still be changed.
        let less = Host { offered: Size { vcpus: 1, memory_mib: 1024, disk_gib: 1 }, ..next };
        let next = plan(&less, &pb::ChangeHostRequest { draining: Some(true), ..Default::default() }).expect("valid");
        assert_eq!(next.capacity, Size::default());
        let held = Host { used: Size { vcpus: 3, memory_mib: 100, disk_gib: 0 }, ..next };
        assert_eq!(held.beyond_capacity(), held.used);
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_its_name() {
        let ask = pb::ChangeHostRequest::default;
        for (bad, field) in [
            (pb::ChangeHostRequest { cpu_overcommit_permille: Some(0), ..ask() }, "cpu_overcommit"),
            (pb::ChangeHostRequest { memory_overcommit_permille: Some(99), ..ask() }, "memory_overcommit"),
            (pb::ChangeHostRequest { memory_overcommit_permille: Some(10_001), ..ask() }, "memory_overcommit"),
            (pb::ChangeHostRequest { disk_overcommit_permille: Some(u32::MAX), ..ask() }, "disk_overcommit"),
            (pb::ChangeHostRequest { reserved_vcpus: Some(5), ..ask() }, "reserved/vcpus"),
            (pb::ChangeHostRequest { reserved_memory_mib: Some(8193), ..ask() }, "reserved/memory_mib"),
            (pb::ChangeHostRequest { reserved_disk_gib: Some(u64::MAX), ..ask() }, "reserved/disk_gib"),
        ] {
            let problem = plan(&host(), &bad).expect_err(field);
            assert_eq!(problem.errors[0].field, field, "{problem:?}");
        }
    }
}
