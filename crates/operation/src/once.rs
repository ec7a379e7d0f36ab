//! Execution of an operation once, however often it is requested.

use crate::{InFlight, find_outcome};
use domain::{OperationId, Problem};
use prost::Message;
use service_kit::context::CallContext;
use store::{OperationTable, Store};

/// The operations of one owner.
pub struct Operations {
    store: Store,
    table: OperationTable,
    in_flight: InFlight<OperationId>,
}

impl Operations {
    #[must_use]
    pub fn new(store: Store, table: OperationTable) -> Self {
        Self { store, table, in_flight: InFlight::default() }
    }

    /// Runs a change under its operation's id. `change` stores its answer with itself ([`crate::store_outcome`]); a repeat gets that answer,
    /// whatever else would stop it. Without an operation id, and for a dry run, this is `change` alone.
    pub async fn execute_once<M, F>(&self, context: &CallContext, change: F) -> Result<M, Problem>
    where
        M: Message + Default,
        F: Future<Output = Result<M, Problem>>,
    {
        let Some(id) = context.operation_id.filter(|_| !context.dry_run) else { return change.await };
        let turn = self.in_flight.enter(id).await;
        if turn.waited
            && let Some(answer) = find_outcome(&self.store, self.table, id).await?
        {
            return Ok(answer);
        }
        let problem = match change.await {
            Ok(answer) => return Ok(answer),
            Err(problem) => problem,
        };
        // When this can't be read, the outcome is unknown, and that is the failure which is retried.
        let stored = find_outcome(&self.store, self.table, id).await?;
        if stored.is_some() {
            tracing::info!(operation_id = %id, "a repeated operation gets its first answer");
        }
        stored.ok_or(problem)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store_outcome;
    use domain::{ErrorKind, Timestamp};
    use std::sync::atomic::{AtomicU32, Ordering};
    use store::{Unit, testing::TestStore};

    struct Lab {
        store: TestStore,
        operations: Operations,
        changes: AtomicU32,
    }

    impl Lab {
        async fn new() -> Self {
            let store = TestStore::sqlite().await;
            let operations = Operations::new(store.store.clone(), OperationTable::Storage);
            Self { store, operations, changes: AtomicU32::new(0) }
        }

        /// Prost's messages are strings here.
        async fn change(&self, context: &CallContext) -> Result<String, Problem> {
            let change = async {
                let answer = format!("answer {}", self.changes.fetch_add(1, Ordering::Relaxed));
                if context.dry_run {
                    return Ok(answer);
                }
                let mut unit = Unit::new();
                store_outcome(&mut unit, OperationTable::Storage, context, &answer, Timestamp(1));
                self.store.commit(unit).await.map_err(crate::commit_problem)?;
                Ok(answer)
            };
            self.operations.execute_once(context, change).await
        }
    }

    fn context(operation_id: Option<OperationId>, dry_run: bool) -> CallContext {
        CallContext { operation_id, dry_run, ..CallContext::default() }
    }

    #[tokio::test]
    async fn a_repeat_gets_the_first_answer_and_others_their_own() {
        let lab = Lab::new().await;
        let first = context(Some(OperationId::new()), false);
        assert_eq!(lab.change(&first).await, Ok("answer 0".to_owned()));
        assert_eq!(lab.change(&first).await, Ok("answer 0".to_owned()), "the repeat was tried and refused");
        let (a, b) = tokio::join!(lab.change(&first), lab.change(&first));
        assert_eq!((a, b), (Ok("answer 0".to_owned()), Ok("answer 0".to_owned())));
        let tried = lab.changes.load(Ordering::Relaxed);
        assert_eq!(tried, 3, "who waited for another attempt finds its answer without one of its own");
        let other = context(Some(OperationId::new()), false);
        assert_eq!(lab.change(&other).await, Ok("answer 3".to_owned()));
    }

    #[tokio::test]
    async fn a_dry_run_and_a_call_without_an_id_pass_by() {
        let lab = Lab::new().await;
        let id = OperationId::new();
        assert_eq!(lab.change(&context(Some(id), true)).await, Ok("answer 0".to_owned()));
        assert_eq!(lab.change(&context(None, false)).await, Ok("answer 1".to_owned()));
        let stored: Option<String> = find_outcome(&lab.store, OperationTable::Storage, id).await.expect("it reads");
        assert_eq!(stored, None);
    }

    #[tokio::test]
    async fn a_refusal_without_a_stored_answer_stays_a_refusal() {
        let lab = Lab::new().await;
        let refused = async { Err::<String, _>(Problem::invalid_state("not now")) };
        let answer = lab.operations.execute_once(&context(Some(OperationId::new()), false), refused).await;
        assert_eq!(answer.expect_err("refused").kind, ErrorKind::InvalidState);
    }
}
