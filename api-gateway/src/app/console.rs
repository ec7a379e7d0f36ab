//! Consoles: tickets that open one, the live serial port behind a WebSocket, and the log of what the guest printed.
//!
//! Browsers can't send a token with a WebSocket's handshake, and a token in a URL ends up in logs. So a caller with the right asks for a
//! ticket first: random, good for one session within a minute, for that instance and that principal. Tickets live in this process's
//! memory alone; a restart forgets them, which costs the caller one more request.

use crate::{
    app::App,
    auth::{api_key::random_hex, identity::Identity, scope::Caller},
    http::problem::ApiError,
};
use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use bytes::{Bytes, BytesMut};
use domain::{
    InstanceId, Problem, ProjectId, Timestamp,
    policy::{self, Action, Decision, Resource},
};
use futures::{SinkExt, StreamExt};
use proto::cluster::v1::{self as pb, console_input::Input, console_open::What};
use service_kit::context::CallContext;
use sha2::{Digest, Sha256};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

pub const TICKET_SECS: u64 = 60;
/// Tickets that nobody has used; past it the oldest go first.
const TICKETS_MAX: usize = 10_000;
/// What the guest printed last, shown when a console opens.
const REPLAY_BYTES: u32 = 8 * 1024;
/// Keystrokes on their way.
const BUFFERED: usize = 64;
/// One message of a client: a paste, at most.
pub const INPUT_BYTES_MAX: usize = 64 * 1024;
const PING_EVERY: Duration = Duration::from_secs(20);
/// A client from which not even the answer to a ping came.
const SILENT: Duration = Duration::from_secs(65);
/// What one request for a log without `follow` returns at most; the next goes on from `X-Next-Offset`.
pub const LOG_BYTES_MAX: u64 = 8 * 1024 * 1024;
pub const LOG_TAIL_BYTES: u64 = 64 * 1024;

/// Whose console, and for whom.
#[derive(Debug, Clone)]
pub struct Grant {
    pub project_id: ProjectId,
    pub instance_id: InstanceId,
    /// Who asked. The right is asked for anew when the ticket is used, and while the session lasts.
    pub identity: Arc<Identity>,
    /// The session's calls carry it.
    pub context: CallContext,
}

impl Grant {
    #[must_use]
    pub fn new(caller: &Caller, project_id: ProjectId, instance_id: InstanceId) -> Self {
        Self { project_id, instance_id, identity: Arc::clone(&caller.identity), context: caller.context(None, false) }
    }

    /// Whether the principal (still) has the right: roles, keys and users go.
    pub async fn stands(&self, app: &App) -> Result<bool, ApiError> {
        let current = app.auth().identities.again(app, &self.identity).await?;
        let resource = Resource::Project(self.project_id);
        Ok(current.is_some_and(|identity| {
            policy::decide(&identity.principal, Action::ProjectWrite, resource) == Decision::Allow
        }))
    }
}

#[derive(Default)]
pub struct Tickets {
    /// By hash, so that how long a look takes says nothing of the tickets there are.
    granted: Mutex<HashMap<[u8; 32], (Instant, Grant)>>,
}

impl Tickets {
    /// A new ticket, and when it ends.
    pub fn issue(&self, grant: Grant, now: Instant) -> (String, Timestamp) {
        let ticket = random_hex::<32>();
        let lifetime = Duration::from_secs(TICKET_SECS);
        let mut granted = self.granted.lock().unwrap_or_else(PoisonError::into_inner);
        granted.retain(|_, (until, _)| *until > now);
        if granted.len() >= TICKETS_MAX
            && let Some(oldest) = granted.iter().min_by_key(|(_, (until, _))| *until).map(|(key, _)| *key)
        {
            granted.remove(&oldest);
        }
        granted.insert(key_of(&ticket), (now + lifetime, grant));
        (ticket, Timestamp::now().plus_secs(TICKET_SECS))
    }

    /// Uses a ticket up.
    pub fn take(&self, ticket: &str, now: Instant) -> Option<Grant> {
        let mut granted = self.granted.lock().unwrap_or_else(PoisonError::into_inner);
        granted.remove(&key_of(ticket)).filter(|(until, _)| *until > now).map(|(_, grant)| grant)
    }
}

fn key_of(ticket: &str) -> [u8; 32] {
    Sha256::digest(ticket.as_bytes()).into()
}

/// Where the ticket is used: `ws://…/v1/console?ticket=…`.
#[must_use]
pub fn url(app: &App, ticket: &str) -> String {
    let api = &app.config().api;
    let http = api.public_url.clone().unwrap_or_else(|| {
        let scheme = if api.uses_tls() { "https" } else { "http" };
        format!("{scheme}://{}", api.listen)
    });
    let base = match http.strip_prefix("https") {
        Some(rest) => format!("wss{rest}"),
        None => format!("ws{}", http.strip_prefix("http").unwrap_or(&http)),
    };
    format!("{base}/v1/console?ticket={ticket}")
}

