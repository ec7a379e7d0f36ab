//! What an operator decides on a host: cordon, drain, dedication, zone, tags, overcommit.

use super::answer::{self, Deed};
use crate::{
    agents::welcome::overcommitted,
    lifecycle::check::check_tags,
    manager::{Manager, read_problem},
};
use domain::{ErrorKind, HostId, Problem, Timestamp, host::Host, limits};
use proto::{
    cluster::v1 as pb,
    convert::{parse, parse_optional},
};
use service_kit::context::CallContext;
use store::{CommitError, Guard, Unit};

const ATTEMPTS: usize = 5;
/// vCPUs per hardware thread, in thousandths.
const OVERCOMMIT: std::ops::RangeInclusive<u32> = 100..=100_000;

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
    let mut next = host.clone();
    if let Some(cordoned) = request.cordoned {
        next.cordoned = cordoned;
        if !cordoned {
            next.cordon_reason = String::new();
        }
    }
    if let Some(reason) = &request.cordon_reason {
        if reason.len() > limits::DESCRIPTION_BYTES {
            return Err(Problem::invalid("cordon_reason", format!("at most {} bytes", limits::DESCRIPTION_BYTES)));
        }
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
        check_tags(&next.tags)?;
    }
    if let Some(permille) = request.cpu_overcommit_permille {
        if !OVERCOMMIT.contains(&permille) {
            return Err(Problem::invalid("cpu_overcommit", "must be 0.1 to 100 vCPUs per hardware thread"));
        }
        next.cpu_overcommit_permille = permille;
        // The facts say all threads of the machine. Where instances may take fewer, the row's capacity says how many.
        let before = host.cpu_overcommit_permille;
        let threads = if overcommitted(host.facts.threads, before) == host.capacity.vcpus {
            host.facts.threads
        } else {
            host.capacity.vcpus.saturating_mul(1000).div_ceil(before.max(1))
        };
        next.capacity.vcpus = overcommitted(threads, permille);
    }
    Ok(next)
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
        vcpus: next.capacity.vcpus,
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
            "zone": next.zone, "cpu_overcommit_permille": next.cpu_overcommit_permille,
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
    use domain::flavor::Size;

    #[test]
    fn overcommit_counts_from_the_threads_and_uncordon_drops_the_reason() {
        let host = Host {
            id: HostId::new(),
            name: "h".into(),
            zone: "default".into(),
            tags: Default::default(),
            state: domain::host::HostState::Up,
            cordoned: true,
            cordon_reason: "disk".into(),
            draining: false,
            dedicated_to: None,
            capacity: Size { vcpus: 16, memory_mib: 1, disk_gib: 1 },
            cpu_overcommit_permille: 4000,
            used: Size::default(),
            overhead: Default::default(),
            facts: domain::host::HostFacts { threads: 4, ..Default::default() },
            generation: 1,
            revision: 1,
            registered_at: Timestamp(0),
            state_changed_at: Timestamp(0),
        };
        let ask =
            pb::ChangeHostRequest { cordoned: Some(false), cpu_overcommit_permille: Some(2000), ..Default::default() };
        let next = plan(&host, &ask).expect("valid");
        assert_eq!((next.capacity.vcpus, next.cordoned, next.cordon_reason.as_str()), (8, false, ""));
        let none = pb::ChangeHostRequest { cpu_overcommit_permille: Some(0), ..Default::default() };
        assert!(plan(&host, &none).is_err());
    }
}
