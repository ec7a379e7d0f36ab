//! One console session: the manager asked for it over the link, the agent calls back and carries bytes both ways.

use crate::{
    console::{ConsoleLog, Output},
    reconcile::context::Context,
};
use bytes::Bytes;
use domain::InstanceId;
use proto::{
    agent::v1::{self as pb, console_relay_client::ConsoleRelayClient, console_up::Up},
    cluster::v1::{ConsoleLog as LogRequest, ConsoleOpen, ConsoleOutput, SerialConsole, console_open::What},
};
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

/// Messages to the manager that may wait.
const QUEUE: usize = 64;
/// How long the other end may take to close.
const LINGER: std::time::Duration = std::time::Duration::from_secs(10);
/// Bytes of one message of a log.
const PIECE: usize = 32 << 10;

/// What the person at the other end reads when it doesn't work.
#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error("the instance is not on this host")]
    NotHere,
    #[error("the instance is not running, so its serial console isn't connected; its log can be read all the same")]
    NotRunning,
    #[error("the request names neither the serial console nor the log")]
    NothingRequested,
    #[error("the console log can't be read: {detail}")]
    Log { detail: String },
    /// The other end is gone; nobody is left to be told.
    #[error("the session has ended")]
    Gone,
}

pub async fn serve(context: Arc<Context>, mut client: ConsoleRelayClient<Channel>, open: pb::OpenSession) {
    let session_id = open.session_id;
    let (up, queue) = mpsc::channel(QUEUE);
    let start = pb::ConsoleUp { up: Some(Up::Start(pb::SessionStart { session_id: session_id.clone() })) };
    // The queue is empty and its end is held here.
    let _ = up.try_send(start);
    let mut down = match client.console_session(ReceiverStream::new(queue)).await {
        Ok(response) => response.into_inner(),
        Err(status) => return tracing::info!(session_id, %status, "the manager doesn't take the console session"),
    };
    let shutdown = context.shutdown.clone();
    let session = run(&context, open.open, &up, &mut down);
    let ended = tokio::select! {
        ended = session => ended,
        () = shutdown.cancelled() => return,
    };
    if let Err(error) = ended {
        let message = pb::ConsoleUp { up: Some(Up::Error(pb::SessionError { detail: error.to_string() })) };
        let _ = up.send(message).await;
    }
    // Dropping the answer's stream now would take back what is still on its way up: the other end closes first.
    drop(up);
    let drained = async { while let Ok(Some(_)) = down.message().await {} };
    tokio::select! {
        () = drained => {}
        () = tokio::time::sleep(LINGER) => {}
        () = shutdown.cancelled() => {}
    }
}

async fn run(
    context: &Context,
    open: Option<ConsoleOpen>,
    up: &mpsc::Sender<pb::ConsoleUp>,
    down: &mut tonic::Streaming<pb::ConsoleDown>,
) -> Result<(), SessionError> {
    let open = open.ok_or(SessionError::NothingRequested)?;
    let instance_id: InstanceId = open.instance_id.parse().map_err(|_| SessionError::NotHere)?;
    if context.ledger.held(instance_id).is_none() {
        return Err(SessionError::NotHere);
    }
    match open.what.ok_or(SessionError::NothingRequested)? {
        What::Serial(serial) => run_serial(context, instance_id, &serial, up, down).await,
        What::Log(request) => run_log(&context.console_log(instance_id), &request, up, down).await,
    }
}

async fn send(up: &mpsc::Sender<pb::ConsoleUp>, output: ConsoleOutput) -> Result<(), SessionError> {
    up.send(pb::ConsoleUp { up: Some(Up::Output(output)) }).await.map_err(|_| SessionError::Gone)
}

async fn run_serial(
    context: &Context,
    instance_id: InstanceId,
    serial: &SerialConsole,
    up: &mpsc::Sender<pb::ConsoleUp>,
    down: &mut tonic::Streaming<pb::ConsoleDown>,
) -> Result<(), SessionError> {
    let hub = context.console(instance_id).ok_or(SessionError::NotRunning)?;
    // Watched first, replayed then: what comes in between may be seen twice, but nothing is lost.
    let mut watcher = hub.watch();
    if serial.replay_bytes > 0
        && let Ok(past) = context.console_log(instance_id).tail(serial.replay_bytes as usize)
    {
        let next_offset = past.next_offset();
        send(up, ConsoleOutput { data: past.bytes.into(), next_offset, truncated: false }).await?;
    }
    loop {
        tokio::select! {
            output = watcher.next() => match output {
                Some(Output::Data(bytes)) => {
                    send(up, ConsoleOutput { data: bytes, next_offset: 0, truncated: false }).await?;
                }
                Some(Output::Skipped(_)) => {
                    send(up, ConsoleOutput { data: Bytes::new(), next_offset: 0, truncated: true }).await?;
                }
                // The instance stopped.
                None => return Ok(()),
            },
            typed = down.message() => match typed {
                Ok(Some(typed)) => hub.write(typed.data).await.map_err(|_| SessionError::NotRunning)?,
                Ok(None) | Err(_) => return Ok(()),
            },
        }
    }
}

async fn run_log(
    log: &ConsoleLog,
    request: &LogRequest,
    up: &mpsc::Sender<pb::ConsoleUp>,
    down: &mut tonic::Streaming<pb::ConsoleDown>,
) -> Result<(), SessionError> {
    let failed = |error: crate::console::log::LogError| SessionError::Log { detail: service_kit::error_chain(&error) };
    if !log.path().exists() {
        // It never ran: an empty log.
        return send(up, ConsoleOutput { data: Bytes::new(), next_offset: 0, truncated: false }).await;
    }
    // What is there now; what comes meanwhile is for who follows.
    let extent = log.extent().map_err(failed)?;
    let tail = if request.tail_bytes == 0 { u64::MAX } else { request.tail_bytes };
    let mut offset = request.offset.unwrap_or_else(|| extent.end.saturating_sub(tail).max(extent.start));
    loop {
        let left = usize::try_from(extent.end.saturating_sub(offset)).unwrap_or(usize::MAX);
        let chunk = log.read(offset, PIECE.min(left)).map_err(failed)?;
        let truncated = chunk.offset != offset;
        let (done, next_offset) = (chunk.bytes.is_empty() || chunk.next_offset() >= extent.end, chunk.next_offset());
        send(up, ConsoleOutput { data: chunk.bytes.into(), next_offset, truncated }).await?;
        offset = next_offset;
        if done {
            break;
        }
    }
    if !request.follow {
        return Ok(());
    }
    let mut follower = log.follow(offset).map_err(failed)?;
    loop {
        tokio::select! {
            chunk = follower.next() => {
                let chunk = chunk.map_err(failed)?;
                let (truncated, next_offset) = (chunk.offset != offset, chunk.next_offset());
                offset = next_offset;
                send(up, ConsoleOutput { data: chunk.bytes.into(), next_offset, truncated }).await?;
            }
            // Nothing is typed at a log: whatever comes is the end.
            _ = down.message() => return Ok(()),
        }
    }
}
