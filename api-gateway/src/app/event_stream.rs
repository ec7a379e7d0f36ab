//! One subscriber's events, as server-sent events: what the database has behind the id they name, then what the hub hands out.
//!
//! - Nothing is lost: the subscription to the hub begins before the database is read, and what both have is sent once.
//! - Nothing grows: a task fills a channel of a few chunks; a reader that takes none for `SLOW_AFTER` is disconnected and resumes with
//!   `Last-Event-ID`. A reader that only lags behind the hub's ring is served from the database.
//! - Nothing leaks: what a subscriber may see is asked anew with every keep-alive, so a lost role ends the stream.
//! - An id that is past retention (or from the future) gets `event: reset`: the reader must list anew, and goes on from now.

use crate::{
    app::{App, events::BATCH},
    auth::identity::Identity,
    failure::ApiError,
};
use bytes::Bytes;
use domain::{
    ErrorKind, Problem, ProjectId, UserId,
    event::Event,
    policy::{self, Action, Decision, Resource},
};
use service_kit::share::Place;
use std::{convert::Infallible, sync::Arc, time::Duration};
use store::ReadError;
use tokio::sync::{broadcast, mpsc};

const KEEP_ALIVE: Duration = Duration::from_secs(15);
const SLOW_AFTER: Duration = Duration::from_secs(20);
/// Chunks between the task and the socket.
const CHUNKS: usize = 8;
/// Events rendered into one chunk before it is handed on, bytes.
const CHUNK_BYTES: usize = 32 * 1024;

/// Which events a subscriber gets.
#[derive(Debug, Clone)]
pub enum EventScope {
    /// All that they may see.
    Visible,
    Project(ProjectId),
}

pub struct Subscription {
    pub identity: Arc<Identity>,
    pub scope: EventScope,
    /// The last id seen; `None` starts now.
    pub after: Option<i64>,
}

/// Which events the subscriber may see at this moment.
enum Filter {
    All,
    Projects(Vec<ProjectId>),
}

impl Filter {
    /// `None`: the subscriber may no longer see any.
    fn of(identity: &Identity, scope: &EventScope) -> Option<Self> {
        let may_read = |id: ProjectId| {
            policy::decide(&identity.principal, Action::ProjectRead, Resource::Project(id)) == Decision::Allow
        };
        match scope {
            EventScope::Project(id) => may_read(*id).then(|| Self::Projects(vec![*id])),
            EventScope::Visible if identity.principal.system_admin => Some(Self::All),
            EventScope::Visible => Some(Self::Projects(
                identity.principal.roles.iter().map(|(id, _)| *id).filter(|id| may_read(*id)).collect(),
            )),
        }
    }

    fn passes(&self, event: &Event) -> bool {
        match self {
            Self::All => true,
            Self::Projects(projects) => event.project_id.is_some_and(|id| projects.contains(&id)),
        }
    }

    /// The events behind `id` that pass, from the database: never more of it than these.
    async fn read_after(&self, app: &App, id: i64) -> Result<Vec<Event>, ReadError> {
        match self {
            Self::All => app.store().event_after(id, None, BATCH).await,
            Self::Projects(projects) => match projects.as_slice() {
                [] => Ok(Vec::new()),
                [only] => app.store().event_after(id, Some(*only), BATCH).await,
                several => app.store().event_after_among(id, several, BATCH).await,
            },
        }
    }
}

/// Why the task stops; the reader sees the end of the stream and comes back.
#[derive(Debug)]
enum StreamEnd {
    ReaderGone,
    ReaderSlow,
    NotAllowed,
    Shutdown,
    Failed(ApiError),
}

impl From<ApiError> for StreamEnd {
    fn from(error: ApiError) -> Self {
        Self::Failed(error)
    }
}

impl From<ReadError> for StreamEnd {
    fn from(error: ReadError) -> Self {
        Self::Failed(error.into())
    }
}

