//! Console sessions that wait for their agent's call, and how many are open.

use domain::ProjectId;
use parking_lot::Mutex;
use proto::agent::v1 as agent;
use service_kit::share::{Exhausted, Place, Pool, SharedPool};
use std::collections::HashMap;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

/// The agent's side of a session, for the caller's.
pub struct AgentSide {
    pub from_agent: Streaming<agent::ConsoleUp>,
    pub to_agent: mpsc::Sender<agent::ConsoleDown>,
    pub ended: CancellationToken,
}

pub struct Sessions {
    waiting: Mutex<HashMap<String, oneshot::Sender<AgentSide>>>,
    places: SharedPool<ProjectId>,
}

impl Sessions {
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { waiting: Mutex::default(), places: SharedPool::new(Pool::Consoles, max) }
    }

    /// A place for one more session of the project.
    pub fn place(&self, project_id: ProjectId) -> Result<Place<ProjectId>, Exhausted> {
        self.places.take(project_id)
    }

    /// Waits for the agent that will present the session's id, until what it answers is dropped.
    pub fn expect(&self, session_id: &str) -> (oneshot::Receiver<AgentSide>, Expected<'_>) {
        let (tx, rx) = oneshot::channel();
        self.waiting.lock().insert(session_id.to_owned(), tx);
        (rx, Expected { sessions: self, session_id: session_id.to_owned() })
    }

    /// The caller that waits for the session's agent. It is found once.
    pub fn take_caller(&self, session_id: &str) -> Option<oneshot::Sender<AgentSide>> {
        self.waiting.lock().remove(session_id)
    }
}

/// Forgets a session that no agent joined.
pub struct Expected<'a> {
    sessions: &'a Sessions,
    session_id: String,
}

impl Drop for Expected<'_> {
    fn drop(&mut self) {
        self.sessions.waiting.lock().remove(&self.session_id);
    }
}
