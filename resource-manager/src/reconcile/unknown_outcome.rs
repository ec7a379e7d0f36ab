//! Commits whose outcome isn't known: once they must have ended, the database says what came of them.

use super::StepError;
use crate::Manager;

pub(super) async fn step(manager: &Manager) -> Result<(), StepError> {
    let mut failure = None;
    for outcome in manager.due_unknown_outcomes() {
        let keys = manager.refresh(&outcome.keys).await;
        let addresses = manager.refresh_addresses(&outcome.addresses).await;
        if let Err(error) = keys.and(addresses) {
            failure = Some(error);
            manager.watch_unknown_outcome(outcome);
        }
    }
    failure.map_or(Ok(()), |error| Err(StepError::Read(error)))
}
