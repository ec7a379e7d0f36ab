//! What is physically so, over all hosts, observed at the moment it happens and by no code that is under test.

use domain::{HostId, InstanceId};
use parking_lot::{Mutex, MutexGuard};
use std::{collections::HashMap, sync::Arc};

#[derive(Debug, Default)]
struct Observed {
    running: HashMap<InstanceId, HostId>,
    violations: Vec<String>,
    starts: u64,
}

/// Shared by the hosts of one test.
#[derive(Debug, Clone, Default)]
pub struct World(Arc<Mutex<Observed>>);

impl World {
    fn observed(&self) -> MutexGuard<'_, Observed> {
        self.0.lock()
    }

    /// vCPUs begin to run. On a second host that is the one thing that must never happen, whatever the epochs.
    pub(crate) fn starts(&self, instance_id: InstanceId, host_id: HostId) {
        let mut observed = self.observed();
        observed.starts += 1;
        if let Some(other) = observed.running.insert(instance_id, host_id)
            && other != host_id
        {
            observed
                .violations
                .push(format!("instance {instance_id} was started on {host_id} while it ran on {other}"));
        }
    }

    pub(crate) fn stops(&self, instance_id: InstanceId, host_id: HostId) {
        let mut observed = self.observed();
        if observed.running.get(&instance_id) == Some(&host_id) {
            observed.running.remove(&instance_id);
        }
    }

    /// Notes a rule that a manager broke towards an agent.
    pub(crate) fn violated(&self, what: String) {
        self.observed().violations.push(what);
    }

    /// What should never have happened, but did.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        self.observed().violations.clone()
    }

    /// Starts of vCPUs so far.
    #[must_use]
    pub fn starts_so_far(&self) -> u64 {
        self.observed().starts
    }
}
