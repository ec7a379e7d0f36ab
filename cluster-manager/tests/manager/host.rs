//! Hosts that come, go, fall silent, are cordoned and are named twice.

use crate::cloud::{Cloud, each, eventually, quick, restless};
use domain::{
    ErrorKind,
    cpu::CpuBaseline,
    flavor::Size,
    host::{AcceptCapacity, HostState},
    instance::{InstanceState as S, Power},
};
use proto::{
    agent::v1::ComputeHost,
    cluster::v1::ChangeHostRequest,
    sync::v1::{self as pb, host_sync_client::HostSyncClient},
};
use sim::{SimConfig, SimHost};
use tokio_stream::wrappers::ReceiverStream;

async fn shown(cloud: &Cloud, host: &SimHost, state: HostState) {
    eventually(&format!("{} is shown {}", host.name(), state.as_str()), || async {
        let row = cloud.store.host_find(host.id()).await.expect("readable").expect("registered");
        if row.state == state { Ok(()) } else { Err(row.state.as_str().to_owned()) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_on_a_disconnected_host_frees_the_quota_holds_the_capacity_and_says_why() {
    for cloud in each(restless()).await {
        let hosts = cloud.hosts(1).await;
        let id = cloud.running("web").await.id;
        let claimed = cloud.fetch(id).await.claim;
        hosts[0].cut().await;
        shown(&cloud, &hosts[0], HostState::Disconnected).await;
        cloud.delete(id).await;
        eventually("quota is free, the reason is shown", || async {
            let (used, row) = (cloud.used().await, cloud.fetch(id).await);
            let done = used == Default::default() && row.status.reason == "waiting for its host to connect again";
            if done { Ok(()) } else { Err(format!("{used:?} {:?}", row.status)) }
        })
        .await;
        let row = cloud.fetch(id).await;
        assert_eq!((row.status.state, row.quota_released), (S::Deleting, true));
        let host = cloud.store.host_find(hosts[0].id()).await.expect("readable").expect("registered");
        assert_eq!(host.used, claimed, "the capacity is held until proof");
        assert_eq!(cloud.store.disk_list_of_instance(id).await.expect("readable").len(), 1, "and so is the disk");
        assert!(hosts[0].machines().contains_key(&id), "it still runs there");
        hosts[0].restart();
        cloud.gone(id).await;
        shown(&cloud, &hosts[0], HostState::Up).await;
        cloud.leaves_nothing().await;
        let events = cloud.store.event_of_object(&hosts[0].id().to_string(), 0, 100).await.expect("readable");
        let kinds: Vec<&str> = events.iter().map(|e| e.kind.as_str()).collect();
        assert_eq!(kinds, ["host.registered", "host.disconnected", "host.up"]);
        cloud.stop(hosts).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_requested_while_a_host_is_disconnected_waits_for_it_with_a_reason() {
    let cloud = Cloud::start(restless()).await;
    let hosts = cloud.hosts(1).await;
    let id = cloud.running("web").await.id;
    hosts[0].cut().await;
    shown(&cloud, &hosts[0], HostState::Disconnected).await;
    let waiting = cloud.power(id, Power::Off).await.expect("accepted");
    assert_eq!(waiting.status.reason, "waiting for its host to connect again");
    let refused = cloud.try_create(&cloud.context(), cloud.request(&["b"], &cloud.spec())).await.expect_err("away");
    assert_eq!(refused.kind, ErrorKind::NoCapacity);
    assert!(refused.detail.contains("1 disconnected"), "{}", refused.detail);
    hosts[0].restart();
    let stopped = cloud.becomes(id, S::Stopped).await;
    assert_eq!(stopped.status.reason, "");
    cloud.stop(hosts).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blink_shorter_than_the_grace_is_seen_by_nobody() {
    let mut config = quick();
    config.disconnect_grace_ms = 20_000;
    let cloud = Cloud::start(config).await;
    let hosts = cloud.hosts(1).await;
    hosts[0].crash().await;
    // It is placed although the agent is away for a moment: it gets it when it is back.
    let id = cloud.create("web").await.id;
    hosts[0].restart();
    cloud.becomes(id, S::Running).await;
    let events = cloud.store.event_of_object(&hosts[0].id().to_string(), 0, 100).await.expect("readable");
    assert_eq!(events.len(), 1, "{events:?}");
    cloud.stop(hosts).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cordoned_host_keeps_what_it_has_and_gets_nothing_new() {
    let cloud = Cloud::start(quick()).await;
    let hosts = cloud.hosts(2).await;
    let id = cloud.running("web").await.id;
    cloud.cordon(hosts[0].id(), true).await;
    cloud.cordon(hosts[1].id(), true).await;
    let refused = cloud.try_create(&cloud.context(), cloud.request(&["b"], &cloud.spec())).await.expect_err("cordoned");
    assert!(refused.detail.contains("2 cordoned"), "{}", refused.detail);
    cloud.power(id, Power::Off).await.expect("what is there is changed as ever");
    cloud.becomes(id, S::Stopped).await;
    cloud.cordon(hosts[1].id(), false).await;
    let placed = cloud.running("b").await;
    assert_eq!(placed.host_id, Some(hosts[1].id()));
    let overcommit = |permille, expected_generation| ChangeHostRequest {
        host_id: hosts[1].id().to_string(),
        expected_generation,
        cpu_overcommit_permille: Some(permille),
        ..Default::default()
    };
    let stale = cloud.change_host(overcommit(2000, 1)).await.expect_err("it was cordoned since");
    assert_eq!(stale.kind, ErrorKind::PreconditionFailed);
    cloud.change_host(overcommit(2000, 0)).await.expect("accepted");
    // The operator's decision outlives a new connection.
    hosts[1].cut().await;
    hosts[1].restart();
    hosts[1].connected().await;
    let row = cloud.store.host_find(hosts[1].id()).await.expect("readable").expect("registered");
    assert_eq!((row.capacity.vcpus, row.facts.threads), (32, 16));
    cloud.stop(hosts).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_reports_more_than_was_accepted_gets_no_more_for_it() {
    let before = SimConfig::named("host-1");
    let grown = SimConfig { capacity: Size { vcpus: 10_000, ..before.capacity }, ..before.clone() };
    for (accept_capacity, first, later) in
        [(AcceptCapacity::Always, 16, 10_000), (AcceptCapacity::First, 16, 16), (AcceptCapacity::Never, 0, 0)]
    {
        for cloud in each(cluster_manager::Config { accept_capacity, ..quick() }).await {
            let row = async || cloud.store.host_find(before.host_id).await.expect("readable").expect("registered");
            let host = cloud.host(before.clone()).await;
            assert_eq!(row().await.capacity.vcpus, first);
            let created = cloud.try_create(&cloud.context(), cloud.request(&["one"], &cloud.spec())).await;
            assert_eq!(created.is_ok(), first > 0, "{created:?}");
            host.stop().await;
            let host = cloud.host(grown.clone()).await;
            // It is another machine to the manager, for its ledger is new.
            let host_id = before.host_id.to_string();
            let request = ChangeHostRequest { host_id, accept_loss: true, ..Default::default() };
            cloud.change_host(request).await.expect("accepted");
            shown(&cloud, &host, HostState::Up).await;
            assert_eq!(row().await.capacity.vcpus, later);
            assert_eq!(row().await.unaccepted().vcpus, 10_000 - later);
            let accept = |dry_run| {
                let mut context = cloud.context();
                context.dry_run = dry_run;
                let host_id = before.host_id.to_string();
                let request = ChangeHostRequest { host_id, accept_capacity: true, ..Default::default() };
                let mut client = cloud.client();
                async move { client.change_host(context.request(request)).await.expect("accepted") }
            };
            accept(true).await;
            assert_eq!(row().await.capacity.vcpus, later, "a dry run changes nothing");
            accept(false).await;
            assert_eq!(row().await.capacity.vcpus, 10_000);
            cloud.running("two").await;
            assert_eq!(row().await.unaccepted(), Size::default());
            let events = cloud.store.event_of_object(&before.host_id.to_string(), 0, 100).await.expect("readable");
            assert_eq!(events.iter().any(|e| e.kind.contains("accept_capacity")), later != 10_000, "{events:?}");
            cloud.stop(vec![host]).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_from_instances_is_kept_by_the_scheduler_and_by_the_store() {
    for cloud in each(quick()).await {
        let hosts = cloud.hosts(1).await;
        let id = hosts[0].id();
        let change = |request: ChangeHostRequest| cloud.change_host(request);
        let ask = || ChangeHostRequest { host_id: id.to_string(), ..Default::default() };
        let row = async || cloud.store.host_find(id).await.expect("readable").expect("registered");
        let first = cloud.running("first").await;
        let held = cloud.fetch(first.id).await.claim;
        // All is reserved but what one more takes.
        let spare = held.memory_mib + 10;
        let reserved = 32 * 1024 - held.memory_mib - spare;
        change(ChangeHostRequest { reserved_memory_mib: Some(reserved), ..ask() }).await.expect("accepted");
        assert_eq!(row().await.capacity.memory_mib, held.memory_mib + spare);
        cloud.running("second").await;
        let full =
            cloud.try_create(&cloud.context(), cloud.request(&["third"], &cloud.spec())).await.expect_err("full");
        assert!(full.detail.contains("short of memory"), "{}", full.detail);
        // Guests get twice the memory: the same machine has capacity again.
        change(ChangeHostRequest { memory_overcommit_permille: Some(2000), ..ask() }).await.expect("accepted");
        let third = cloud.running("third").await;
        // The host has less than it holds: all stays, nothing new fits; a new connection changes nothing of that.
        change(ChangeHostRequest { reserved_memory_mib: Some(32 * 1024), ..ask() }).await.expect("accepted");
        hosts[0].cut().await;
        hosts[0].restart();
        hosts[0].connected().await;
        let host = row().await;
        assert_eq!((host.capacity.memory_mib, host.beyond_capacity().memory_mib), (0, 3 * held.memory_mib));
        assert_eq!((host.reserved.memory_mib, host.memory_overcommit_permille), (32 * 1024, 2000));
        cloud.becomes(third.id, S::Running).await;
        let full = cloud.try_create(&cloud.context(), cloud.request(&["fourth"], &cloud.spec())).await;
        assert_eq!(full.expect_err("less than nothing").kind, ErrorKind::NoCapacity);
        let more = change(ChangeHostRequest { reserved_memory_mib: Some(32 * 1024 + 1), ..ask() }).await;
        assert_eq!(more.expect_err("more than there is").kind, ErrorKind::InvalidArgument);
        cloud.delete(third.id).await;
        cloud.gone(third.id).await;
        change(ChangeHostRequest { reserved_memory_mib: Some(0), ..ask() }).await.expect("accepted");
        cloud.running("fourth").await;
        cloud.stop(hosts).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_records_the_cpu_that_it_was_placed_on() {
    for cloud in each(quick()).await {
        let cpu = CpuBaseline { model: "host".into(), features: vec!["avx2".into()], ..CpuBaseline::default() };
        let mut config = SimConfig::named("host-1");
        config.facts.guest_cpu = Some(cpu.clone());
        let host = cloud.host(config).await;
        let web = cloud.running("web").await;
        assert_eq!(web.binding.cpu_baseline, Some(cpu.id()));
        assert_eq!(cloud.fetch(web.id).await.binding, web.binding, "what was answered is what is kept");
        let known = cloud.store.cpu_baseline_list().await.expect("readable");
        assert_eq!(known.iter().map(|row| (&row.id, &row.document)).collect::<Vec<_>>(), [(&cpu.id(), &cpu)]);
        // This host's agent doesn't report its CPU.
        cloud.cordon(host.id(), true).await;
        let silent = cloud.host(SimConfig::named("host-2")).await;
        assert_eq!(cloud.running("other").await.binding.cpu_baseline, None);
        cloud.stop(vec![host, silent]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_belongs_to_one_host() {
    let cloud = Cloud::start(quick()).await;
    let hosts = cloud.hosts(1).await;
    let mut client = HostSyncClient::new(cloud.board.target.channel().expect("a channel"));
    let (tx, rx) = tokio::sync::mpsc::channel(4);
    let facts_json = "{\"cpu_model\":\"\",\"cpu_vendor\":\"\",\"cpu_features\":[],\"architecture\":\"\",\"sockets\":0,\
             \"cores\":0,\"threads\":0,\"numa_nodes\":0,\"kernel\":\"\",\"qemu_version\":\"\",\"accelerator\":\"\",\
             \"accelerator_reason\":\"\",\"agent_version\":\"\"}"
        .to_owned();
    let hello = pb::Hello {
        host_id: domain::HostId::new().to_string(),
        name: "host-1".to_owned(),
        host: Some(pb::hello::Host::Compute(ComputeHost {
            capacity: Some(Default::default()),
            facts_json,
            ..Default::default()
        })),
        ..Default::default()
    };
    tx.send(pb::AgentMessage { message: Some(pb::agent_message::Message::Hello(hello)) })
        .await
        .expect("the stream is open");
    let refused = client.attach(ReceiverStream::new(rx)).await.expect_err("taken");
    assert_eq!(proto::status::from_status(&refused).code, "host_name_taken");
    cloud.stop(hosts).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_connection_replaces_the_first_and_a_silent_one_is_closed() {
    let mut config = quick();
    config.heartbeat_timeout_ms = 2000;
    let cloud = Cloud::start(config).await;
    let config = SimConfig::named("host-1");
    let host = cloud.host(config.clone()).await;
    let mut client = HostSyncClient::new(cloud.board.target.channel().expect("a channel"));
    let (tx, rx) = tokio::sync::mpsc::channel(4);
    let hello = pb::Hello {
        host_id: config.host_id.to_string(),
        name: config.name.clone(),
        host: Some(pb::hello::Host::Compute(config.description())),
        ..Default::default()
    };
    tx.send(pb::AgentMessage { message: Some(pb::agent_message::Message::Hello(hello)) })
        .await
        .expect("the stream is open");
    let mut second = client.attach(ReceiverStream::new(rx)).await.expect("registered").into_inner();
    host.disconnected().await;
    // The first one connects again and takes its place back; this one's stream ends.
    host.connected().await;
    let ended = async { while let Ok(Some(_)) = second.message().await {} };
    tokio::time::timeout(std::time::Duration::from_secs(20), ended).await.expect("it ends");
    // A connection that sends nothing more is closed too.
    host.stop().await;
    let (tx, rx) = tokio::sync::mpsc::channel(4);
    let hello = pb::Hello {
        host_id: config.host_id.to_string(),
        name: config.name.clone(),
        host: Some(pb::hello::Host::Compute(config.description())),
        ..Default::default()
    };
    tx.send(pb::AgentMessage { message: Some(pb::agent_message::Message::Hello(hello)) })
        .await
        .expect("the stream is open");
    let mut silent = client.attach(ReceiverStream::new(rx)).await.expect("registered").into_inner();
    let ended = async { while let Ok(Some(_)) = silent.message().await {} };
    tokio::time::timeout(std::time::Duration::from_secs(20), ended).await.expect("it ends");
    drop(tx);
    cloud.stop(vec![]).await;
}
