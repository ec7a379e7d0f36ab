//! A host's stream over the real gRPC, with an agent made by hand.

use crate::{
    Config, Manager, agents,
    network::topology::{
        RowChange, RowKey,
        tests::{T0, group, group_id, host_id, network, network_id, port, port_id, project},
    },
};
use domain::{
    InstanceId,
    network::{Port, PortStatus},
};
use proto::{
    network::v1::{NetworkHost, NetworkObservation, ObjectState},
    sync::v1::{
        self as pb, AgentMessage, agent_message::Message as Up, desired_object::Object,
        host_sync_client::HostSyncClient, host_sync_server::HostSyncServer, manager_message::Message as Down,
    },
};
use service_kit::{
    host_streams::HostSyncService,
    transport::{in_process, serve},
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use store::{NetworkInsert, PortBind, PortInsert, ProjectInsert, Unit, testing::TestStore};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::Streaming;

const TIMEOUT: Duration = Duration::from_secs(30);

/// A manager that serves.
struct Serving {
    manager: Arc<Manager>,
    client: HostSyncClient<tonic::transport::Channel>,
}

impl Serving {
    async fn on(store: &TestStore) -> Self {
        let shutdown = CancellationToken::new();
        let tasks = TaskTracker::new();
        let manager = Manager::load(Config::default(), store.store.clone(), tasks, shutdown.clone());
        let manager = Arc::new(manager.await.expect("loaded"));
        let (listener, target) = in_process();
        let service = HostSyncServer::new(HostSyncService(Arc::clone(&manager)));
        let router = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(agents::ingest::run(Arc::clone(&manager)));
        tokio::spawn(serve(router, listener, shutdown));
        Self { manager, client: HostSyncClient::new(target.channel().expect("a channel")) }
    }

    /// What a host is told that isn't registered.
    async fn refused(&self, hello: pb::Hello) -> domain::Problem {
        let (up, outbound) = mpsc::channel(64);
        up.send(AgentMessage { message: Some(Up::Hello(hello)) }).await.expect("open");
        let status = match self.client.clone().attach(ReceiverStream::new(outbound)).await {
            Ok(down) => down.into_inner().message().await.expect_err("a refusal"),
            Err(status) => status,
        };
        proto::status::from_status(&status)
    }

    async fn attach(&self, hello: pb::Hello) -> Agent {
        let (up, outbound) = mpsc::channel(64);
        let hello = AgentMessage { message: Some(Up::Hello(hello)) };
        up.send(hello).await.expect("open");
        let down = self.client.clone().attach(ReceiverStream::new(outbound)).await.expect("attached").into_inner();
        let mut agent = Agent { up, down };
        let Down::Registered(_) = agent.next().await else { panic!("registered first") };
        agent
    }
}

struct Agent {
    up: mpsc::Sender<AgentMessage>,
    down: Streaming<pb::ManagerMessage>,
}

impl Agent {
    async fn next(&mut self) -> Down {
        let message = tokio::time::timeout(TIMEOUT, self.down.message()).await.expect("in time");
        message.expect("no error").expect("not ended").message.expect("a message")
    }

    async fn delta(&mut self) -> pb::Delta {
        loop {
            if let Down::Delta(delta) = self.next().await {
                return delta;
            }
        }
    }

    async fn snapshot(&mut self) -> pb::Snapshot {
        loop {
            if let Down::Snapshot(snapshot) = self.next().await {
                return snapshot;
            }
        }
    }

    async fn send(&self, message: Up) {
        self.up.send(AgentMessage { message: Some(message) }).await.expect("open");
    }
}

fn hello(revision: i64, holdings: Vec<pb::Holding>) -> pb::Hello {
    hello_of(1, "192.0.2.1", revision, holdings)
}

fn hello_of(n: u8, underlay: &str, revision: i64, holdings: Vec<pb::Holding>) -> pb::Hello {
    pb::Hello {
        host_id: host_id(n).to_string(),
        name: format!("host-{n}"),
        start: 1,
        revision,
        ledger_id: String::new(),
        holdings,
        host: Some(pb::hello::Host::Network(NetworkHost {
            underlay_address: underlay.into(),
            underlay_mtu: 1500,
            external_networks: vec![],
            // Odd ones don't count.
            addresses: [&format!("198.51.100.{n}"), "127.0.0.1", "fe80::1", "nonsense"].map(str::to_owned).into(),
        })),
    }
}

/// The protected addresses, by their parts.
fn protected(objects: &[pb::DesiredObject]) -> BTreeMap<String, Vec<String>> {
    let part = |object: &pb::DesiredObject| {
        let Some(Object::Protected(protected)) = &object.object else { return None };
        Some((object.id.clone(), protected.blocks.clone()))
    };
    objects.iter().filter_map(part).collect()
}

/// (kind, deleted) of each object, all of which have the number; the protected addresses come first, and are left out.
fn kinds(objects: &[pb::DesiredObject], number: i64) -> Vec<(pb::ObjectKind, bool)> {
    for object in objects {
        assert_eq!(object.generation, number);
    }
    let all = objects.iter().map(|object| (object.kind(), object.deleted));
    all.skip_while(|(kind, _)| *kind == pb::ObjectKind::Protected).collect()
}

use pb::ObjectKind::{Network, Port as PortKind, SecurityGroup};

#[tokio::test]
async fn a_host_gets_what_changes_and_what_ends_and_all_again_after_a_restart() {
    let store = TestStore::sqlite().await;
    let serving = Serving::on(&store).await;
    let mut agent = serving.attach(hello(0, vec![])).await;
    let first = agent.snapshot().await;
    assert_eq!(kinds(&first.objects, first.revision), []);
    assert!(first.revision > 0);

    let manager = &serving.manager;
    manager.apply_committed([RowChange::Network(network(1, 1)), RowChange::Port(port(1, 1, Some(1), &[], 1))]);
    let came = agent.delta().await;
    assert_eq!(came.previous, first.revision);
    assert_eq!(kinds(&came.objects, came.revision), [(Network, false), (PortKind, false)]);

    // What is as it was isn't sent again; a change is.
    manager.apply_committed([RowChange::Network(network(1, 2))]);
    manager.apply_committed([RowChange::SecurityGroup(group(1, 1)), RowChange::Port(port(1, 1, Some(1), &[1], 2))]);
    let changed = agent.delta().await;
    assert_eq!(kinds(&changed.objects, changed.revision), [(SecurityGroup, false), (PortKind, false)]);

    // The port leaves: its network and group go with it, behind it.
    manager.apply_committed([RowChange::Port(port(1, 1, None, &[1], 3))]);
    let left = agent.delta().await;
    assert_eq!(kinds(&left.objects, left.revision), [(PortKind, true), (SecurityGroup, true), (Network, true)]);
    // It comes back, with a later version than its tombstone's.
    manager.apply_committed([RowChange::Port(port(1, 1, Some(1), &[], 4))]);
    let back = agent.delta().await;
    assert_eq!(kinds(&back.objects, back.revision), [(Network, false), (PortKind, false)]);

    // Another manager on the same database: its numbers are above all that were given, and what the host holds and must not ends.
    let serving = Serving::on(&store).await;
    let held = |kind: pb::ObjectKind, id: String| pb::Holding {
        kind: kind.into(),
        id,
        epoch: 0,
        generation: back.revision,
        ..pb::Holding::default()
    };
    let holdings = vec![held(Network, network_id(1).to_string()), held(SecurityGroup, group_id(2).to_string())];
    let mut agent = serving.attach(hello(back.revision, holdings.clone())).await;
    let snapshot = agent.snapshot().await;
    assert!(snapshot.revision > back.revision);
    assert_eq!(kinds(&snapshot.objects, snapshot.revision), [(SecurityGroup, true), (Network, true)]);

    // A tombstone of what the host must not know has done its work.
    let tombstone = pb::Holding { tombstone: true, ..holdings[0].clone() };
    let mut agent = serving.attach(hello(back.revision, vec![tombstone])).await;
    loop {
        if let Down::ReportAck(ack) = agent.next().await {
            assert_eq!((ack.id, ack.forgotten), (network_id(1).to_string(), true));
            break;
        }
    }

    // A host that has more than the database knows of: numbers go on above that.
    let mut agent = serving.attach(hello(7_000_000, holdings)).await;
    assert!(agent.snapshot().await.revision > 7_000_000);
}

#[tokio::test]
async fn what_a_host_reports_of_its_ports_is_stored_and_acknowledged_and_of_others_is_not() {
    let store = TestStore::sqlite().await;
    let row = port(1, 1, Some(1), &[], 2);
    seed(&store, &row).await;
    let serving = Serving::on(&store).await;
    let mut agent = serving.attach(hello(0, vec![])).await;
    let snapshot = agent.snapshot().await;
    assert_eq!(kinds(&snapshot.objects, snapshot.revision), [(Network, false), (PortKind, false)]);
    let report = |counter, epoch| pb::Report {
        kind: PortKind.into(),
        id: port_id(1).to_string(),
        epoch,
        generation: snapshot.revision,
        start: 1,
        counter,
        observation: Some(pb::report::Observation::Network(NetworkObservation {
            state: ObjectState::Active.into(),
            reason: String::new(),
            program_us: Some(10),
        })),
    };
    // Of an epoch that is over: acknowledged, not stored.
    for (counter, epoch, status) in [(1, row.epoch - 1, PortStatus::Building), (2, row.epoch, PortStatus::Active)] {
        agent.send(Up::Report(report(counter, epoch))).await;
        loop {
            if let Down::ReportAck(ack) = agent.next().await {
                assert_eq!(ack.counter, counter);
                break;
            }
        }
        assert_eq!(store.port_find(port_id(1)).await.expect("read").expect("there").status, status);
        assert_eq!(serving.manager.topology().port(port_id(1)).map(|p| p.status), Some(status));
    }
    // A gap is answered by a snapshot.
    agent.send(Up::Resync(pb::Resync { reason: "a gap".into() })).await;
    assert!(agent.snapshot().await.revision > snapshot.revision);
    // An object that is gone ends as a tombstone of its epoch.
    serving.manager.apply_committed([RowChange::Gone(RowKey::Port(port_id(1)))]);
    let gone = agent.delta().await;
    assert_eq!(gone.objects[0].epoch, row.epoch);
    assert_eq!(kinds(&gone.objects, gone.revision), [(PortKind, true), (Network, true)]);
}

/// A project, the network of the port, and the port.
async fn seed(store: &TestStore, row: &Port) {
    let net = network(1, 1);
    let unit = Unit::new()
        .op(ProjectInsert {
            id: project(),
            name: "p".parse().expect("a name"),
            description: String::new(),
            created_at: T0,
        })
        .op(NetworkInsert {
            id: net.id,
            project_id: net.project_id,
            name: net.name,
            description: net.description,
            vni: net.vni,
            mtu: None,
            created_at: T0,
        })
        .op(PortInsert {
            id: row.id,
            project_id: row.project_id,
            network_id: row.network_id,
            name: None,
            mac: row.mac,
            fixed_ips: row.fixed_ips.clone(),
            allowed_addresses: vec![],
            rate_limit: row.rate_limit,
            hostname: row.hostname.clone(),
            state: row.state,
            instance_id: row.owner.map(|o| o.instance_id),
            with_instance: true,
            expires_at: None,
            generation: 1,
            created_at: T0,
        });
    store.commit(unit).await.expect("stored");
    let bind = PortBind {
        id: row.id,
        expected_generation: 1,
        instance_id: row.owner.expect("an owner").instance_id,
        host_id: row.host_id.expect("a host"),
        epoch: row.epoch,
        instance_epoch: 1,
        metadata_digest: String::new(),
        hostname: row.hostname.clone(),
        status: PortStatus::Building,
    };
    store.commit(Unit::new().op(bind)).await.expect("bound");
}

#[tokio::test]
async fn what_a_host_holds_above_its_rows_lifts_them() {
    let store = TestStore::sqlite().await;
    let row = port(1, 1, Some(1), &[], 2);
    seed(&store, &row).await;
    let serving = Serving::on(&store).await;
    let held = |epoch, acquired_epoch| pb::Holding {
        kind: PortKind.into(),
        id: port_id(1).to_string(),
        epoch,
        generation: 9,
        acquired_epoch,
        ..pb::Holding::default()
    };
    // As new as the row, and of an epoch that an instance of the lost days acquired.
    for (holding, epoch) in
        [(held(row.epoch, row.epoch), row.epoch), (held(row.epoch + 3, row.epoch + 4), row.epoch + 4)]
    {
        let mut agent = serving.attach(hello(9, vec![holding])).await;
        let snapshot = agent.snapshot().await;
        let sent = snapshot.objects.iter().find(|object| object.kind() == PortKind).expect("the port");
        assert_eq!(sent.epoch, epoch);
        let stored = store.port_find(port_id(1)).await.expect("read").expect("there");
        assert_eq!(stored.epoch, epoch);
        assert_eq!(serving.manager.topology().port(port_id(1)).map(|port| port.epoch), Some(epoch));
        assert_eq!(stored.instance_epoch == 0, epoch > row.epoch, "lifted: to be bound again");
    }
}

#[tokio::test]
async fn every_host_is_told_of_every_other_and_a_change_of_one_is_one_object() {
    let store = TestStore::sqlite().await;
    let serving = Serving::on(&store).await;
    serving.manager.protect(["10.9.0.0/24".parse().expect("a block")].into());
    let mut first = serving.attach(hello_of(1, "192.0.2.1", 0, vec![])).await;
    let snapshot = first.snapshot().await;
    let part = |n: u8| vec![format!("192.0.2.{n}/32"), format!("198.51.100.{n}/32")];
    let managers = ("managers".to_owned(), vec!["10.9.0.0/24".to_owned()]);
    let mut expected = BTreeMap::from([managers, ("hosts-1".to_owned(), part(1))]);
    assert_eq!(protected(&snapshot.objects), expected);

    let mut second = serving.attach(hello_of(2, "192.0.2.2", 0, vec![])).await;
    expected.insert("hosts-2".to_owned(), part(2));
    let snapshot = second.snapshot().await;
    assert_eq!(protected(&snapshot.objects), expected);
    let joined = first.delta().await;
    assert_eq!(protected(&joined.objects), BTreeMap::from([("hosts-2".to_owned(), part(2))]));
    assert_eq!(joined.objects.len(), 1);

    // A ledger that has more than there is.
    let held = pb::Holding {
        kind: pb::ObjectKind::Protected.into(),
        id: "hosts-9".to_owned(),
        generation: snapshot.revision,
        ..pb::Holding::default()
    };
    let mut second = serving.attach(hello_of(2, "192.0.2.2", snapshot.revision, vec![held])).await;
    let gone: Vec<String> =
        second.snapshot().await.objects.into_iter().filter(|object| object.deleted).map(|object| object.id).collect();
    assert_eq!(gone, ["hosts-9"]);

    serving.manager.apply_committed([RowChange::Gone(RowKey::Host(host_id(2)))]);
    let left = first.delta().await;
    let ended: Vec<_> = left.objects.iter().map(|object| (object.id.as_str(), object.deleted)).collect();
    assert_eq!(ended, [("hosts-2", true)]);
}

#[tokio::test]
async fn a_host_that_claims_anothers_underlay_address_is_refused_and_the_first_keeps_it() {
    for store in TestStore::each().await {
        let serving = Serving::on(&store).await;
        let mut first = serving.attach(hello_of(1, "192.0.2.1", 0, vec![])).await;
        let snapshot = first.snapshot().await;
        for claimed in ["192.0.2.1", "::ffff:192.0.2.1"] {
            let problem = serving.refused(hello_of(2, claimed, 0, vec![])).await;
            assert_eq!(problem.code, "underlay_address_taken");
            assert!(
                problem.detail.contains("host-2") && problem.detail.contains("belongs to host host-1"),
                "{problem:?}"
            );
        }
        for nobodys in ["0.0.0.0", "224.0.0.1", "nonsense"] {
            assert_eq!(serving.refused(hello_of(2, nobodys, 0, vec![])).await.kind, domain::ErrorKind::InvalidArgument);
        }
        let rows = store.network_host_load_all().await.expect("read");
        assert_eq!(rows.iter().map(|row| row.host_id).collect::<Vec<_>>(), [host_id(1)]);
        // Under an address of its own it comes, and the first never noticed anything.
        serving.attach(hello_of(2, "192.0.2.2", 0, vec![])).await;
        assert_eq!(first.delta().await.previous, snapshot.revision);
        // Hosts that are alone have the same address, and nobody sends anything there.
        serving.attach(hello_of(3, "127.0.0.1", 0, vec![])).await;
        serving.attach(hello_of(4, "127.0.0.1", 0, vec![])).await;
    }
}

#[tokio::test]
async fn a_port_of_an_instance_that_nobody_knows_is_kept_with_its_network_and_groups_and_no_other_is() {
    let store = TestStore::sqlite().await;
    let row = port(1, 1, Some(1), &[], 2);
    seed(&store, &row).await;
    let serving = Serving::on(&store).await;
    let holding = |kind: pb::ObjectKind, id: String| pb::Holding {
        kind: kind.into(),
        id,
        epoch: 1,
        generation: 9,
        ..pb::Holding::default()
    };
    let unknown = InstanceId::new();
    let held_port = |n: u8, instance_id: InstanceId, acquired_epoch: i64, network: u8, group: u8| pb::Holding {
        acquired_epoch,
        instance_id: instance_id.to_string(),
        network_id: network_id(network).to_string(),
        security_group_ids: vec![group_id(group).to_string()],
        ..holding(PortKind, port_id(n).to_string())
    };
    let holdings = vec![
        held_port(2, unknown, 1, 2, 2),
        // Released, and so deleted while its host was away.
        held_port(3, unknown, 0, 3, 3),
        holding(Network, network_id(2).to_string()),
        holding(Network, network_id(3).to_string()),
        holding(SecurityGroup, group_id(2).to_string()),
        holding(SecurityGroup, group_id(3).to_string()),
    ];
    let ended = |objects: &[pb::DesiredObject]| -> Vec<String> {
        objects.iter().filter(|object| object.deleted).map(|object| object.id.clone()).collect()
    };
    let mut agent = serving.attach(hello(9, holdings)).await;
    let snapshot = agent.snapshot().await;
    let gone = [port_id(3).to_string(), group_id(3).to_string(), network_id(3).to_string()];
    assert_eq!(ended(&snapshot.objects), gone);
    // What happens to the network meanwhile takes nothing away.
    serving.manager.apply_committed([RowChange::Network(network(2, 1)), RowChange::SecurityGroup(group(2, 1))]);
    agent.send(Up::Resync(pb::Resync { reason: "a gap".into() })).await;
    assert!(ended(&agent.snapshot().await.objects).is_empty());
    // The instance ended, and its host says so.
    agent
        .send(Up::Report(pb::Report {
            kind: PortKind.into(),
            id: port_id(2).to_string(),
            epoch: 1,
            start: 1,
            counter: 1,
            observation: Some(pb::report::Observation::Network(NetworkObservation {
                state: ObjectState::Ready.into(),
                ..NetworkObservation::default()
            })),
            ..pb::Report::default()
        }))
        .await;
    let gone = [port_id(2).to_string(), group_id(2).to_string(), network_id(2).to_string()];
    assert_eq!(ended(&agent.delta().await.objects), gone);
    // It ended while its host was away.
    let mut agent = serving.attach(hello(9, vec![held_port(2, unknown, 0, 2, 2)])).await;
    assert_eq!(ended(&agent.snapshot().await.objects), [port_id(2).to_string()]);
}

/// Managers that lead, or wait to, say where they are reached.
#[tokio::test]
async fn no_instance_may_reach_a_manager_wherever_it_runs() {
    let store = TestStore::sqlite().await;
    let at = domain::Timestamp::now();
    let standby = store::ManagerStandbyPut {
        id: "one".into(),
        role: store::ManagerRole::Cluster,
        host: "manager-2".into(),
        pid: 7,
        address: "https://192.0.2.77:7481".into(),
        since: at,
        renewed_at: at,
    };
    store.commit(Unit::new().op(standby)).await.expect("stored");
    let serving = Serving::on(&store).await;
    crate::reconcile::begin(&serving.manager).await;
    let mut agent = serving.attach(hello(0, vec![])).await;
    let parts = protected(&agent.snapshot().await.objects);
    let address: std::net::IpAddr = "192.0.2.77".parse().expect("an address");
    let blocks = parts["managers"].iter().map(|block| block.parse::<domain::network::Cidr>().expect("a CIDR"));
    assert!(blocks.into_iter().any(|block| block.contains(address)), "{parts:?}");
}