/// An open session with the instance's host.
pub struct Session {
    input: mpsc::Sender<pb::ConsoleInput>,
    output: Streaming<pb::ConsoleOutput>,
}

async fn open(app: &App, context: &CallContext, project_id: ProjectId, instance_id: InstanceId, what: What) -> Result<Session, ApiError> {
    let (input, stream) = mpsc::channel(BUFFERED);
    let open = pb::ConsoleOpen {
        project_id: project_id.to_string(),
        instance_id: instance_id.to_string(),
        what: Some(what),
    };
    let opened = input.try_send(pb::ConsoleInput { input: Some(Input::Open(open)) });
    debug_assert!(opened.is_ok(), "an empty channel has room");
    let output = app.cluster().console(context.request(ReceiverStream::new(stream))).await?.into_inner();
    Ok(Session { input, output })
}

/// The live serial port.
pub async fn open_serial(app: &App, grant: &Grant) -> Result<Session, ApiError> {
    let what = What::Serial(pb::SerialConsole { replay_bytes: REPLAY_BYTES });
    open(app, &grant.context, grant.project_id, grant.instance_id, what).await
}

/// Why a session ended.
enum End {
    Client,
    Silent,
    Guest,
    Host(String),
    /// The principal lost the right.
    NotAllowed,
    Shutdown,
}

impl End {
    fn frame(self) -> Option<CloseFrame> {
        let (code, reason) = match self {
            // Its close frame was answered already, or there is nobody to tell.
            Self::Client => return None,
            Self::Silent => (close_code::POLICY, "no answer to pings".to_owned()),
            Self::Guest => (close_code::NORMAL, "the console ended: the instance was stopped or its console closed".to_owned()),
            Self::Host(reason) => (close_code::ERROR, reason),
            Self::NotAllowed => (close_code::POLICY, "you may no longer use this console".to_owned()),
            Self::Shutdown => (close_code::AWAY, "the server is going down: ask for another ticket".to_owned()),
        };
        // A control frame carries at most 125 bytes, two of them the code.
        let end = (0..=reason.len().min(123)).rev().find(|i| reason.is_char_boundary(*i)).unwrap_or(0);
        Some(CloseFrame { code, reason: reason[..end].to_owned().into() })
    }
}

/// Passes bytes both ways until either side ends.
pub async fn bridge(app: &App, grant: &Grant, socket: WebSocket, session: Session) {
    let Session { input, mut output } = session;
    let (mut sink, mut source) = socket.split();
    let typed = async {
        loop {
            let data = match tokio::time::timeout(SILENT, source.next()).await {
                Err(_) => return End::Silent,
                Ok(Some(Ok(Message::Binary(data)))) => data,
                Ok(Some(Ok(Message::Text(text)))) => Bytes::from(text),
                Ok(Some(Ok(Message::Ping(_) | Message::Pong(_)))) => continue,
                Ok(Some(Ok(Message::Close(_)) | Err(_)) | None) => return End::Client,
            };
            if input.send(pb::ConsoleInput { input: Some(Input::Data(data.into())) }).await.is_err() {
                // The other side ended, and says so there.
                return std::future::pending().await;
            }
        }
    };
    let printed = async {
        let mut pings = tokio::time::interval(PING_EVERY);
        loop {
            let message = tokio::select! {
                output = output.message() => match output {
                    Ok(Some(pb::ConsoleOutput { data, .. })) => Message::Binary(data.into()),
                    Ok(None) => return End::Guest,
                    Err(status) => return End::Host(proto::status::from_status(&status).detail),
                },
                _ = pings.tick() => match grant.stands(app).await {
                    Ok(false) => return End::NotAllowed,
                    // A database that doesn't answer for a moment takes no right away.
                    Ok(true) | Err(_) => Message::Ping(Bytes::new()),
                },
            };
            if sink.send(message).await.is_err() {
                return End::Client;
            }
        }
    };
    let end = tokio::select! {
        end = typed => end,
        end = printed => end,
        () = app.shutdown().cancelled() => End::Shutdown,
    };
    if let Some(frame) = end.frame() {
        let farewell = async {
            // A client that is gone needs none.
            let _ = sink.send(Message::Close(Some(frame))).await;
            let _ = sink.close().await;
        };
        let _ = tokio::time::timeout(Duration::from_secs(2), farewell).await;
    }
}

/// Where a log is read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFrom {
    Tail(u64),
    Offset(u64),
}

/// Part of a log that is complete for now.
pub struct LogPart {
    pub bytes: Bytes,
    /// Of the first byte.
    pub offset: u64,
    /// Ask again from here.
    pub next_offset: u64,
    /// The beginning asked for is no longer kept.
    pub truncated: bool,
}

/// A log that goes on.
pub struct LogStream {
    session: Session,
    first: Option<pb::ConsoleOutput>,
}

async fn open_log(app: &App, grant: &Grant, from: LogFrom, follow: bool) -> Result<Session, ApiError> {
    let (offset, tail_bytes) = match from {
        LogFrom::Tail(bytes) => (None, bytes),
        LogFrom::Offset(offset) => (Some(offset), 0),
    };
    let what = What::Log(pb::ConsoleLog { offset, tail_bytes, follow });
    open(app, &grant.context, grant.project_id, grant.instance_id, what).await
}

