//! Preemption: a preemptible instance is stopped, has its notice to do so, and is deleted then.
//!
//! A create that finds no capacity says who would have to be preempted ([`crate::scheduler::preempt`]) and is refused; its caller repeats
//! it, and the capacity is held for that ([`crate::placement::capacity_hold`]). Which instances are being preempted is a row each
//! ([`InstanceTodo::Preempt`]), so that one that was stopped for this isn't left lying when the manager is killed. The hold is in memory alone. A
//! caller without the quota for its request preempts nobody.

use crate::{
    instance::{change, request::ChangeTarget, transition::Change},
    manager::Manager,
    placement::PlacementState,
    reconcile::report::event,
};
use domain::{
    ErrorKind, InstanceId, Problem, Timestamp,
    instance::{Instance, InstanceState, Power},
};
use operation::{commit_problem, read_problem};
use service_kit::context::CallContext;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use store::{EventInsert, InstanceTodo, InstanceTodoDone, InstanceTodoPut, ReadError, Unit};

/// Instances that are taken up in one read after a start.
const RESUME_PAGE: u32 = 1000;
/// The pause between two reads of an instance that shuts down.
const READ_EVERY: Duration = Duration::from_millis(250);

/// Ends the instances of the queue, each in a task of its own.
pub async fn preemption_loop(manager: Arc<Manager>) {
    if let Err(error) = resume(&manager).await {
        let error = &error as &dyn std::error::Error;
        tracing::warn!(
            error,
            "preemptions that a restart interrupted can't be read; refusals find those instances again"
        );
    }
    loop {
        let ids = tokio::select! {
            () = manager.lifetime.shutdown.cancelled() => return,
            ids = manager.placement.preemptions.take() => ids,
        };
        for id in ids {
            let manager = Arc::clone(&manager);
            let tasks = manager.lifetime.tasks.clone();
            tasks.spawn(async move { preempt_queued(&manager.placement, id, preempt(&manager, id)).await });
        }
    }
}

/// Takes up what the last process had begun.
async fn resume(manager: &Manager) -> Result<(), ReadError> {
    let mut after = None;
    loop {
        let todo = manager.store.instance_todo_list(InstanceTodo::Preempt, after, RESUME_PAGE).await?;
        let ids: Vec<InstanceId> = todo.iter().map(|row| row.instance_id).collect();
        manager.inventory().set_being_preempted(&ids, true);
        manager.placement.preemptions.add(&ids);
        after = ids.last().copied().filter(|_| ids.len() == RESUME_PAGE as usize);
        if after.is_none() {
            return Ok(());
        }
    }
}

/// Carries out the preemption of an instance of the queue, and takes it off the queue, however that ends.
async fn preempt_queued(
    placement: &PlacementState,
    id: InstanceId,
    preemption: impl Future<Output = Result<(), Problem>>,
) {
    let mut unfinished = Unfinished { placement, id, ended: false };
    match preemption.await {
        Ok(()) => {
            unfinished.ended = true;
            metrics::counter!("iaas_preemptions_total").increment(1);
        }
        Err(problem) => tracing::warn!(instance_id = %id, %problem, "an instance can't be preempted now"),
    }
}

/// A preemption that is on its way. However it ends, also by a panic, the instance can be preempted by another request.
struct Unfinished<'a> {
    placement: &'a PlacementState,
    id: InstanceId,
    /// The instance is being deleted, or is gone.
    ended: bool,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        // It leaves the queue before it counts as preemptible again: a create that chooses it in between must find that it is taken up.
        self.placement.preemptions.finish(self.id);
        if !self.ended {
            self.placement.inventory().set_being_preempted(&[self.id], false);
        }
    }
}

async fn preempt(manager: &Manager, id: InstanceId) -> Result<(), Problem> {
    let begun = InstanceTodoPut { todo: InstanceTodo::Preempt, instance_id: id, created_at: Timestamp::now() };
    let done = InstanceTodoDone { todo: begun.todo, instance_id: id, created_at: begun.created_at };
    manager.store.commit(Unit::new().op(begun)).await.map_err(commit_problem)?;
    let ended = stop_and_delete(manager, id).await;
    // One that the manager's end interrupts is taken up by the next process; one that failed is not begun any more.
    if !manager.lifetime.shutdown.is_cancelled() {
        manager.store.commit(Unit::new().op(done)).await.map_err(commit_problem)?;
    }
    ended
}