/// Opens the stream. The first chunk says from which id it starts, so that a reader cut off before its first event loses nothing.
pub async fn open(
    app: &App,
    subscription: Subscription,
    place: Place<UserId>,
) -> Result<mpsc::Receiver<Result<Bytes, Infallible>>, ApiError> {
    let filter = Filter::of(&subscription.identity, &subscription.scope).ok_or_else(|| {
        Problem::new(ErrorKind::PermissionDenied, "permission_denied", "this needs a role in the project")
    })?;
    let receiver = app.events().subscribe().await?;
    let (oldest, newest) = app.store().event_head().await?;
    let mut chunk = String::from("retry: 1000\n");
    let sent = match subscription.after {
        None => newest,
        Some(after) if after + 1 < oldest || after > newest => {
            chunk.push_str(&format!(
                "id: {newest}\nevent: reset\ndata: {{\"reason\":\"the id {after} is not kept\",\"oldest\":{oldest},\"newest\":{newest}}}\n\n"
            ));
            newest
        }
        Some(after) => after,
    };
    chunk.push_str(&format!("id: {sent}\n\n"));
    let (tx, rx) = mpsc::channel(CHUNKS);
    let pump = Pump {
        app: app.clone(),
        identity: subscription.identity,
        scope: subscription.scope,
        filter,
        sent,
        out: Out { tx, chunk, timeout: SLOW_AFTER },
    };
    app.tasks().spawn(async move {
        let end = pump.run(receiver).await;
        drop(place);
        match end {
            StreamEnd::Failed(error) => tracing::warn!(problem = %error.problem(), "an event stream ended"),
            StreamEnd::ReaderGone | StreamEnd::ReaderSlow | StreamEnd::NotAllowed | StreamEnd::Shutdown => {
                tracing::debug!(?end, "an event stream ended");
            }
        }
    });
    Ok(rx)
}

struct Out {
    tx: mpsc::Sender<Result<Bytes, Infallible>>,
    chunk: String,
    /// How long a reader may take nothing before it is disconnected.
    timeout: Duration,
}

impl Out {
    fn event(&mut self, event: &Event) {
        let json = serde_json::to_string(event).unwrap_or_default();
        self.chunk.push_str(&format!("id: {}\nevent: {}\ndata: {json}\n\n", event.id, event.kind));
    }

    /// Hands the chunk on; waits for a reader that is busy, not for one that sleeps.
    async fn flush(&mut self) -> Result<(), StreamEnd> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        let bytes = Bytes::from(std::mem::take(&mut self.chunk));
        match self.tx.send_timeout(Ok(bytes), self.timeout).await {
            Ok(()) => Ok(()),
            Err(mpsc::error::SendTimeoutError::Closed(_)) => Err(StreamEnd::ReaderGone),
            Err(mpsc::error::SendTimeoutError::Timeout(_)) => Err(StreamEnd::ReaderSlow),
        }
    }

    async fn flush_if_full(&mut self) -> Result<(), StreamEnd> {
        if self.chunk.len() >= CHUNK_BYTES { self.flush().await } else { Ok(()) }
    }
}

struct Pump {
    app: App,
    identity: Arc<Identity>,
    scope: EventScope,
    filter: Filter,
    /// Every visible event up to this id was sent.
    sent: i64,
    out: Out,
}

impl Pump {
    /// A reader that takes nothing delays no shutdown: it resumes elsewhere with the last id that it got.
    async fn run(mut self, mut receiver: broadcast::Receiver<Arc<Event>>) -> StreamEnd {
        let shutdown = self.app.shutdown().clone();
        let pumped = tokio::select! {
            pumped = self.pump(&mut receiver) => pumped,
            () = shutdown.cancelled() => return StreamEnd::Shutdown,
        };
        match pumped {
            Err(end) => end,
            Ok(never) => match never {},
        }
    }

    async fn pump(&mut self, receiver: &mut broadcast::Receiver<Arc<Event>>) -> Result<Infallible, StreamEnd> {
        self.catch_up().await?;
        let mut keep_alive = tokio::time::interval_at(tokio::time::Instant::now() + KEEP_ALIVE, KEEP_ALIVE);
        loop {
            tokio::select! {
                () = self.out.tx.closed() => return Err(StreamEnd::ReaderGone),
                _ = keep_alive.tick() => self.keep_alive().await?,
                received = receiver.recv() => match received {
                    Ok(event) => {
                        self.take(&event);
                        // Whatever else is there goes into the same chunk.
                        while self.out.chunk.len() < CHUNK_BYTES {
                            match receiver.try_recv() {
                                Ok(event) => self.take(&event),
                                Err(_) => break,
                            }
                        }
                        self.out.flush().await?;
                    }
                    Err(broadcast::error::RecvError::Lagged(_)) => self.catch_up().await?,
                    Err(broadcast::error::RecvError::Closed) => return Err(StreamEnd::Shutdown),
                }
            }
        }
    }

