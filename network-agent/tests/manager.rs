//! The stream to a resource-manager, over the real gRPC: a session from hello to acknowledgement, gaps, repeats, and a manager that
//! goes away. Only the kernel is left out: the messages affect no network of this host.

use agent_kit::follow_manager;
use domain::SecurityGroupId;
use network_agent::{config::Config, host::Host, link::netns::Worker};
use proto::{
    network::v1::{ObjectState, SecurityGroup},
    sync::v1::{
        self as pb, AgentMessage, DesiredObject, ManagerMessage, ObjectKind,
        agent_message::Message as Up,
        desired_object::Object,
        host_sync_server::{HostSync, HostSyncServer},
        manager_message::Message as Down,
        report::Observation,
    },
};
use service_kit::transport::{in_process, serve};
use std::{pin::Pin, sync::Arc, time::Duration};
use tokio::sync::mpsc;
use tokio_stream::{Stream, StreamExt, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

const TIMEOUT: Duration = Duration::from_secs(30);

/// Hands each session to the test.
struct Manager {
    sessions: mpsc::Sender<Session>,
}

struct Session {
    up: Streaming<AgentMessage>,
    down: mpsc::Sender<Result<ManagerMessage, Status>>,
}

#[tonic::async_trait]
impl HostSync for Manager {
    type AttachStream = Pin<Box<dyn Stream<Item = Result<ManagerMessage, Status>> + Send>>;

    async fn attach(&self, request: Request<Streaming<AgentMessage>>) -> Result<Response<Self::AttachStream>, Status> {
        let (down, stream) = mpsc::channel(64);
        let session = Session { up: request.into_inner(), down };
        self.sessions.send(session).await.map_err(|_| Status::unavailable("the test has ended"))?;
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

impl Session {
    async fn next(&mut self, mut matches: impl FnMut(&Up) -> bool) -> Up {
        let listening = async {
            loop {
                let message = self.up.next().await.expect("the agent speaks").expect("without an error");
                if let Some(message) = message.message
                    && matches(&message)
                {
                    return message;
                }
            }
        };
        tokio::time::timeout(TIMEOUT, listening).await.expect("heard in time")
    }

    async fn send(&self, message: Down) {
        self.down.send(Ok(ManagerMessage { message: Some(message) })).await.expect("the agent listens");
    }
}

fn group(id: SecurityGroupId, generation: i64, deleted: bool) -> DesiredObject {
    DesiredObject {
        kind: ObjectKind::SecurityGroup.into(),
        id: id.to_string(),
        epoch: 1,
        generation,
        deleted,
        object: (!deleted).then(|| Object::SecurityGroup(SecurityGroup::default())),
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
    let router = tonic::transport::Server::builder().add_service(HostSyncServer::new(Manager { sessions }));
    let serving = tokio::spawn(serve(router, listener, shutdown.clone()));
    let running =
        tokio::spawn(follow_manager(Arc::clone(&host), target.channel().expect("a channel"), shutdown.clone()));

    let mut session = waiting.recv().await.expect("a session");
    let Up::Hello(hello) = session.next(|m| matches!(m, Up::Hello(_))).await else { unreachable!() };
    assert_eq!((&hello.host_id, hello.revision, hello.start), (&host.ledger.host_id().to_string(), 0, 1));
    session
        .send(Down::Registered(pb::Registered { host_id: hello.host_id.clone(), start_floor: 0, ..Default::default() }))
        .await;
    let (one, two) = (SecurityGroupId::new(), SecurityGroupId::new());
    session
        .send(Down::Snapshot(pb::Snapshot { revision: 5, objects: vec![group(one, 1, false)], ..Default::default() }))
        .await;
    session
        .send(Down::Delta(pb::Delta {
            previous: 5,
            revision: 6,
            objects: vec![group(two, 1, false)],
            ..Default::default()
        }))
        .await;
    // A gap is noticed and nothing of it taken.
    session
        .send(Down::Delta(pb::Delta {
            previous: 8,
            revision: 9,
            objects: vec![group(two, 7, false)],
            ..Default::default()
        }))
        .await;
    session.next(|m| matches!(m, Up::Resync(_))).await;
    assert_eq!((host.ledger.host().revision, host.ledger.all().len()), (6, 2));
    // A deletion is carried out and reported until it is acknowledged.
    session
        .send(Down::Delta(pb::Delta {
            previous: 6,
            revision: 7,
            objects: vec![group(one, 2, true)],
            ..Default::default()
        }))
        .await;
    let deleted = |m: &Up| matches!(m, Up::Report(pb::Report { observation: Some(Observation::Network(observed)), .. }) if observed.state() == ObjectState::Deleted);
    let Up::Report(report) = session.next(deleted).await else { unreachable!() };
    assert_eq!((report.id.as_str(), report.start), (one.to_string().as_str(), 1));

    // The manager restarts: the next session says what is held, tombstones included, and reports again what wasn't acknowledged.
    drop(session);
    let mut session = waiting.recv().await.expect("another session");
    let Up::Hello(hello) = session.next(|m| matches!(m, Up::Hello(_))).await else { unreachable!() };
    assert_eq!(hello.revision, 7);
    session
        .send(Down::Registered(pb::Registered { host_id: hello.host_id, start_floor: 0, ..Default::default() }))
        .await;
    let tombstones: Vec<&str> = hello.holdings.iter().filter(|h| h.tombstone).map(|h| h.id.as_str()).collect();
    assert_eq!(tombstones, [one.to_string()]);
    let Up::Report(again) = session.next(deleted).await else { unreachable!() };
    assert_eq!(again, report, "with the same number, so that a repeat is seen as one");
    session
        .send(Down::ReportAck(pb::ReportAck {
            kind: report.kind,
            id: report.id.clone(),
            start: report.start,
            counter: report.counter,
            forgotten: false,
        }))
        .await;
    // Nonsense is answered by an error and never taken; a tombstone stays.
    let nonsense = DesiredObject { id: "x".into(), ..group(one, 3, false) };
    let objects = vec![nonsense, group(one, 2, false)];
    session.send(Down::Delta(pb::Delta { previous: 7, revision: 8, objects, ..Default::default() })).await;
    session.next(|m| matches!(m, Up::Heartbeat(_)) && host.ledger.host().revision == 8).await;
    let held = host.ledger.all().into_iter().find(|(key, _)| key.id() == one.to_string()).expect("held");
    assert!(held.1.desired.deleted, "an old message opens no tombstone");
    assert_eq!(host.outbox.unacknowledged(), 0);
    // What the manager has no more needs no tombstone; what lives stays, whatever a manager says.
    for id in [one, two] {
        let (kind, id) = (pb::ObjectKind::SecurityGroup.into(), id.to_string());
        session.send(Down::ReportAck(pb::ReportAck { kind, id, forgotten: true, ..Default::default() })).await;
    }
    session.send(Down::Delta(pb::Delta { previous: 8, revision: 9, objects: vec![], ..Default::default() })).await;
    session.next(|m| matches!(m, Up::Heartbeat(_)) && host.ledger.host().revision == 9).await;
    let held: Vec<String> = host.ledger.all().into_iter().map(|(key, _)| key.id()).collect();
    assert_eq!(held, [two.to_string()]);
    drop(session);
    shutdown.cancel();
    running.await.expect("ended");
    serving.abort();
}

#[tokio::test]
async fn a_manager_that_was_succeeded_is_refused_by_its_term() {
    let dir = tempfile::tempdir().expect("dir");
    let config =
        Config { state_dir: dir.path().join("state"), netns_dir: dir.path().join("netns"), ..Config::default() };
    let host = Arc::new(Host::open(config, Worker::current().expect("a worker")).expect("opened"));
    let (sessions, mut waiting) = mpsc::channel(4);
    let (listener, target) = in_process();
    let shutdown = CancellationToken::new();
    let router = tonic::transport::Server::builder().add_service(HostSyncServer::new(Manager { sessions }));
    let serving = tokio::spawn(serve(router, listener, shutdown.clone()));
    let running =
        tokio::spawn(follow_manager(Arc::clone(&host), target.channel().expect("a channel"), shutdown.clone()));
    let host_id = host.ledger.host_id().to_string();
    let registered = |term| Down::Registered(pb::Registered { host_id: host_id.clone(), term, ..Default::default() });
    let snapshot = |term, revision| {
        Down::Snapshot(pb::Snapshot { revision, objects: vec![group(SecurityGroupId::new(), 1, false)], term })
    };
    let ended = async |mut session: Session| while session.up.next().await.is_some_and(|message| message.is_ok()) {};
    let mut session = waiting.recv().await.expect("a session");
    session.send(registered(7)).await;
    session.send(snapshot(7, 5)).await;
    session.next(|m| matches!(m, Up::Heartbeat(_)) && host.ledger.host().revision == 5).await;
    // The session's manager was succeeded by another one, and doesn't know it.
    session.send(snapshot(6, 6)).await;
    tokio::time::timeout(TIMEOUT, ended(session)).await.expect("the agent leaves it");
    // Also one that begins a session so.
    let session = waiting.recv().await.expect("another session");
    session.send(registered(6)).await;
    tokio::time::timeout(TIMEOUT, ended(session)).await.expect("the agent leaves it");
    let mut session = waiting.recv().await.expect("another session");
    session.send(registered(8)).await;
    session.send(snapshot(8, 9)).await;
    session.next(|m| matches!(m, Up::Heartbeat(_)) && host.ledger.host().revision == 9).await;
    assert_eq!(host.ledger.all().len(), 2, "nothing was taken of the former leader");
    drop(session);
    shutdown.cancel();
    running.await.expect("ended");
    serving.abort();
}
