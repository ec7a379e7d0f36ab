//! The instances to be preempted: each is taken up once, whoever wants its capacity.

use domain::InstanceId;
use parking_lot::Mutex;
use std::collections::HashSet;
use tokio::sync::Notify;

#[derive(Debug, Default)]
pub struct PreemptionQueue {
    queue: Mutex<Queue>,
    more: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Vec<InstanceId>,
    /// Those that wait, and those that are being preempted.
    unfinished: HashSet<InstanceId>,
}

impl PreemptionQueue {
    /// Adds the instances. Those that are being preempted already aren't taken up again.
    pub fn add(&self, ids: &[InstanceId]) {
        let mut queue = self.queue.lock();
        for id in ids {
            if queue.unfinished.insert(*id) {
                queue.waiting.push(*id);
            }
        }
        self.more.notify_one();
    }

    /// Waits until instances were added, and takes them.
    pub async fn take(&self) -> Vec<InstanceId> {
        self.more.notified().await;
        std::mem::take(&mut self.queue.lock().waiting)
    }

    /// The preemption of the instance has ended, in whatever way.
    pub fn finish(&self, id: InstanceId) {
        self.queue.lock().unfinished.remove(&id);
    }
}
