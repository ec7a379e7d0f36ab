//! A cluster-manager and a storage-manager that speak the real protocol, remember what they received, and misbehave on request.

use parking_lot::{Mutex, MutexGuard};
use proto::{
    agent::v1::{
        self as agent, DesiredInstance, InstanceObservation,
        console_relay_server::{ConsoleRelay, ConsoleRelayServer},
        console_up::Up,
    },
    cluster::v1::{ConsoleOpen, ConsoleOutput, console_open::What},
    storage::v1::{
        self as storage,
        storage_manager_server::{StorageManager, StorageManagerServer},
    },
    sync::v1::{
        self as sync,
        agent_message::Message as FromAgent,
        host_liveness_server::{HostLiveness, HostLivenessServer},
        host_sync_server::{HostSync, HostSyncServer},
        manager_message::Message as ToAgent,
    },
};
use service_kit::transport::{GrpcTarget, in_process, serve};
use std::{
    collections::{BTreeMap, HashMap},
    ops::{Deref, DerefMut},
    pin::Pin,
    sync::Arc,
    time::Duration,
};
use tokio::sync::{Notify, mpsc};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

/// The limit for a wait. It only detects hangs, because emulation on a busy machine is slow.
pub const TIMEOUT: Duration = Duration::from_secs(150);

/// How often the agent is asked for heartbeats on a connection of their own.
const BEAT_MS: u32 = 200;

type Out<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
/// The agent's output, and the channel for what is typed.
type SessionEnds = (Streaming<agent::ConsoleUp>, mpsc::Sender<agent::ConsoleDown>);
type Sender = mpsc::Sender<Result<sync::ManagerMessage, Status>>;

#[derive(Default)]
struct ManagerState {
    desired: BTreeMap<String, Desired>,
    revision: i64,
    link: Option<Sender>,
    hellos: Vec<sync::Hello>,
    reports: Vec<Report>,
    resyncs: usize,
    heartbeats: usize,
    /// Heartbeats on a connection of their own, each with the host that it named.
    beats: Vec<String>,
    statistics: Option<agent::ComputeStatistics>,
    /// Whether connections are refused.
    away: bool,
    /// Whether nothing is acknowledged.
    acknowledges_nothing: bool,
    /// Console sessions that were requested and not opened yet.
    sessions: HashMap<String, tokio::sync::oneshot::Sender<SessionEnds>>,
    start_floor: i64,
}

#[derive(Clone, Default)]
pub struct Manager {
    state: Arc<Mutex<ManagerState>>,
    news: Arc<Notify>,
}

fn to_agent(message: ToAgent) -> Result<sync::ManagerMessage, Status> {
    Ok(sync::ManagerMessage { message: Some(message) })
}

/// What an agent says of its host.
pub fn machine(hello: &sync::Hello) -> &agent::ComputeHost {
    let Some(sync::hello::Host::Compute(machine)) = &hello.host else { panic!("it is a compute-agent's") };
    machine
}

/// Later reports have the greater fence.
pub fn fence(report: &Report) -> (i64, i64, i64, i64) {
    (report.epoch, report.generation, report.start, report.counter)
}

/// What an instance must be, as the tests write it.
#[derive(Debug, Clone)]
pub struct Desired {
    pub instance_id: String,
    pub epoch: i64,
    pub generation: i64,
    pub instance: DesiredInstance,
    /// Of a deletion: the instance ends everywhere.
    pub erase_shared: bool,
}

impl Deref for Desired {
    type Target = DesiredInstance;

    fn deref(&self) -> &DesiredInstance {
        &self.instance
    }
}

impl DerefMut for Desired {
    fn deref_mut(&mut self) -> &mut DesiredInstance {
        &mut self.instance
    }
}

impl From<Desired> for sync::DesiredObject {
    fn from(desired: Desired) -> Self {
        let Desired { instance_id, epoch, generation, instance, erase_shared } = desired;
        Self {
            kind: sync::ObjectKind::Instance.into(),
            id: instance_id,
            epoch,
            generation,
            deleted: instance.spec.as_ref().is_some_and(|spec| spec.deleted),
            request_id: "test".into(),
            digest: 0,
            erase_shared,
            object: Some(sync::desired_object::Object::Instance(Box::new(instance))),
        }
    }
}

