//! What a guest printed on its serial console, kept by its host up to a bound: as it is now, or followed.

use crate::{
    app::{
        App,
        console::{self, Session},
        console_ticket::Grant,
    },
    failure::ApiError,
};
use bytes::{Bytes, BytesMut};
use domain::{ErrorKind, Problem};
use proto::cluster::v1::{self as pb, console_open::What};
use std::time::Duration;
use tokio::sync::mpsc;

/// What one request without `follow` returns at most; the next goes on from `X-Next-Offset`.
pub const LOG_BYTES_MAX: u64 = 8 * 1024 * 1024;
pub const LOG_TAIL_BYTES: u64 = 64 * 1024;
/// Pieces of a followed log on their way to the caller.
const CHUNKS: usize = 8;
/// How long a caller may take none of them.
const SLOW_AFTER: Duration = Duration::from_secs(60);
/// How long a followed log's first bytes are waited for, so that a refusal by its host is an answer and not a cut stream.
const FIRST: Duration = Duration::from_millis(250);

/// Where a log is read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFrom {
    Tail(u64),
    Offset(u64),
}

/// Part of a log that is complete for now.
pub struct LogPart {
    pub bytes: Bytes,
    /// The offset of the first byte.
    pub offset: u64,
    /// The offset to continue from.
    pub next_offset: u64,
    /// Whether the requested beginning is no longer kept.
    pub truncated: bool,
}

/// A log that goes on.
pub struct LogStream {
    session: Session,
    first: Option<pb::ConsoleOutput>,
}

async fn open(app: &App, grant: &Grant, from: LogFrom, follow: bool) -> Result<Session, ApiError> {
    let (offset, tail_bytes) = match from {
        LogFrom::Tail(bytes) => (None, bytes),
        LogFrom::Offset(offset) => (Some(offset), 0),
    };
    let what = What::Log(pb::ConsoleLog { offset, tail_bytes, follow });
    console::open(app, &grant.context, grant.project_id, grant.instance_id, what).await
}

/// What there is of the log now, at most [`LOG_BYTES_MAX`] of it.
pub async fn read(app: &App, grant: &Grant, from: LogFrom) -> Result<LogPart, ApiError> {
    let mut session = open(app, grant, from, false).await?;
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

/// The log from there on, as the guest prints.
pub async fn follow(app: &App, grant: &Grant, from: LogFrom) -> Result<LogStream, ApiError> {
    let mut session = open(app, grant, from, true).await?;
    let first = match tokio::time::timeout(FIRST, session.output.message()).await {
        Ok(first) => first?,
        // Nothing printed yet.
        Err(_) => None,
    };
    Ok(LogStream { session, first })
}

impl LogStream {
    /// The offset of the first byte, when it is already known.
    #[must_use]
    pub fn offset(&self) -> Option<u64> {
        self.first.as_ref().map(|first| first.next_offset.saturating_sub(first.data.len() as u64))
    }

    #[must_use]
    pub fn truncated(&self) -> bool {
        self.first.as_ref().is_some_and(|first| first.truncated)
    }

    /// The bytes, until the guest's console ends, the server stops, or the right to read them does. A host that goes away cuts it, and so does a lost
    /// right, so that it doesn't look complete. A task reads them: a caller who takes nothing holds the session for `SLOW_AFTER` at most.
    pub fn bytes(self, app: App, grant: Grant) -> mpsc::Receiver<Result<Bytes, Problem>> {
        let (tx, rx) = mpsc::channel(CHUNKS);
        let tasks = app.tasks().clone();
        tasks.spawn(async move {
            let copied = tokio::select! {
                copied = self.copy(&tx) => copied,
                () = grant.lost(&app) => {
                    let detail = "you are no longer allowed to read this console";
                    Err(Problem::new(ErrorKind::PermissionDenied, "permission_denied", detail))
                }
                () = app.shutdown().cancelled() => Ok(()),
            };
            if let Err(problem) = copied {
                // A caller who is gone needs no reason.
                let _ = tx.send_timeout(Err(problem), SLOW_AFTER).await;
            }
        });
        rx
    }

    async fn copy(self, tx: &mpsc::Sender<Result<Bytes, Problem>>) -> Result<(), Problem> {
        // Dropping the input would tell the host that nobody reads.
        let Self { session: Session { input: _input, mut output }, first } = self;
        let mut next = first;
        loop {
            if let Some(output) = next.take() {
                let slow = || {
                    Problem::new(ErrorKind::DeadlineExceeded, "request_timeout", "what the console prints isn't read")
                };
                match tx.send_timeout(Ok(output.data), SLOW_AFTER).await {
                    Ok(()) => {}
                    Err(mpsc::error::SendTimeoutError::Closed(_)) => return Ok(()),
                    Err(mpsc::error::SendTimeoutError::Timeout(_)) => return Err(slow()),
                }
            }
            let message = tokio::select! {
                () = tx.closed() => return Ok(()),
                message = output.message() => message,
            };
            match message {
                Ok(Some(output)) => next = Some(output),
                Ok(None) => return Ok(()),
                Err(status) => return Err(proto::status::from_status(&status)),
            }
        }
    }
}
