//! What is physically so, over all hosts: seen at the moment it happens, by nobody who could be wrong about it.

use domain::{HostId, InstanceId};
use parking_lot::{Mutex, MutexGuard};
use std::{collections::HashMap, sync::Arc};

#[derive(Debug, Default)]
struct Seen {
    running: HashMap<InstanceId, HostId>,
    violations: Vec<String>,
    starts: u64,
}

/// Shared by the hosts of one test.
#[derive(Debug, Clone, Default)]
pub struct World(Arc<Mutex<Seen>>);

impl World {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock()
    }

    /// vCPUs begin to run. On a second host that is the one thing that must never happen, whatever the epochs.
    pub(crate) fn starts(&self, instance_id: InstanceId, host_id: HostId) {
        let mut seen = self.seen();
        seen.starts += 1;
        if let Some(other) = seen.running.insert(instance_id, host_id)
            && other != host_id
        {
            seen.violations.push(format!("instance {instance_id} was started on {host_id} while it ran on {other}"));
        }
    }

    pub(crate) fn stops(&self, instance_id: InstanceId, host_id: HostId) {
        let mut seen = self.seen();
        if seen.running.get(&instance_id) == Some(&host_id) {
            seen.running.remove(&instance_id);
        }
    }

    /// A rule that an agent saw broken by its manager.
    pub(crate) fn violated(&self, what: String) {
        self.seen().violations.push(what);
    }

    /// What should never have happened, but did.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        self.seen().violations.clone()
    }

    /// Starts of vCPUs so far.
    #[must_use]
    pub fn starts_so_far(&self) -> u64 {
        self.seen().starts
    }
}