/// A report, as the tests read it.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    pub instance_id: String,
    pub epoch: i64,
    pub generation: i64,
    pub start: i64,
    pub counter: i64,
    pub observed: InstanceObservation,
}

impl Deref for Report {
    type Target = InstanceObservation;

    fn deref(&self) -> &InstanceObservation {
        &self.observed
    }
}

impl From<sync::Report> for Report {
    fn from(report: sync::Report) -> Self {
        let sync::Report { id: instance_id, epoch, generation, start, counter, observation, .. } = report;
        let Some(sync::report::Observation::Instance(observed)) = observation else {
            panic!("it is about an instance")
        };
        Self { instance_id, epoch, generation, start, counter, observed }
    }
}

impl ManagerState {
    fn snapshot(&self) -> sync::Snapshot {
        let objects = self.desired.values().cloned().map(Into::into).collect();
        sync::Snapshot { revision: self.revision, objects, ..Default::default() }
    }
}

impl Manager {
    /// Starts the manager in this process.
    pub fn start(shutdown: CancellationToken) -> (Self, GrpcTarget) {
        let manager = Self::default();
        let (listener, target) = in_process();
        let router = tonic::transport::Server::builder()
            .add_service(HostSyncServer::new(manager.clone()))
            .add_service(HostLivenessServer::new(manager.clone()))
            .add_service(ConsoleRelayServer::new(manager.clone()));
        tokio::spawn(serve(router, listener, shutdown));
        (manager, target)
    }

    fn lock(&self) -> MutexGuard<'_, ManagerState> {
        self.state.lock()
    }

    /// Sets what this instance must be from now on. It is sent at once if the agent is connected.
    pub fn instance(&self, desired: &Desired) {
        self.set_all_desired(std::slice::from_ref(desired));
    }

    /// Sets several instances in one delta.
    pub fn set_all_desired(&self, desired: &[Desired]) {
        let mut state = self.lock();
        for one in desired {
            state.desired.insert(one.instance_id.clone(), one.clone());
        }
        let previous = state.revision;
        state.revision += 1;
        let objects = desired.iter().cloned().map(Into::into).collect();
        let delta = sync::Delta { previous, revision: state.revision, objects, ..Default::default() };
        send(&state.link, ToAgent::Delta(delta));
    }

    /// What the agent's next start must have reached.
    pub fn set_start_floor(&self, start_floor: i64) {
        self.lock().start_floor = start_floor;
    }

    /// It is in no snapshot any more.
    pub fn forget(&self, instance_id: &str) {
        self.lock().desired.remove(instance_id);
    }

    pub fn revision(&self) -> i64 {
        self.lock().revision
    }

    /// Deltas that were sent as given have led the agent to this revision.
    pub fn set_revision(&self, revision: i64) {
        self.lock().revision = revision;
    }

    /// Sends a delta as given, whatever was sent before.
    pub fn send_delta(&self, delta: sync::Delta) {
        send(&self.lock().link, ToAgent::Delta(delta));
    }

    /// Closes the connection and accepts no new one.
    pub fn go_away(&self) {
        let mut state = self.lock();
        state.away = true;
        state.link = None;
    }

    /// Closes the connection; the agent may come again at once.
    pub fn drop_link(&self) {
        self.lock().link = None;
    }

    pub fn come_back(&self) {
        self.lock().away = false;
    }

    pub fn set_acknowledges_nothing(&self, acknowledges_nothing: bool) {
        self.lock().acknowledges_nothing = acknowledges_nothing;
    }

    pub fn hellos(&self) -> Vec<sync::Hello> {
        self.lock().hellos.clone()
    }

    pub fn reports(&self, instance_id: &str) -> Vec<Report> {
        self.lock().reports.iter().filter(|r| r.instance_id == instance_id).cloned().collect()
    }

    /// Waits until what was received satisfies the condition.
    pub async fn until<T>(&self, what: &str, mut condition: impl FnMut(&Received<'_>) -> Option<T>) -> T {
        let waiting = async {
            loop {
                let news = self.news.notified();
                tokio::pin!(news);
                news.as_mut().enable();
                {
                    let state = self.lock();
                    let received = Received { state: &state };
                    if let Some(found) = condition(&received) {
                        return found;
                    }
                }
                news.await;
            }
        };
        match tokio::time::timeout(TIMEOUT, waiting).await {
            Ok(found) => found,
            Err(_) => {
                let state = self.lock();
                panic!(
                    "never came: {what}; last reports: {:#?}",
                    state.reports.iter().rev().take(4).collect::<Vec<_>>()
                )
            }
        }
    }

    /// Waits until the last report of an instance satisfies the condition.
    pub async fn report(&self, instance_id: &str, what: &str, mut condition: impl FnMut(&Report) -> bool) -> Report {
        self.until(what, |received| received.last(instance_id).filter(|r| condition(r)).cloned()).await
    }

    /// Opens a console session and waits for the agent to call back.
    pub async fn console(&self, instance_id: &str, what: What) -> Console {
        let session_id = uuid::Uuid::now_v7().to_string();
        let (taken, session) = tokio::sync::oneshot::channel();
        {
            let mut state = self.lock();
            state.sessions.insert(session_id.clone(), taken);
            let open = ConsoleOpen { project_id: String::new(), instance_id: instance_id.to_owned(), what: Some(what) };
            send(&state.link, ToAgent::OpenSession(agent::OpenSession { session_id, open: Some(open) }));
        }
        let (up, down) =
            tokio::time::timeout(TIMEOUT, session).await.expect("the agent calls back").expect("a session");
        Console { up, down, output: Vec::new(), outputs: Vec::new() }
    }
}