/// What there is of the log now, at most [`LOG_BYTES_MAX`] of it.
pub async fn read_log(app: &App, grant: &Grant, from: LogFrom) -> Result<LogPart, ApiError> {
    let mut session = open_log(app, grant, from, false).await?;
    let mut part = LogPart { bytes: Bytes::new(), offset: 0, next_offset: 0, truncated: false };
    let mut bytes = BytesMut::new();
    let mut first = true;
    while let Some(output) = session.output.message().await? {
        if first {
            part.offset = output.next_offset.saturating_sub(output.data.len() as u64);
            first = false;
        }
        part.truncated |= output.truncated;
        part.next_offset = output.next_offset;
        bytes.extend_from_slice(&output.data);
        if bytes.len() as u64 >= LOG_BYTES_MAX {
            break;
        }
    }
    if first && let LogFrom::Offset(offset) = from {
        // Nothing new was printed.
        (part.offset, part.next_offset) = (offset, offset);
    }
    part.bytes = bytes.freeze();
    Ok(part)
}

/// How long a followed log's first bytes are waited for, so that a refusal by its host is an answer and not a cut stream.
const FIRST: Duration = Duration::from_millis(250);

/// The log from there on, as the guest prints.
pub async fn follow_log(app: &App, grant: &Grant, from: LogFrom) -> Result<LogStream, ApiError> {
    let mut session = open_log(app, grant, from, true).await?;
    let first = match tokio::time::timeout(FIRST, session.output.message()).await {
        Ok(first) => first?,
        // Nothing printed yet.
        Err(_) => None,
    };
    Ok(LogStream { session, first })
}

impl LogStream {
    /// Of the first byte, when it is known already.
    #[must_use]
    pub fn offset(&self) -> Option<u64> {
        self.first.as_ref().map(|first| first.next_offset.saturating_sub(first.data.len() as u64))
    }

    #[must_use]
    pub fn truncated(&self) -> bool {
        self.first.as_ref().is_some_and(|first| first.truncated)
    }

    /// The bytes, until the guest's console ends or `shutdown`. A host that goes away cuts it, so that it doesn't look complete.
    pub fn bytes(self, shutdown: CancellationToken) -> impl futures::Stream<Item = Result<Bytes, Problem>> + Send {
        let Self { session: Session { input, mut output }, first } = self;
        async_stream::stream! {
            // Its end would tell the host that nobody reads.
            let _input = input;
            if let Some(first) = first {
                yield Ok(Bytes::from(first.data));
            }
            loop {
                let next = tokio::select! {
                    () = shutdown.cancelled() => break,
                    next = output.message() => next,
                };
                match next {
                    Ok(Some(output)) => yield Ok(Bytes::from(output.data)),
                    Ok(None) => break,
                    Err(status) => {
                        yield Err(proto::status::from_status(&status));
                        break;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{UserId, policy::Principal};

    fn grant() -> Grant {
        let principal = Principal { user_id: UserId::new(), system_admin: false, roles: vec![] };
        let identity = Identity {
            user_id: principal.user_id,
            user_name: "ann".to_owned(),
            system_admin: false,
            principal,
            api_key: None,
            label: "user:x".to_owned(),
            display: "ann".to_owned(),
        };
        Grant {
            project_id: ProjectId::new(),
            instance_id: InstanceId::new(),
            identity: Arc::new(identity),
            context: CallContext::default(),
        }
    }

    #[test]
    fn a_ticket_opens_once_and_within_its_time() {
        let (tickets, now, grant) = (Tickets::default(), Instant::now(), grant());
        let take = |ticket: &str, at| tickets.take(ticket, at).map(|g| g.instance_id);
        let (ticket, _) = tickets.issue(grant.clone(), now);
        let just_in_time = now + Duration::from_secs(TICKET_SECS - 1);
        assert_eq!(take(&ticket, just_in_time), Some(grant.instance_id));
        assert_eq!(take(&ticket, just_in_time), None, "used");
        let (late, _) = tickets.issue(grant, now);
        assert_eq!(take(&late, now + Duration::from_secs(TICKET_SECS)), None, "expired");
        assert_eq!(take("guess", now), None);
        assert!(tickets.granted.lock().expect("lock").is_empty());
    }

    #[test]
    fn unused_tickets_stay_bounded() {
        let (tickets, now) = (Tickets::default(), Instant::now());
        for i in 0..100 {
            tickets.issue(grant(), now + Duration::from_secs(i));
        }
        assert!(tickets.granted.lock().expect("lock").len() <= 60, "expired ones go");
    }

    #[test]
    fn a_close_reason_fits_its_frame() {
        let frame = End::Host("é".repeat(100)).frame().expect("a frame");
        assert_eq!((frame.reason.as_str().len(), frame.code), (122, close_code::ERROR));
    }
}
