//! An instance's serial console: bytes both ways over a WebSocket, opened with a ticket that works once. The handshake is done over
//! the same HTTP stack as everything else, so that it trusts the same certificates and finds the same server.

use crate::{
    Client, ClientError,
    http::{Call, segment},
    model::ConsoleTicket,
    mutation::Mutation,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use reqwest::{Method, StatusCode, Upgraded, Url};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{self, Message, handshake::derive_accept_key, protocol::Role},
};

/// An open console.
#[derive(Debug)]
pub struct Console {
    socket: WebSocketStream<Upgraded>,
}

impl Client {
    /// A ticket for one console session, valid for a minute.
    pub fn instance_console_ticket(&self, instance: &str) -> Mutation<ConsoleTicket> {
        Mutation::new(self, Method::POST, format!("/v1/instances/{}/console-ticket", segment(instance)))
    }

    /// Opens the serial console.
    pub async fn instance_console(&self, instance: &str) -> Result<Console, ClientError> {
        let ticket = self.instance_console_ticket(instance).await?;
        let url = self.console_url(&ticket.url)?;
        let key = STANDARD.encode(uuid::Uuid::new_v4().as_bytes());
        let request = self
            .http1
            .get(url)
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", &key);
        let unreachable = |source| ClientError::Unreachable { url: self.base_url().to_owned(), source };
        let answer = request.send().await.map_err(unreachable)?;
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(crate::http::problem(&Call::get("/v1/console", &[]), answer).await);
        }
        if crate::http::header_text(&answer, "sec-websocket-accept") != derive_accept_key(key.as_bytes()) {
            return Err(ClientError::NotWebSocket { url: self.base_url().to_owned() });
        }
        let upgraded = answer.upgrade().await.map_err(unreachable)?;
        Ok(Console { socket: WebSocketStream::from_raw_socket(upgraded, Role::Client, None).await })
    }

    /// The ticket's address, which may be a path or a WebSocket URL, at the server we talk to.
    fn console_url(&self, ticket_url: &str) -> Result<Url, ClientError> {
        let invalid = |_| ClientError::Url { url: ticket_url.to_owned() };
        if ticket_url.starts_with('/') {
            return self.url(ticket_url);
        }
        let http = ticket_url.replacen("wss://", "https://", 1).replacen("ws://", "http://", 1);
        let given = Url::parse(&http).map_err(invalid)?;
        // The server may know itself under another name than we do: only the path and the query are its to say.
        let mut url = self.base.clone();
        url.set_path(given.path());
        url.set_query(given.query());
        Ok(url)
    }
}

impl Console {
    /// Types.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), ClientError> {
        self.socket.send(Message::Binary(bytes)).await.map_err(failed)
    }

    /// What the guest printed next; `None` when the console was closed.
    pub async fn read(&mut self) -> Result<Option<Bytes>, ClientError> {
        while let Some(message) = self.socket.next().await {
            match message.map_err(failed)? {
                Message::Binary(bytes) => return Ok(Some(bytes)),
                Message::Text(text) => return Ok(Some(Bytes::from(text))),
                Message::Close(_) => return Ok(None),
                // Pings are answered by the library.
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
        Ok(None)
    }

    /// Leaves; an error no longer matters.
    pub async fn close(mut self) {
        let _ = self.socket.close(None).await;
    }
}

fn failed(error: tungstenite::Error) -> ClientError {
    ClientError::Console { source: Box::new(error) }
}
