//! `?wait=`: woken by what is committed, whoever commits it, and cheap with many who wait.

use crate::compute::{Cloud, config_of};
use domain::{InstanceId, Timestamp, event::NewEvent, instance::InstanceState};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use store::{EventInsert, InstanceProgress, InstanceRow, Unit};

async fn find(cloud: &Cloud, made: &Value) -> InstanceRow {
    let id: InstanceId = made["id"].as_str().expect("an id").parse().expect("an id");
    cloud.world.store.instance_find(None, id).await.expect("a read").expect("it is there")
}

/// What the cluster-manager commits when it gives up on something.
async fn fail(cloud: &Cloud, instance: &InstanceRow) {
    let now = Timestamp::now();
    let event = NewEvent {
        at: now,
        project_id: Some(instance.project_id),
        kind: "instance.error".to_owned(),
        object_kind: "instance".to_owned(),
        object_id: instance.id.to_string(),
        message: "it failed".to_owned(),
        request_id: String::new(),
        data: json!({}),
    };
    let progress = InstanceProgress {
        id: instance.id,
        expected_generation: instance.generation,
        expected_start: instance.fence.start,
        expected_counter: instance.fence.counter,
        state: InstanceState::Error,
        step: String::new(),
        reason: "its host caught fire".to_owned(),
        deadline_at: None,
        at: now,
    };
    cloud.world.store.commit(Unit::new().op(progress).op(EventInsert(event))).await.expect("it commits");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_that_is_too_short_says_where_the_instance_stands() {
    let mut deaf = config_of("alpha");
    deaf.deaf = true;
    let cloud = Cloud::with(vec![deaf]).await;
    let body = json!({"name": "web", "image": "linux", "flavor": "tiny"});
    let late = cloud.ann.post("/v1/instances?wait=running&timeout=200ms", body).await.problem(504, "wait_timeout");
    let detail = late["detail"].as_str().expect("a detail");
    assert!(
        detail.contains("web is not running") && detail.contains("pending") && detail.contains("waiting for its host"),
        "{detail}"
    );
    // The change stands: its host hears again, and it runs.
    assert_eq!(cloud.ann.get("/v1/instances/web").await.expect(200)["state"], "pending");
    cloud.ann.get("/v1/instances/web?wait=running&timeout=0s").await.problem(504, "wait_timeout");
    let waiting = cloud.ann.get("/v1/instances/web?wait=guest&timeout=30s");
    cloud.hosts[0].set_deaf(false);
    cloud.hosts[0].crash().await;
    cloud.hosts[0].restart();
    assert_eq!(waiting.await.expect(200)["state"], "running");
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_ends_the_wait_with_the_object() {
    let mut deaf = config_of("alpha");
    deaf.deaf = true;
    let cloud = Cloud::with(vec![deaf]).await;
    let made =
        cloud.ann.post("/v1/instances", json!({"name": "web", "image": "linux", "flavor": "tiny"})).await.expect(201);
    let instance = find(&cloud, &made).await;
    let waits = ["running", "guest", "stopped"]
        .map(|target| cloud.ann.clone().get_later(&format!("/v1/instances/web?wait={target}&timeout=30s")));
    let started = Instant::now();
    fail(&cloud, &instance).await;
    for wait in waits {
        let ended = wait.await.expect("no panic").expect(200);
        assert_eq!((ended["state"].as_str(), ended["reason"].as_str()), (Some("error"), Some("its host caught fire")));
    }
    assert!(started.elapsed() < Duration::from_secs(25), "not by the time-out");
    let answered = cloud.ann.get("/v1/instances/web/explain").await.expect(200);
    assert!(answered["why"].as_str().is_some_and(|t| t.contains("in error: its host caught fire.")), "{answered}");
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_wait_at_once_and_all_are_answered() {
    let cloud = Cloud::start().await;
    let many = json!({"name": "web", "count": 40, "image": "linux", "flavor": "tiny", "power": "off"});
    cloud.ann.post("/v1/instances?wait=stopped", many).await.expect(201);
    // Five wait for each of forty.
    let waits: Vec<_> = (0..200)
        .map(|i| cloud.ann.clone().get_later(&format!("/v1/instances/web-{}?wait=running&timeout=60s", i % 40 + 1)))
        .collect();
    let starts = (1..=40).map(|i| {
        let ann = cloud.ann.clone();
        async move { ann.post(&format!("/v1/instances/web-{i}/start"), json!({})).await.expect(202) }
    });
    futures::future::join_all(starts).await;
    for wait in waits {
        assert_eq!(wait.await.expect("no panic").expect(200)["state"], "running");
    }
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn being_asked_otherwise_ends_the_wait() {
    let mut deaf = config_of("alpha");
    deaf.deaf = true;
    let cloud = Cloud::with(vec![deaf]).await;
    let ann = &cloud.ann;
    let body = json!({"name": "web", "image": "linux", "flavor": "tiny"});
    let create = {
        let ann = ann.clone();
        tokio::spawn(async move { ann.post("/v1/instances?wait=running&timeout=60s", body).await })
    };
    while ann.get("/v1/instances/web").await.status.as_u16() != 200 {
        tokio::task::yield_now().await;
    }
    ann.post("/v1/instances/web/stop", json!({"hard": true})).await.expect(202);
    let ended = create.await.expect("no panic").expect(201);
    assert_eq!((ended["power"].as_str(), ended["generation"].as_i64()), (Some("off"), Some(2)), "{ended}");
    // Deletion ends every other wait, and is itself waited for.
    let running = ann.clone().get_later("/v1/instances/web?wait=running&timeout=60s");
    ann.delete("/v1/instances/web").await.expect(202);
    let ended = running.await.expect("no panic");
    assert!(matches!(ended.status.as_u16(), 200 | 404), "{}", ended.text);
    let gone = ann.clone().get_later("/v1/instances/web?wait=deleted&timeout=60s");
    cloud.hosts[0].set_deaf(false);
    cloud.hosts[0].crash().await;
    cloud.hosts[0].restart();
    assert!(matches!(gone.await.expect("no panic").status.as_u16(), 204 | 404));
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_ends_waits_with_words() {
    let mut deaf = config_of("alpha");
    deaf.deaf = true;
    let cloud = Cloud::with(vec![deaf]).await;
    let create = {
        let ann = cloud.ann.clone();
        let body = json!({"name": "web", "image": "linux", "flavor": "tiny"});
        tokio::spawn(async move { ann.post("/v1/instances?wait=running&timeout=60s", body).await })
    };
    while cloud.ann.get("/v1/instances/web").await.status.as_u16() != 200 {
        tokio::task::yield_now().await;
    }
    cloud.stop().await;
    create.await.expect("no panic").problem(503, "shutting_down");
}
