//! Merges calls that wait at the same time into one.
//!
//! A create costs a call to the storage-manager and a read of its image. At a thousand creates a second that is thousands of calls
//! that each carry one row, and each is a commit there. So while as many calls as allowed are on their way, those that come meanwhile
//! gather, and go together in the next. Nobody waits for a timer: alone, a call goes at once. An answer is never older than its request:
//! a call that was already on its way answers nobody who came after it.

use std::future::Future;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};
use tokio_util::task::TaskTracker;

/// The worker has stopped: the service is shutting down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the service is shutting down")]
pub struct Stopped;

pub struct Coalescer<I, O> {
    tx: mpsc::Sender<(I, oneshot::Sender<O>)>,
}

impl<I: Send + 'static, O: Send + 'static> Coalescer<I, O> {
    /// `answer` answers each item of a batch of at most `max`, in order; `at_once` batches may be on their way. The worker ends when the
    /// last handle is dropped.
    pub fn start<F, Fut>(tasks: &TaskTracker, max: usize, at_once: usize, answer: F) -> Self
    where
        F: Fn(Vec<I>) -> Fut + Send + 'static,
        Fut: Future<Output = Vec<O>> + Send + 'static,
    {
        let (tx, mut rx) = mpsc::channel::<(I, oneshot::Sender<O>)>(max.saturating_mul(4));
        tasks.spawn(async move {
            let mut waiting = Vec::with_capacity(max);
            let mut running = JoinSet::new();
            loop {
                while running.len() >= at_once {
                    running.join_next().await;
                }
                if rx.recv_many(&mut waiting, max).await == 0 {
                    break;
                }
                let (items, callers): (Vec<I>, Vec<_>) = waiting.drain(..).unzip();
                let answers = answer(items);
                running.spawn(async move {
                    for (caller, answer) in callers.into_iter().zip(answers.await) {
                        // A caller that gave up needs no answer.
                        let _ = caller.send(answer);
                    }
                });
                while running.try_join_next().is_some() {}
            }
            running.join_all().await;
        });
        Self { tx }
    }

    pub async fn call(&self, item: I) -> Result<O, Stopped> {
        let (tx, rx) = oneshot::channel();
        self.tx.send((item, tx)).await.map_err(|_| Stopped)?;
        rx.await.map_err(|_| Stopped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    #[tokio::test]
    async fn calls_that_wait_together_go_together_and_each_gets_its_own_answer() {
        let (tasks, batches) = (TaskTracker::new(), Arc::new(AtomicUsize::new(0)));
        let gate = Arc::new(tokio::sync::Semaphore::new(0));
        let (counted, opened) = (Arc::clone(&batches), Arc::clone(&gate));
        let coalescer = Arc::new(Coalescer::start(&tasks, 64, 1, move |items: Vec<u32>| {
            counted.fetch_add(1, Ordering::SeqCst);
            let opened = Arc::clone(&opened);
            async move {
                opened.acquire().await.expect("open").forget();
                items.iter().map(|i| i * 2).collect()
            }
        }));
        let mut calls = Vec::new();
        for i in 0..20 {
            let coalescer = Arc::clone(&coalescer);
            calls.push(tokio::spawn(async move { coalescer.call(i).await }));
        }
        while batches.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        gate.add_permits(64);
        for (i, call) in calls.into_iter().enumerate() {
            assert_eq!(call.await.expect("no panic"), Ok(i as u32 * 2));
        }
        assert!(batches.load(Ordering::SeqCst) <= 3, "{batches:?} batches for 20 calls at once");
    }
}
