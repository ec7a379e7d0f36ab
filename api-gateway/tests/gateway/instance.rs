//! Instances over REST: the real managers, a simulated host.

use crate::{
    compute::{Cloud, column, config_of},
    harness::{answer, key},
};
use domain::flavor::Size;
use reqwest::Method;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_life() {
    let cloud = Cloud::start().await;
    let ann = &cloud.ann;
    ann.post("/v1/ssh-keys", json!({"name": "laptop", "public_key": key("ann@laptop")})).await.expect(201);
    let body = json!({
        "name": "web", "image": "linux", "flavor": "small", "ssh_keys": ["laptop"], "user_data": "#!/bin/sh\n",
        "tags": {"role": "web"}, "on_crash": "stop",
    });
    let made = ann.post("/v1/instances?wait=running", body).await;
    assert_eq!(made.headers["etag"], "\"1\"");
    let made = made.expect(201);
    assert_eq!(
        (made["state"].as_str(), made["power"].as_str(), made["on_crash"].as_str()),
        (Some("running"), Some("on"), Some("stop"))
    );
    assert_eq!((made["flavor"].as_str(), made["disk_gib"].as_u64()), (Some("small"), Some(1)));
    assert!(
        made["ssh_keys"][0].as_str().is_some_and(|k| k.starts_with("SHA256:") && k.ends_with(" ann@laptop")),
        "{made}"
    );
    assert!(made["host_id"].is_null() && made["epoch"].is_null(), "a tenant sees no host: {made}");
    let observed = cloud.admin.get("/v1/instances/web?project=blue").await.expect(200);
    assert_eq!(observed["host_id"].as_str(), Some(cloud.hosts[0].id().to_string().as_str()));
    assert_eq!(observed["epoch"], 1);

    let act = async |action: &str, body, wait: &str| {
        let changed = ann.post(&format!("/v1/instances/web/{action}?wait={wait}"), body).await.expect(202);
        (
            changed["state"].as_str().unwrap_or("").to_owned(),
            changed["generation"].as_i64(),
            changed["observed_generation"].as_i64(),
        )
    };
    assert_eq!(act("pause", json!({}), "paused").await, ("paused".into(), Some(2), Some(2)));
    assert_eq!(act("resume", json!({}), "running").await, ("running".into(), Some(3), Some(3)));
    // Ends in the state it began in: only the generation says that it happened.
    assert_eq!(act("reboot", json!({"hard": true}), "running").await, ("running".into(), Some(4), Some(4)));
    assert_eq!(act("reboot", json!({}), "guest").await, ("running".into(), Some(5), Some(5)));
    ann.post("/v1/instances/web/resize", json!({"vcpus": 2})).await.problem(409, "invalid_state");
    assert_eq!(act("stop", json!({"timeout_secs": 5}), "stopped").await, ("stopped".into(), Some(6), Some(6)));
    ann.post("/v1/instances/web/pause", json!({})).await.problem(409, "invalid_state");
    let resized =
        ann.post("/v1/instances/web/resize?wait=stopped", json!({"vcpus": 2, "disk_gib": 3})).await.expect(202);
    assert_eq!(
        (resized["vcpus"].as_u64(), resized["memory_mib"].as_u64(), resized["disk_gib"].as_u64()),
        (Some(2), Some(128), Some(3))
    );
    assert!(resized["flavor"].is_null());
    ann.post("/v1/instances/web/resize", json!({"disk_gib": 1})).await.problem(400, "disk_shrink");
    assert_eq!(act("start", json!({}), "running").await.0, "running");
    assert_eq!(act("rebuild", json!({}), "guest").await.0, "running");
    // Asked for what is: nothing changes, and it is no error.
    let before = ann.get("/v1/instances/web").await.expect(200);
    let again = ann.post("/v1/instances/web/start?wait=running", json!({})).await.expect(202);
    assert_eq!(again["generation"], before["generation"]);

    let generation = before["generation"].as_i64().expect("a generation");
    let stale =
        ann.request(Method::PATCH, "/v1/instances/web").header("if-match", "\"1\"").json(&json!({"name": "www"}));
    answer(stale).await.problem(412, "precondition_failed");
    let current = ann.request(Method::PATCH, "/v1/instances/web").header("if-match", format!("\"{generation}\""));
    let renamed = answer(current.json(&json!({"name": "www", "tags": {"a": "b"}}))).await.expect(200);
    assert_eq!((renamed["name"].as_str(), &renamed["tags"]), (Some("www"), &json!({"a": "b"})));
    ann.get("/v1/instances/web").await.problem(404, "instance_not_found");

    let timeline = ann.get("/v1/instances/www/timeline").await.expect(200);
    let kinds = column(&timeline, "kind");
    assert_eq!(kinds.first(), Some(&"instance.create_accepted"), "{kinds:?}");
    assert!(kinds.contains(&"instance.running") && kinds.contains(&"instance.stop_accepted"), "{kinds:?}");
    let page = ann.get("/v1/instances/www/timeline?limit=2").await.expect(200);
    let next = page["next_cursor"].as_str().expect("more").to_owned();
    let second = ann.get(&format!("/v1/instances/www/timeline?limit=2&cursor={next}")).await.expect(200);
    assert_eq!([column(&page, "kind"), column(&second, "kind")].concat(), kinds[..4]);

    let deleting = ann.delete("/v1/instances/www?wait=deleted").await;
    assert_eq!(deleting.status.as_u16(), 204, "{}", deleting.text);
    ann.get("/v1/instances/www").await.problem(404, "instance_not_found");
    assert!(cloud.hosts[0].machines().is_empty());
    // What happened stays readable by the id, for those who may.
    let id = made["id"].as_str().expect("an id");
    let kept = ann.get(&format!("/v1/instances/{id}/timeline")).await.expect(200);
    assert_eq!(column(&kept, "kind").last(), Some(&"instance.deleted"));
    cloud.world.project(&cloud.admin, "red").await;
    let eve = cloud.world.user(&cloud.admin, "eve", "red", "member").await;
    eve.get(&format!("/v1/instances/{id}/timeline")).await.problem(404, "instance_not_found");
    assert!(cloud.world.store.leak_report().await.expect("a report").is_empty());
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_are_made_together_or_not_at_all() {
    let cloud = Cloud::with(vec![config_of("alpha"), config_of("beta")]).await;
    let ann = &cloud.ann;
    let many = |name: &str, count: u32, flavor: &str| json!({"name": name, "count": count, "image": "linux", "flavor": flavor});
    let made = ann.post("/v1/instances?wait=running&timeout=30s", many("web", 100, "tiny")).await.expect(201);
    let names = column(&made, "name");
    assert_eq!((names.len(), names[0], names[99]), (100, "web-1", "web-100"));
    assert!(column(&made, "state").iter().all(|s| *s == "running"));
    let one = ann.post("/v1/instances", many("solo", 1, "tiny")).await.expect(201);
    assert_eq!(column(&one, "name"), ["solo-1"]);
    // web-100 is taken, x-100 isn't.
    ann.post("/v1/instances", many("web", 2, "tiny")).await.problem(409, "name_taken");
    let refused = ann.post("/v1/instances", many("big", 3, "huge")).await.problem(507, "no_capacity");
    let explain = &refused["explain"];
    assert_eq!(explain["hosts_considered"], 2, "{refused}");
    assert!(explain["nearest"]["lacks"]["vcpus"].as_u64().is_some_and(|n| n > 0), "{explain}");
    assert!(explain["nearest"].get("host_id").is_none(), "no host's id for a tenant: {explain}");
    let quota = json!({"instances": 102});
    cloud.admin.put("/v1/projects/blue/quota", quota).await.expect(200);
    let refused = ann.post("/v1/instances", many("more", 2, "tiny")).await.problem(403, "quota_exceeded");
    assert!(
        refused["detail"].as_str().is_some_and(|d| d.contains("instances: 2 requested, 101 used, limit 102")),
        "{refused}"
    );
    let all = ann.get("/v1/instances?limit=1000").await.expect(200);
    assert_eq!(column(&all, "name").len(), 101);
    assert!(cloud.world.store.leak_report().await.expect("a report").is_empty());
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_filtered() {
    let cloud = Cloud::start().await;
    let ann = &cloud.ann;
    for (name, role, power) in [("web-1", "web", "on"), ("web-2", "web", "off"), ("db-1", "db", "on")] {
        let wait = if power == "on" { "running" } else { "stopped" };
        let body = json!({"name": name, "image": "linux", "flavor": "tiny", "power": power, "tags": {"role": role, "env": "x"}});
        ann.post(&format!("/v1/instances?wait={wait}"), body).await.expect(201);
    }
    let host = cloud.hosts[0].id();
    for (query, names) in [
        ("", vec!["web-1", "web-2", "db-1"]),
        ("newest_first=true", vec!["db-1", "web-2", "web-1"]),
        ("name=web-*", vec!["web-1", "web-2"]),
        ("name=web-1", vec!["web-1"]),
        ("name=web", vec![]),
        ("tag=role:web", vec!["web-1", "web-2"]),
        ("tag=role=web&tag=env:x&state=stopped", vec!["web-2"]),
        ("tag=role:web&tag=env:y", vec![]),
        ("state=running,stopped", vec!["web-1", "web-2", "db-1"]),
        ("state=running&state=error", vec!["web-1", "db-1"]),
        ("image=linux&state=stopped", vec!["web-2"]),
    ] {
        let list = ann.get(&format!("/v1/instances?{query}")).await.expect(200);
        assert_eq!(column(&list, "name"), names, "{query}");
    }
    let page = ann.get("/v1/instances?limit=2&newest_first=true&fields=name,state").await.expect(200);
    assert_eq!(page["items"][0], json!({"name": "db-1", "state": "running"}));
    let cursor = page["next_cursor"].as_str().expect("more");
    let rest = ann.get(&format!("/v1/instances?limit=2&newest_first=true&cursor={cursor}")).await.expect(200);
    assert_eq!((column(&rest, "name"), rest["next_cursor"].is_null()), (vec!["web-1"], true));
    ann.get(&format!("/v1/instances?limit=2&cursor={cursor}")).await.problem(400, "bad_cursor");
    for (query, field) in
        [("state=flying", "state"), ("tag=role", "tag"), ("name=*web", "name"), ("fields=shoe", "fields")]
    {
        let refused = ann.get(&format!("/v1/instances?{query}")).await.problem(400, "invalid_argument");
        assert_eq!(refused["errors"][0]["field"], field, "{query}");
    }
    ann.get("/v1/instances?image=nothing").await.problem(404, "image_not_found");
    // Hosts and other projects are the operator's.
    ann.get(&format!("/v1/instances?host={host}")).await.problem(403, "permission_denied");
    ann.get("/v1/instances?all_projects=true").await.problem(403, "permission_denied");
    let all = cloud.admin.get("/v1/instances?all_projects=true&host=alpha").await.expect(200);
    assert_eq!(column(&all, "name").len(), 3);
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_gets_the_first_answer() {
    let cloud = Cloud::start().await;
    let (ann, admin) = (&cloud.ann, &cloud.admin);
    admin.post("/v1/flavors", json!({"name": "brief", "vcpus": 1, "memory_mib": 128, "disk_gib": 0})).await.expect(201);
    let create = |name: &str| {
        let body = json!({"name": name, "image": "linux", "flavor": "brief"});
        answer(ann.request(Method::POST, "/v1/instances").header("idempotency-key", "make-web").json(&body))
    };
    let (first, second) = tokio::join!(create("web"), create("web"));
    let (first, second) = (first.expect(201), second.expect(201));
    assert_eq!(first["id"], second["id"], "two at once are one");
    create("other").await.problem(422, "key_reused");
    // What the names stood for is gone; the answer stands.
    admin.delete("/v1/flavors/brief").await.expect(204);
    assert_eq!(create("web").await.expect(201)["id"], first["id"]);
    let fresh = ann.post("/v1/instances", json!({"name": "late", "image": "linux", "flavor": "brief"})).await;
    fresh.problem(404, "flavor_not_found");

    let stop = || {
        answer(
            ann.request(Method::POST, "/v1/instances/web/stop").header("idempotency-key", "stop-web").json(&json!({})),
        )
    };
    let stopped = stop().await.expect(202);
    ann.post("/v1/instances/web/start?wait=running", json!({})).await.expect(202);
    assert_eq!(stop().await.expect(202)["generation"], stopped["generation"]);
    assert_eq!(ann.get("/v1/instances/web").await.expect(200)["power"], "on", "a repeat does nothing");

    let delete =
        || answer(ann.request(Method::DELETE, "/v1/instances/web?wait=deleted").header("idempotency-key", "rm-web"));
    assert_eq!(delete().await.status.as_u16(), 204);
    assert_eq!(delete().await.status.as_u16(), 204, "although the name means nothing any more");
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_changes_nothing() {
    let cloud = Cloud::start().await;
    let ann = &cloud.ann;
    cloud.running("web").await;
    let before = cloud.world.store.event_head().await.expect("a head").1;
    let dry = async |path: &str, body: serde_json::Value| {
        let plan = ann.post(&format!("{path}?dry_run=true"), body).await.expect(200);
        assert_eq!(plan["dry_run"], true);
        plan["plan"].clone()
    };
    let create = json!({"name": "db", "count": 2, "image": "linux", "flavor": "small"});
    let plan = dry("/v1/instances", create).await;
    assert_eq!(plan["touches"].as_array().map(Vec::len), Some(4), "each with its NIC: {plan}");
    assert_eq!(plan["quota_left"]["instances"], 497);
    assert_eq!(plan["placement"]["candidates"], 1);
    assert!(plan["placement"].get("chosen").is_none(), "{plan}");
    for (action, body) in
        [("stop", json!({})), ("reboot", json!({})), ("pause", json!({})), ("rebuild", json!({"image": "linux"}))]
    {
        let plan = dry(&format!("/v1/instances/web/{action}"), body).await;
        assert!(plan["summary"].as_str().is_some_and(|t| t.contains("web")), "{action}: {plan}");
    }
    dry("/v1/instances/web/console-ticket", json!({})).await;
    answer(ann.request(Method::DELETE, "/v1/instances/web?dry_run=true")).await.expect(200);
    answer(ann.request(Method::PATCH, "/v1/instances/web?dry_run=true").json(&json!({"name": "www"})))
        .await
        .expect(200);
    // The checks are the real ones.
    let taken =
        ann.post("/v1/instances?dry_run=true", json!({"name": "web", "image": "linux", "flavor": "tiny"})).await;
    taken.problem(409, "name_taken");
    let huge = ann.post("/v1/instances?dry_run=true", json!({"name": "x", "image": "linux", "flavor": "huge"})).await;
    assert!(huge.problem(507, "no_capacity")["explain"].is_object());
    ann.post("/v1/instances/web/resize?dry_run=true", json!({"vcpus": 2})).await.problem(409, "invalid_state");
    assert_eq!(cloud.world.store.event_head().await.expect("a head").1, before);
    assert_eq!(ann.get("/v1/instances/web").await.expect(200)["generation"], 1);
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_explained() {
    let mut small = config_of("alpha");
    small.capacity = Size { vcpus: 2, memory_mib: 2048, disk_gib: 10 };
    let cloud = Cloud::with(vec![small]).await;
    cloud.running("web").await;
    let answered = cloud.ann.get("/v1/instances/web/explain").await.expect(200);
    let why = answered["why"].as_str().expect("a text");
    assert!(why.starts_with("web has been running since ") && why.contains("1 of 1 hosts could take it"), "{why}");
    assert!(!why.contains("alpha") && !answered.to_string().contains(&cloud.hosts[0].id().to_string()), "{answered}");
    let kinds: Vec<_> = answered["timeline"].as_array().expect("a list").iter().map(|e| e["kind"].as_str()).collect();
    assert_eq!(kinds.first(), Some(&Some("instance.create_accepted")));
    let answered = cloud.admin.get("/v1/instances/web/explain?project=blue").await.expect(200);
    assert!(answered["why"].as_str().is_some_and(|t| t.contains("Its host is alpha.")), "{answered}");
    assert_eq!(answered["placement"]["chosen"].as_str(), Some(cloud.hosts[0].id().to_string().as_str()));
    cloud.admin.patch("/v1/hosts/alpha", json!({"cordoned": true, "cordon_reason": "disk"})).await.expect(200);
    let answered = cloud.admin.get("/v1/instances/web/explain?project=blue").await.expect(200);
    assert!(answered["why"].as_str().is_some_and(|t| t.contains("alpha, which is cordoned")), "{answered}");
    let body = json!({"name": "db", "image": "linux", "flavor": "tiny"});
    let refused = cloud.ann.post("/v1/instances", body).await.problem(507, "no_capacity");
    assert_eq!(refused["explain"]["rejected"], json!([{"filter": "cordoned", "hosts": 1}]), "{refused}");
    cloud.ann.get("/v1/instances/nothing/explain").await.problem(404, "instance_not_found");
    cloud.stop().await;
}
