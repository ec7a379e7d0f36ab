//! A database that was put back from a backup, under hosts that went on: whatever they hold beyond it, all comes to rest as the rows say.

use crate::cloud::{Cloud, eventually, restless};
use domain::{
    InstanceId, NetworkId, PortId, SubnetId,
    flavor::Size,
    instance::{InstanceState as S, Power},
    network::{Change as NetworkChange, Network, NewNetwork, NewSubnet, Port, Subnet, SubnetSpec},
};
use proto::{
    cluster::v1::{self as pb, change_instance_request::Change},
    network::v1::NetworkHost,
    sync::v1::{self as sync, desired_object::Object, host_sync_client::HostSyncClient},
};
use sim::SimHost;
use tokio_stream::wrappers::ReceiverStream;

async fn network(cloud: &Cloud) -> NetworkId {
    cloud.apply(&NetworkChange::ProjectDefaults).await.expect("defaults");
    let network_id = NetworkId::new();
    let create = NetworkChange::create::<Network>(NewNetwork {
        id: network_id,
        name: "blue".parse().expect("a name"),
        description: String::new(),
        mtu: None,
    });
    cloud.apply(&create).await.expect("a network");
    let spec = SubnetSpec {
        cidr: "10.7.0.0/24".parse().expect("a block"),
        gateway: [10, 7, 0, 1].into(),
        dns: vec![],
        allocation: vec![],
        host_routes: vec![],
    };
    let name = "blue-4".parse().expect("a name");
    let create = NetworkChange::create::<Subnet>(NewSubnet { id: SubnetId::new(), network_id, name, spec, dhcp: true });
    cloud.apply(&create).await.expect("a subnet");
    network_id
}

fn attach(network_id: NetworkId) -> Change {
    let port_id = PortId::new().to_string();
    Change::AttachNic(pb::NicRequest { port_id, network_id: network_id.to_string(), ..pb::NicRequest::default() })
}

/// The ports that the host was given for the instance's NICs.
fn ports_on(host: &SimHost, id: InstanceId) -> Vec<String> {
    match host.desired(id).and_then(|desired| desired.object) {
        Some(Object::Instance(instance)) => instance.ports.into_iter().map(|port| port.port_id).collect(),
        _ => vec![],
    }
}

