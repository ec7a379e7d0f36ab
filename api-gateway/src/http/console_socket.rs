//! The live serial console behind a WebSocket: bytes both ways until either side ends, or the right to it does. The right is watched beside the
//! bytes, so that a client that doesn't read holds up neither the check nor the end.

use crate::app::{App, console::Session, console_ticket::Grant};
use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use proto::cluster::v1::{self as pb, console_input::Input};
use std::time::Duration;

/// The longest message of a client: a paste.
pub const INPUT_BYTES_MAX: usize = 64 * 1024;
const PING_EVERY: Duration = Duration::from_secs(20);
/// How long a client may take to read what is sent to it.
const SLOW: Duration = Duration::from_secs(60);
/// How long a client may stay silent, which doesn't even answer pings, before it is disconnected.
const SILENT: Duration = Duration::from_secs(65);

/// Why a session ended.
enum Ending {
    Client,
    Silent,
    /// It doesn't read.
    Slow,
    Guest,
    Host(String),
    /// The principal has lost the right.
    NotAllowed,
    Shutdown,
}

impl Ending {
    fn frame(self) -> Option<CloseFrame> {
        let (code, reason) = match self {
            // Its close frame was answered already, or there is nobody to tell.
            Self::Client => return None,
            Self::Silent => (close_code::POLICY, "no answer to pings".to_owned()),
            Self::Slow => (close_code::POLICY, "what the console prints isn't read".to_owned()),
            Self::Guest => {
                (close_code::NORMAL, "the console ended: the instance was stopped or its console closed".to_owned())
            }
            Self::Host(reason) => (close_code::ERROR, reason),
            Self::NotAllowed => (close_code::POLICY, "you are no longer allowed to use this console".to_owned()),
            Self::Shutdown => (close_code::AWAY, "the server is shutting down: request a new ticket".to_owned()),
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
                Err(_) => return Ending::Silent,
                Ok(Some(Ok(Message::Binary(data)))) => data,
                Ok(Some(Ok(Message::Text(text)))) => Bytes::from(text),
                Ok(Some(Ok(Message::Ping(_) | Message::Pong(_)))) => continue,
                Ok(Some(Ok(Message::Close(_)) | Err(_)) | None) => return Ending::Client,
            };
            if input.send(pb::ConsoleInput { input: Some(Input::Data(data)) }).await.is_err() {
                // The host's side ended; its task reports why.
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
                    Ok(None) => return Ending::Guest,
                    Err(status) => return Ending::Host(proto::status::from_status(&status).detail),
                },
                _ = pings.tick() => Message::Ping(Bytes::new()),
            };
            match tokio::time::timeout(SLOW, sink.send(message)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Ending::Client,
                Err(_) => return Ending::Slow,
            }
        }
    };
    let end = tokio::select! {
        end = typed => end,
        end = printed => end,
        () = grant.lost(app) => Ending::NotAllowed,
        () = app.shutdown().cancelled() => Ending::Shutdown,
    };
    if let Some(frame) = end.frame() {
        let farewell = async {
            // A client that is gone needs no close frame.
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
        let frame = Ending::Host("é".repeat(100)).frame().expect("a frame");
        assert_eq!((frame.reason.as_str().len(), frame.code), (122, close_code::ERROR));
    }
}