fn send(link: &Option<Sender>, message: ToAgent) {
    if let Some(link) = link {
        // A connection that is gone gets a snapshot when it is back.
        let _ = link.try_send(to_agent(message));
    }
}

/// What the manager has received so far.
pub struct Received<'a> {
    state: &'a ManagerState,
}

impl Received<'_> {
    /// The report with the greatest fence.
    pub fn last(&self, instance_id: &str) -> Option<&Report> {
        self.state.reports.iter().filter(|r| r.instance_id == instance_id).max_by_key(|r| fence(r))
    }

    pub fn reports(&self) -> &[Report] {
        &self.state.reports
    }

    pub fn hellos(&self) -> &[sync::Hello] {
        &self.state.hellos
    }

    pub fn resyncs(&self) -> usize {
        self.state.resyncs
    }

    /// Those of the last heartbeat.
    pub fn statistics(&self) -> Option<agent::ComputeStatistics> {
        self.state.statistics
    }

    pub fn beats(&self) -> &[String] {
        &self.state.beats
    }

    pub fn heartbeats(&self) -> usize {
        self.state.heartbeats
    }
}

/// The manager's end of a console session.
pub struct Console {
    up: Streaming<agent::ConsoleUp>,
    down: mpsc::Sender<agent::ConsoleDown>,
    pub output: Vec<u8>,
    pub outputs: Vec<ConsoleOutput>,
}

impl Console {
    pub async fn type_in(&self, text: &str) {
        let data = text.as_bytes().to_vec().into();
        self.down.send(agent::ConsoleDown { data }).await.expect("the session lives");
    }

    /// Returns the next output, or how the session ended.
    pub async fn next(&mut self) -> Result<Option<ConsoleOutput>, String> {
        let message = tokio::time::timeout(TIMEOUT, self.up.message()).await.expect("something comes");
        match message.expect("no broken stream").and_then(|m| m.up) {
            Some(Up::Output(output)) => {
                self.output.extend_from_slice(&output.data);
                self.outputs.push(output.clone());
                Ok(Some(output))
            }
            Some(Up::Error(error)) => Err(error.detail),
            Some(Up::Start(_)) => panic!("a session starts once"),
            None => Ok(None),
        }
    }

    pub async fn until_output(&mut self, text: &str) {
        while !String::from_utf8_lossy(&self.output).contains(text) {
            let output = self.next().await.expect("no error");
            assert!(
                output.is_some(),
                "the session ended without {text:?}: {:?}",
                String::from_utf8_lossy(&self.output)
            );
        }
    }
}

