//! A client for one QMP connection.
//!
//! One task reads and one writes. Whoever executes a command registers for the answer under the command's id, and waits for a limited time.
//! An answer that comes too late is dropped, and the connection stays usable, because ids distinguish the answers. QEMU serves one connection
//! per monitor socket: a second one waits until the first is closed, so [`QmpClient::connect`] times out if somebody else is connected.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use proto::port_socket::send_with_fd;
use serde_json::{Value, json};
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::task::AbortHandle;

use super::wire::{Decoder, Event, Message, WireError};
use crate::qemu::socket::QemuSocket;

/// The timeout of commands that QEMU answers from memory.
pub const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);
/// How many events are kept for a subscriber that is behind.
const EVENTS_KEPT: usize = 256;

#[derive(Debug, Error)]
pub enum QmpError {
    #[error("the connection to the monitor {path} failed")]
    Connect {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("what answered on the monitor socket isn't QMP: {found}")]
    NotQmp { found: String },
    #[error("QEMU closed the monitor connection")]
    Closed,
    #[error("QEMU didn't answer {command} within {after:?}")]
    Timeout { command: String, after: Duration },
    #[error("QEMU refused {command}: {desc} ({class})")]
    Refused { command: String, class: String, desc: String },
    #[error("QEMU's answer to {command} has an unexpected form")]
    Shape {
        command: String,
        #[source]
        source: serde_json::Error,
    },
}

impl QmpError {
    /// Whether QEMU itself refused the command, rather than not having been reached.
    pub fn refused(&self) -> bool {
        matches!(self, Self::Refused { .. })
    }
}

/// One command as it is sent, with the file that is sent along.
struct Line {
    text: String,
    file: Option<OwnedFd>,
}

type Answer = Result<Value, (String, String)>;

/// A connected client. It is cheap to clone; the connection closes with its last clone.
#[derive(Debug, Clone)]
pub struct QmpClient {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Takes whole lines, so that a caller that gives up leaves none half written.
    writer: mpsc::Sender<Line>,
    pending: Arc<Mutex<Pending>>,
    next_id: AtomicU64,
    events: broadcast::Sender<Event>,
    closed: watch::Receiver<bool>,
    version: Value,
    reader: AbortHandle,
}

#[derive(Debug, Default)]
struct Pending {
    answers: HashMap<u64, oneshot::Sender<Answer>>,
    closed: bool,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl QmpClient {
    /// Connects, reads the greeting and leaves negotiation mode.
    pub async fn connect(socket: &QemuSocket, timeout: Duration) -> Result<Self, QmpError> {
        let failed = |source| QmpError::Connect { path: socket.path.clone(), source };
        let stream = match tokio::time::timeout(timeout, socket.connect()).await {
            Ok(result) => result.map_err(failed)?,
            Err(_) => return Err(failed(io::ErrorKind::TimedOut.into())),
        };
        Self::over(stream, timeout).await
    }

    /// Makes a client of a stream that is connected already (see [`crate::qemu::launch::wait_ready`]).
    pub async fn over(stream: UnixStream, timeout: Duration) -> Result<Self, QmpError> {
        let (mut read, writer) = stream.into_split();
        let mut decoder = Decoder::default();
        let greeting = tokio::time::timeout(timeout, read_message(&mut read, &mut decoder)).await;
        let version = match greeting {
            Err(_) => return Err(QmpError::Timeout { command: "the connection".into(), after: timeout }),
            Ok(Err(_)) => return Err(QmpError::Closed),
            Ok(Ok(Ok(Message::Greeting { version }))) => version,
            Ok(Ok(other)) => return Err(QmpError::NotQmp { found: format!("{other:?}").chars().take(120).collect() }),
        };
        let (events, _) = broadcast::channel(EVENTS_KEPT);
        let (closed_tx, closed) = watch::channel(false);
        let pending = Arc::new(Mutex::new(Pending::default()));
        let reading = read_loop(read, decoder, pending.clone(), events.clone(), closed_tx);
        let reader = tokio::spawn(reading).abort_handle();
        let (lines, waiting) = mpsc::channel(16);
        tokio::spawn(write_loop(writer, waiting));
        let client = Self {
            shared: Arc::new(Shared {
                writer: lines,
                pending,
                next_id: AtomicU64::new(1),
                events,
                closed,
                version,
                reader,
            }),
        };
        client.execute("qmp_capabilities", Value::Null, timeout).await?;
        Ok(client)
    }

    /// Runs a command; `arguments` is an object, or null for none.
    pub async fn execute(&self, command: &str, arguments: Value, timeout: Duration) -> Result<Value, QmpError> {
        self.send(command, arguments, None, timeout).await
    }

    /// Runs a command with which `file` is sent, which is `getfd` or `add-fd`.
    pub async fn execute_with_file(
        &self,
        command: &str,
        arguments: Value,
        file: OwnedFd,
        timeout: Duration,
    ) -> Result<Value, QmpError> {
        self.send(command, arguments, Some(file), timeout).await
    }

    async fn send(
        &self,
        command: &str,
        arguments: Value,
        file: Option<OwnedFd>,
        timeout: Duration,
    ) -> Result<Value, QmpError> {
        let id = self.shared.next_id.fetch_add(1, Ordering::Relaxed);
        let mut request = json!({"execute": command, "id": id});
        if !arguments.is_null() {
            request["arguments"] = arguments;
        }
        let line = Line { text: format!("{request}\n"), file };
        let (sender, receiver) = oneshot::channel();
        {
            let mut pending = self.pending();
            if pending.closed {
                return Err(QmpError::Closed);
            }
            pending.answers.insert(id, sender);
        }
        // This removes the registration when the future ends, in whatever way.
        let _pending = PendingAnswer { pending: &self.shared.pending, id };
        let exchange = async {
            self.shared.writer.send(line).await.map_err(|_| QmpError::Closed)?;
            receiver.await.map_err(|_| QmpError::Closed)
        };
        match tokio::time::timeout(timeout, exchange).await {
            Ok(Ok(Ok(value))) => Ok(value),
            Ok(Ok(Err((class, desc)))) => Err(QmpError::Refused { command: command.into(), class, desc }),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(QmpError::Timeout { command: command.into(), after: timeout }),
        }
    }

    /// Subscribes to events from now on. A subscriber that falls more than 256 behind gets the number of lost events and should use
    /// `query-status`.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.shared.events.subscribe()
    }

