//! What reports may not do: undo what is newer, speak for others, end what they don't hold.

use crate::cloud::{Cloud, each, eventually, quick};
use cluster_manager::{Config, Lease};
use domain::{
    InstanceId,
    instance::{InstanceState as S, ReportFence},
};
use proto::{
    agent::v1::{DesiredInstance, InstanceObservation},
    cluster::v1::{InstanceSpec, InstanceState},
    sync::v1::{
        self as pb, agent_message::Message as Up, desired_object::Object, host_liveness_client::HostLivenessClient,
        host_sync_client::HostSyncClient, manager_message::Message as Down, report::Observation,
    },
};
use sim::SimConfig;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

/// An agent whose every message is the test's.
struct ManualAgent {
    tx: mpsc::Sender<pb::AgentMessage>,
    down: Streaming<pb::ManagerMessage>,
}

impl ManualAgent {
    async fn attach(cloud: &Cloud, config: &SimConfig, holdings: Vec<pb::Holding>) -> Self {
        let mut client = HostSyncClient::new(cloud.board.target.channel().expect("a channel"));
        let (tx, rx) = mpsc::channel(64);
        let hello = pb::Hello {
            host_id: config.host_id.to_string(),
            name: config.name.clone(),
            start: 1,
            holdings,
            host: Some(pb::hello::Host::Compute(config.description())),
            ..Default::default()
        };
        let message = pb::AgentMessage { message: Some(Up::Hello(hello)) };
        tx.send(message).await.expect("the stream is open");
        let down = client.attach(ReceiverStream::new(rx)).await.expect("registered").into_inner();
        Self { tx, down }
    }

    async fn next<T>(&mut self, mut expected: impl FnMut(Down) -> Option<T>) -> T {
        loop {
            let message = tokio::time::timeout(std::time::Duration::from_secs(30), self.down.message());
            let message = message.await.expect("in time").expect("no error").expect("no end");
            if let Some(found) = message.message.and_then(&mut expected) {
                return found;
            }
        }
    }

    async fn object(&mut self, id: InstanceId) -> pb::DesiredObject {
        let object = self.next(|message| {
            let objects = match message {
                Down::Snapshot(snapshot) => snapshot.objects,
                Down::Delta(delta) => delta.objects,
                Down::Registered(_) | Down::OpenSession(_) | Down::ReportAck(_) | Down::HeartbeatAck(_) => return None,
            };
            objects.into_iter().find(|object| object.id == id.to_string())
        });
        object.await
    }

    async fn desired(&mut self, id: InstanceId) -> (pb::DesiredObject, DesiredInstance) {
        let object = self.object(id).await;
        let Some(Object::Instance(instance)) = object.object.clone() else { panic!("an instance: {object:?}") };
        (object, *instance)
    }

