//! Instances for all who wait for one, read together.
//!
//! **Problem.** One commit of the cluster-manager can wake hundreds of waiters. Each reading its own row is hundreds of queries for one
//! fsync's worth of change. **Rejected:** a cache (what a waiter must not see is an old row), and a task that reads by a timer (a delay
//! for everybody).
//!
//! Whoever wants a row joins a queue. If nobody reads now, a reader starts at once, takes the whole queue, reads it in one query,
//! answers, and goes on until the queue is empty. What is asked for while it reads makes the next batch, so batches grow with the load
//! and a lone request waits for nothing.
//!
//! Invariant: an answer was read after it was asked for.

use domain::{InstanceId, instance::Instance};
use parking_lot::{Mutex, MutexGuard};
use std::{collections::HashMap, sync::Arc};
use store::{ReadError, Store};
use tokio::sync::oneshot;

/// Rows of one query.
const BATCH: usize = 500;

type Answer = Result<Option<Instance>, ReadError>;

pub struct InstanceLoader(Arc<Shared>);

struct Shared {
    store: Store,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    reading: bool,
    queued: Vec<(InstanceId, oneshot::Sender<Answer>)>,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock()
    }
}

/// Ends the reading even if it panics: the next request then starts a new reader.
struct Reading {
    shared: Arc<Shared>,
    finished: bool,
}

impl Drop for Reading {
    fn drop(&mut self) {
        if !self.finished {
            self.shared.queue().reading = false;
        }
    }
}

impl InstanceLoader {
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self(Arc::new(Shared { store, queue: Mutex::default() }))
    }

    /// The instance as it is now; `None` when it is gone.
    pub async fn load(&self, id: InstanceId) -> Answer {
        loop {
            let (answer, answered) = oneshot::channel();
            let start = {
                let mut queue = self.0.queue();
                queue.queued.push((id, answer));
                !std::mem::replace(&mut queue.reading, true)
            };
            if start {
                // A task of its own: the one who asked first may go away in the middle.
                tokio::spawn(read_all(Reading { shared: Arc::clone(&self.0), finished: false }));
            }
            if let Ok(answer) = answered.await {
                return answer;
            }
            // The reader died; ask again.
        }
    }
}

async fn read_all(mut reading: Reading) {
    let shared = Arc::clone(&reading.shared);
    loop {
        let batch = {
            let mut queue = shared.queue();
            let count = queue.queued.len().min(BATCH);
            if count == 0 {
                // Under the lock, so that nobody joins a queue that is no longer read.
                queue.reading = false;
                reading.finished = true;
                return;
            }
            queue.queued.drain(..count).collect::<Vec<_>>()
        };
        let mut ids: Vec<InstanceId> = batch.iter().map(|(id, _)| *id).collect();
        ids.sort_unstable();
        ids.dedup();
        match shared.store.instance_load_many(&ids).await {
            Ok(rows) => {
                let found: HashMap<InstanceId, Instance> = rows.into_iter().map(|row| (row.id, row.instance)).collect();
                for (id, answer) in batch {
                    // An error means that it is no longer queued.
                    let _ = answer.send(Ok(found.get(&id).cloned()));
                }
            }
            Err(error) => {
                for (_, answer) in batch {
                    let _ = answer.send(Err(error.clone()));
                }
            }
        }
    }
}
