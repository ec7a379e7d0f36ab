//! A host leaves the fleet: its row, its admission and its tokens go in one unit, guarded against whatever is placed on it meanwhile. Every
//! manager cuts its connections when it reads the list of admissions again; this one does so at once.

use crate::{host::change, manager::Manager, outcome::store_outcome};
use domain::{ErrorKind, HostId, Problem, Timestamp, host::Host};
use operation::{Activity, commit_problem, contended, read_problem};
use service_kit::context::CallContext;
use store::{CommitError, Guard, Unit};

const ATTEMPTS: usize = 5;

#[derive(Debug)]
pub struct RemovedHost(pub HostId);

pub async fn remove(
    manager: &Manager,
    context: &CallContext,
    host_id: HostId,
    expected_generation: Option<i64>,
) -> Result<RemovedHost, Problem> {
    let removed = RemovedHost(host_id);
    for _ in 0..ATTEMPTS {
        let host = change::fetch(manager, host_id, expected_generation).await?;
        check_removable(manager, &host).await?;
        if context.dry_run {
            return Ok(removed);
        }
        let unit = unit(manager, context, &host, &removed).await?;
        match manager.store.commit(unit).await {
            Ok(()) => {
                manager.inventory().remove_host(host_id);
                manager.agents.remove(host_id);
                tracing::info!(%host_id, host = host.name, "a host was removed by its operator");
                return Ok(removed);
            }
            Err(CommitError::Guard(Guard::HostInUse)) => {}
            Err(error) => return Err(commit_problem(error)),
        }
    }
    Err(contended("the host"))
}

async fn check_removable(manager: &Manager, host: &Host) -> Result<(), Problem> {
    let instances = manager.store.instance_list_of_host(host.id).await.map_err(read_problem)?.len();
    if instances > 0 {
        let kind = if instances == 1 { "instance" } else { "instances" };
        return Err(Problem::new(
            ErrorKind::InvalidState,
            "host_in_use",
            format!("host {} holds {instances} {kind}", host.name),
        )
        .with_hint(format!("cordon it (`iaasctl host cordon {}`), delete what is on it, then remove it", host.name)));
    }
    let admitted = manager.store.host_admission_find(host.id).await.map_err(read_problem)?.is_some();
    if !admitted && manager.agents.find(host.id).is_some() {
        return Err(Problem::new(
            ErrorKind::InvalidState,
            "host_is_local",
            format!(
                "the agent of host {} needs no certificate (it runs beside the managers), so the host would come back",
                host.name
            ),
        )
        .with_hint("stop its agent first"));
    }
    Ok(())
}

async fn unit(manager: &Manager, context: &CallContext, host: &Host, removed: &RemovedHost) -> Result<Unit, Problem> {
    let now = Timestamp::now();
    let mut unit = Unit::new().op(store::HostDelete { id: host.id, expected_generation: host.generation });
    // A token that admitted it could admit it again.
    for token in manager.store.host_token_list_of_host(host.id).await.map_err(read_problem)? {
        unit.push(store::HostTokenDelete { id: token.id });
    }
    for orphan in manager.store.orphan_list_of_hosts(&[host.id]).await.map_err(read_problem)? {
        unit.push(store::OrphanDelete { host_id: orphan.host_id, instance_id: orphan.instance_id });
    }
    store_outcome(&mut unit, context, removed, now);
    Activity::accepted("host", host.id, "remove", format!("host {} was removed from the fleet", host.name))
        .with_data(serde_json::json!({ "name": host.name }))
        .record(&mut unit, context, now);
    Ok(unit)
}
