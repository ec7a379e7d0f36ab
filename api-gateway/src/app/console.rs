//! Sessions with an instance's console, by way of the cluster-manager: the live serial port behind a WebSocket here, the log in
//! `console_log`. The instance's host calls the cluster-manager back, so opening one takes a moment and can be refused.

use crate::{
    app::{App, console_ticket::Grant},
    http::problem::ApiError,
};
use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use bytes::Bytes;
use domain::{InstanceId, ProjectId};
use futures::{SinkExt, StreamExt};
use proto::cluster::v1::{self as pb, console_input::Input, console_open::What};
use service_kit::context::CallContext;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

/// What the guest printed last, shown when a console opens.
const REPLAY_BYTES: u32 = 8 * 1024;
/// Keystrokes on their way.
const BUFFERED: usize = 64;
/// One message of a client: a paste, at most.
pub const INPUT_BYTES_MAX: usize = 64 * 1024;
const PING_EVERY: Duration = Duration::from_secs(20);
/// A client from which not even the answer to a ping came.
const SILENT: Duration = Duration::from_secs(65);

/// An open session with the instance's host.
pub struct Session {
    pub(super) input: mpsc::Sender<pb::ConsoleInput>,
    pub(super) output: Streaming<pb::ConsoleOutput>,
}

pub(super) async fn open(
    app: &App,
    context: &CallContext,
    project_id: ProjectId,
    instance_id: InstanceId,
    what: What,
) -> Result<Session, ApiError> {
    let (input, stream) = mpsc::channel(BUFFERED);
    let open =
        pb::ConsoleOpen { project_id: project_id.to_string(), instance_id: instance_id.to_string(), what: Some(what) };
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
            Self::Guest => {
                (close_code::NORMAL, "the console ended: the instance was stopped or its console closed".to_owned())
            }
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
            if input.send(pb::ConsoleInput { input: Some(Input::Data(data)) }).await.is_err() {
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
                    Ok(Some(pb::ConsoleOutput { data, .. })) => Message::Binary(data),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_close_reason_fits_its_frame() {
        let frame = End::Host("é".repeat(100)).frame().expect("a frame");
        assert_eq!((frame.reason.as_str().len(), frame.code), (122, close_code::ERROR));
    }
}
