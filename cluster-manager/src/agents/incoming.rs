//! Reports on their way to the one task that stores them ([`super::ingest`]).

use super::link::Link;
use crate::reconcile::report::Observation;
use std::sync::Arc;
use tokio::sync::mpsc;

const CHANNEL: usize = 4096;

/// A report and where it came from.
pub struct Incoming {
    pub link: Arc<Link>,
    pub observation: Observation,
}

#[derive(Clone)]
pub struct Reports {
    tx: mpsc::Sender<Incoming>,
}

impl Reports {
    #[must_use]
    pub fn channel() -> (Self, mpsc::Receiver<Incoming>) {
        let (tx, rx) = mpsc::channel(CHANNEL);
        (Self { tx }, rx)
    }

    /// Waits while reports come faster than they can be stored.
    pub async fn send(&self, incoming: Incoming) {
        // A closed channel means that the service stops; reports that aren't acknowledged come again.
        let _ = self.tx.send(incoming).await;
    }
}
