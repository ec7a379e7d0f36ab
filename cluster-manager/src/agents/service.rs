//! The gRPC service that agents connect to.

use super::{incoming::Incoming, link::Link, link::Next, link::Vitals, welcome};
use crate::{console, manager::Manager, reconcile::report::Observation};
use domain::{Timestamp, host::AgentRole, instance::ReportFence};
use proto::{
    agent::v1::{self as pb, agent_link_server::AgentLink, agent_message::Message as FromAgent},
    convert::{InvalidMessage, parse, state_from_pb},
    status::to_status,
};
use service_kit::peer::{require_agent, require_host};
use std::{pin::Pin, sync::Arc, time::Duration};
use tonic::{Request, Response, Status, Streaming};

/// How long an agent may take for its first message.
const HELLO_SECS: u64 = 10;
/// Bytes of desired instances in one message; the rest follows as deltas.
const SNAPSHOT_BYTES: usize = 4 * 1024 * 1024;

#[derive(Clone)]
pub struct AgentLinkService(pub Arc<Manager>);

type Out<T> = Pin<Box<dyn futures::Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl AgentLink for AgentLinkService {
    type AttachStream = Out<pb::ManagerMessage>;
    type ConsoleSessionStream = Out<pb::ConsoleDown>;

    async fn attach(
        &self,
        request: Request<Streaming<pb::AgentMessage>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let speaks_for = require_agent(&request, AgentRole::ComputeAgent)?;
        let certified = require_host(&request)?;
        let manager = Arc::clone(&self.0);
        let mut incoming = request.into_inner();
        let hello = first_message(&mut incoming).await?;
        speaks_for.check(&hello.host_id)?;
        let link = welcome::register(&manager, hello, certified).await.map_err(|p| to_status(&p))?;
        let reader = Arc::clone(&link);
        manager.lifetime.tasks.clone().spawn({
            let manager = Arc::clone(&manager);
            async move {
                read(&manager, &reader, incoming).await;
                manager.agents.leave(&reader);
                tracing::info!(host_id = %reader.host_id, host = reader.host_name, "the agent's stream ended");
            }
        });
        Ok(Response::new(Box::pin(outgoing(manager, link))))
    }

    async fn console_session(
        &self,
        request: Request<Streaming<pb::ConsoleUp>>,
    ) -> Result<Response<Self::ConsoleSessionStream>, Status> {
        require_agent(&request, AgentRole::ComputeAgent)?;
        let down = console::agent_side(&self.0, request.into_inner()).await.map_err(|p| to_status(&p))?;
        Ok(Response::new(Box::pin(down)))
    }
}

async fn first_message(incoming: &mut Streaming<pb::AgentMessage>) -> Result<pb::Hello, Status> {
    let first = tokio::time::timeout(Duration::from_secs(HELLO_SECS), incoming.message()).await;
    match first {
        Ok(Ok(Some(pb::AgentMessage { message: Some(FromAgent::Hello(hello)) }))) => Ok(hello),
        Ok(Err(status)) => Err(status),
        Ok(Ok(_)) => Err(Status::invalid_argument("an agent's first message is Hello")),
        Err(_) => Err(Status::deadline_exceeded("no Hello came")),
    }
}

/// Takes what the agent sends until its stream ends, it falls silent (the link is closed then) or another connection replaces it.
async fn read(manager: &Manager, link: &Arc<Link>, mut incoming: Streaming<pb::AgentMessage>) {
    loop {
        let message = tokio::select! {
            () = link.closed.cancelled() => return,
            message = incoming.message() => message,
        };
        let message = match message {
            Ok(Some(message)) => message.message,
            Ok(None) => return,
            Err(status) => {
                tracing::debug!(host_id = %link.host_id, %status, "the agent's stream broke");
                return;
            }
        };
        match message {
            Some(FromAgent::Heartbeat(beat)) => {
                link.heard(Some(Vitals {
                    disk_free_bytes: beat.disk_free_bytes,
                    memory_available_mib: beat.memory_available_mib,
                    instances_running: beat.instances_running,
                    starts_in_progress: beat.starts_in_progress,
                }));
                link.acknowledge_heartbeat();
            }
            Some(FromAgent::Report(report)) => {
                link.heard(None);
                match observation(report) {
                    // Waits when reports come faster than they can be stored: the agent's stream waits with it.
                    Ok(observation) => {
                        manager.agents.reports.send(Incoming { link: Arc::clone(link), observation }).await
                    }
                    Err(error) => tracing::warn!(host_id = %link.host_id, %error, "a report can't be read"),
                }
            }
            Some(FromAgent::Resync(resync)) => {
                link.heard(None);
                tracing::info!(host_id = %link.host_id, reason = resync.reason, "the agent asks for a snapshot");
                link.want_snapshot();
            }
            Some(FromAgent::Hello(_)) | None => {
                tracing::warn!(host_id = %link.host_id, "a message that makes no sense here; the stream is closed");
                return;
            }
        }
    }
}

