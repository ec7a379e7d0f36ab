//! Hosts whose agents come back without what they knew, and hosts whose disks are full.

use crate::cloud::{Cloud, each, eventually, quick, restless};
use domain::{
    ErrorKind,
    host::{Host, HostState},
    instance::{InstanceState as S, Power},
};
use proto::cluster::v1::{self as pb, ChangeHostRequest, change_instance_request::Change};
use sim::SimHost;

async fn row(cloud: &Cloud, host: &SimHost) -> Host {
    cloud.store.host_find(host.id()).await.expect("readable").expect("registered")
}

async fn shown(cloud: &Cloud, host: &SimHost, state: HostState) -> Host {
    eventually(&format!("{} is shown {}", host.name(), state.as_str()), || async {
        let row = row(cloud, host).await;
        if row.state == state { Ok(row) } else { Err(row.state.as_str().to_owned()) }
    })
    .await
}

async fn accept_loss(cloud: &Cloud, host: &SimHost) -> Result<pb::ChangeHostResponse, domain::Problem> {
    let host_id = host.id().to_string();
    cloud.change_host(ChangeHostRequest { host_id, accept_loss: true, ..Default::default() }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_lost_its_ledger_is_held_until_its_operator_accepts_the_loss() {
    for cloud in each(restless()).await {
        let hosts = cloud.hosts(1).await;
        let (web, off) = (cloud.running("web").await.id, cloud.running("off").await.id);
        assert_eq!(accept_loss(&cloud, &hosts[0]).await.expect_err("it isn't held").kind, ErrorKind::InvalidState);
        let before = row(&cloud, &hosts[0]).await.ledger;
        hosts[0].crash().await;
        drop(hosts[0].lose_directory());
        hosts[0].restart();
        let held = shown(&cloud, &hosts[0], HostState::Held).await;
        assert!(held.state_reason().contains("accept-loss"), "{}", held.state_reason());
        assert_eq!((&held.ledger.id, held.ledger.start), (&before.id, before.start), "what counts stays");
        // It is given nothing, old or new, and what its owner requests waits.
        let refused = cloud.try_create(&cloud.context(), cloud.request(&["b"], &cloud.spec())).await.expect_err("held");
        assert_eq!(refused.kind, ErrorKind::NoCapacity);
        let waiting = cloud.power(off, Power::Off).await.expect("accepted");
        assert_eq!(waiting.status.reason, "waiting for its host to connect again");
        // Neither a new connection nor another manager changes that.
        hosts[0].cut().await;
        shown(&cloud, &hosts[0], HostState::Disconnected).await;
        hosts[0].restart();
        shown(&cloud, &hosts[0], HostState::Held).await;
        cloud.restart().await;
        hosts[0].connected().await;
        shown(&cloud, &hosts[0], HostState::Held).await;
        assert!(hosts[0].held().is_empty() && hosts[0].machines().is_empty(), "nothing was made anew");

        // The manager that was just started may not lead yet.
        eventually("a manager that leads accepts it", || async {
            match accept_loss(&cloud, &hosts[0]).await {
                Err(problem) if problem.kind == ErrorKind::Unavailable => Err(problem.to_string()),
                answered => Ok(answered),
            }
        })
        .await
        .expect("accepted");
        shown(&cloud, &hosts[0], HostState::Up).await;
        let lost = cloud.becomes(web, S::Error).await;
        assert!(lost.status.reason.contains("root disk is gone"), "{}", lost.status.reason);
        cloud.becomes(off, S::Stopped).await;
        // A rebuild makes it anew, because its owner says so.
        let rebuild = pb::Rebuild { image_id: cloud.image_id.to_string() };
        cloud.change(web, Change::Rebuild(rebuild)).await.expect("accepted");
        cloud.becomes(web, S::Running).await;
        let events = cloud.store.event_of_object(&hosts[0].id().to_string(), 0, 100).await.expect("readable");
        assert!(events.iter().any(|e| e.kind == "host.held" && e.message.contains("accept-loss")), "{events:?}");
        assert!(events.iter().any(|e| e.kind.starts_with("host.accept_loss")), "{events:?}");
        for id in [web, off] {
            cloud.delete(id).await;
            cloud.gone(id).await;
        }
        cloud.leaves_nothing().await;
        cloud.stop(hosts).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_is_mounted_again_ends_the_hold_without_a_decision() {
    let cloud = Cloud::start(quick()).await;
    let hosts = cloud.hosts(1).await;
    let id = cloud.running("web").await.id;
    hosts[0].crash().await;
    let lost = hosts[0].lose_directory();
    hosts[0].restart();
    shown(&cloud, &hosts[0], HostState::Held).await;
    hosts[0].crash().await;
    hosts[0].mount(lost);
    hosts[0].restart();
    shown(&cloud, &hosts[0], HostState::Up).await;
    cloud.power(id, Power::Off).await.expect("accepted");
    cloud.becomes(id, S::Stopped).await;
    cloud.power(id, Power::On).await.expect("accepted");
    cloud.becomes(id, S::Running).await;
    cloud.stop(hosts).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_copy_of_a_ledger_is_a_loss_too() {
    let cloud = Cloud::start(quick()).await;
    let hosts = cloud.hosts(1).await;
    let old = hosts[0].copy_directory();
    let id = cloud.running("web").await.id;
    for _ in 0..2 {
        hosts[0].crash().await;
        hosts[0].restart();
        hosts[0].connected().await;
    }
    hosts[0].crash().await;
    hosts[0].mount(old);
    hosts[0].restart();
    let held = shown(&cloud, &hosts[0], HostState::Held).await;
    assert!(held.state_reason().contains("an older copy"), "{}", held.state_reason());
    accept_loss(&cloud, &hosts[0]).await.expect("accepted");
    shown(&cloud, &hosts[0], HostState::Up).await;
    // Its reports count again, although their start was lower than those that are stored.
    let lost = cloud.becomes(id, S::Error).await;
    assert!(lost.status.reason.contains("root disk is gone"), "{}", lost.status.reason);
    cloud.stop(hosts).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_with_a_full_disk_takes_nothing_new_and_deletes_all_the_same() {
    for cloud in each(quick()).await {
        let hosts = cloud.hosts(1).await;
        let id = cloud.running("web").await.id;
        hosts[0].set_disk_full(true);
        let full = shown(&cloud, &hosts[0], HostState::DiskFull).await;
        assert!(full.state_reason().contains("free or add space"), "{}", full.state_reason());
        let refused = cloud.try_create(&cloud.context(), cloud.request(&["b"], &cloud.spec())).await.expect_err("full");
        assert_eq!(refused.kind, ErrorKind::NoCapacity);
        // It comes back as full as it was, and is at no moment taken for another.
        hosts[0].crash().await;
        hosts[0].restart();
        hosts[0].connected().await;
        assert_eq!(row(&cloud, &hosts[0]).await.state, HostState::DiskFull);
        cloud.power(id, Power::Off).await.expect("what is there is changed as ever");
        cloud.becomes(id, S::Stopped).await;
        cloud.delete(id).await;
        cloud.gone(id).await;
        hosts[0].set_disk_full(false);
        shown(&cloud, &hosts[0], HostState::Up).await;
        cloud.running("b").await;
        cloud.stop(hosts).await;
    }
}
