//! Shares one connection to a guest's serial port among everyone who watches or types.
//!
//! QEMU's socket takes one client, and a client that doesn't read makes the guest's console stall. So the hub holds the
//! one connection and always reads. Watchers get the output through a bounded queue: one that is too slow loses the
//! oldest output and gets [`Output::Skipped`] instead; it never holds up the guest or the others. Input goes through a
//! bounded queue as well, and there the writer waits for a guest that doesn't read. The hub looks for the
//! up line as output passes, and keeps the log's file small.

use parking_lot::Mutex;
use std::sync::Arc;

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::AbortHandle;

use super::log::ConsoleLog;
use super::scan::{GuestUp, Scanner};
use crate::qemu::socket::QemuSocket;

/// How many pieces of output are kept for a slow watcher, each of at most 4 KiB.
const OUTPUT_KEPT: usize = 256;
const INPUT_KEPT: usize = 64;
const READ_BYTES: usize = 4 << 10;
const RECONNECT_MAX: Duration = Duration::from_secs(1);

/// What a watcher gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    Data(Bytes),
    /// This many pieces were lost to this watcher, because it was too slow.
    Skipped(u64),
}

#[derive(Debug, Error)]
#[error("the console is closed")]
pub struct ConsoleClosed;

/// The hub of one console. It is cheap to clone; the connection closes with its last clone, watchers not counted.
#[derive(Debug, Clone)]
pub struct ConsoleHub {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    output: broadcast::Sender<Bytes>,
    input: mpsc::Sender<Bytes>,
    guest_up: watch::Receiver<Option<GuestUp>>,
    scanner: Arc<Mutex<Watchdog>>,
    task: AbortHandle,
}

/// The scanner and the channel that it reports to, under one lock, so that rearming and reporting can't interleave.
#[derive(Debug)]
struct Watchdog {
    scanner: Scanner,
    guest_up: watch::Sender<Option<GuestUp>>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl ConsoleHub {
    /// Starts a hub, which connects in the background, and again whenever the connection is lost, until it is dropped. The log is kept
    /// smaller than `log_max_bytes`.
    pub fn start(serial_socket: QemuSocket, log: ConsoleLog, log_max_bytes: u64) -> Self {
        let (output, _) = broadcast::channel(OUTPUT_KEPT);
        let (input, typed) = mpsc::channel(INPUT_KEPT);
        let (guest_up_sender, guest_up) = watch::channel(None);
        let scanner = Arc::new(Mutex::new(Watchdog { scanner: Scanner::default(), guest_up: guest_up_sender }));
        let pump =
            Pump { serial_socket, log, log_max_bytes, since_trim: 0, output: output.clone(), scanner: scanner.clone() };
        let task = tokio::spawn(pump.run(typed)).abort_handle();
        Self { shared: Arc::new(Shared { output, input, guest_up, scanner, task }) }
    }

    /// A watcher, which gets the output from now on.
    pub fn watch(&self) -> Watcher {
        Watcher { output: self.shared.output.subscribe() }
    }

    /// Types into the console. This waits while the guest doesn't read and the queue is full.
    pub async fn write(&self, bytes: Bytes) -> Result<(), ConsoleClosed> {
        self.shared.input.send(bytes).await.map_err(|_| ConsoleClosed)
    }

    /// The up line of the current boot, once the guest has printed it.
    pub fn guest_up(&self) -> watch::Receiver<Option<GuestUp>> {
        self.shared.guest_up.clone()
    }

    /// Waits for the up line again, because the guest boots again.
    pub fn rearm(&self) {
        let mut watchdog = self.shared.scanner.lock();
        watchdog.scanner.rearm();
        watchdog.guest_up.send_replace(None);
    }
}

/// One watcher's position in the output.
#[derive(Debug)]
pub struct Watcher {
    output: broadcast::Receiver<Bytes>,
}

impl Watcher {
    /// The next output; `None` when the console is closed.
    pub async fn next(&mut self) -> Option<Output> {
        match self.output.recv().await {
            Ok(bytes) => Some(Output::Data(bytes)),
            Err(broadcast::error::RecvError::Lagged(pieces)) => Some(Output::Skipped(pieces)),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

struct Pump {
    serial_socket: QemuSocket,
    log: ConsoleLog,
    log_max_bytes: u64,
    since_trim: u64,
    output: broadcast::Sender<Bytes>,
    scanner: Arc<Mutex<Watchdog>>,
}

impl Pump {
    async fn run(mut self, mut typed: mpsc::Receiver<Bytes>) {
        let mut pause = Duration::from_millis(2);
        // This was typed and not yet read by the guest; it survives a lost connection.
        let mut waiting = Bytes::new();
        self.trim();
        loop {
            if let Ok(stream) = self.serial_socket.connect().await {
                pause = Duration::from_millis(2);
                self.serve(stream, &mut typed, &mut waiting).await;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RECONNECT_MAX);
        }
    }

    /// Passes output and input on until the connection is lost.
    async fn serve(&mut self, stream: UnixStream, typed: &mut mpsc::Receiver<Bytes>, waiting: &mut Bytes) {
        let (mut read, mut write) = stream.into_split();
        let mut buffer = BytesMut::with_capacity(READ_BYTES);
        loop {
            buffer.reserve(READ_BYTES);
            tokio::select! {
                received = read.read_buf(&mut buffer) => match received {
                    Ok(n) if n > 0 => self.pass_on(buffer.split().freeze()),
                    Ok(_) | Err(_) => return,
                },
                // Cancelling this between two parts is safe: what was written is removed from `waiting` by then.
                written = write.write_buf(waiting), if !waiting.is_empty() => if written.is_err() { return },
                input = typed.recv(), if waiting.is_empty() => match input {
                    Some(bytes) => *waiting = bytes,
                    None => return,
                },
            }
        }
    }

    fn pass_on(&mut self, bytes: Bytes) {
        let mut watchdog = self.scanner.lock();
        if let Some(up) = watchdog.scanner.push(&bytes) {
            watchdog.guest_up.send_replace(Some(up));
        }
        drop(watchdog);
        self.since_trim += bytes.len() as u64;
        if self.since_trim > self.log_max_bytes / 2 {
            self.trim();
        }
        // An error means that nobody watches.
        let _ = self.output.send(bytes);
    }

    fn trim(&mut self) {
        self.since_trim = 0;
        let (log, max) = (self.log.clone(), self.log_max_bytes / 2);
        tokio::task::spawn_blocking(move || {
            if let Err(error) = log.trim(max)
                && log.path().exists()
            {
                tracing::warn!(path = %log.path().display(), %error, "a console log can't be kept small");
            }
        });
    }
}

#[cfg(test)]
#[path = "hub_tests.rs"]
mod tests;