pub fn observation(report: pb::Report) -> Result<Observation, InvalidMessage> {
    Ok(Observation {
        instance_id: parse("report.instance_id", &report.instance_id)?,
        fence: ReportFence {
            epoch: report.epoch,
            generation: report.generation,
            start: report.start,
            counter: report.counter,
        },
        state: state_from_pb(report.state)?,
        step: report.step,
        reason: report.reason,
        converged: report.converged,
        started_at: report.started_at.map(Timestamp),
        guest_up_at: report.guest_up_at.map(Timestamp),
        crash_count: report.crash_count,
        exec_ms: report.exec_ms,
    })
}

fn message(message: pb::manager_message::Message) -> pb::ManagerMessage {
    pb::ManagerMessage { message: Some(message) }
}

/// The stream to the agent: ends when the link is closed or the service stops.
fn outgoing(
    manager: Arc<Manager>,
    link: Arc<Link>,
) -> impl futures::Stream<Item = Result<pb::ManagerMessage, Status>> + Send {
    use pb::manager_message::Message as M;
    async_stream::stream! {
        yield Ok(message(M::Welcome(pb::Welcome { host_id: link.host_id.to_string() })));
        let mut sent_revision = 0;
        // When the agent's side drops this stream, so does the link.
        let _guard = link.closed.clone().drop_guard();
        loop {
            let next = tokio::select! {
                () = link.closed.cancelled() => break,
                () = manager.lifetime.shutdown.cancelled() => break,
                next = link.next() => next,
            };
            for item in next {
                match item {
                    Next::Message(m) => yield Ok(m),
                    Next::Desired(instances) => {
                        let revision = manager.revision(link.host_id).max(sent_revision);
                        let previous = std::mem::replace(&mut sent_revision, revision);
                        yield Ok(message(M::Delta(pb::Delta { previous, revision, instances })));
                    }
                    Next::Snapshot => {
                        let (revision, instances) = match super::desired::load_snapshot(&manager, link.host_id).await {
                            Ok(snapshot) => snapshot,
                            Err(problem) => {
                                tracing::warn!(host_id = %link.host_id, %problem, "no snapshot yet; tried again");
                                link.want_snapshot();
                                tokio::time::sleep(Duration::from_millis(500)).await;
                                continue;
                            }
                        };
                        sent_revision = revision;
                        let mut parts = split(instances).into_iter();
                        let first = parts.next().unwrap_or_default();
                        yield Ok(message(M::Snapshot(pb::Snapshot { revision, instances: first })));
                        // Absence never deletes, so a snapshot may come in parts.
                        for instances in parts {
                            yield Ok(message(M::Delta(pb::Delta { previous: revision, revision, instances })));
                        }
                    }
                }
            }
        }
    }
}

fn split(instances: Vec<pb::DesiredInstance>) -> Vec<Vec<pb::DesiredInstance>> {
    let mut parts: Vec<Vec<pb::DesiredInstance>> = Vec::new();
    let mut bytes = SNAPSHOT_BYTES;
    for instance in instances {
        let length = prost::Message::encoded_len(&instance);
        if bytes + length > SNAPSHOT_BYTES {
            parts.push(Vec::new());
            bytes = 0;
        }
        bytes += length;
        if let Some(part) = parts.last_mut() {
            part.push(instance);
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_snapshot_comes_in_parts_that_fit_a_message() {
        let big = pb::DesiredInstance { name: "x".repeat(SNAPSHOT_BYTES / 3), ..Default::default() };
        let parts = split(vec![big; 7]);
        assert_eq!(parts.iter().map(Vec::len).sum::<usize>(), 7);
        for part in &parts {
            let bytes: usize = part.iter().map(prost::Message::encoded_len).sum();
            assert!(bytes <= SNAPSHOT_BYTES, "{bytes}");
        }
        assert!(split(vec![]).is_empty());
    }
}
