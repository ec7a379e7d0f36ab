//! Commits whose outcome isn't known: once they must have ended, the database says what came of them.

use super::StepError;
use crate::Manager;

pub(super) async fn step(manager: &Manager) -> Result<(), StepError> {
    let mut failure = None;
    for doubt in manager.ripe_doubts() {
        let keys = manager.refresh(&doubt.keys).await;
        let addresses = manager.refresh_addresses(&doubt.addresses).await;
        if let Err(error) = keys.and(addresses) {
            failure = Some(error);
            manager.doubt_again(doubt);
        }
    }
    failure.map_or(Ok(()), |error| Err(StepError::Read(error)))
}
