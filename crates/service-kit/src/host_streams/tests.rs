//! A stub manager over the real gRPC, with an agent made by hand.

use super::{
    DesiredState, HostLivenessService, HostManager, HostStream, HostStreams, HostSyncService, Incoming, NotYet,
    Updates, ack_of,
};
use crate::{
    peer::HostPeer,
    transport::{GrpcTarget, in_process, serve},
};
use domain::{HostId, Problem, host::AgentRole};
use parking_lot::Mutex;
use proto::sync::v1::{
    self as pb, agent_message::Message as Up, heartbeat::Statistics, host_liveness_client::HostLivenessClient,
    host_liveness_server::HostLivenessServer, host_sync_client::HostSyncClient, host_sync_server::HostSyncServer,
    manager_message::Message as Down,
};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::Streaming;

const TIMEOUT: Duration = Duration::from_secs(30);

/// Objects by number, each with its generation.
struct Stub {
    streams: HostStreams<Stub>,
    rows: Mutex<BTreeMap<u32, i64>>,
    revision: AtomicI64,
    unavailable: AtomicBool,
    /// What an agent sends makes the manager panic.
    panics: AtomicBool,
    /// Taking in a host lasts until this is false.
    busy: watch::Sender<bool>,
    /// Clients find the stub by it.
    target: GrpcTarget,
}

struct Desired(Arc<Stub>);

fn object(key: u32, generation: i64) -> pb::DesiredObject {
    pb::DesiredObject { id: key.to_string(), generation, ..Default::default() }
}

impl HostManager for Stub {
    const ROLE: AgentRole = AgentRole::ComputeAgent;
    type Key = u32;
    type Update = pb::DesiredObject;
    type Statistics = ();
    type Desired = Desired;

    fn streams(&self) -> &HostStreams<Self> {
        &self.streams
    }

    async fn register(
        self: &Arc<Self>,
        hello: &mut pb::Hello,
        _: Option<HostPeer>,
    ) -> Result<(String, Desired), Problem> {
        Ok((hello.name.clone(), Desired(Arc::clone(self))))
    }

    async fn connected(self: &Arc<Self>, _: &Arc<HostStream<Self>>, _: pb::Hello) -> Result<(), Problem> {
        let free = self.busy.subscribe().wait_for(|busy| !busy).await.map(|_| ());
        free.map_err(|_| Problem::internal())
    }

    fn take_statistics(&self, _: &HostStream<Self>, _: Statistics) {
        assert!(!self.panics.load(Ordering::Relaxed), "as the test wants it");
    }
}

impl DesiredState<Stub> for Desired {
    async fn collect(
        &mut self,
        snapshot: bool,
        updates: Updates<Stub>,
    ) -> Result<Vec<pb::DesiredObject>, NotYet<Stub>> {
        if self.0.unavailable.swap(false, Ordering::Relaxed) {
            return Err(NotYet { problem: Problem::unavailable("not now"), updates });
        }
        let rows = if snapshot { self.0.rows.lock().clone() } else { BTreeMap::new() };
        Ok(rows.into_iter().map(|(key, generation)| object(key, generation)).chain(updates.into_values()).collect())
    }