#[tonic::async_trait]
impl HostLiveness for Manager {
    type BeatStream = Out<sync::BeatAnswer>;

    async fn beat(&self, request: Request<Streaming<sync::BeatRequest>>) -> Result<Response<Self::BeatStream>, Status> {
        let (manager, mut incoming) = (self.clone(), request.into_inner());
        let (answers, outgoing) = mpsc::channel(16);
        tokio::spawn(async move {
            while let Ok(Some(beat)) = incoming.message().await {
                manager.lock().beats.push(beat.host_id);
                manager.news.notify_waiters();
                if answers.send(Ok(sync::BeatAnswer { sequence: beat.sequence })).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(outgoing))))
    }
}

#[tonic::async_trait]
impl HostSync for Manager {
    type AttachStream = Out<sync::ManagerMessage>;

    async fn attach(
        &self,
        request: Request<Streaming<sync::AgentMessage>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        if self.lock().away {
            return Err(Status::unavailable("away"));
        }
        let mut incoming = request.into_inner();
        let Some(sync::AgentMessage { message: Some(FromAgent::Hello(hello)) }) = incoming.message().await? else {
            return Err(Status::invalid_argument("first Hello"));
        };
        let (link, outgoing) = mpsc::channel(1024);
        {
            let mut state = self.lock();
            send(
                &Some(link.clone()),
                ToAgent::Registered(sync::Registered {
                    host_id: hello.host_id.clone(),
                    start_floor: state.start_floor,
                    beat_ms: BEAT_MS,
                    ..Default::default()
                }),
            );
            let snapshot = state.snapshot();
            send(&Some(link.clone()), ToAgent::Snapshot(snapshot));
            state.hellos.push(hello);
            state.link = Some(link.clone());
        }
        self.news.notify_waiters();
        let manager = self.clone();
        let link = link.downgrade();
        tokio::spawn(async move {
            while let Ok(Some(message)) = incoming.message().await {
                let Some(link) = link.upgrade() else { return };
                manager.receive(message.message, &link);
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(outgoing))))
    }
}

#[tonic::async_trait]
impl ConsoleRelay for Manager {
    type ConsoleSessionStream = Out<agent::ConsoleDown>;

    async fn console_session(
        &self,
        request: Request<Streaming<agent::ConsoleUp>>,
    ) -> Result<Response<Self::ConsoleSessionStream>, Status> {
        let mut up = request.into_inner();
        let first = up.message().await?.and_then(|m| m.up);
        let Some(Up::Start(start)) = first else { return Err(Status::invalid_argument("first the session")) };
        let taken = self.lock().sessions.remove(&start.session_id);
        let taken = taken.ok_or_else(|| Status::not_found("no such session"))?;
        let (down, typed) = mpsc::channel(16);
        taken.send((up, down)).map_err(|_| Status::cancelled("nobody waits"))?;
        let typed = tokio_stream::StreamExt::map(ReceiverStream::new(typed), Ok);
        Ok(Response::new(Box::pin(typed)))
    }
}

impl Manager {
    fn receive(&self, message: Option<FromAgent>, link: &Sender) {
        let mut state = self.lock();
        match message {
            Some(FromAgent::Report(report)) => {
                if !state.acknowledges_nothing {
                    let ack = service_kit::host_streams::ack_of(&report);
                    send(&Some(link.clone()), ToAgent::ReportAck(ack));
                }
                state.reports.push(report.into());
            }
            Some(FromAgent::Heartbeat(beat)) => {
                state.heartbeats += 1;
                if let Some(sync::heartbeat::Statistics::Compute(statistics)) = beat.statistics {
                    state.statistics = Some(statistics);
                }
                send(&Some(link.clone()), ToAgent::HeartbeatAck(sync::HeartbeatAck {}));
            }
            Some(FromAgent::Resync(_)) => {
                state.resyncs += 1;
                let snapshot = state.snapshot();
                send(&Some(link.clone()), ToAgent::Snapshot(snapshot));
            }
            Some(FromAgent::Hello(_)) | None => panic!("an agent says Hello once"),
        }
        drop(state);
        self.news.notify_waiters();
    }
}

