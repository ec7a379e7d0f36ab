//! The gRPC service that agents connect to, the same for every manager.

use super::{DesiredState, HostManager, HostStream, HostStreams, Incoming, NotYet, stream::Pending};
use crate::peer::{HostPeer, require_agent, require_host};
use domain::Problem;
use proto::{
    status::to_status,
    sync::v1::{
        self as pb, agent_message::Message as Up, host_sync_server::HostSync, manager_message::Message as Down,
    },
};
use std::{collections::BTreeMap, pin::Pin, sync::Arc, time::Duration};
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

/// How long an agent may take for its first message.
const HELLO: Duration = Duration::from_secs(10);
/// Bytes of objects in one message; the rest follows in the next.
const MESSAGE_BYTES: usize = 4 * 1024 * 1024;
/// Reports of one host that wait for room among those of all hosts.
const WAITING_MAX: usize = 1024;
/// After desired state couldn't be read.
const RETRY: Duration = Duration::from_millis(500);

pub struct HostSyncService<M>(pub Arc<M>);

#[tonic::async_trait]
impl<M: HostManager> HostSync for HostSyncService<M> {
    type AttachStream = Pin<Box<dyn Stream<Item = Result<pb::ManagerMessage, Status>> + Send>>;

    async fn attach(
        &self,
        request: Request<Streaming<pb::AgentMessage>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let speaks_for = require_agent(&request, M::ROLE)?;
        let certified = require_host(&request)?;
        let mut incoming = request.into_inner();
        let hello = first_message(&mut incoming).await?;
        speaks_for.check(&hello.host_id)?;
        let (connected, desired) = connect(&self.0, hello, certified).await.map_err(|p| to_status(&p))?;
        let stream = Arc::clone(&connected.stream);
        self.0.streams().tasks.spawn(async move { read(&connected, incoming).await });
        Ok(Response::new(Box::pin(outgoing(stream, desired, self.0.streams()))))
    }
}

/// A host counts as connected for as long as this lives, however it ends: by a panic, or because the agent is gone before it was answered.
struct Connected<M: HostManager> {
    manager: Arc<M>,
    stream: Arc<HostStream<M>>,
}

impl<M: HostManager> Drop for Connected<M> {
    fn drop(&mut self) {
        let Self { manager, stream } = self;
        manager.streams().disconnect(stream);
        tracing::info!(host_id = %stream.host_id, host = stream.host_name, agent = M::ROLE.as_str(), "an agent's stream ended");
    }
}

async fn first_message(incoming: &mut Streaming<pb::AgentMessage>) -> Result<pb::Hello, Status> {
    match tokio::time::timeout(HELLO, incoming.message()).await {
        Ok(Ok(Some(pb::AgentMessage { message: Some(Up::Hello(hello)) }))) => Ok(hello),
        Ok(Err(status)) => Err(status),
        Ok(Ok(_)) => Err(Status::invalid_argument("an agent's first message is Hello")),
        Err(_) => Err(Status::deadline_exceeded("no Hello came")),
    }
}

async fn connect<M: HostManager>(
    manager: &Arc<M>,
    mut hello: pb::Hello,
    certified: Option<HostPeer>,
) -> Result<(Connected<M>, M::Desired), Problem> {
    let host_id = proto::convert::parse("hello.host_id", &hello.host_id)?;
    let (name, desired) = manager.register(&mut hello, certified).await?;
    let connected = Connected { manager: Arc::clone(manager), stream: manager.streams().connect(host_id, name) };
    let stream = &connected.stream;
    tracing::info!(
        %host_id, host = stream.host_name, agent = M::ROLE.as_str(), agent_start = hello.start, agent_revision = hello.revision,
        holdings = hello.holdings.len(), "a host's agent connected"
    );
    manager.connected(stream, hello).await?;
    Ok((connected, desired))
}

/// Reports of one host that there was no room for yet. They wait here and not in the stream, so that heartbeats never wait behind them: a
/// database that is slow or away makes no host look dead.
#[derive(Default)]
struct Waiting(BTreeMap<(i32, String, i64, i64), pb::Report>);

