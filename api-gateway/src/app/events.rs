//! One reader of the event table per process, for all who wait.
//!
//! **Problem.** Hundreds of event streams and of `?wait=` requests want to know of changes within milliseconds. **Rejected:** each polling
//! the database (N readers of the same rows), and handing events over in memory from whoever commits them (other processes' changes
//! would be missed, and the order of ids is known only after the commit).
//!
//! The hub reads `event_after(position)` when this process committed an event (the store says so) and by a timer for those of other
//! processes; never when nobody waits. It hands events, in the order of ids, to subscribers through a bounded ring, and wakes those who
//! wait for one object. Whoever falls behind the ring reads the database again from where it was: nothing is lost, nothing grows.
//!
//! Invariant: every event with an id above the position at the time of `subscribe` reaches the subscriber or is reported as lag.

use crate::{config::ApiConfig, failure::ApiError};
use domain::{ErrorKind, Problem, UserId, event::Event};
use parking_lot::Mutex;
use service_kit::share::{Exhausted, Place, Pool, SharedPool};
use std::{collections::HashMap, sync::Arc, time::Duration};
use store::Store;
use tokio::sync::{Notify, broadcast, watch};
use tokio_util::sync::CancellationToken;

/// Events the ring holds for slow subscribers.
const RING: usize = 1024;
/// Rows of one read.
pub const BATCH: u32 = 500;

pub struct EventHub {
    store: Store,
    poll: Duration,
    ring: broadcast::Sender<Arc<Event>>,
    waiters: Mutex<HashMap<String, Waiting>>,
    /// The id of the last event handed out; `None` while nobody waits.
    position: tokio::sync::Mutex<Option<i64>>,
    interest: Notify,
    /// The places of streams.
    streams: SharedPool<UserId>,
}

struct Waiting {
    count: usize,
    changed: watch::Sender<()>,
}

/// Wakes when an event about one object was committed. May wake for nothing; never misses one after its making.
pub struct ObjectWatch<'a> {
    hub: &'a EventHub,
    object_id: String,
    changed: watch::Receiver<()>,
}

impl ObjectWatch<'_> {
    pub async fn changed(&mut self) {
        // The sender stays in the map as long as this is.
        let _ = self.changed.changed().await;
    }
}

impl Drop for ObjectWatch<'_> {
    fn drop(&mut self) {
        let mut waiters = self.hub.waiters.lock();
        if let Some(waiting) = waiters.get_mut(&self.object_id) {
            waiting.count -= 1;
            if waiting.count == 0 {
                waiters.remove(&self.object_id);
            }
        }
    }
}

impl EventHub {
    #[must_use]
    pub fn new(store: Store, config: &ApiConfig) -> Self {
        Self {
            store,
            poll: Duration::from_millis(config.event_poll_ms),
            ring: broadcast::channel(RING).0,
            waiters: Mutex::default(),
            position: tokio::sync::Mutex::new(None),
            interest: Notify::new(),
            streams: SharedPool::new(Pool::EventStreams, config.max_event_streams),
        }
    }

    /// A place for one more stream of the user.
    pub fn place(&self, user_id: UserId) -> Result<Place<UserId>, Problem> {
        self.streams.take(user_id).map_err(|exhausted| {
            let detail = match exhausted {
                Exhausted::Share => "you have as many event streams open as one user may have now",
                Exhausted::Total => "too many event streams are open",
            };
            let mut problem = Problem::new(ErrorKind::RateLimited, "too_many_streams", detail)
                .with_hint("close some of them, or ask an administrator to raise api.max_event_streams");
            problem.retry_after_secs = Some(10);
            problem
        })
    }

    /// Every event committed from now on. Read the database up to its end after this, then take from here what has a higher id.
    pub async fn subscribe(&self) -> Result<broadcast::Receiver<Arc<Event>>, ApiError> {
        let receiver = self.ring.subscribe();
        self.activate().await?;
        Ok(receiver)
    }

    /// To wait for a change of one object: make this, read the object, and wait only if it isn't as expected yet.
    pub async fn watch_object(&self, object_id: impl Into<String>) -> Result<ObjectWatch<'_>, ApiError> {
        let object_id = object_id.into();
        let watch = {
            let mut waiters = self.waiters.lock();
            let fresh = || Waiting { count: 0, changed: watch::Sender::new(()) };
            let waiting = waiters.entry(object_id.clone()).or_insert_with(fresh);
            waiting.count += 1;
            ObjectWatch { hub: self, object_id, changed: waiting.changed.subscribe() }
        };
        self.activate().await?;
        Ok(watch)
    }

    async fn activate(&self) -> Result<(), ApiError> {
        let mut position = self.position.lock().await;
        if position.is_none() {
            *position = Some(self.store.event_head().await?.1);
            self.interest.notify_one();
        }
        Ok(())
    }

    /// Returns whether nobody waits, and forgets the position then.
    async fn rests(&self) -> bool {
        let mut position = self.position.lock().await;
        let waiters = self.waiters.lock().len();
        let idle = self.ring.receiver_count() == 0 && waiters == 0;
        if idle {
            *position = None;
        }
        position.is_none()
    }

    /// Runs until `shutdown`.
    pub async fn run(&self, shutdown: CancellationToken) {
        let mut committed = self.store.event_watch();
        let mut failing = false;
        loop {
            if self.rests().await {
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = self.interest.notified() => {}
                }
            }
            committed.mark_unchanged();
            let full = match self.hand_out().await {
                Ok(count) => {
                    failing = false;
                    count == BATCH as usize
                }
                Err(error) => {
                    if !failing {
                        tracing::warn!(
                            cause = service_kit::error_chain(&error),
                            "events can't be read; it is tried again"
                        );
                    }
                    failing = true;
                    false
                }
            };
            if full {
                continue;
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                changed = committed.changed(), if !failing => {
                    if changed.is_err() {
                        return;
                    }
                }
                () = tokio::time::sleep(self.poll) => {}
            }
        }
    }

    async fn hand_out(&self) -> Result<usize, store::ReadError> {
        let mut position = self.position.lock().await;
        let Some(after) = *position else { return Ok(0) };
        let events = self.store.event_after(after, None, BATCH).await?;
        let count = events.len();
        for event in events {
            *position = Some(event.id);
            if let Some(waiting) = self.waiters.lock().get(event.object_id.as_str()) {
                // Each of several waiters sees it, also one that looks just now.
                waiting.changed.send_replace(());
            }
            // An error means that nobody listens.
            let _ = self.ring.send(Arc::new(event));
        }
        Ok(count)
    }
}
