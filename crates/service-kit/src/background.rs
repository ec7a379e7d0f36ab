//! The tasks that a role runs by itself, beside the calls that it serves.
//!
//! A task like that must run as long as its role does: a preemption loop or a reconciler that has silently ended is an outage that nothing
//! shows. So each is started under a name ([`Background::start`]), and the role is served under their supervision
//! ([`Background::supervise`]): the first one that ends or panics before the shutdown ends the whole role, with an error that names it.
//! A role that has ended is started again by whoever runs it, and every task resumes from state.

use std::{collections::HashMap, future::Future};
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

#[derive(Default)]
pub struct Background {
    tasks: JoinSet<()>,
    names: HashMap<Id, &'static str>,
}

/// A background task is over although its role wasn't told to stop.
#[derive(Debug, thiserror::Error)]
pub enum TaskEnded {
    #[error("the background task {0} ended by itself")]
    Returned(&'static str),
    #[error("the background task {0} died")]
    Died(&'static str, #[source] JoinError),
}

impl Background {
    /// Starts a task that runs until the role's shutdown.
    pub fn start(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let handle = self.tasks.spawn(task);
        self.names.insert(handle.id(), name);
    }

    /// Runs `serving` to its end, then cancels `shutdown` and waits for all tasks. A task that ends or panics earlier cancels `shutdown`
    /// as well, so that `serving` finishes the calls in progress; the error names the task.
    pub async fn supervise<T>(
        mut self,
        shutdown: &CancellationToken,
        serving: impl Future<Output = T>,
    ) -> Result<T, TaskEnded> {
        let mut serving = std::pin::pin!(serving);
        let mut failure = None;
        let served = loop {
            tokio::select! {
                served = &mut serving => break served,
                Some(ended) = self.tasks.join_next_with_id() => {
                    failure = failure.or(self.unexpected_end(ended, shutdown));
                    shutdown.cancel();
                }
            }
        };
        shutdown.cancel();
        while let Some(ended) = self.tasks.join_next_with_id().await {
            failure = failure.or(self.unexpected_end(ended, shutdown));
        }
        failure.map_or(Ok(served), Err)
    }

    /// A panic is never expected; an end is after the shutdown.
    fn unexpected_end(&self, ended: Result<(Id, ()), JoinError>, shutdown: &CancellationToken) -> Option<TaskEnded> {
        let id = ended.as_ref().map_or_else(JoinError::id, |(id, ())| *id);
        let task = self.names.get(&id).copied().unwrap_or("without a name");
        match ended {
            Ok(_) if shutdown.is_cancelled() => {
                tracing::debug!(task, "a background task ended");
                None
            }
            Ok(_) => {
                tracing::error!(task, "a background task ended by itself, so its role ends");
                Some(TaskEnded::Returned(task))
            }
            Err(error) => {
                tracing::error!(
                    task,
                    error = &error as &dyn std::error::Error,
                    "a background task died, so its role ends"
                );
                Some(TaskEnded::Died(task, error))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport;

    /// A role with one task of its own that lasts and one that does what `task` says, served over a real listener.
    async fn serve(
        shutdown: &CancellationToken,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), TaskEnded> {
        let (listener, _target) = transport::in_process();
        let mut background = Background::default();
        let until = shutdown.clone();
        background.start("lasting", async move { until.cancelled().await });
        background.start("tested", task);
        let router = tonic::transport::Server::builder().add_routes(tonic::service::Routes::default());
        background.supervise(shutdown, transport::serve(router, listener, shutdown.clone())).await.map(|served| {
            served.expect("the server ends cleanly");
        })
    }

    #[tokio::test]
    async fn a_task_that_panics_or_ends_ends_its_role_with_an_error_that_names_it() {
        let shutdown = CancellationToken::new();
        let died = serve(&shutdown, async { panic!("a defect") }).await.expect_err("the role ends");
        assert!(matches!(died, TaskEnded::Died("tested", _)) && shutdown.is_cancelled(), "{died}");
        let shutdown = CancellationToken::new();
        let ended = serve(&shutdown, async {}).await.expect_err("the role ends");
        assert_eq!(ended.to_string(), "the background task tested ended by itself");
    }

    #[tokio::test]
    async fn after_a_shutdown_every_end_is_expected_but_a_panic() {
        let shutdown = CancellationToken::new();
        let until = shutdown.clone();
        let role = async { serve(&shutdown, async move { until.cancelled().await }).await };
        let (ended, ()) = tokio::join!(role, async { shutdown.cancel() });
        ended.expect("the role was told to end");
        let shutdown = CancellationToken::new();
        shutdown.cancel();
        serve(&shutdown, async { panic!("a defect at the end") }).await.expect_err("a panic is a defect at any time");
    }
}