impl Waiting {
    /// A report that comes again is kept once; one that doesn't fit comes again, since nobody acknowledges it.
    fn add(&mut self, report: pb::Report) {
        let key = (report.kind, report.id.clone(), report.start, report.counter);
        if self.0.len() < WAITING_MAX || self.0.contains_key(&key) {
            self.0.insert(key, report);
        } else {
            metrics::counter!("iaas_reports_left_to_repeat_total").increment(1);
        }
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those of one object in the order in which they were made.
    fn take(&mut self) -> Option<pb::Report> {
        self.0.pop_first().map(|(_, report)| report)
    }
}

/// Takes what the agent sends until its stream ends, it falls silent, or another connection replaces it.
async fn read<M: HostManager>(connected: &Connected<M>, mut incoming: Streaming<pb::AgentMessage>) {
    let Connected { manager, stream } = connected;
    let (host_id, silence) = (stream.host_id, manager.streams().silence);
    let mut waiting = Waiting::default();
    loop {
        let silent_at = stream.last_seen() + silence;
        let message = tokio::select! {
            () = stream.closed.cancelled() => return,
            permit = manager.streams().reports.reserve(), if !waiting.is_empty() => {
                // An error: the service stops; unacknowledged reports come again.
                let Ok(permit) = permit else { return };
                if let Some(report) = waiting.take() {
                    permit.send(Incoming { stream: Arc::clone(stream), report });
                }
                continue;
            }
            message = tokio::time::timeout_at(silent_at.into(), incoming.message()) => message,
        };
        let message = match message {
            Ok(Ok(Some(message))) => message.message,
            Ok(Ok(None)) => return,
            Ok(Err(status)) => {
                tracing::debug!(%host_id, %status, "an agent's stream broke");
                return;
            }
            Err(_) => {
                let agent = M::ROLE.as_str();
                tracing::warn!(%host_id, host = stream.host_name, agent, ?silence, "an agent is silent; its stream is closed");
                return;
            }
        };
        if !manager.streams().leads() {
            tracing::debug!(%host_id, "this manager leads no longer; the stream is closed");
            return;
        }
        stream.note_message();
        match message {
            Some(Up::Heartbeat(beat)) => {
                if let Some(statistics) = beat.statistics {
                    manager.take_statistics(stream, statistics);
                }
                stream.acknowledge_heartbeat();
            }
            Some(Up::Report(report)) => waiting.add(report),
            Some(Up::Resync(resync)) => {
                tracing::info!(%host_id, agent = M::ROLE.as_str(), reason = resync.reason, "an agent requests a snapshot");
                stream.request_snapshot();
            }
            Some(Up::Hello(_)) | None => {
                tracing::warn!(%host_id, "a message that makes no sense here; the stream is closed");
                return;
            }
        }
    }
}

/// The stream to the agent: ends when it is closed, or the service stops.
fn outgoing<M: HostManager>(
    stream: Arc<HostStream<M>>,
    mut desired: M::Desired,
    streams: &HostStreams<M>,
) -> impl Stream<Item = Result<pb::ManagerMessage, Status>> + Send + use<M> {
    let (term, beat_ms) = (streams.term, streams.beat_ms);
    let message = |message| Ok(pb::ManagerMessage { message: Some(message) });
    async_stream::stream! {
        let (host_id, start_floor) = (stream.host_id.to_string(), desired.start_floor());
        let starts_withheld = desired.starts_withheld();
        yield message(Down::Registered(pb::Registered { host_id, start_floor, term, starts_withheld, beat_ms }));
        let mut sent_revision = 0;
        // When the agent's side drops this stream, both directions end.
        let _guard = stream.closed.clone().drop_guard();
        loop {
            let pending = tokio::select! {
                () = stream.closed.cancelled() => break,
                pending = stream.next() => pending,
            };
            let Pending { replies, snapshot, updates } = pending;
            for reply in replies {
                yield message(reply);
            }
            if !snapshot && updates.is_empty() {
                continue;
            }
            let objects = match desired.collect(snapshot, updates).await {
                Ok(objects) => objects,
                Err(NotYet { problem, updates }) => {
                    tracing::warn!(host_id = %stream.host_id, %problem, "a host's desired state can't be read yet; tried again");
                    stream.put_back(snapshot, updates);
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
            };
            for (at, mut objects) in split(objects, snapshot).into_iter().enumerate() {
                let revision = match desired.number(&mut objects).await {
                    Ok(revision) => revision,
                    Err(problem) => {
                        tracing::warn!(host_id = %stream.host_id, %problem, "a host can't be sent its desired state yet; tried again");
                        stream.request_snapshot();
                        tokio::time::sleep(RETRY).await;
                        break;
                    }
                };
                let previous = std::mem::replace(&mut sent_revision, revision);
                yield message(if snapshot && at == 0 {
                    Down::Snapshot(pb::Snapshot { revision, objects, term })
                } else {
                    Down::Delta(pb::Delta { previous, revision, objects, term })
                });
            }
        }
    }
}

/// In parts that fit a message. Absence never deletes, so a snapshot may come in parts; it has at least one.
fn split(objects: Vec<pb::DesiredObject>, snapshot: bool) -> Vec<Vec<pb::DesiredObject>> {
    let mut parts: Vec<Vec<pb::DesiredObject>> = Vec::new();
    let mut bytes = 0;
    for object in objects {
        let length = prost::Message::encoded_len(&object);
        match parts.last_mut() {
            Some(part) if bytes + length <= MESSAGE_BYTES => {
                bytes += length;
                part.push(object);
            }
            Some(_) | None => {
                bytes = length;
                parts.push(vec![object]);
            }
        }
    }
    if snapshot && parts.is_empty() {
        parts.push(Vec::new());
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_snapshot_comes_in_parts_that_fit_a_message() {
        let big = pb::DesiredObject { id: "x".repeat(MESSAGE_BYTES / 3), ..Default::default() };
        let parts = split(vec![big; 7], true);
        assert_eq!(parts.iter().map(Vec::len).sum::<usize>(), 7);
        for part in &parts {
            let bytes: usize = part.iter().map(prost::Message::encoded_len).sum();
            assert!(bytes <= MESSAGE_BYTES, "{bytes}");
        }
        assert_eq!((split(vec![], true).len(), split(vec![], false).len()), (1, 0), "a snapshot is never nothing");
    }
}