    /// Returns when the connection has ended, which is when QEMU ends or soon after.
    pub async fn closed(&self) {
        let mut closed = self.shared.closed.clone();
        // An error means that the reader is gone, which means the same.
        let _ = closed.wait_for(|closed| *closed).await;
    }

    /// The version in the greeting: `{"qemu": {"major", "minor", "micro"}, "package"}`.
    pub fn greeting_version(&self) -> &Value {
        &self.shared.version
    }

    fn pending(&self) -> parking_lot::MutexGuard<'_, Pending> {
        self.shared.pending.lock()
    }
}

struct PendingAnswer<'a> {
    pending: &'a Mutex<Pending>,
    id: u64,
}

impl Drop for PendingAnswer<'_> {
    fn drop(&mut self) {
        self.pending.lock().answers.remove(&self.id);
    }
}

/// Reads the next message, or the wire error in its place; `Err` if the stream has ended.
async fn read_message(read: &mut OwnedReadHalf, decoder: &mut Decoder) -> io::Result<Result<Message, WireError>> {
    let mut chunk = [0; 4096];
    loop {
        match decoder.next_message() {
            Ok(Some(message)) => return Ok(Ok(message)),
            Ok(None) => {}
            Err(error) => return Ok(Err(error)),
        }
        match read.read(&mut chunk).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => decoder.push(&chunk[..n]),
        }
    }
}

/// Writes lines until the last client or QEMU is gone, and then closes its half of the connection.
async fn write_loop(mut writer: OwnedWriteHalf, mut lines: mpsc::Receiver<Line>) {
    while let Some(Line { text, file }) = lines.recv().await {
        let written = async {
            let sent = match &file {
                Some(file) => send_with_file(&writer, text.as_bytes(), file).await?,
                None => 0,
            };
            writer.write_all(&text.as_bytes()[sent..]).await
        };
        if written.await.is_err() {
            break;
        }
    }
}

/// Sends the beginning of `bytes` with `file`. Returns how many bytes were sent.
async fn send_with_file(writer: &OwnedWriteHalf, bytes: &[u8], file: &OwnedFd) -> io::Result<usize> {
    let stream = writer.as_ref();
    let send = || send_with_fd(stream.as_fd(), bytes, file.as_fd());
    stream.async_io(Interest::WRITABLE, send).await
}

async fn read_loop(
    mut read: OwnedReadHalf,
    mut decoder: Decoder,
    pending: Arc<Mutex<Pending>>,
    events: broadcast::Sender<Event>,
    closed: watch::Sender<bool>,
) {
    while let Ok(message) = read_message(&mut read, &mut decoder).await {
        let (id, answer) = match message {
            Ok(Message::Return { id, value }) => (id, Ok(value)),
            Ok(Message::Error { id, class, desc }) => (id, Err((class, desc))),
            Ok(Message::Event(event)) => {
                // An error means that there is no subscriber.
                let _ = events.send(event);
                continue;
            }
            Ok(Message::Greeting { .. } | Message::Unknown) => continue,
            Err(WireError::NotJson(text)) => {
                tracing::warn!(text, "a line from QEMU's monitor is no JSON");
                continue;
            }
            Err(WireError::TooLong) => break,
        };
        let waiting = id.and_then(|id| pending.lock().answers.remove(&id));
        if let Some(waiting) = waiting {
            // An error means that the caller has just given up.
            let _ = waiting.send(answer);
        }
    }
    let mut pending = pending.lock();
    pending.closed = true;
    pending.answers.clear();
    drop(pending);
    let _ = closed.send(true);
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
