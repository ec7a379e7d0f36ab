//! Which instances are to be reconciled. A set, not a queue: being woken twice is being woken once, and nothing but the id is passed on.

use domain::InstanceId;
use parking_lot::Mutex;
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};
use tokio::sync::Notify;

/// The id of the request that woke an instance, to follow it through the logs up to the agent. It decides nothing.
pub type RequestId = Option<Arc<str>>;

#[derive(Default)]
pub struct Signal {
    dirty: Mutex<HashMap<InstanceId, RequestId>>,
    wake: Notify,
    /// Instances with NICs that their hosts haven't proved to be detached yet. A hint: what is missed here is found by the sweep.
    detaching: Mutex<HashSet<InstanceId>>,
}

impl Signal {
    pub fn wake(&self, ids: impl IntoIterator<Item = InstanceId>, request_id: RequestId) {
        {
            let mut dirty = self.dirty.lock();
            for id in ids {
                let known = dirty.entry(id).or_default();
                if request_id.is_some() {
                    known.clone_from(&request_id);
                }
            }
        }
        self.wake.notify_one();
    }

    /// Takes up to `max` ids; those in `busy` are left for later.
    pub fn take(&self, max: usize, busy: impl Fn(InstanceId) -> bool) -> Vec<(InstanceId, RequestId)> {
        let mut dirty = self.dirty.lock();
        let ids: Vec<InstanceId> = dirty.keys().copied().filter(|id| !busy(*id)).take(max).collect();
        ids.into_iter().filter_map(|id| dirty.remove_entry(&id)).collect()
    }

    pub async fn woken(&self) {
        self.wake.notified().await;
    }

    /// The host's proof is awaited that NICs of the instance are detached.
    pub fn await_detach(&self, id: InstanceId) {
        self.detaching.lock().insert(id);
    }

    /// The host has caught up with the instance. Answers whether the instance's removed NICs waited for that.
    pub fn detached(&self, id: InstanceId) -> bool {
        self.detaching.lock().remove(&id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn waking_twice_is_waking_once_and_the_busy_wait() {
        let (signal, a, b) = (Signal::default(), InstanceId::new(), InstanceId::new());
        signal.wake([a, b], Some("r".into()));
        signal.wake([a], None);
        signal.woken().await;
        let taken = signal.take(10, |id| id == b);
        assert_eq!(taken, vec![(a, Some("r".into()))]);
        assert_eq!(signal.take(10, |_| false).len(), 1);
        assert!(signal.take(10, |_| false).is_empty());
    }
}
