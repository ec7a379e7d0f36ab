//! Preemptible instances give way: each is told to shut down, as long as its notice lasts, and is deleted then.
//!
//! A create that finds no room says who would have to give way ([`crate::scheduler::preempt`]) and is refused; it is repeated by its
//! caller, for whom the room is held (`room.rs`). Nothing is stored: after a restart an instance that was stopped for this still holds its
//! room, is found again by the next refusal, and is deleted at once. A caller without the quota for what it asks ends nobody.

use crate::{grpc::change, manager::Manager, reconcile::report::event};
use domain::{
    ErrorKind, InstanceId, Problem, Timestamp,
    instance::{Instance, InstanceState, Power},
};
use parking_lot::Mutex;
use proto::{
    cluster::v1::{self as pb, change_instance_request::Change},
    convert::power_to_pb,
};
use service_kit::context::CallContext;
use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};
use store::{EventInsert, Unit};
use tokio::sync::Notify;

/// Between two looks at an instance that shuts down.
const LOOK: Duration = Duration::from_millis(250);

/// Who gives way now.
#[derive(Debug, Default)]
pub struct GivingWay {
    at_it: Mutex<Queue>,
    more: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    asked: Vec<InstanceId>,
    all: HashSet<InstanceId>,
}

impl GivingWay {
    /// These are to give way. Those that do so already go on.
    pub fn ask(&self, ids: &[InstanceId]) {
        let mut queue = self.at_it.lock();
        for id in ids {
            if queue.all.insert(*id) {
                queue.asked.push(*id);
            }
        }
        self.more.notify_one();
    }

    fn take(&self) -> Vec<InstanceId> {
        std::mem::take(&mut self.at_it.lock().asked)
    }

    fn done(&self, id: InstanceId) {
        self.at_it.lock().all.remove(&id);
    }
}

pub async fn run(manager: Arc<Manager>) {
    loop {
        tokio::select! {
            () = manager.shutdown.cancelled() => return,
            () = manager.giving_way.more.notified() => {}
        }
        for id in manager.giving_way.take() {
            let manager = Arc::clone(&manager);
            let tasks = manager.tasks.clone();
            tasks.spawn(async move {
                match end(&manager, id).await {
                    Ok(()) => metrics::counter!("iaas_preemptions_total").increment(1),
                    Err(problem) => {
                        manager.inventory().set_leaving(&[id], false);
                        tracing::warn!(instance_id = %id, %problem, "an instance can't give way now");
                    }
                }
                manager.giving_way.done(id);
            });
        }
    }
}

async fn end(manager: &Manager, id: InstanceId) -> Result<(), Problem> {
    let Some(instance) = find(manager, id).await? else { return Ok(()) };
    let context = CallContext::system("preemption");
    tracing::info!(instance_id = %id, name = %instance.name, "a preemptible instance gives way");
    let notice = Duration::from_secs(manager.config.preemption_notice_secs);
    if stops_first(&instance) {
        announce(manager, &instance, notice).await;
        let power_off = pb::ChangeInstanceRequest {
            project_id: instance.project_id.to_string(),
            instance_id: id.to_string(),
            expected_generation: 0,
            change: Some(Change::SetPower(pb::SetPower {
                power: power_to_pb(Power::Off).into(),
                stop_timeout_secs: Some(u32::try_from(notice.as_secs()).unwrap_or(u32::MAX)),
            })),
        };
        match change::change(manager, &context, power_off).await {
            Ok(_) => stopped(manager, id, notice).await?,
            Err(problem) if problem.kind == ErrorKind::NotFound => return Ok(()),
            // In a state that can't be stopped: it is deleted without notice.
            Err(problem) if problem.kind == ErrorKind::InvalidState => {}
            Err(problem) => return Err(problem),
        }
    }
    let delete = pb::DeleteInstanceRequest {
        project_id: instance.project_id.to_string(),
        instance_id: id.to_string(),
        expected_generation: 0,
    };
    match change::delete(manager, &context, delete).await {
        Ok(_) => Ok(()),
        Err(problem) if problem.kind == ErrorKind::NotFound => Ok(()),
        Err(problem) => Err(problem),
    }
}

async fn find(manager: &Manager, id: InstanceId) -> Result<Option<Instance>, Problem> {
    let rows = manager.store.instance_load_many(&[id]).await.map_err(|e| crate::manager::read_problem(&e))?;
    Ok(rows.into_iter().next().map(Instance::from).filter(|instance| !instance.spec.deleted))
}

fn stops_first(instance: &Instance) -> bool {
    instance.spec.power != Power::Off && instance.status.state == InstanceState::Running
}

/// The event is the notice for those who watch; the guest's is its power button.
async fn announce(manager: &Manager, instance: &Instance, notice: Duration) {
    let secs = notice.as_secs();
    let message = format!("{} gives way to others: it is stopped within {secs} s, and deleted", instance.name);
    let data = serde_json::json!({ "notice_secs": secs, "class": instance.spec.placement.preemptible_class });
    let unit = Unit::new().op(EventInsert(event(instance, "preempted", message, data, Timestamp::now())));
    if let Err(error) = manager.store.commit(unit).await {
        tracing::warn!(error = &error as &dyn std::error::Error, "a preemption can't be announced");
    }
}

/// Until it is off, or its notice is over.
async fn stopped(manager: &Manager, id: InstanceId, notice: Duration) -> Result<(), Problem> {
    let began = Instant::now();
    while began.elapsed() < notice {
        match find(manager, id).await? {
            Some(instance) if instance.status.state == InstanceState::Running => {}
            Some(_) | None => return Ok(()),
        }
        tokio::select! {
            () = manager.shutdown.cancelled() => return Err(Problem::unavailable("the cluster-manager stops")),
            () = tokio::time::sleep(LOOK) => {}
        }
    }
    Ok(())
}
