//! A host leaves the fleet: its row, its admission and its tokens go in one unit, guarded against whatever is placed on it meanwhile. Every
//! manager cuts its connections when it reads the list of admissions again; this one at once.

use crate::{
    answer::{self, Deed},
    manager::{Manager, read_problem},
};
use domain::{ErrorKind, HostId, Problem, Timestamp, host::Host};
use proto::{cluster::v1 as pb, convert::parse};
use service_kit::context::CallContext;
use store::{CommitError, Guard, Unit};

const ATTEMPTS: usize = 5;

pub async fn remove(
    manager: &Manager,
    context: &CallContext,
    request: pb::RemoveHostRequest,
) -> Result<pb::RemoveHostResponse, Problem> {
    let host_id: HostId = parse("host_id", &request.host_id)?;
    answer::once(manager, context, run(manager, context, host_id, request.expected_generation)).await
}

async fn run(
    manager: &Manager,
    context: &CallContext,
    host_id: HostId,
    expected: i64,
) -> Result<pb::RemoveHostResponse, Problem> {
    let response = pb::RemoveHostResponse { host_id: host_id.to_string() };
    for _ in 0..ATTEMPTS {
        let found = manager.store.host_find(host_id).await.map_err(|e| read_problem(&e))?;
        let host = found.ok_or_else(|| Problem::not_found("host", host_id))?;
        if expected != 0 && expected != host.generation {
            return Err(Problem::new(
                ErrorKind::PreconditionFailed,
                "stale_generation",
                format!("host {} is at generation {}, not {expected}", host.name, host.generation),
            )
            .with_hint("read it again, and remove it if that still makes sense"));
        }
        check_removable(manager, &host).await?;
        if context.dry_run {
            return Ok(response);
        }
        let unit = unit(manager, context, &host, &response).await?;
        match manager.store.commit(unit).await {
            Ok(()) => {
                manager.inventory().remove_host(host_id);
                manager.agents.remove(host_id);
                tracing::info!(%host_id, host = host.name, "a host was removed by its operator");
                return Ok(response);
            }
            Err(CommitError::Guard(Guard::HostInUse)) => {}
            Err(error) => return Err(answer::commit_problem(&error)),
        }
    }
    Err(Problem::new(ErrorKind::StaleGeneration, "conflict", "the host kept changing meanwhile").with_hint("try again"))
}

async fn check_removable(manager: &Manager, host: &Host) -> Result<(), Problem> {
    let instances = manager.store.instance_list_of_host(host.id).await.map_err(|e| read_problem(&e))?.len();
    if instances > 0 {
        let noun = if instances == 1 { "instance" } else { "instances" };
        return Err(Problem::new(
            ErrorKind::InvalidState,
            "host_in_use",
            format!("host {} holds {instances} {noun}", host.name),
        )
        .with_hint(format!("cordon it (`iaasctl host cordon {}`), delete what is on it, then remove it", host.name)));
    }
    let admitted = manager.store.host_admission_find(host.id).await.map_err(|e| read_problem(&e))?.is_some();
    if !admitted && manager.agents.find(host.id).is_some() {
        return Err(Problem::new(
            ErrorKind::InvalidState,
            "host_is_local",
            format!(
                "the agent of host {} needs no certificate (it runs beside the managers), so it would come back",
                host.name
            ),
        )
        .with_hint("stop its agent first"));
    }
    Ok(())
}

async fn unit(
    manager: &Manager,
    context: &CallContext,
    host: &Host,
    response: &pb::RemoveHostResponse,
) -> Result<Unit, Problem> {
    let now = Timestamp::now();
    let mut unit = Unit::new().op(store::HostDelete { id: host.id, expected_generation: host.generation });
    // A token that admitted it could admit it again.
    for token in manager.store.host_token_list_of_host(host.id).await.map_err(|e| read_problem(&e))? {
        unit.push(store::HostTokenDelete { id: token.id });
    }
    for orphan in manager.store.orphan_list().await.map_err(|e| read_problem(&e))? {
        if orphan.host_id == host.id {
            unit.push(store::OrphanDelete { host_id: orphan.host_id, instance_id: orphan.instance_id });
        }
    }
    answer::remember(&mut unit, context, response, now);
    Deed {
        project_id: None,
        noun: "host",
        object_id: host.id.to_string(),
        verb: "remove",
        message: format!("host {} was removed from the fleet", host.name),
        data: serde_json::json!({ "name": host.name }),
        now,
        context,
    }
    .record(&mut unit);
    Ok(unit)
}