    async fn number(&mut self, _: &mut [pb::DesiredObject]) -> Result<i64, Problem> {
        Ok(self.0.revision.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

struct Agent {
    up: mpsc::Sender<pb::AgentMessage>,
    down: Streaming<pb::ManagerMessage>,
}

impl Agent {
    async fn attach(client: &HostSyncClient<tonic::transport::Channel>, host_id: HostId) -> Self {
        let (up, outbound) = mpsc::channel(64);
        let hello = pb::Hello { host_id: host_id.to_string(), name: "host-1".into(), ..Default::default() };
        up.send(pb::AgentMessage { message: Some(Up::Hello(hello)) }).await.expect("open");
        let down = client.clone().attach(ReceiverStream::new(outbound)).await.expect("attached").into_inner();
        let mut agent = Self { up, down };
        assert!(
            matches!(agent.next().await, Some(Down::Registered(to)) if to.host_id == host_id.to_string() && to.beat_ms == 250)
        );
        agent
    }

    /// None: the stream has ended.
    async fn next(&mut self) -> Option<Down> {
        let message = tokio::time::timeout(TIMEOUT, self.down.message()).await.expect("in time");
        message.expect("no error").map(|message| message.message.expect("a message"))
    }

    async fn send(&self, message: Up) {
        self.up.send(pb::AgentMessage { message: Some(message) }).await.expect("open");
    }

    async fn snapshot(&mut self) -> (i64, Vec<(String, i64)>) {
        let Some(Down::Snapshot(snapshot)) = self.next().await else { panic!("no snapshot") };
        (snapshot.revision, generations(snapshot.objects))
    }

    async fn delta(&mut self) -> (i64, i64, Vec<(String, i64)>) {
        let Some(Down::Delta(delta)) = self.next().await else { panic!("no delta") };
        (delta.previous, delta.revision, generations(delta.objects))
    }
}

fn generations(objects: Vec<pb::DesiredObject>) -> Vec<(String, i64)> {
    objects.into_iter().map(|object| (object.id, object.generation)).collect()
}

fn is(key: u32, generation: i64) -> (String, i64) {
    (key.to_string(), generation)
}

async fn serving(
    updates_max: usize,
) -> (Arc<Stub>, mpsc::Receiver<Incoming<Stub>>, HostSyncClient<tonic::transport::Channel>) {
    serving_while(updates_max, || true).await
}

async fn serving_while(
    updates_max: usize,
    leads: impl Fn() -> bool + Send + Sync + 'static,
) -> (Arc<Stub>, mpsc::Receiver<Incoming<Stub>>, HostSyncClient<tonic::transport::Channel>) {
    let shutdown = CancellationToken::new();
    let streams = HostStreams::new(updates_max, TIMEOUT, TaskTracker::new(), shutdown.clone()).under_term(7, leads);
    let (streams, (listener, target)) = (streams.with_beats(250), in_process());
    let reports = streams.take_reports().expect("taken once");
    let rows = Mutex::new(BTreeMap::from([(1, 1)]));
    let (unavailable, panics) = (AtomicBool::new(false), AtomicBool::new(false));
    let busy = watch::Sender::new(false);
    let stub = Arc::new(Stub {
        streams,
        rows,
        revision: AtomicI64::new(0),
        unavailable,
        panics,
        busy,
        target: target.clone(),
    });
    let liveness = HostLivenessServer::new(HostLivenessService(Arc::clone(&stub)));
    let service = HostSyncServer::new(HostSyncService(Arc::clone(&stub)));
    tokio::spawn(serve(
        tonic::transport::Server::builder().add_service(service).add_service(liveness),
        listener,
        shutdown,
    ));
    (stub, reports, HostSyncClient::new(target.channel().expect("a channel")))
}

#[tokio::test]
async fn a_host_gets_a_snapshot_and_then_deltas_that_build_on_each_other() {
    let (stub, mut reports, client) = serving(10).await;
    let host_id = HostId::new();
    let mut agent = Agent::attach(&client, host_id).await;
    assert_eq!(agent.snapshot().await, (1, vec![is(1, 1)]));
    // The newest of each object is sent once, whatever came between; what can't be read yet is not lost.
    stub.unavailable.store(true, Ordering::Relaxed);
    let stream = stub.streams.find(host_id).expect("connected");
    stream.push([(1, object(1, 3)), (1, object(1, 2)), (2, object(2, 1))]);
    assert_eq!(agent.delta().await, (1, 2, vec![is(1, 3), is(2, 1)]));
    stub.streams.push([(host_id, 2, object(2, 2)), (HostId::new(), 2, object(2, 9))]);
    assert_eq!(agent.delta().await, (2, 3, vec![is(2, 2)]));
    // A gap is answered by a snapshot.
    agent.send(Up::Resync(pb::Resync { reason: "a gap".into() })).await;
    assert_eq!(agent.snapshot().await, (4, vec![is(1, 1)]));
    // A report reaches the manager, and its acknowledgement the agent.
    let report = pb::Report { id: "1".into(), start: 1, counter: 7, ..Default::default() };
    agent.send(Up::Report(report.clone())).await;
    let incoming = reports.recv().await.expect("a report");
    assert_eq!(incoming.report, report);
    incoming.stream.acknowledge([ack_of(&report)]);
    assert!(matches!(agent.next().await, Some(Down::ReportAck(ack)) if ack.counter == 7));
    agent.send(Up::Heartbeat(pb::Heartbeat::default())).await;
    assert!(matches!(agent.next().await, Some(Down::HeartbeatAck(_))));

    // A second connection of the host replaces the first.
    let mut again = Agent::attach(&client, host_id).await;
    assert!(agent.next().await.is_none(), "the old stream ends");
    again.snapshot().await;
    stub.streams.remove(host_id);
    assert!(again.next().await.is_none() && stub.streams.find(host_id).is_none());
}

#[tokio::test]
async fn an_agent_that_falls_behind_gets_a_snapshot_instead_of_a_growing_set() {
    let (stub, _reports, client) = serving(10).await;
    let host_id = HostId::new();
    let mut agent = Agent::attach(&client, host_id).await;
    agent.snapshot().await;
    stub.streams.find(host_id).expect("connected").push((0..11).map(|key| (key, object(key, 1))));
    assert_eq!(agent.snapshot().await, (2, vec![is(1, 1)]));
}

#[tokio::test]
async fn heartbeats_never_wait_behind_reports_that_nobody_stores() {
    let (stub, mut reports, client) = serving(10).await;
    let mut agent = Agent::attach(&client, HostId::new()).await;
    agent.snapshot().await;
    // More than the channel and the stream's own waiting room hold; twice, as an agent repeats what isn't acknowledged.
    let report = |counter: i64| pb::Report { id: (counter % 100).to_string(), start: 1, counter, ..Default::default() };
    for counter in (0..6000).chain(0..6000) {
        agent.send(Up::Report(report(counter))).await;
    }
    agent.send(Up::Heartbeat(pb::Heartbeat::default())).await;
    assert!(matches!(agent.next().await, Some(Down::HeartbeatAck(_))));
    // What waited reaches the manager when there is room again, each once and an object's own in their order.
    let mut last: BTreeMap<String, i64> = BTreeMap::new();
    for _ in 0..5000 {
        let Incoming { report, .. } =
            tokio::time::timeout(TIMEOUT, reports.recv()).await.expect("in time").expect("a report");
        let before = last.insert(report.id.clone(), report.counter);
        assert!(before.is_none_or(|before| before < report.counter), "{report:?} after {before:?}");
    }
    drop(stub);
}

/// Heartbeats on a connection of their own.
struct Beats {
    up: mpsc::Sender<pb::BeatRequest>,
    down: Streaming<pb::BeatAnswer>,
}

impl Beats {
    async fn open(stub: &Stub) -> Self {
        let mut client = HostLivenessClient::new(stub.target.channel().expect("a channel"));
        let (up, outbound) = mpsc::channel(64);
        let down = client.beat(ReceiverStream::new(outbound)).await.expect("opened").into_inner();
        Self { up, down }
    }

    /// Sends a heartbeat, and returns the number that is answered. None: the stream has ended.
    async fn send(&mut self, host_id: &str, sequence: u64) -> Result<Option<u64>, tonic::Code> {
        self.up.send(pb::BeatRequest { host_id: host_id.to_owned(), sequence }).await.expect("open");
        let answer = tokio::time::timeout(TIMEOUT, self.down.message()).await.expect("in time");
        answer.map(|answer| answer.map(|answer| answer.sequence)).map_err(|status| status.code())
    }
}

#[tokio::test]
async fn a_heartbeat_on_its_own_connection_is_answered_while_the_session_takes_nothing_more() {
    let (stub, _reports, client) = serving(10).await;
    let host_id = HostId::new();
    // The agent reads nothing, so the snapshot fills the connection; nobody stores reports, so they fill theirs.
    stub.rows.lock().extend((2..60_000).map(|key| (key, 1)));
    let agent = Agent::attach(&client, host_id).await;
    let report = |counter: i64| pb::Report { id: counter.to_string(), start: 1, counter, ..Default::default() };
    for counter in 0..6000 {
        agent.send(Up::Report(report(counter))).await;
    }
    let mut beats = Beats::open(&stub).await;
    for sequence in 1..=3 {
        assert_eq!(beats.send(&host_id.to_string(), sequence).await, Ok(Some(sequence)));
    }
    // The session needn't be there at all.
    stub.streams.remove(host_id);
    assert_eq!(beats.send("", 4).await, Ok(Some(4)));
}

#[tokio::test]
async fn heartbeats_of_no_host_are_refused_and_a_former_leader_answers_none() {
    let leads = Arc::new(AtomicBool::new(true));
    let now = Arc::clone(&leads);
    let (stub, _reports, _client) = serving_while(10, move || now.load(Ordering::Relaxed)).await;
    for nobody in ["", "host-1"] {
        let mut beats = Beats::open(&stub).await;
        assert_eq!(beats.send(nobody, 1).await, Err(tonic::Code::InvalidArgument));
    }
    let mut beats = Beats::open(&stub).await;
    assert_eq!(beats.send(&HostId::new().to_string(), 1).await, Ok(Some(1)));
    leads.store(false, Ordering::Relaxed);
    assert_eq!(beats.send("", 2).await, Ok(None), "the stream ends");
}

#[tokio::test]
async fn a_host_whose_stream_makes_its_manager_panic_is_connected_no_longer_and_may_come_again() {
    let (stub, _reports, client) = serving(10).await;
    let host_id = HostId::new();
    let mut agent = Agent::attach(&client, host_id).await;
    agent.snapshot().await;
    stub.panics.store(true, Ordering::Relaxed);
    let statistics = Some(Statistics::Compute(Default::default()));
    agent.send(Up::Heartbeat(pb::Heartbeat { statistics })).await;
    assert!(agent.next().await.is_none(), "the stream ends");
    assert!(stub.streams.find(host_id).is_none(), "nobody reads from it, so nothing is sent to it");
    stub.panics.store(false, Ordering::Relaxed);
    let mut again = Agent::attach(&client, host_id).await;
    again.snapshot().await;
    assert!(stub.streams.find(host_id).is_some());
}

#[tokio::test]
async fn a_host_that_goes_away_while_it_is_taken_in_is_connected_no_longer() {
    let (stub, _reports, client) = serving(10).await;
    let host_id = HostId::new();
    stub.busy.send_replace(true);
    let attaching = tokio::spawn(async move { Agent::attach(&client, host_id).await });
    let until = async |there: bool| {
        let look = async {
            while stub.streams.find(host_id).is_some() != there {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(TIMEOUT, look).await.expect("in time");
    };
    until(true).await;
    attaching.abort();
    until(false).await;
}

#[tokio::test]
async fn a_manager_that_leads_no_longer_answers_no_heartbeat_and_takes_no_report() {
    let leads = Arc::new(AtomicBool::new(true));
    let now = Arc::clone(&leads);
    let (_stub, mut reports, client) = serving_while(10, move || now.load(Ordering::Relaxed)).await;
    let mut agent = Agent::attach(&client, HostId::new()).await;
    agent.snapshot().await;
    agent.send(Up::Heartbeat(pb::Heartbeat::default())).await;
    assert!(matches!(agent.next().await, Some(Down::HeartbeatAck(_))));
    leads.store(false, Ordering::Relaxed);
    agent.send(Up::Heartbeat(pb::Heartbeat::default())).await;
    agent.send(Up::Report(pb::Report { id: "1".into(), ..Default::default() })).await;
    assert!(agent.next().await.is_none(), "the stream ends");
    assert!(reports.try_recv().is_err());
}
