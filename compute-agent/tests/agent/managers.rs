//! Tests in which the manager disconnects, returns, repeats itself, is late, or acknowledges nothing.

use crate::{
    rig::{Host, TestInstance},
    stand_in::fence,
};
use proto::{
    cluster::v1::{InstanceState as S, Power},
    sync::v1::Delta,
};

#[tokio::test(flavor = "multi_thread")]
async fn the_host_continues_without_its_manager_and_reports_everything_when_it_is_back() {
    let Some(host) = Host::start(1).await else { return };
    let instance = TestInstance::tiny(&host, "goes-on");
    host.reach(&instance, S::Running).await;
    let first = host.qemu(&instance).expect("runs");
    host.manager.go_away();
    first.kill().await.expect("killed");
    let second = crate::rig::eventually("started again by the host alone", || host.qemu(&instance)).await;
    assert_ne!(first, second);
    host.manager.come_back();
    let back = host
        .manager
        .report(&instance.id(), "told", |r| r.crash_count == 1 && r.state() == S::Running && r.converged)
        .await;
    assert_eq!(back.start, 1, "the same life of the agent");
    assert_eq!(host.qemu(&instance), Some(second));
    host.manager.until("heartbeats", |received| (received.heartbeats() >= 2).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_that_a_manager_asks_for_name_their_host() {
    let Some(host) = Host::start(1).await else { return };
    let beats = host.manager.until("heartbeats", |h| (h.beats().len() >= 3).then(|| h.beats().to_vec())).await;
    let host_id = host.manager.until("hello", |h| h.hellos().last().map(|hello| hello.host_id.clone())).await;
    assert!(beats.iter().all(|named| *named == host_id), "{beats:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_command_is_refused_and_a_gap_brings_a_snapshot() {
    let Some(host) = Host::start(1).await else { return };
    let mut instance = TestInstance::tiny(&host, "fenced");
    instance.desired.epoch = 2;
    host.reach(&instance, S::Running).await;
    let qemu = host.qemu(&instance).expect("runs");
    let mut stale = instance.clone();
    stale.desired.epoch = 1;
    stale.desired.generation = 99;
    stale.spec().deleted = true;
    // An old leader deletes what is no longer its own; the repeat of the revision makes it no gap.
    let revision = 1;
    host.manager.send_delta(Delta {
        previous: revision,
        revision,
        objects: vec![stale.desired.clone().into()],
        ..Default::default()
    });
    // Behind it, in the same stream, something that is done: then the first has been judged.
    host.reach(instance.power(Power::Paused), S::Paused).await;
    assert_eq!(host.qemu(&instance), Some(qemu.clone()));
    let reports = host.manager.reports(&instance.id());
    assert!(reports.iter().all(|r| r.epoch == 2 && r.state() != S::Deleting), "{reports:?}");

    let mut later = instance.clone();
    later.power(Power::On);
    host.manager.send_delta(Delta {
        previous: 40,
        revision: 41,
        objects: vec![later.desired.clone().into()],
        ..Default::default()
    });
    host.manager.until("a request for a snapshot", |received| (received.resyncs() == 1).then_some(())).await;
    let reports = host.manager.reports(&instance.id());
    assert!(
        reports.iter().all(|r| r.generation <= instance.desired.generation),
        "what came over the gap was not taken"
    );
    host.reach(&later, S::Running).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_is_sent_again_until_it_is_acknowledged() {
    let Some(host) = Host::start(1).await else { return };
    host.manager.set_acknowledges_nothing(true);
    let mut instance = TestInstance::tiny(&host, "insists");
    instance.spec().power = Power::Off.into();
    let stopped = host.reach(&instance, S::Stopped).await;
    let twice = |received: &crate::stand_in::Received<'_>| {
        (received.reports().iter().filter(|r| fence(r) == fence(&stopped)).count() >= 3).then_some(())
    };
    host.manager.until("the same report three times", twice).await;
    host.manager.set_acknowledges_nothing(false);
    host.manager
        .until("once more, and acknowledged", |received| {
            (received.reports().iter().filter(|r| fence(r) == fence(&stopped)).count() >= 4).then_some(())
        })
        .await;
    // Longer than the time after which it would come again, measured by the agent's own heartbeats.
    let (beats, had) = host.manager.until("beats", |h| Some((h.heartbeats(), h.reports().len()))).await;
    host.manager.until("quiet heartbeats", |h| (h.heartbeats() > beats + 7).then_some(())).await;
    let now = host.manager.until("reports", |h| Some(h.reports().len())).await;
    assert_eq!(now, had, "what is acknowledged is not sent again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_completed_deletion_is_reported_again_on_request_and_the_instance_never_returns() {
    let Some(mut host) = Host::start(1).await else { return };
    let mut instance = TestInstance::tiny(&host, "gone");
    let before = instance.clone();
    host.reach(&instance, S::Running).await;
    host.reach(instance.delete(), S::Deleted).await;
    // The manager lost the answer; the agent has been restarted since.
    host.kill_agent().await;
    host.start_agent().await;
    let hello = host.manager.hellos().pop().expect("hello");
    assert!(hello.holdings.iter().any(|h| h.id == instance.id() && h.tombstone));
    let start = hello.start;
    host.manager.report(&instance.id(), "said again", |r| r.start == start && r.state() == S::Deleted).await;
    // An old word about it, and a newer one of the same epoch.
    let mut ghost = before.clone();
    ghost.desired.generation = 50;
    host.manager.send_delta(Delta {
        previous: 0,
        revision: 0,
        objects: vec![before.desired.clone().into(), ghost.desired.into()],
        ..Default::default()
    });
    let mut other = TestInstance::tiny(&host, "other");
    other.spec().power = Power::Off.into();
    host.reach(&other, S::Stopped).await;
    assert!(host.qemu(&instance).is_none() && !host.instance_dir(&instance).exists());
}
