//! Repeats of changes of networks: answered as the first was, whatever became of it since; and dry runs.

use crate::{
    harness::{Answer, Person, answer},
    network::Lab,
};
use reqwest::Method;
use serde_json::{Value, json};

async fn keyed(person: &Person, method: Method, path: &str, key: &str, body: Value) -> Answer {
    answer(person.request(method, path).header("idempotency-key", key).json(&body)).await
}

/// Every way to make something of a network, each needing only what is above it.
fn creates() -> Vec<(&'static str, Value)> {
    vec![
        ("networks", json!({"name": "web"})),
        ("networks", json!({"name": "db"})),
        ("subnets", json!({"name": "a", "network": "web", "cidr": "10.1.0.0/24"})),
        ("subnets", json!({"name": "b", "network": "db", "cidr": "fd00:b::/64"})),
        ("security-groups", json!({"name": "front", "rules": [{"direction": "ingress", "remote_group": "front"}]})),
        ("security-groups/front/rules", json!({"direction": "ingress", "protocol": "tcp", "port": 443})),
        ("ports", json!({"name": "p", "network": "web", "security_groups": ["front"]})),
        ("routers", json!({"name": "out", "network": "web"})),
        ("floating-ips", json!({"port": "p"})),
        ("network-peerings", json!({"name": "both", "network": "web", "peer_network": "db"})),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_create_is_answered_again_and_done_once() {
    let lab = Lab::start().await;
    let outside = json!({"name": "public", "subnets": [{"cidr": "203.0.113.0/24"}]});
    let first = keyed(&lab.admin, Method::POST, "/v1/external-networks", "x", outside.clone()).await.expect(201);
    let again = keyed(&lab.admin, Method::POST, "/v1/external-networks", "x", outside).await.expect(201);
    assert_eq!(first, again);
    let mut firsts = Vec::new();
    for (at, (path, body)) in creates().into_iter().enumerate() {
        let (path, key) = (format!("/v1/{path}"), format!("k{at}"));
        let first = keyed(&lab.ann, Method::POST, &path, &key, body.clone()).await;
        let etag = first.headers.get("etag").cloned();
        let first = first.expect(201);
        let after = lab.events().await;
        let again = keyed(&lab.ann, Method::POST, &path, &key, body.clone()).await;
        assert_eq!(again.headers.get("etag"), etag.as_ref(), "{path}");
        assert_eq!(again.expect(201), first, "{path}");
        assert_eq!(lab.events().await, after, "{path} was done again");
        firsts.push((path, key, body, first));
    }
    // A gateway that has forgotten everything still knows them: the outcomes are in the store.
    let Lab { world, .. } = lab;
    let world = world.restart().await;
    let ann = world.login("ann", crate::harness::PASSWORD).await;
    for (path, key, body, first) in firsts {
        let again = keyed(&ann, Method::POST, &path, &key, body).await.expect(201);
        assert_eq!(again["id"], first["id"], "{path}");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_is_answered_as_the_first_and_a_dry_run_changes_nothing() {
    let lab = Lab::start().await;
    let ann = &lab.ann;
    let before = lab.events().await;
    let plan = ann.post("/v1/networks?dry_run=true", json!({"name": "web"})).await.expect(200);
    assert_eq!(plan["dry_run"], true);
    assert!(plan["plan"]["summary"].as_str().is_some_and(|summary| summary.contains("network web")), "{plan}");
    assert_eq!(lab.events().await, before);
    ann.get("/v1/networks/web").await.problem(404, "network_not_found");
    let first = keyed(ann, Method::POST, "/v1/networks", "n1", json!({"name": "web"})).await.expect(201);
    let again = keyed(ann, Method::POST, "/v1/networks", "n1", json!({"name": "web"})).await.expect(201);
    assert_eq!(first, again);
    keyed(ann, Method::POST, "/v1/networks", "n1", json!({"name": "db"})).await.problem(422, "key_reused");
    let subnet = json!({"name": "a", "network": "web", "cidr": "10.1.0.0/24"});
    let made = keyed(ann, Method::POST, "/v1/subnets", "s1", subnet.clone()).await.expect(201);
    keyed(ann, Method::PATCH, "/v1/networks/web", "n2", json!({"name": "www"})).await.expect(200);
    // The names in the repeats mean nothing any more.
    let again = keyed(ann, Method::POST, "/v1/subnets", "s1", subnet).await.expect(201);
    assert_eq!(again["id"], made["id"]);
    let again = keyed(ann, Method::PATCH, "/v1/networks/web", "n2", json!({"name": "www"})).await.expect(200);
    assert_eq!((again["name"].as_str(), &again["id"]), (Some("www"), &first["id"]));
    ann.delete("/v1/subnets/a").await;
    let mut after = 0;
    for at in 0..2 {
        let gone = answer(ann.request(Method::DELETE, "/v1/networks/www").header("idempotency-key", "n3")).await;
        assert_eq!(gone.status.as_u16(), 204, "{}", gone.text);
        let events = lab.events().await;
        assert!(at == 0 || events == after, "what was answered from memory wasn't done again");
        after = events;
    }
    // If-Match goes with the change, and its failure is a 412.
    lab.network("db", "10.2.0.0/24").await;
    let with = |etag: &str, name: &str| {
        answer(ann.request(Method::PATCH, "/v1/networks/db").header("if-match", etag).json(&json!({"name": name})))
    };
    with("\"99\"", "x").await.problem(412, "precondition_failed");
    let observed = ann.get("/v1/networks/db").await.headers["etag"].clone();
    let changed = with(observed.to_str().expect("a text"), "x").await;
    assert!(changed.headers["etag"] != observed, "{}", changed.text);
    lab.world.stop().await;
}
