//! The stream to a resource-manager, over the real gRPC: a session from hello to acknowledgement, gaps, repeats, and a manager that
//! goes away. Only the kernel is left out: the words touch no network of this host.

use domain::SecurityGroupId;
use network_agent::{config::Config, host::Host, link::netns::Worker, manager};
use proto::network::v1::{
    self as pb, AgentMessage, ManagerMessage,
    agent_message::Message as Up,
    manager_message::Message as Down,
    network_link_server::{NetworkLink, NetworkLinkServer},
};
use service_kit::transport::{in_process, serve};
use std::{pin::Pin, sync::Arc, time::Duration};
use tokio::sync::mpsc;
use tokio_stream::{Stream, StreamExt, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

const PATIENCE: Duration = Duration::from_secs(30);

/// Hands each session to the test.
struct Manager {
    sessions: mpsc::Sender<Session>,
}

struct Session {
    up: Streaming<AgentMessage>,
    down: mpsc::Sender<Result<ManagerMessage, Status>>,
}

#[tonic::async_trait]
impl NetworkLink for Manager {
    type AttachStream = Pin<Box<dyn Stream<Item = Result<ManagerMessage, Status>> + Send>>;

    async fn attach(&self, request: Request<Streaming<AgentMessage>>) -> Result<Response<Self::AttachStream>, Status> {
        let (down, stream) = mpsc::channel(64);
        let session = Session { up: request.into_inner(), down };
        self.sessions.send(session).await.map_err(|_| Status::unavailable("the test has ended"))?;
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

impl Session {
    async fn hears(&mut self, mut wanted: impl FnMut(&Up) -> bool) -> Up {
        let listening = async {
            loop {
                let message = self.up.next().await.expect("the agent speaks").expect("without an error");
                if let Some(message) = message.message
                    && wanted(&message)
                {
                    return message;
                }
            }
        };
        tokio::time::timeout(PATIENCE, listening).await.expect("heard in time")
    }

    async fn says(&self, message: Down) {
        self.down.send(Ok(ManagerMessage { message: Some(message) })).await.expect("the agent listens");
    }
}

fn group(id: SecurityGroupId, generation: i64, deleted: bool) -> pb::Desired {
    let object = pb::desired::Object::SecurityGroup(pb::SecurityGroup::default());
    pb::Desired {
        id: id.to_string(),
        version: Some(pb::Version { epoch: 1, generation }),
        deleted,
        kind: pb::ObjectKind::SecurityGroup.into(),
        object: (!deleted).then_some(object),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_session_with_gaps_and_a_manager_that_goes_away() {
    let dir = tempfile::tempdir().expect("dir");
    let config =
        Config { state_dir: dir.path().join("state"), netns_dir: dir.path().join("netns"), ..Config::default() };
    let host = Arc::new(Host::open(config, Worker::current().expect("a worker")).expect("opened"));
    let (sessions, mut waiting) = mpsc::channel(4);
    let (listener, target) = in_process();
    let shutdown = CancellationToken::new();
    let router = tonic::transport::Server::builder().add_service(NetworkLinkServer::new(Manager { sessions }));
    let serving = tokio::spawn(serve(router, listener, shutdown.clone()));
    let running = tokio::spawn(manager::run(Arc::clone(&host), target, shutdown.clone()));

    let mut session = waiting.recv().await.expect("a session");
    let Up::Hello(hello) = session.hears(|m| matches!(m, Up::Hello(_))).await else { unreachable!() };
    assert_eq!((hello.host_id, hello.revision, hello.start), (host.ledger.host_id().to_string(), 0, 1));
    let (one, two) = (SecurityGroupId::new(), SecurityGroupId::new());
    session.says(Down::Snapshot(pb::Snapshot { revision: 5, objects: vec![group(one, 1, false)] })).await;
    session.says(Down::Delta(pb::Delta { previous: 5, revision: 6, objects: vec![group(two, 1, false)] })).await;
    // A gap is noticed and nothing of it taken.
    session.says(Down::Delta(pb::Delta { previous: 8, revision: 9, objects: vec![group(two, 7, false)] })).await;
    session.hears(|m| matches!(m, Up::Resync(_))).await;
    assert_eq!((host.ledger.host().revision, host.ledger.all().len()), (6, 2));
    // A deletion is carried out and reported until it is acknowledged.
    session.says(Down::Delta(pb::Delta { previous: 6, revision: 7, objects: vec![group(one, 2, true)] })).await;
    let deleted = |m: &Up| matches!(m, Up::Report(r) if r.state() == pb::ObjectState::Deleted);
    let Up::Report(report) = session.hears(deleted).await else { unreachable!() };
    assert_eq!((report.id.as_str(), report.start), (one.to_string().as_str(), 1));

    // The manager restarts: the next session says what is held, graves included, and reports again what wasn't acknowledged.
    drop(session);
    let mut session = waiting.recv().await.expect("another session");
    let Up::Hello(hello) = session.hears(|m| matches!(m, Up::Hello(_))).await else { unreachable!() };
    assert_eq!(hello.revision, 7);
    let graves: Vec<&str> = hello.holdings.iter().filter(|h| h.tombstone).map(|h| h.id.as_str()).collect();
    assert_eq!(graves, [one.to_string()]);
    let Up::Report(again) = session.hears(deleted).await else { unreachable!() };
    assert_eq!(again, report, "with the same number, so that a repeat is seen as one");
    session
        .says(Down::ReportAck(pb::ReportAck {
            kind: report.kind,
            id: report.id.clone(),
            version: report.version,
            start: report.start,
            counter: report.counter,
        }))
        .await;
    // Nonsense is answered by an error and never taken; what was buried stays so.
    let nonsense = pb::Desired { id: "x".into(), version: None, ..group(one, 3, false) };
    let objects = vec![nonsense, group(one, 2, false)];
    session.says(Down::Delta(pb::Delta { previous: 7, revision: 8, objects })).await;
    session.hears(|m| matches!(m, Up::Heartbeat(_)) && host.ledger.host().revision == 8).await;
    let held = host.ledger.all().into_iter().find(|(key, _)| key.id() == one.to_string()).expect("held");
    assert!(held.1.desired.deleted, "an old word opens no grave");
    assert_eq!(host.outbox.unacknowledged(), 0);
    drop(session);
    shutdown.cancel();
    running.await.expect("ended");
    serving.abort();
}