    /// Sends a report, and waits for its acknowledgement.
    async fn reports(&mut self, id: InstanceId, fence: ReportFence, state: InstanceState, converged: bool) {
        let report = pb::Report {
            kind: pb::ObjectKind::Instance.into(),
            id: id.to_string(),
            epoch: fence.epoch,
            generation: fence.generation,
            start: fence.start,
            counter: fence.counter,
            observation: Some(Observation::Instance(InstanceObservation {
                state: state.into(),
                converged,
                ..Default::default()
            })),
        };
        self.tx.send(pb::AgentMessage { message: Some(Up::Report(report)) }).await.expect("the stream is open");
        let acknowledges = |message: &Down| matches!(message, Down::ReportAck(ack) if (ack.start, ack.counter) >= (fence.start, fence.counter));
        self.next(|message| acknowledges(&message).then_some(())).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_are_asked_for_heartbeats_of_their_own_as_configured_and_the_manager_answers_them() {
    for heartbeat_ms in [0, 500] {
        let cloud = Cloud::start(Config { lease: Lease { heartbeat_ms }, ..quick() }).await;
        let config = SimConfig::named("host-1");
        let mut agent = ManualAgent::attach(&cloud, &config, vec![]).await;
        let requested = agent.next(|message| match message {
            Down::Registered(registered) => Some(registered.beat_ms),
            Down::Snapshot(_) | Down::Delta(_) | Down::OpenSession(_) | Down::ReportAck(_) | Down::HeartbeatAck(_) => {
                None
            }
        });
        assert_eq!(requested.await, heartbeat_ms);
        let mut client = HostLivenessClient::new(cloud.board.target.channel().expect("a channel"));
        let (tx, rx) = mpsc::channel(1);
        tx.send(pb::BeatRequest { host_id: config.host_id.to_string(), sequence: 7 }).await.expect("open");
        let mut answers = client.beat(ReceiverStream::new(rx)).await.expect("opened").into_inner();
        let answer =
            tokio::time::timeout(std::time::Duration::from_secs(30), answers.message()).await.expect("in time");
        assert_eq!(answer.expect("no error"), Some(pb::BeatAnswer { sequence: 7 }));
        drop((agent, answers));
        cloud.stop(vec![]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_newer_reports_of_the_holder_are_stored() {
    for cloud in each(quick()).await {
        let config = SimConfig::named("host-1");
        let mut agent = ManualAgent::attach(&cloud, &config, vec![]).await;
        let id = cloud.create("web").await.id;
        let (object, instance) = agent.desired(id).await;
        assert_eq!((object.epoch, object.generation, instance.disks.len()), (1, 1, 1));
        assert_eq!(instance.disks[0].epoch, 1, "confirmed for this epoch before it was delivered");
        assert!(instance.image.is_some_and(|i| i.parts.len() == 1));
        let fence = |epoch, generation, start, counter| ReportFence { epoch, generation, start, counter };
        agent.reports(id, fence(1, 1, 1, 5), InstanceState::Running, true).await;
        let running = cloud.fetch(id).await;
        assert_eq!((running.status.state, running.fence), (S::Running, fence(1, 1, 1, 5)));
        // An older counter, an older start, another epoch, a generation that was never given, the same again.
        for stale in [fence(1, 1, 1, 4), fence(1, 1, 0, 99), fence(0, 1, 2, 1), fence(2, 1, 2, 1), fence(1, 9, 2, 1)] {
            agent.reports(id, stale, InstanceState::Stopped, true).await;
            assert_eq!(cloud.fetch(id).await, running, "{stale:?}");
        }
        agent.reports(id, fence(1, 1, 1, 5), InstanceState::Running, true).await;
        assert_eq!(cloud.fetch(id).await, running, "a repeat is no news");
        // After a restart of the agent its counter begins again.
        agent.reports(id, fence(1, 1, 2, 1), InstanceState::Paused, false).await;
        assert_eq!(cloud.fetch(id).await.status.state, S::Paused);
        // A live instance isn't ended by a report, and an end needs the right epoch.
        agent.reports(id, fence(1, 1, 2, 2), InstanceState::Deleted, true).await;
        let lost = cloud.fetch(id).await;
        assert_eq!(
            (lost.status.state, lost.status.reason.as_str()),
            (S::Error, "its host reports that it no longer has it")
        );
        cloud.delete(id).await;
        let object = agent.object(id).await;
        assert!(object.generation == 2 && object.deleted && object.object.is_none(), "nothing but id and version");
        agent.reports(id, fence(0, 2, 2, 3), InstanceState::Deleted, true).await;
        agent.reports(id, fence(1, 2, 2, 4), InstanceState::Running, true).await;
        assert_eq!(cloud.fetch(id).await.status.state, S::Deleting, "a deletion only ends");
        agent.reports(id, fence(1, 2, 2, 5), InstanceState::Deleted, true).await;
        cloud.gone(id).await;
        cloud.leaves_nothing().await;
        drop(agent);
        cloud.stop(vec![]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_speaks_for_another_host() {
    let cloud = Cloud::start(quick()).await;
    let hosts = cloud.hosts(1).await;
    let id = cloud.running("web").await.id;
    let before = cloud.fetch(id).await;
    let mut config = SimConfig::named("stranger");
    config.capacity.vcpus = 1;
    let mut stranger = ManualAgent::attach(&cloud, &config, vec![]).await;
    let fence = ReportFence { epoch: 1, generation: 1, start: 9, counter: 9 };
    stranger.reports(id, fence, InstanceState::Stopped, true).await;
    assert_eq!(cloud.fetch(id).await, before);
    let orphans = cloud.store.orphan_list_of_hosts(&[config.host_id]).await.expect("readable");
    assert_eq!(orphans.iter().map(|o| (o.host_id, o.instance_id)).collect::<Vec<_>>(), [(config.host_id, id)]);
    cloud.delete(id).await;
    stranger.reports(id, ReportFence { generation: 2, counter: 10, ..fence }, InstanceState::Deleted, true).await;
    cloud.gone(id).await;
    assert!(hosts[0].machines().is_empty(), "it went when its own host had stopped it, not before");
    drop(stranger);
    cloud.stop(hosts).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_host_holds_and_nobody_knows_is_shown_and_left_alone() {
    let cloud = Cloud::start(quick()).await;
    let hosts = cloud.hosts(1).await;
    let id = InstanceId::new();
    let spec = InstanceSpec { power: 1, ..Default::default() };
    let instance = DesiredInstance { spec: Some(spec), ..Default::default() };
    let planted = pb::DesiredObject {
        kind: pb::ObjectKind::Instance.into(),
        id: id.to_string(),
        epoch: 1,
        generation: 1,
        object: Some(Object::Instance(Box::new(instance))),
        ..Default::default()
    };
    hosts[0].plant(id, planted);
    hosts[0].cut().await;
    hosts[0].restart();
    eventually("the orphan is shown", || async {
        let orphans = cloud.store.orphan_list_of_hosts(&[hosts[0].id()]).await.expect("readable");
        if orphans.iter().any(|o| o.instance_id == id) { Ok(()) } else { Err(format!("{orphans:?}")) }
    })
    .await;
    cloud.running("web").await;
    assert!(hosts[0].machines().contains_key(&id), "it goes on");
    cloud.stop(hosts).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_holds_an_epoch_its_instance_has_left_gets_a_tombstone() {
    let cloud = Cloud::start(quick()).await;
    let hosts = cloud.hosts(2).await;
    let row = {
        cloud.running("web").await;
        cloud.store.instance_find_by_name(cloud.project_id, "web").await.expect("readable").expect("there")
    };
    let (id, from) = (row.instance.id, row.instance.host_id.expect("placed"));
    let (old, new) = if hosts[0].id() == from { (&hosts[0], &hosts[1]) } else { (&hosts[1], &hosts[0]) };
    // The instance is given to the other host, as a recovery will do it once the old one is proven dead.
    old.crash().await;
    let desired = store::InstanceDesired {
        id,
        expected_generation: row.instance.generation,
        expected_state: None,
        name: row.instance.name.clone(),
        tags: row.instance.tags.clone(),
        spec: row.instance.spec.clone(),
        image_id: Some(row.instance.spec.image_id),
        epoch: row.instance.epoch + 1,
        host_id: Some(new.id()),
        root_disk_id: row.instance.root_disk_id,
        placement: None,
        claim_vcpus: row.claim.vcpus,
        claim_memory_mib: row.claim.memory_mib,
        claim_disk_gib: row.claim.disk_gib,
        quota_released: false,
        state: S::Running,
        step: String::new(),
        reason: String::new(),
        deadline_at: None,
        at: domain::Timestamp::now(),
    };
    cloud.store.commit(store::Unit::new().op(desired)).await.expect("stored");
    let mut agent = ManualAgent::attach(
        &cloud,
        &SimConfig { host_id: old.id(), ..SimConfig::named(old.name()) },
        vec![pb::Holding {
            kind: pb::ObjectKind::Instance.into(),
            id: id.to_string(),
            epoch: 1,
            generation: 1,
            ..Default::default()
        }],
    )
    .await;
    let object = agent.object(id).await;
    assert_eq!(
        (object.epoch, object.deleted, object.object.is_none()),
        (1, true, true),
        "the old epoch gets a tombstone"
    );
    let fence = ReportFence { epoch: 1, generation: object.generation, start: 5, counter: 1 };
    agent.reports(id, fence, InstanceState::Deleted, true).await;
    assert_eq!(cloud.fetch(id).await.instance.host_id, Some(new.id()), "and its report ends nothing here");
    drop(agent);
    cloud.stop(hosts).await;
}