async fn kinds_of_events(cloud: &Cloud, id: impl ToString) -> Vec<String> {
    let events = cloud.store.event_of_object(&id.to_string(), 0, 1000).await.expect("readable");
    events.into_iter().map(|event| event.kind).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_put_back_under_hosts_that_went_on_converges() {
    let cloud = Cloud::start(restless()).await;
    let mut hosts = cloud.hosts(1).await;
    let network_id = network(&cloud).await;
    let mut ids = Vec::new();
    for name in ["stopped", "resized", "deleted", "wired", "rebooted", "paused", "as-it-was", "half-deleted"] {
        ids.push(cloud.running(name).await.id);
    }
    let [stopped, resized, deleted, wired, rebooted, paused, untouched, half] = ids[..] else { panic!("eight") };
    // Its deletion is accepted before the backup, and carried out after it.
    hosts[0].set_deaf(true);
    cloud.delete(half).await;
    let backup = cloud.back_up();
    hosts[0].set_deaf(false);
    hosts[0].cut().await;
    hosts[0].restart();
    cloud.gone(half).await;

    cloud.power(stopped, Power::Off).await.expect("accepted");
    cloud.becomes(stopped, S::Stopped).await;
    cloud.power(resized, Power::Off).await.expect("accepted");
    cloud.becomes(resized, S::Stopped).await;
    cloud.resize(resized, Size { vcpus: 2, memory_mib: 512, disk_gib: 4 }).await.expect("accepted");
    cloud.becomes(resized, S::Stopped).await;
    cloud.power(resized, Power::On).await.expect("accepted");
    cloud.becomes(resized, S::Running).await;
    cloud.delete(deleted).await;
    cloud.gone(deleted).await;
    cloud.change(wired, attach(network_id)).await.expect("accepted");
    cloud.becomes(wired, S::Running).await;
    let lost_port = ports_on(&hosts[0], wired);
    for _ in 0..3 {
        cloud.change(rebooted, Change::Reboot(pb::Reboot { hard: true })).await.expect("accepted");
        cloud.becomes(rebooted, S::Running).await;
    }
    cloud.power(paused, Power::Paused).await.expect("accepted");
    cloud.becomes(paused, S::Paused).await;
    let orphan = cloud.running("made-after").await.id;
    hosts[0].cut().await;

    let cloud = cloud.put_back(backup).await;
    // The number that the lost NIC had is given again, to another NIC, before the host is back.
    cloud.change(wired, attach(network_id)).await.expect("accepted");
    hosts[0].restart();
    cloud.gone(deleted).await;
    cloud.gone(half).await;
    // A tombstone has done its work when no row is left; by the report of the deletion, or by the next Hello.
    eventually("the host may forget what is gone", || async {
        let forgotten = [deleted, half].map(|id| hosts[0].forgotten(id));
        if forgotten == [true, true] { Ok(()) } else { Err(format!("{forgotten:?}")) }
    })
    .await;
    assert!(!hosts[0].forgotten(orphan) && !hosts[0].forgotten(stopped));
    for id in [stopped, resized, rebooted, paused, untouched, wired] {
        cloud.becomes(id, S::Running).await;
    }
    let row = cloud.fetch(wired).await;
    let port = row.spec.nics[0].port_id.to_string();
    assert_ne!(lost_port, std::slice::from_ref(&port));
    assert_eq!(ports_on(&hosts[0], wired), [port], "the host has the NIC of the rows, not the one of the same number");
    assert_eq!(cloud.fetch(resized).await.spec.size, cloud.spec().size);
    assert!(hosts[0].machines().contains_key(&orphan), "what nobody knows goes on");
    let orphans = cloud.store.orphan_list_of_hosts(&[hosts[0].id()]).await.expect("readable");
    assert_eq!(orphans.iter().map(|o| o.instance_id).collect::<Vec<_>>(), [orphan]);
    assert!(kinds_of_events(&cloud, stopped).await.contains(&"instance.restored".to_owned()));
    assert!(!kinds_of_events(&cloud, untouched).await.contains(&"instance.restored".to_owned()));
    assert!(kinds_of_events(&cloud, hosts[0].id()).await.contains(&"host.ahead_of_database".to_owned()));

    // What is requested from now on is done: no number of the lost days is in the way.
    let restarts = cloud.world.starts_so_far();
    cloud.change(rebooted, Change::Reboot(pb::Reboot { hard: true })).await.expect("accepted");
    cloud.becomes(rebooted, S::Running).await;
    assert_eq!(cloud.world.starts_so_far(), restarts + 1, "a reboot reboots");
    for id in [stopped, resized, wired, rebooted, paused, untouched] {
        cloud.power(id, Power::Off).await.expect("accepted");
        cloud.becomes(id, S::Stopped).await;
        cloud.delete(id).await;
        cloud.gone(id).await;
    }
    // A second connection finds nothing more to lift.
    let lifted = kinds_of_events(&cloud, hosts[0].id()).await;
    hosts[0].cut().await;
    hosts[0].restart();
    hosts[0].connected().await;
    eventually("the host is up", || async {
        let host = cloud.store.host_find(hosts[0].id()).await.expect("readable").expect("there");
        if host.state == domain::host::HostState::Up { Ok(()) } else { Err(format!("{:?}", host.state)) }
    })
    .await;
    let count = |kinds: &[String]| kinds.iter().filter(|kind| *kind == "host.ahead_of_database").count();
    assert_eq!(count(&kinds_of_events(&cloud, hosts[0].id()).await), count(&lifted));
    cloud.leaves_nothing().await;
    assert_eq!(cloud.world.violations(), Vec::<String>::new());
    cloud.stop(hosts.split_off(0)).await;
}

/// The hello of a network-agent that holds a port under this epoch.
fn network_hello(host: &SimHost, port: &Port, epoch: i64) -> sync::Hello {
    let network = NetworkHost {
        underlay_address: "192.0.2.1".to_owned(),
        underlay_mtu: 1500,
        external_networks: vec![],
        addresses: vec![],
    };
    let holding = sync::Holding {
        kind: sync::ObjectKind::Port.into(),
        id: port.id.to_string(),
        epoch,
        generation: 9,
        acquired_epoch: epoch,
        ..sync::Holding::default()
    };
    sync::Hello {
        ledger_id: String::new(),
        host_id: host.id().to_string(),
        name: host.name().to_owned(),
        start: 1,
        revision: 9,
        holdings: vec![holding],
        host: Some(sync::hello::Host::Network(network)),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_was_lifted_is_bound_again_and_its_host_gets_the_new_epoch() {
    let cloud = Cloud::start(restless()).await;
    let hosts = cloud.hosts(1).await;
    let network_id = network(&cloud).await;
    let id = cloud.running("web").await.id;
    cloud.change(id, attach(network_id)).await.expect("accepted");
    let before = cloud.becomes(id, S::Running).await;
    let port = cloud.store.port_list_of_instance(id).await.expect("readable").remove(0);
    // The host's network-agent holds the port under an epoch of the lost days.
    let (up, outbound) = tokio::sync::mpsc::channel(4);
    let hello = sync::agent_message::Message::Hello(network_hello(&hosts[0], &port, port.epoch + 7));
    up.send(sync::AgentMessage { message: Some(hello) }).await.expect("open");
    let mut client = HostSyncClient::new(cloud.resource_channel.clone());
    let _down = client.attach(ReceiverStream::new(outbound)).await.expect("attached");
    let given = eventually("the host has the port under its new epoch", || async {
        let port = cloud.store.port_find(port.id).await.expect("readable").expect("there");
        let Some(Object::Instance(instance)) = hosts[0].desired(id).and_then(|desired| desired.object) else {
            return Err("the host hasn't the instance".to_owned());
        };
        let given = instance.ports.first().map(|port| port.epoch);
        let row = cloud.fetch(id).await;
        let settled = row.generation > before.generation && row.status.observed_generation == row.generation;
        if settled && given == Some(port.epoch) && port.instance_epoch == row.epoch {
            Ok(port.epoch)
        } else {
            Err(format!("{port:?} {given:?} {:?}", row.status))
        }
    })
    .await;
    assert!(given > port.epoch + 7, "under an epoch that nobody had");
    drop(up);
    cloud.delete(id).await;
    cloud.gone(id).await;
    cloud.leaves_nothing().await;
    cloud.stop(hosts).await;
}