async fn stop_and_delete(manager: &Manager, id: InstanceId) -> Result<(), Problem> {
    let Some(instance) = find(manager, id).await? else { return Ok(()) };
    let context = CallContext::system("preemption");
    tracing::info!(instance_id = %id, name = %instance.name, "a preemptible instance is preempted");
    let notice = Duration::from_secs(manager.config.preemption_notice_secs);
    let target = ChangeTarget { project_id: instance.project_id, id, expected_generation: None };
    if stops_first(&instance) {
        announce(manager, &instance, notice).await;
        let stop_timeout_secs = Some(u32::try_from(notice.as_secs()).unwrap_or(u32::MAX));
        let power_off = Change::SetPower { power: Power::Off, stop_timeout_secs };
        match change::change(manager, &context, target, &power_off).await {
            Ok(_) => wait_until_stopped(manager, id, notice).await?,
            Err(problem) if problem.kind == ErrorKind::NotFound => return Ok(()),
            // In this state it can't be stopped, so it is deleted without notice.
            Err(problem) if problem.kind == ErrorKind::InvalidState => {}
            Err(problem) => return Err(problem),
        }
    }
    match change::change(manager, &context, target, &Change::Delete).await {
        Ok(_) => Ok(()),
        Err(problem) if problem.kind == ErrorKind::NotFound => Ok(()),
        Err(problem) => Err(problem),
    }
}

async fn find(manager: &Manager, id: InstanceId) -> Result<Option<Instance>, Problem> {
    let rows = manager.store.instance_load_many(&[id]).await.map_err(read_problem)?;
    Ok(rows.into_iter().next().map(Instance::from).filter(|instance| !instance.spec.deleted))
}

fn stops_first(instance: &Instance) -> bool {
    instance.spec.power != Power::Off && instance.status.state == InstanceState::Running
}

/// Announces the preemption by an event, for those who watch; the guest gets it by its power button.
async fn announce(manager: &Manager, instance: &Instance, notice: Duration) {
    let secs = notice.as_secs();
    let message =
        format!("{} is preempted for another instance: it is stopped within {secs} s and then deleted", instance.name);
    let data = serde_json::json!({ "notice_secs": secs, "class": instance.spec.placement.preemptible_class });
    let unit = Unit::new().op(EventInsert(event(instance, "preempted", message, data, Timestamp::now())));
    if let Err(error) = manager.store.commit(unit).await {
        tracing::warn!(error = &error as &dyn std::error::Error, "a preemption can't be announced");
    }
}

/// Waits until the instance is off, or its notice is over.
async fn wait_until_stopped(manager: &Manager, id: InstanceId, notice: Duration) -> Result<(), Problem> {
    let began = Instant::now();
    while began.elapsed() < notice {
        match find(manager, id).await? {
            Some(instance) if instance.status.state == InstanceState::Running => {}
            Some(_) | None => return Ok(()),
        }
        tokio::select! {
            () = manager.lifetime.shutdown.cancelled() => return Err(Problem::unavailable("the cluster-manager stops")),
            () = tokio::time::sleep(READ_EVERY) => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::{Inventory, Placed, Request, tests::host};
    use domain::flavor::Size;
    use futures::{FutureExt, future::BoxFuture};

    /// How a preemption may end.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum End {
        Done,
        Fails,
        Panics,
        Dropped,
    }

    fn ending(end: End) -> BoxFuture<'static, Result<(), Problem>> {
        match end {
            End::Done => Box::pin(async { Ok(()) }),
            End::Fails => Box::pin(async { Err(Problem::unavailable("a test")) }),
            End::Panics => Box::pin(async { panic!("a test") }),
            End::Dropped => Box::pin(std::future::pending()),
        }
    }

    #[tokio::test]
    async fn however_a_preemption_ends_the_instance_can_be_preempted_by_another_request() {
        for end in [End::Done, End::Fails, End::Panics, End::Dropped] {
            let row = host(1, Size { vcpus: 4, memory_mib: 8192, disk_gib: 10 });
            let mut inventory = Inventory::new(std::slice::from_ref(&row));
            let (id, request) = (InstanceId::new(), Request { preemptible: Some(1), ..Request::default() });
            inventory.place_tentatively(id, &Placed::of(row.id, Size::default()), &request);
            inventory.set_being_preempted(&[id], true);
            let placement = Arc::new(PlacementState::new(inventory));
            placement.preemptions.add(&[id]);
            assert_eq!(placement.preemptions.take().await, [id]);
            placement.preemptions.add(&[id]);
            assert_eq!(placement.preemptions.take().await, [], "{end:?}: it is under way");
            let of_task = Arc::clone(&placement);
            let task = tokio::spawn(async move { preempt_queued(&of_task, id, ending(end)).await });
            if end == End::Dropped {
                tokio::task::yield_now().await;
                task.abort();
            }
            let joined = task.await;
            assert_eq!(joined.is_err_and(|error| error.is_panic()), end == End::Panics, "{end:?}");
            placement.preemptions.add(&[id]);
            assert_eq!(placement.preemptions.take().now_or_never(), Some(vec![id]), "{end:?}: it is taken up again");
            let counts = placement.inventory().any_being_preempted(&[id]);
            assert_eq!(counts, end == End::Done, "{end:?}: one that isn't ended counts as preemptible again");
        }
    }
}
