//! Merges calls that wait at the same time into one.
//!
//! A create costs a call to the storage-manager and a read of its image. At a thousand creates a second that is thousands of calls
//! that each carry one row, and each is a commit there. So while as many calls as allowed are on their way, those that come meanwhile
//! gather, and go together in the next. Nobody waits for a timer: alone, a call goes at once. An answer is never older than its request:
//! a call that was already on its way answers nobody who came after it.
//!
//! A batch whose answer panics takes its own callers along, and nobody else: it runs on a task of its own from its first instruction, so the
//! worker goes on with the next.

use std::{future::Future, sync::Arc};
use tokio::{
    sync::{mpsc, oneshot},
    task::{JoinError, JoinSet},
};
use tokio_util::task::TaskTracker;

/// Why a call has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    #[error("the service is shutting down")]
    Stopped,
    /// The batch panicked.
    #[error("the request was lost by a mistake of the service; try again")]
    Lost,
}

pub struct Coalescer<I, O> {
    tx: mpsc::Sender<(I, oneshot::Sender<O>)>,
}

impl<I: Send + 'static, O: Send + 'static> Coalescer<I, O> {
    /// `answer` answers each item of a batch of at most `max`, in order; `at_once` batches may be on their way. The worker ends when the
    /// last handle is dropped.
    pub fn start<F, Fut>(tasks: &TaskTracker, max: usize, at_once: usize, answer: F) -> Self
    where
        F: Fn(Vec<I>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Vec<O>> + Send + 'static,
    {
        let (tx, mut rx) = mpsc::channel::<(I, oneshot::Sender<O>)>(max.saturating_mul(4));
        let answer = Arc::new(answer);
        tasks.spawn(async move {
            let mut waiting = Vec::with_capacity(max);
            let mut running = JoinSet::new();
            loop {
                while running.len() >= at_once {
                    note(running.join_next().await);
                }
                if rx.recv_many(&mut waiting, max).await == 0 {
                    break;
                }
                let (items, callers): (Vec<I>, Vec<_>) = waiting.drain(..).unzip();
                let answer = Arc::clone(&answer);
                running.spawn(async move {
                    for (caller, answer) in callers.into_iter().zip(answer(items).await) {
                        // A caller that gave up needs no answer.
                        let _ = caller.send(answer);
                    }
                });
                while let Some(ended) = running.try_join_next() {
                    note(Some(ended));
                }
            }
            while let Some(ended) = running.join_next().await {
                note(Some(ended));
            }
        });
        Self { tx }
    }

    pub async fn call(&self, item: I) -> Result<O, NoAnswer> {
        let (tx, rx) = oneshot::channel();
        self.tx.send((item, tx)).await.map_err(|_| NoAnswer::Stopped)?;
        rx.await.map_err(|_| if self.tx.is_closed() { NoAnswer::Stopped } else { NoAnswer::Lost })
    }
}

/// What became of a batch. Its callers know already.
fn note(ended: Option<Result<(), JoinError>>) {
    if let Some(Err(error)) = ended {
        metrics::counter!("iaas_coalesced_batches_lost_total").increment(1);
        tracing::error!(
            error = &error as &dyn std::error::Error,
            "a batch of calls died; its callers are told to try again"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

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

    #[tokio::test]
    async fn a_batch_that_panics_takes_its_own_callers_along_and_nobody_else() {
        let tasks = TaskTracker::new();
        // Before the answer is awaited, and while it is.
        let coalescer = Coalescer::start(&tasks, 1, 1, |items: Vec<u32>| {
            assert_ne!(items[0], 0, "at once");
            async move {
                assert_ne!(items[0], 1, "later");
                items
            }
        });
        for panics in [0, 1] {
            assert_eq!(coalescer.call(panics).await, Err(NoAnswer::Lost));
            assert_eq!(coalescer.call(7).await, Ok(7), "the worker goes on");
        }
        drop(coalescer);
        tasks.close();
        tasks.wait().await;
    }
}
