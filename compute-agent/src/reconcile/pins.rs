//! Assigns threads to pinned instances, and keeps all others off them. The assignment is in the ledger before QEMU is started, so that no
//! restart of the agent assigns a thread twice.

use super::{
    context::Context,
    step_error::{StepError, StepResult, fault},
    task::Task,
};
use crate::{
    host::{cpuset, facts},
    ledger::{Entry, Held},
};
use domain::InstanceId;
use std::{collections::BTreeSet, path::Path};

impl Task {
    /// Makes sure that the instance has the threads that it must be pinned to. An instance that isn't pinned has none.
    pub(super) async fn take_threads(&self, entry: &Entry) -> StepResult {
        let has = &entry.done.pins;
        let Some(node) = entry.desired.numa_node else {
            if has.is_empty() {
                return Ok(());
            }
            self.context.ledger.record(self.instance_id, |done| done.pins.clear()).await?;
            return Ok(());
        };
        // One task chooses at a time, because the ledger tells the next one which threads are taken.
        let _turn = self.context.pinning.lock().await;
        let held = self.context.pinned_threads(Some(self.instance_id));
        let pins = cpuset::choose(&nodes(), node, entry.desired.spec.size.vcpus, has, &held).map_err(|e| fault(&e))?;
        if pins != *has {
            tracing::info!(instance_id = %self.instance_id, node, threads = ?pins, "its vCPUs are pinned to threads");
            self.context.ledger.record(self.instance_id, |done| done.pins = pins).await?;
        }
        Ok(())
    }

    /// Binds the threads of the instance's QEMU: at its start, and again when an agent takes it over.
    pub(super) fn bind_threads(&self, entry: &Entry, pid: i32) -> Result<(), StepError> {
        if entry.done.pins.is_empty() {
            self.context.confine_instance(self.instance_id, pid);
            return Ok(());
        }
        cpuset::pin_vcpus(pid, &entry.done.pins).map_err(|e| fault(&e))?;
        self.context.confine_others();
        Ok(())
    }
}

impl Context {
    /// The threads that instances on this host are pinned to, running or not, except those of `excluding`.
    fn pinned_threads(&self, excluding: Option<InstanceId>) -> BTreeSet<u32> {
        let of = |held: &Held| match held {
            Held::Live(entry) if Some(entry.desired.instance_id) != excluding => entry.done.pins.clone(),
            Held::Live(_) | Held::Tombstone(_) => Vec::new(),
        };
        self.ledger.all().iter().flat_map(|held| of(held)).collect()
    }

    /// After threads were assigned or released, lets the instances that aren't pinned run on the rest.
    pub(super) fn confine_others(&self) {
        for held in self.ledger.all() {
            if let Held::Live(entry) = &*held
                && entry.done.pins.is_empty()
                && let Some(running) = &entry.done.process
                && running.process.alive()
            {
                self.confine_instance(entry.desired.instance_id, running.process.pid);
            }
        }
    }

    fn confine_instance(&self, instance_id: InstanceId, pid: i32) {
        let rest = cpuset::shared(&nodes(), &self.pinned_threads(None));
        if let Err(error) = cpuset::confine(pid, &rest) {
            tracing::warn!(%instance_id, %error, "the instance can't be kept off the threads that others are pinned to");
        }
    }
}

/// The nodes are read each time, because threads may be taken offline.
fn nodes() -> Vec<(u32, BTreeSet<u32>)> {
    let nodes = facts::numa_nodes(Path::new("/sys/devices/system/node"));
    nodes.into_iter().map(|node| (node.id, cpuset::parse_cpulist(&node.cpus))).collect()
}