/// An object, and how its delivery fails.
#[derive(Default)]
struct Object {
    bytes: Vec<u8>,
    /// Each request is interrupted after this many bytes.
    cut_every: Option<usize>,
    /// The offsets that were requested.
    requested_offsets: Vec<u64>,
}

#[derive(Clone, Default)]
pub struct Storage {
    objects: Arc<Mutex<HashMap<String, Object>>>,
}

impl Storage {
    pub fn start(shutdown: CancellationToken) -> (Self, GrpcTarget) {
        let storage = Self::default();
        let (listener, target) = in_process();
        let router = tonic::transport::Server::builder().add_service(StorageManagerServer::new(storage.clone()));
        tokio::spawn(serve(router, listener, shutdown));
        (storage, target)
    }

    /// Serves these bytes under this name, whether or not it is their hash.
    pub fn put(&self, sha256: &str, bytes: Vec<u8>) {
        self.objects.lock().entry(sha256.to_owned()).or_default().bytes = bytes;
    }

    pub fn cut_every(&self, sha256: &str, bytes: Option<usize>) {
        self.objects.lock().entry(sha256.to_owned()).or_default().cut_every = bytes;
    }

    pub fn requested_offsets(&self, sha256: &str) -> Vec<u64> {
        self.objects.lock().get(sha256).map(|o| o.requested_offsets.clone()).unwrap_or_default()
    }
}

/// Calls that no agent makes, in the form that `async_trait` gives a method.
macro_rules! not_for_agents {
    ($($name:ident($request:ty) -> $response:ty;)+) => {$(
        fn $name<'s, 'f>(
            &'s self,
            _: Request<$request>,
        ) -> Pin<Box<dyn Future<Output = Result<Response<$response>, Status>> + Send + 'f>>
        where
            's: 'f,
            Self: 'f,
        {
            Box::pin(async { Err(Status::unimplemented("agents don't call it")) })
        }
    )+};
}

#[tonic::async_trait]
impl StorageManager for Storage {
    type FetchObjectStream = Out<storage::FetchObjectResponse>;

    not_for_agents! {
        create_image(storage::CreateImageRequest) -> storage::CreateImageResponse;
        upload_image(Streaming<storage::UploadImageRequest>) -> storage::UploadImageResponse;
        delete_image(storage::DeleteImageRequest) -> storage::DeleteImageResponse;
        reserve_disks(storage::ReserveDisksRequest) -> storage::ReserveDisksResponse;
        confirm_disks(storage::ConfirmDisksRequest) -> storage::ConfirmDisksResponse;
        resize_disk(storage::ResizeDiskRequest) -> storage::ResizeDiskResponse;
        release_disks(storage::ReleaseDisksRequest) -> storage::ReleaseDisksResponse;
        remove_disks(storage::RemoveDisksRequest) -> storage::RemoveDisksResponse;
    }

    async fn fetch_object(
        &self,
        request: Request<storage::FetchObjectRequest>,
    ) -> Result<Response<Self::FetchObjectStream>, Status> {
        const CHUNK: usize = 256 << 10;
        let storage::FetchObjectRequest { sha256, offset } = request.into_inner();
        let mut objects = self.objects.lock();
        let object = objects.get_mut(&sha256).filter(|o| !o.bytes.is_empty());
        let object = object.ok_or_else(|| proto::status::to_status(&domain::Problem::not_found("object", &sha256)))?;
        object.requested_offsets.push(offset);
        let total_bytes = object.bytes.len() as u64;
        let from = usize::try_from(offset).expect("fits").min(object.bytes.len());
        let mut rest = &object.bytes[from..];
        let cut = object.cut_every.is_some_and(|n| n < rest.len());
        if let Some(n) = object.cut_every {
            rest = &rest[..n.min(rest.len())];
        }
        let mut messages: Vec<_> = rest
            .chunks(CHUNK)
            .map(|chunk| Ok(storage::FetchObjectResponse { chunk: chunk.to_vec().into(), total_bytes }))
            .collect();
        if cut {
            messages.push(Err(Status::unavailable("the link broke")));
        }
        Ok(Response::new(Box::pin(tokio_stream::iter(messages))))
    }
}
