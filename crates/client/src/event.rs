//! Events as they happen (server-sent events), with nothing lost across reconnects: each has an id, and the stream is taken up behind
//! the last one seen.

use crate::{Client, ClientError, http::Call, model::Event};
use std::{collections::VecDeque, time::Duration};

/// A stream that says nothing for this long (the server sends keep-alives) is dead.
const SILENCE: Duration = Duration::from_secs(60);
/// Between two connections.
const PAUSE: Duration = Duration::from_millis(500);

/// What a stream says.
#[derive(Debug, Clone, PartialEq)]
pub enum EventMessage {
    Event(Event),
    /// The id to go on from is past the server's retention: what happened since must be read anew.
    Reset,
}

/// A subscription. [`EventStream::next`] reconnects by itself.
#[derive(Debug)]
pub struct EventStream {
    client: Client,
    query: Vec<(String, String)>,
    last_id: Option<String>,
    answer: Option<reqwest::Response>,
    parser: SseParser,
    ready: VecDeque<SseMessage>,
}

impl EventStream {
    /// The id of the last event given out.
    #[must_use]
    pub fn last_id(&self) -> Option<&str> {
        self.last_id.as_deref()
    }

    /// The next event. Lost connections are made again; only a refusal (or a server that stays away) is an error.
    pub async fn next(&mut self) -> Result<EventMessage, ClientError> {
        loop {
            if let Some(message) = self.ready.pop_front() {
                if !message.id.is_empty() {
                    self.last_id = Some(message.id.clone());
                }
                if message.event == "reset" {
                    return Ok(EventMessage::Reset);
                }
                match serde_json::from_str(&message.data) {
                    Ok(event) => return Ok(EventMessage::Event(event)),
                    Err(source) => {
                        return Err(ClientError::Answer {
                            method: "GET".into(),
                            path: "/v1/events".into(),
                            status: 200,
                            source,
                        });
                    }
                }
            }
            if self.answer.is_none() {
                self.connect().await?;
            }
            let Some(answer) = self.answer.as_mut() else { continue };
            match tokio::time::timeout(SILENCE, answer.chunk()).await {
                Ok(Ok(Some(bytes))) => self.ready.extend(self.parser.push(&bytes)),
                Ok(Ok(None) | Err(_)) | Err(_) => {
                    self.answer = None;
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    async fn connect(&mut self) -> Result<(), ClientError> {
        self.parser = SseParser::default();
        let mut call = Call::get("/v1/events", &self.query);
        call.answer_within = None;
        call.headers.push(("accept", "text/event-stream".to_owned()));
        call.headers.extend(self.last_id.iter().map(|id| ("last-event-id", id.clone())));
        self.answer = Some(self.client.send(&call).await?);
        Ok(())
    }
}

impl Client {
    /// Subscribes to the project's events (with `all`, as a system admin, to everybody's) behind the id `after`; `None`: from now on.
    #[must_use]
    pub fn events(&self, after: Option<i64>, all: bool) -> EventStream {
        let mut query = Vec::new();
        if all {
            query.push(("all_projects".to_owned(), "true".to_owned()));
        }
        EventStream {
            client: self.clone(),
            query,
            last_id: after.map(|id| id.to_string()),
            answer: None,
            parser: SseParser::default(),
            ready: VecDeque::new(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct SseMessage {
    id: String,
    event: String,
    data: String,
}

/// Lines to messages, by the HTML standard's section 9.2.6 (CR, LF or both end a line; a blank line ends a message).
#[derive(Debug, Default)]
struct SseParser {
    line: Vec<u8>,
    after_cr: bool,
    message: SseMessage,
    has_data: bool,
}

impl SseParser {
    fn push(&mut self, bytes: &[u8]) -> Vec<SseMessage> {
        let mut out = Vec::new();
        for byte in bytes {
            match byte {
                b'\n' if self.after_cr => self.after_cr = false,
                b'\n' | b'\r' => {
                    self.after_cr = *byte == b'\r';
                    let line = std::mem::take(&mut self.line);
                    out.extend(self.end_line(&String::from_utf8_lossy(&line)));
                }
                _ => {
                    self.after_cr = false;
                    self.line.push(*byte);
                }
            }
        }
        out
    }

    fn end_line(&mut self, line: &str) -> Option<SseMessage> {
        if line.is_empty() {
            let message = std::mem::take(&mut self.message);
            return std::mem::take(&mut self.has_data).then_some(message);
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => self.message.id = value.to_owned(),
            "event" => self.message.event = value.to_owned(),
            "data" => {
                if self.has_data {
                    self.message.data.push('\n');
                }
                self.message.data.push_str(value);
                self.has_data = true;
            }
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_the_same_however_they_are_cut() {
        let text = ": keep-alive\n\nid: 7\nevent: instance.running\ndata: {\"a\":\ndata: 1}\n\nid: 8\r\ndata:x\r\n\r\nid: 9\n\n";
        let expected = vec![
            SseMessage { id: "7".into(), event: "instance.running".into(), data: "{\"a\":\n1}".into() },
            SseMessage { id: "8".into(), event: String::new(), data: "x".into() },
        ];
        for cut in 1..text.len() {
            let mut parser = SseParser::default();
            let got: Vec<_> = text.as_bytes().chunks(cut).flat_map(|c| parser.push(c)).collect();
            assert_eq!(got, expected, "cut every {cut} bytes");
        }
    }
}