    /// Sends what the database has behind `sent`.
    async fn catch_up(&mut self) -> Result<(), StreamEnd> {
        loop {
            let events = self.filter.read_after(&self.app, self.sent).await?;
            let last_page = events.len() < BATCH as usize;
            for event in &events {
                self.take(event);
                self.out.flush_if_full().await?;
            }
            self.out.flush().await?;
            if last_page {
                return Ok(());
            }
        }
    }

    fn take(&mut self, event: &Event) {
        if event.id <= self.sent {
            return;
        }
        self.sent = event.id;
        if self.filter.passes(event) {
            self.out.event(event);
        }
    }

    async fn keep_alive(&mut self) -> Result<(), StreamEnd> {
        let current = self.app.auth().identities.again(&self.identity).await?;
        let filter = current.as_ref().and_then(|identity| Filter::of(identity, &self.scope));
        let (Some(identity), Some(filter)) = (current, filter) else { return Err(StreamEnd::NotAllowed) };
        (self.identity, self.filter) = (identity, filter);
        self.out.chunk.push_str(": keep-alive\n\n");
        self.out.flush().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_reader_that_takes_nothing_is_given_up_and_holds_a_bounded_number_of_chunks() {
        let (tx, mut rx) = mpsc::channel(CHUNKS);
        let mut out = Out { tx, chunk: String::new(), timeout: Duration::from_millis(20) };
        let mut sent = 0;
        let end = loop {
            out.chunk.push_str(": x\n\n");
            match out.flush().await {
                Ok(()) => sent += 1,
                Err(end) => break end,
            }
        };
        assert!(matches!(end, StreamEnd::ReaderSlow), "{end:?}");
        assert_eq!(sent, CHUNKS);
        rx.recv().await.expect("a chunk is there").expect("bytes");
        out.chunk.push_str(": y\n\n");
        out.flush().await.expect("a reader that reads again goes on");
        drop(rx);
        out.chunk.push_str(": z\n\n");
        assert!(matches!(out.flush().await, Err(StreamEnd::ReaderGone)));
    }

    #[test]
    fn a_filter_shows_what_the_roles_allow() {
        use domain::{
            Timestamp, UserId,
            policy::{Principal, Role},
        };
        let (mine, other) = (ProjectId::new(), ProjectId::new());
        let identity = |system_admin, roles| Identity {
            user_id: UserId::new(),
            user_name: "ann".into(),
            system_admin,
            session_version: 1,
            home_project_id: None,
            principal: Principal { user_id: UserId::new(), system_admin, roles },
            api_key: None,
            label: "user:x".into(),
            display: "ann".into(),
        };
        let event = |project_id| Event {
            id: 1,
            at: Timestamp(0),
            project_id,
            kind: "a.b".into(),
            object_kind: "a".into(),
            object_id: "x".into(),
            message: String::new(),
            request_id: String::new(),
            data: serde_json::Value::Null,
        };
        let passes =
            |who: &Identity, scope, project| Filter::of(who, &scope).is_some_and(|f| f.passes(&event(project)));
        let (ann, root) = (identity(false, vec![(mine, Role::Reader)]), identity(true, vec![]));
        assert!(passes(&ann, EventScope::Visible, Some(mine)));
        assert!(!passes(&ann, EventScope::Visible, Some(other)));
        assert!(!passes(&ann, EventScope::Visible, None), "the system's own are for its administrators");
        assert!(passes(&root, EventScope::Visible, None));
        assert!(passes(&root, EventScope::Project(other), Some(other)));
        assert!(!passes(&root, EventScope::Project(other), Some(mine)));
        assert!(Filter::of(&ann, &EventScope::Project(other)).is_none());
    }
}
